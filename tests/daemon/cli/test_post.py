"""The way over HTTP: when it is taken, what is made of an answer, and when the spool has to do."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.cli.delivery import Answer, envelope
from daemon.cli.health import ask
from daemon.cli.post import Target, Unanswered, find_target, post
from daemon.core.errors import RewarmError
from daemon.journal.lock import release, take
from daemon.sources.http.local import NAME
from ops.server import Certificate, serve
from tests.ops.certificate import make_certificate

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command

EVENT = envelope("drift.detected", "docs-lm", b'{"metric": "m", "value": 1}', now=datetime(2026, 3, 1, tzinfo=UTC))
ACCEPTED = {"id": "1", "source": "/s", "outcome": "accepted", "position": 7, "reason": "", "message": ""}


class Stub(http.server.BaseHTTPRequestHandler):
    """Answers what it was told to."""

    url = ""
    answer: tuple[int, object] = (202, ACCEPTED)
    asked: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        """Note what came, and answer."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append((self.path, self.headers["authorization"], body))
        content = json.dumps(self.answer[1]).encode()
        self.send_response(self.answer[0])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Keep quiet."""


@pytest.fixture
def stub() -> Iterator[type[Stub]]:
    """A server that answers what it is told to; `asked` has what came."""

    class Mine(Stub):
        asked: list[tuple[str, str, bytes]] = []  # noqa: RUF012 - one server, one list

    server = http.server.HTTPServer(("127.0.0.1", 0), Mine)
    Mine.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Mine
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def running(configuration: "Configuration") -> Iterator[None]:
    """Something holds the journal's lock, as a daemon does."""
    descriptor = take(configuration.journal)
    yield
    release(descriptor)


def leave(configuration: "Configuration", url: str, pid: int | None = None) -> None:
    """Leave what a daemon leaves for the command line."""
    content = {"url": url, "token": "local" * 5, "pid": pid or os.getpid()}
    (configuration.state / NAME).write_text(json.dumps(content), encoding="utf-8")


def target(stub: type[Stub], *, given: bool = False) -> Target:
    """Return the server as a target."""
    return Target(url=stub.url, token="t", given=given)


def test_the_daemons_own_word_is_believed_while_it_runs(configuration: "Configuration", tmp_path: Path) -> None:
    """Its file counts only beside the lock, and only the one of the process that holds it."""
    assert find_target(configuration, None, {}) is None
    leave(configuration, "http://127.0.0.1:1")
    assert find_target(configuration, None, {}) is None
    descriptor = take(configuration.journal)
    try:
        found = find_target(configuration, None, {})
        assert found is not None
        assert (found.url, found.token, found.given) == ("http://127.0.0.1:1", "local" * 5, False)
        leave(configuration, "http://127.0.0.1:1", pid=1)
        assert find_target(configuration, None, {}) is None
    finally:
        release(descriptor)


def test_a_given_token_asks_at_the_configured_address(configuration: "Configuration", tmp_path: Path) -> None:
    """By file or environment; the file goes first, and of several lines the last."""
    file = tmp_path / "token"
    file.write_text("old\nnew\n", encoding="utf-8")
    found = find_target(configuration, file, {"REWARM_TOKEN": "other"})
    assert found == Target(url="http://127.0.0.1:8420", token="new", given=True)
    found = find_target(configuration, None, {"REWARM_TOKEN": " other "})
    assert found is not None
    assert found.token == "other"
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(RewarmError, match="is empty"):
        find_target(configuration, file, {})
    with pytest.raises(RewarmError, match="cannot be read"):
        find_target(configuration, tmp_path / "none", {})


def test_a_token_that_no_header_can_carry_is_told(configuration: "Configuration") -> None:
    """Without showing it, and before anything is sent."""
    for token in ("two\nlines", "two words", "café"):
        with pytest.raises(RewarmError, match="printable ASCII") as caught:
            find_target(configuration, None, {"REWARM_TOKEN": token})
        assert token not in str(caught.value)


