"""Files with secrets and certificates: what is read of them, and what is said of one that cannot be used."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.broker.access import Access
from daemon.broker.secrets import secret
from daemon.broker.security import security
from daemon.core.errors import BrokerError
from tests.brokers.authority import Authority


@pytest.fixture
def mutual(tmp_path: Path) -> Access:
    """Give an access by a certificate whose key is locked."""
    certificate, key = Authority(tmp_path, "authority").issue("client", password="opens-it")
    (tmp_path / "key-password").write_text("opens-it\n", encoding="utf-8")
    return Access(
        bootstrap_servers=("localhost:1",),
        protocol="ssl",
        ca_file=tmp_path / "authority.pem",
        certificate_file=certificate,
        key_file=key,
        key_password_file=tmp_path / "key-password",
    )


def test_a_secret_is_a_files_text_without_the_lines_end(tmp_path: Path) -> None:
    """Editors end a file with a new line, and a secret has none."""
    path = tmp_path / "secret"
    path.write_text(" pass word\r\n", encoding="utf-8")
    assert secret(path) == "pass word"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file or directory"), (b" \n", "is empty"), (b"\xff\xfe", "it is no text")],
)
def test_a_secret_that_is_not_there(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The message names the file and what is wrong with it."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokerError, match=f"{path}.*{words}"):
        secret(path)


def test_a_locked_key_is_opened(mutual: Access) -> None:
    """Certificate, key and the key's password make a context of TLS."""
    assert security(mutual)["security_protocol"] == "SSL"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_password_file": None}, r"client\.key \(key_file\) .*key is locked and key_password_file is not set"),
        ({"key_password_file": "authority.pem"}, r"key is locked and .*authority\.pem does not open it"),
        ({"key_file": "missing"}, r"missing \(key_file\) cannot be used: No such file"),
        ({"certificate_file": "authority.pem"}, r"authority\.pem \(certificate_file\) .*key values mismatch"),
        ({"ca_file": "key-password"}, r"key-password \(ca_file\) cannot be used: .*certificate"),
        ({"ca_file": "missing"}, r"missing \(ca_file\) cannot be used: No such file"),
    ],
)
def test_a_certificate_that_cannot_be_used(
    mutual: Access, tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    """The message names the file by its place in the configuration, and nobody is asked for a password."""
    wrong = {key: tmp_path / name if name else None for key, name in changes.items()}
    with pytest.raises(BrokerError, match=words):
        security(replace(mutual, **wrong))
