"""A node with listeners for every way of proving who one is, and what a client needs for each."""

import base64
import json
import time
from pathlib import Path

from tests.brokers.authority import Authority
from tests.brokers.cluster import Cluster

USER, PASSWORD = "alice", "a-pass/with+signs"
KEY_PASSWORD = "the-key's"
COMMON = "org.apache.kafka.common.security"
MODULES = {
    "PLAIN": f'{COMMON}.plain.PlainLoginModule required user_{USER}="{PASSWORD}"',
    "SCRAM-SHA-256": f"{COMMON}.scram.ScramLoginModule required",
    "SCRAM-SHA-512": f"{COMMON}.scram.ScramLoginModule required",
    "OAUTHBEARER": f'{COMMON}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}


class SecuredCluster(Cluster):
    """A node; `folder` has what a client needs: authorities, certificates, keys, and files with secrets.

    SASL takes USER with PASSWORD, and unsigned tokens; MUTUAL a certificate of our authority; OPEN PLAIN without TLS.
    At the plain listener one is ANONYMOUS and may do everything; whoever else may do what `allow` says.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.authority = Authority(folder, "authority")
        self.stranger = Authority(folder, "stranger")
        certificate, key = self.authority.issue("broker", "localhost")
        self.authority.issue("client", password=KEY_PASSWORD)
        self.stranger.issue("intruder")
        for name, text in {"password": PASSWORD, "wrong": "not-the-password", "key-password": KEY_PASSWORD}.items():
            (folder / name).write_text(f"{text}\n", encoding="utf-8")
        keystore = folder / "keystore.pem"
        keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
        settings = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": ",".join(MODULES),
            "listener.name.open.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.open.plain.sasl.jaas.config": f"{MODULES['PLAIN']};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        for mechanism, module in MODULES.items():
            settings[f"listener.name.sasl.{mechanism.lower()}.sasl.jaas.config"] = f"{module};"
        credentials = [f'SCRAM-SHA-{bits}=[name={USER},password="{PASSWORD}"]' for bits in (256, 512)]
        formatting = tuple(word for each in credentials for word in ("--add-scram", each))
        super().__init__(
            folder / "nodes",
            listeners={"SASL": "SASL_SSL", "MUTUAL": "SSL", "OPEN": "SASL_PLAINTEXT"},
            settings=settings,
            formatting=formatting,
        )

    def allow(self, topic: str, user: str, *operations: str) -> None:
        """Let a user do something with a topic."""
        from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

        pattern = ResourcePattern(ResourceType.TOPIC, topic)
        allowed = [
            ACL(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern)
            for operation in operations
        ]
        with self.admin() as admin:
            assert not admin.create_acls(allowed)["failed"]

    def add_user(self, user: str) -> None:
        """Let somebody in with PASSWORD, by SCRAM-SHA-256."""
        from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

        self._alter(UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_256, PASSWORD))

    def remove_user(self, user: str) -> None:
        """Let somebody in no more."""
        from kafka.admin import ScramMechanism, UserScramCredentialDeletion

        self._alter(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256))

    def _alter(self, alteration: object) -> None:
        with self.admin() as admin:
            assert set(admin.alter_user_scram_credentials([alteration]).values()) == {None}


def unsigned(life: float) -> str:
    """Return a token as RFC 7519 calls unsecured, valid for `life` seconds."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": USER, "iat": now - 120, "exp": now + life}
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{'.'.join(coded)}."