def test_only_the_daemons_own_certificate_is_trusted(tmp_path: Path) -> None:
    """Not another one of the same authority, though the file holds that authority's certificate as well."""
    authority = make_certificate(tmp_path / "ca.pem", tmp_path / "ca.key")
    for name in ("ours", "theirs"):
        make_certificate(tmp_path / f"{name}.pem", tmp_path / f"{name}.key", authority)
        with (tmp_path / f"{name}.pem").open("ab") as file:
            file.write((tmp_path / "ca.pem").read_bytes())
    for name, status in (("ours", 200), ("theirs", None)):
        certificate = Certificate(certificate=tmp_path / f"{name}.pem", key=tmp_path / f"{name}.key")
        handle = serve(Starlette(routes=[Route("/livez", live)]), "127.0.0.1", 0, certificate=certificate)
        try:
            assert ask(f"https://127.0.0.1:{handle.port}", tmp_path / "ours.pem").status == status
        finally:
            handle.stop()
    (tmp_path / "ours.pem").write_text("nothing", encoding="utf-8")
    with pytest.raises(RewarmError, match="no certificate"):
        ask("https://127.0.0.1:1", tmp_path / "ours.pem")


async def live(_request: Request) -> Response:
    """Say so."""
    return Response(b"ok")


def test_an_answer_is_what_became_of_it(stub: type[Stub]) -> None:
    """Accepted, a duplicate or a dead letter, as the daemon says; the token is shown as a bearer's."""
    assert post(target(stub), EVENT) == Answer(outcome="accepted", position=7)
    path, authorization, body = stub.asked[0]
    assert (path, authorization, json.loads(body)["id"]) == ("/events", "Bearer t", EVENT.id)
    stub.answer = (409, {**ACCEPTED, "outcome": "dead_letter", "reason": "id_reused", "message": "m", "error": "x"})
    assert post(target(stub), EVENT) == Answer(outcome="dead_letter", position=7, reason="id_reused", message="m")


@pytest.mark.parametrize("answer", [(503, {"error": "not_ready", "message": "m"}), (200, []), (401, {"error": "x"})])
def test_no_answer_leaves_another_way(stub: type[Stub], answer: tuple[int, object]) -> None:
    """Whatever is no answer about the event raises Unanswered: it may be sent again."""
    stub.answer = answer
    with pytest.raises(Unanswered):
        post(target(stub), EVENT)


def test_a_given_token_that_is_refused_is_a_mistake(stub: type[Stub]) -> None:
    """Then the spool would be another's way: 401 and 403 are told."""
    stub.answer = (403, {"error": "scope_missing", "message": "ci has no scope"})
    with pytest.raises(RewarmError, match="scope_missing") as caught:
        post(target(stub, given=True), EVENT)
    assert not isinstance(caught.value, Unanswered)


def test_the_spool_does_where_http_gives_no_answer(
    rewarm: "Command", configuration: "Configuration", running: None
) -> None:
    """The event lies in the spool under the same id, and the sentence says why."""
    leave(configuration, "http://127.0.0.1:1")
    code, out, err = rewarm("request", "pause", "docs-lm")
    assert code == 0
    assert "does not answer" in err
    assert "by the spool instead" in err
    assert "In the spool" in out
    assert len(list(configuration.spools[0].glob("*.json"))) == 1


def test_a_dead_letter_over_http_is_told_at_once(
    rewarm: "Command", configuration: "Configuration", running: None, stub: type[Stub]
) -> None:
    """Exit code 1 with the reason, without waiting; `--spool` does not ask."""
    leave(configuration, stub.url)
    stub.answer = (400, {**ACCEPTED, "outcome": "dead_letter", "reason": "wrong_data", "message": "m", "error": "x"})
    code, out, _ = rewarm("request", "pause", "docs-lm")
    assert (code, "Refused (wrong_data)" in out) == (1, True)
    code, out, _ = rewarm("request", "pause", "docs-lm", "--spool")
    assert (code, "In the spool" in out, len(stub.asked)) == (0, True, 1)
