"""The file through which this machine's command line is let in, and the files that HTTP needs."""

import getpass
import os
import stat
from pathlib import Path

import pytest

from daemon.config import Configuration, load
from daemon.core.errors import ConfigurationError
from daemon.sources.http.desk import Desk
from daemon.sources.http.files import check
from daemon.sources.http.front import Front
from daemon.sources.http.local import NAME, address, announce, find, withdraw
from daemon.tokens import ALL, Holder, Tokens
from tests.daemon.sources.http.site import Site


def test_the_file_is_its_users_alone_and_is_taken_away(tmp_path: Path) -> None:
    """Mode 0600 from its first byte on; a new secret each time; whoever reads it has every scope."""
    tokens = Tokens(())
    state = tmp_path / "state"
    announce(state, tokens, host="0.0.0.0", port=8420, secure=False)  # noqa: S104 - nothing listens
    assert stat.S_IMODE((state / NAME).stat().st_mode) == 0o600
    local = find(state)
    assert local is not None
    assert (local.url, local.pid) == ("http://127.0.0.1:8420", os.getpid())
    assert tokens.holder(local.token) == Holder(name=getpass.getuser(), scopes=ALL)
    announce(state, tokens, host="127.0.0.1", port=8420, secure=True)
    again = find(state)
    assert again is not None
    assert again.token != local.token
    withdraw(state)
    withdraw(state)
    assert find(state) is None
    assert list(state.iterdir()) == []


def test_another_daemons_file_is_left_alone(tmp_path: Path) -> None:
    """A daemon that ends late does not take away what its successor wrote."""
    (tmp_path / NAME).write_text('{"url": "http://127.0.0.1:1", "token": "t", "pid": 1}', encoding="utf-8")
    withdraw(tmp_path)
    assert find(tmp_path) is not None


def test_what_is_no_such_file_is_nothing(tmp_path: Path) -> None:
    """Half a file, or another's, is as good as none."""
    for content in (b"", b'{"url": ', b"[]", b'{"url": 1}', b'{"url": "\xff"}'):
        (tmp_path / NAME).write_bytes(content)
        assert find(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "secure", "expected"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:1"),
        ("localhost", False, "http://127.0.0.1:1"),
        ("::", False, "http://[::1]:1"),
        ("::1", True, "https://[::1]:1"),
        ("rewarm.example", True, "https://rewarm.example:1"),
    ],
)
def test_the_address_is_one_that_can_be_asked(host: str, secure: bool, expected: str) -> None:
    """A server that listens everywhere is asked at this machine's own address."""
    assert address(host, 1, secure=secure) == expected


def configuration(folder: Path, http: str) -> Configuration:
    """Return a configuration."""
    file = folder / "rewarm.yaml"
    file.write_text(f"journal: sqlite:///journal.db\nstate: state\n{http}\n", encoding="utf-8")
    return load(file)


def test_files_of_tls_are_tried(tmp_path: Path) -> None:
    """What is missing or no certificate with its key is named; nobody is asked for a password."""
    tls = "http: {tls: {certificate: cert.pem, key: key.pem}}"
    with pytest.raises(ConfigurationError, match=r"http\.tls\.certificate: there is no file .*cert\.pem"):
        check(configuration(tmp_path, tls))
    (tmp_path / "cert.pem").write_text("nothing", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"http\.tls\.key: there is no file"):
        check(configuration(tmp_path, tls))
    (tmp_path / "key.pem").write_text("nothing", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"http\.tls: .* are no certificate in PEM with its key"):
        check(configuration(tmp_path, tls))


def test_open_to_others_without_a_token_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Listening beyond this machine without tokens is told when the daemon starts; the command line gets in."""
    site = Site(tmp_path)
    front = Front(configuration(tmp_path, "http: {host: 0.0.0.0, port: 0}"), site.desk, site.door, release="1")
    front.announce()
    assert find(tmp_path / "state") is not None
    front.withdraw()
    front.stop()
    assert "No token is configured" in caplog.text


def test_the_command_line_is_told_where_the_daemon_listens(tmp_path: Path) -> None:
    """A name may lead to several addresses; at another than the daemon's own a stranger could wait for the token."""
    site = Site(tmp_path)
    front = Front(configuration(tmp_path, "http: {host: localhost, port: 0}"), site.desk, site.door, release="1")
    front.announce()
    local = find(tmp_path / "state")
    front.stop()
    assert local is not None
    assert local.url.startswith("http://127.0.0.1:")


def test_a_state_folder_that_cannot_be_written_costs_the_short_way_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, site: Site
) -> None:
    """The daemon serves; the command line uses the spool."""
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    front = Front(configuration(tmp_path, "http: {port: 0}"), Desk(**vars(site.desk)), site.door, release="1")
    front.announce()
    front.stop()
    assert "it uses the spool" in caplog.text
