"""A broker that wants to know who one is."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.broker.access import Access
from tests.brokers.secured import USER, SecuredCluster


@dataclass(frozen=True, kw_only=True)
class Secured:
    """A secured cluster, and ways to it."""

    cluster: SecuredCluster

    @property
    def folder(self) -> Path:
        """Where certificates and secrets are."""
        return self.cluster.folder

    @property
    def scram(self) -> Access:
        """How one comes in with a password."""
        return Access(
            bootstrap_servers=(f"localhost:{self.cluster.ports['SASL']}",),
            protocol="sasl_ssl",
            mechanism="SCRAM-SHA-512",
            username=USER,
            password_file=self.folder / "password",
            ca_file=self.cluster.authority.certificate,
            request_timeout=10.0,
        )

    @property
    def mutual(self) -> Access:
        """How one comes in with a certificate."""
        return Access(
            bootstrap_servers=(f"localhost:{self.cluster.ports['MUTUAL']}",),
            protocol="ssl",
            ca_file=self.cluster.authority.certificate,
            certificate_file=self.folder / "client.pem",
            key_file=self.folder / "client.key",
            key_password_file=self.folder / "key-password",
            request_timeout=10.0,
        )

    @property
    def open(self) -> Access:
        """How one comes in with a password that everybody on the way can read."""
        address = f"localhost:{self.cluster.ports['OPEN']}"
        return replace(self.scram, bootstrap_servers=(address,), protocol="sasl_plaintext", mechanism="PLAIN")

    @property
    def bearer(self) -> Access:
        """How one comes in with a token; where from is to be added."""
        return replace(self.scram, mechanism="OAUTHBEARER", username="", password_file=None)

    @property
    def plain(self) -> Access:
        """How everyone comes in."""
        return Access(bootstrap_servers=(self.cluster.address,), request_timeout=10.0)


@pytest.fixture(scope="session")
def secured(secured_broker: SecuredCluster) -> Secured:
    """Give ways to a node with SASL and TLS."""
    return Secured(cluster=secured_broker)
