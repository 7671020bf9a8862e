"""Events over HTTP before a real daemon: what is answered is in the journal, whatever happens to either side."""

import contextlib
import http.client
import io
import json
import signal
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from daemon.cli import main
from daemon.core.events import DataArrived, InputRejected, OperatorRequested
from daemon.sources.http.local import NAME, find
from daemon.testing import Life
from tests.acceptance.home import Home, event
from tests.ops.certificate import make_certificate

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.slow
SECRET = "s" * 40


def ready(home: Home, **life: Any) -> "subprocess.Popen[str]":  # noqa: ANN401 - fields of a life
    """Start a daemon that serves, and wait until it takes events."""
    home.configure(http=True)
    process = home.start(Life(config=str(home.configuration), **life))
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness")
    return process


def post(home: Home, content: object, **headers: str) -> tuple[int, dict[str, Any]]:
    """Send events; return status and answer, (0, {}) when the connection broke."""
    connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=30)
    try:
        given = {"content-type": "application/cloudevents+json", **headers}
        connection.request("POST", "/events", json.dumps(content), given)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()


def arrived(home: Home, identity: str) -> dict[str, Any]:
    """Return an arrival."""
    return event("data.arrived", {"uri": home.data(), "domain": "words"}, identity)


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def rewarm(home: Home, *arguments: str) -> Said:
    """Run the command line beside the daemon, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--config", str(home.configuration), *arguments])
    return Said(code, out.getvalue(), err.getvalue())


def configure(home: Home, **changes: object) -> None:
    """Change keys of the configuration."""
    content = yaml.safe_load(home.configuration.read_text(encoding="utf-8"))
    home.configuration.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def test_a_kill_between_commit_and_answer_loses_and_repeats_nothing(home: Home) -> None:
    """The sender hears nothing, sends again to the next daemon, and is told that it counted: 202, duplicate."""
    process = ready(home, boundary="journal.after_commit", count=3)
    for number in range(1, 20):
        status, told = post(home, arrived(home, f"{number}"))
        if status != 202:
            break
    assert (status, told) == (0, {})
    assert process.wait(30) == -signal.SIGKILL
    lost = f"{number}"
    home.start()
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness")
    status, told = post(home, arrived(home, lost))
    assert status == 202
    arrivals = [record.id for record in home.records() if isinstance(record.event, DataArrived)]
    assert arrivals == [f"{n}" for n in range(1, number + 1)]
    assert told["outcome"] == "duplicate"
    assert post(home, arrived(home, lost))[1] == told


def test_bad_senders_cost_the_others_nothing(home: Home) -> None:
    """100 MB are 413 without memory, half requests hold nobody up, of a batch with a bad event the others count."""
    process = ready(home)
    post(home, arrived(home, "0"))

    def peak() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0])

    before = peak()
    for head in (b"content-length: 100000000", b"transfer-encoding: chunked"):
        with socket.create_connection(("127.0.0.1", home.port), timeout=30) as connection:
            line = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n%s\r\n\r\n" % head
            chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if b"chunked" in head else b"x" * 0x10000
            connection.sendall(line)
            sent = 0
            try:
                while sent < 100_000_000:
                    sent += connection.send(chunk)
            except ConnectionError:
                pass
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    assert peak() - before < 8_000
    with (
        socket.create_connection(("127.0.0.1", home.port), timeout=30) as half_head,
        socket.create_connection(("127.0.0.1", home.port), timeout=30) as half_body,
    ):
        half_head.sendall(b"POST /events HTTP/1.1\r\nhost:")
        half_body.sendall(b"POST /events HTTP/1.1\r\nhost: localhost\r\n")
        half_body.sendall(b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        batch = [arrived(home, "1"), arrived(home, "1") | {"id": "2", "subject": "nobody"}, arrived(home, "3")]
        status, told = post(home, batch, **{"content-type": "application/cloudevents-batch+json"})
    assert status == 207
    assert [each["outcome"] for each in told["events"]] == ["accepted", "dead_letter", "accepted"]
    (letter,) = [record for record in home.records() if isinstance(record.event, InputRejected)]
    assert letter.position == told["events"][1]["position"]
    assert 'rewarm_http_requests_total{path="/events",status="207"} 1.0' in home.get("/metrics")[1]
    run = home.wait(lambda: json.loads(home.get("/runs")[1])["runs"], "a run")[0]["run"]
    assert json.loads(home.get(f"/runs/{run}")[1])["run"] == run


def test_the_command_line_goes_the_short_way(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """`request` and `emit` ask over HTTP with the daemon's own token; by the spool when told to, or with no daemon."""
    process = ready(home)
    local = find(home.state)
    assert local is not None
    assert stat.S_IMODE((home.state / NAME).stat().st_mode) == 0o600
    asked = json.loads(rewarm(home, "request", "pause", "one", "--json").out)
    assert (asked["event"]["way"], asked["answer"]["outcome"]) == ("http", "accepted")
    sent = rewarm(home, "emit", "data", "one", str(home.inbox / home.data()), "--domain", "words")
    assert (sent.code, local.url in sent.out) == (0, True)
    other = rewarm(home, "request", "resume", "one", "--spool", "--wait")
    assert (other.code, "by the spool" in other.out) == (0, True)
    assert [request.by for request in home.events(OperatorRequested)] == [home.spool.owner()] * 2
    drift = ["emit", "drift.detected", "one", "--id", "1", "--data"]
    assert rewarm(home, *drift, '{"metric": "m", "value": 1}').code == 0
    reused = rewarm(home, *drift, '{"metric": "m", "value": 2}')
    assert (reused.code, "Refused (id_reused)" in reused.out) == (1, True)
    monkeypatch.setenv("REWARM_TOKEN", "x" * 40)
    wrong = rewarm(home, "request", "pause", "one")
    assert (wrong.code, "token_unknown" in wrong.err) == (2, True)
    monkeypatch.delenv("REWARM_TOKEN")
    taken = drain(home, process)
    recorded = {record.id for record in home.records()}
    assert [identity for identity in taken if identity not in recorded] == []
    assert find(home.state) is None
    spooled = rewarm(home, "request", "pause", "one")
    assert (spooled.code, "No daemon is running" in spooled.out) == (0, True)
    assert local.token not in home.log.read_text(encoding="utf-8")


