"""How a cluster is reached, and as whom: what the Kafka client is given, its secrets read when they are needed."""

from pathlib import Path
from typing import Literal

import msgspec

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class Oauth(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bearer token comes from: a file that somebody renews, or a token endpoint (client credentials)."""

    token_file: Path | None = None
    url: str = ""
    client_id: str = ""
    secret_file: Path | None = None
    scope: str = ""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's addresses and who we are there; secrets stay in their files. `request_timeout` in seconds."""

    bootstrap_servers: tuple[str, ...]
    protocol: Protocol = "plaintext"
    mechanism: Mechanism | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None
    check_hostname: bool = True
    oauth: Oauth | None = None
    client_id: str = "rewarm"
    request_timeout: float = 30.0
