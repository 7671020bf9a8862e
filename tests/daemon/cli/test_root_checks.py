"""What `rewarm doctor` says of roots elsewhere."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli.root_checks import root_checks
from stages.roots import Remote

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Command


class Shelf(BaseHTTPRequestHandler):
    """Lists /in, knows no /gone, and hangs at /slow until it is released."""

    released = threading.Event()

    def do_GET(self) -> None:
        """Answer."""
        if self.path.startswith("/slow"):
            self.released.wait(30)
        status = 200 if self.path.startswith("/in") else 403 if self.path.startswith("/closed") else 404
        body = b'<a href="/in/a.jsonl">a</a>'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Serve the shelf."""
    Shelf.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Shelf.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_root_is_asked_and_none_for_ever(url: str) -> None:
    """Listed, not listed, refused, without credentials, nobody there: each is told with what to do."""
    found = root_checks(
        [
            Remote(url=f"{url}/in"),
            Remote(url=f"{url}/gone"),
            Remote(url=f"{url}/closed"),
            Remote(url=f"{url}/in2", credentials="/nowhere/s3.json"),
        ],
    )
    assert [check.level for check in found] == ["ok", "note", "wrong", "wrong"]
    assert "names no credentials" in found[2].message
    assert "/nowhere/s3.json" in found[3].message
    assert all(check.advice for check in found[1:])


def test_a_store_that_hangs_is_told(url: str) -> None:
    """The time is one for all roots, however many hang."""
    found = root_checks([Remote(url=f"{url}/slow/{number}") for number in range(3)], seconds=0.3)
    assert [check.level for check in found] == ["wrong"] * 3
    assert "gave no answer in time" in found[0].message


def test_check_config_tells_of_roots_elsewhere(rewarm: "Command", tmp_path: Path) -> None:
    """Each is shown as it is; files of credentials are tried, and what goes unencrypted is warned of."""
    file, secret = tmp_path / "far.yaml", tmp_path / "s.json"
    root = '{url: "http://data.example.org/in", credentials: ours}'
    file.write_text(f'roots: [var/inbox, "s3://bucket/in", {root}]\ncredentials: [{{name: ours, file: s.json}}]\n')
    secret.write_text('{"key": "hunter2"}')

    secret.chmod(0o644)
    code, _, err = rewarm("check-config", "--config", str(file))
    assert (code, "chmod o=" in err, "hunter2" in err) == (2, True, False)

    secret.chmod(0o600)
    code, out, err = rewarm("check-config", "--config", str(file))
    assert code == 0
    assert "s3://bucket/in, http://data.example.org/in" in out
    assert "sends its credentials unencrypted" in err
    assert "hunter2" not in out + err