def drain(home: Home, process: "subprocess.Popen[str]") -> list[str]:
    """Ask a daemon to stop and go on sending until nobody answers; return what was answered 202."""
    process.terminate()
    taken = []
    for number in range(100, 1000):
        status, _ = post(home, arrived(home, f"{number}"))
        assert status in {0, 202, 503}
        taken += [f"{number}"] if status == 202 else []
        if status == 0:
            break
    assert process.wait(30) == 0
    return taken


def test_tokens_and_tls_as_configured(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS with named tokens: by whom is the token's name, a rotated one counts at once, a bad file is told."""
    home.configure(http=True)
    make_certificate(home.folder / "cert.pem", home.folder / "key.pem")
    token = home.folder / "ops"
    token.write_text(SECRET, encoding="utf-8")
    http_settings = {"port": home.port, "tls": {"certificate": "cert.pem", "key": "key.pem"}}
    configure(home, http=http_settings, tokens=[{"name": "ops", "file": "ops", "scopes": ["operate"]}])
    token.chmod(0o644)
    refused = rewarm(home, "check-config")
    assert (refused.code, "chmod o=" in refused.err) == (2, True)
    served = home.serve()
    assert (served.returncode, served.stderr) == (2, refused.err)
    token.chmod(0o600)
    shown = rewarm(home, "check-config")
    assert (shown.code, "ops (operate)" in shown.out) == (0, True)
    home.start()
    home.wait(lambda: find(home.state), "the word for the command line")
    assert rewarm(home, "healthcheck").code == 0
    assert json.loads(rewarm(home, "request", "pause", "one", "--json").out)["event"]["way"] == "http"
    assert rewarm(home, "request", "resume", "one", "--token-file", str(token)).code == 0
    token.write_text("r" * 40, encoding="utf-8")
    for secret, code in ((SECRET, 2), ("r" * 40, 0)):
        monkeypatch.setenv("REWARM_TOKEN", secret)
        assert rewarm(home, "request", "pause", "one").code == code
    assert [request.by for request in home.events(OperatorRequested)] == [home.spool.owner(), "ops", "ops"]
    assert SECRET not in home.log.read_text(encoding="utf-8")
