"""What status, check-config, healthcheck and ui say."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli.output import show
from daemon.cli.session import Daemon, find_daemon
from daemon.cli.status import JournalStatus, Status, render
from daemon.core.events import DecisionMade, InputRejected, OperatorRequested, Position, SourceDegraded
from daemon.journal.lock import enrol, release

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command


def test_status_before_anything_happened(rewarm: "Command") -> None:
    """Without a journal the status is empty, friendly and no error."""
    code, out, err = rewarm("status")

    assert (code, err) == (0, "")
    assert "nothing is recorded yet" in out
    assert "rewarm demo" in out


def test_status_as_json_has_the_promised_keys(rewarm: "Command", trained: "Chronicle") -> None:
    """The JSON holds champion, runs, dead letters and how far MLflow is, under fixed names."""
    status = json.loads(rewarm("status", "--json").out)

    pipeline = status["pipelines"]["docs-lm"]
    assert pipeline["champion"]["version"] == 2
    assert pipeline["champion"]["sha256"] == "ab" * 32
    assert pipeline["champion"]["losses"] == {"code": 1.5, "prose": 1.5}
    assert pipeline["champion"]["run"] == trained.pipeline.champion.run  # type: ignore[union-attr]
    assert {key: pipeline["runs"][key] for key in ("succeeded", "failed", "active")} == {
        "succeeded": 2,
        "failed": 0,
        "active": 0,
    }
    assert status["dead_letters"] == 0
    assert status["followers"] == {"mlflow": {"behind": trained.state.position}}


def test_status_names_what_waits_and_for_what(rewarm: "Command", chronicle: "Chronicle") -> None:
    """A wish that cannot start is shown with what it waits for."""
    chronicle.tell(OperatorRequested(verb="pause", by="ann", reason="holiday"))
    chronicle.arrive("prose", 900_000, id="prose-1")

    out = rewarm("status").out

    assert "rewarm_replay: base, waits for the pause by ann: holiday" in out
    assert "prose 900,000 tokens" in out


def test_status_shows_a_freeze_and_what_waits_for_an_approval(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Who froze a pipeline is named, and the decision that a person has to approve."""
    chronicle.tell(OperatorRequested(verb="freeze", by="ann", reason="release week"))
    waits = DecisionMade(policy="rewarm_replay", policy_version=3, verdict="awaiting_approval", reason="It is due.")
    position = chronicle.tell(waits).position

    out = rewarm("status").out
    status = json.loads(rewarm("status", "--json").out)["pipelines"]["docs-lm"]

    assert "by ann: release week: candidates are held" in out
    assert f"rewarm_replay: rewarm request approve docs-lm --decision {position}" in " ".join(out.split())
    present = " ".join(rewarm("explain", "docs-lm").out.split())
    assert f"rewarm_replay waits for `rewarm request approve docs-lm --decision {position}`" in present
    assert (status["frozen"], status["approvals"]) == ("ann: release week", {"rewarm_replay": position})


def test_status_shows_the_active_run(rewarm: "Command", chronicle: "Chronicle") -> None:
    """A run that goes on is shown with its stage."""
    chronicle.arrive("prose", 900_000, id="prose-1")

    status = json.loads(rewarm("status", "--json").out)

    assert status["pipelines"]["docs-lm"]["active"]["stage"] == "ingest"
    assert status["pipelines"]["docs-lm"]["runs"]["active"] == 1


def test_dead_letters_are_counted(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Refused inputs appear in the table and in JSON."""
    chronicle.tell(InputRejected(reason="malformed", message="no JSON", where="x.json:1"), pipeline=None)

    assert "1 dead letter" in rewarm("status").out
    assert json.loads(rewarm("status", "--json").out)["dead_letters"] == 1


def test_a_daemon_is_found_by_its_lock_alone(chronicle: "Chronicle", configuration: "Configuration") -> None:
    """A lock file that nobody locks means that no daemon runs; looking leaves the lock as it was."""
    held = find_daemon(configuration.journal)
    chronicle.close()

    assert (held.running, held.pid) == (True, os.getpid())
    assert not find_daemon(configuration.journal).running


def test_a_standby_is_shown_while_it_waits(
    rewarm: "Command", chronicle: "Chronicle", configuration: "Configuration"
) -> None:
    """In the table and in JSON, beside the daemon that it waits for."""
    assert json.loads(rewarm("status", "--json").out)["standby"]["running"] is False
    place = enrol(configuration.journal)
    assert place is not None
    try:
        assert f"waiting, process {os.getpid()}" in rewarm("status").out
        assert json.loads(rewarm("status", "--json").out)["standby"]["pid"] == os.getpid()
    finally:
        release(place)
    assert "waiting" not in rewarm("status").out


def test_the_table_fits_into_eighty_columns(
    rewarm: "Command", trained: "Chronicle", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal nothing is wider than 80 columns, nor has it colours or trailing blanks."""
    monkeypatch.setenv("COLUMNS", "80")

    for command in (["status"], ["check-config"], ["plan"], ["explain", "docs-lm"]):
        lines = rewarm(*command).out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_check_config_shows_policies_with_their_thresholds(rewarm: "Command") -> None:
    """What is configured is shown, defaults filled in."""
    out = rewarm("check-config").out

    assert "var/journal.db" in out
    assert "after_tokens 200,000" in out
    assert "max_forgetting 0.02" in out
    assert json.loads(rewarm("check-config", "--json").out)["pipelines"]["docs-lm"]["model"] == "llama nano"


def test_check_config_shows_what_else_would_happen(rewarm: "Command") -> None:
    """Who is told by webhook, whether a second daemon waits, what a drain does, and what is removed when."""
    with Path("rewarm.yaml").open("a", encoding="utf-8") as file:
        file.write("\nstandby: {enabled: true, lease: 20}\nretention: {runs: P90D}\n")
        file.write("notify: [{name: a-team-with-a-long-name, url: 'https://x/secret', on: [run.failed]}]\n")

    out = rewarm("check-config").out

    assert "on_drain leave" in out
    assert "a second daemon waits; lease 20 s" in out
    assert "notify a-team-with-a-long-name  run.failed" in out
    assert "checkpoints P1D, runs P90D, shards for ever" in out
    assert "secret" not in out
    told = json.loads(rewarm("check-config", "--json").out)
    assert (told["standby"], told["notify"]) == (20.0, {"a-team-with-a-long-name": ["run.failed"]})


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthcheck_asks_the_daemon(
    rewarm: "Command", monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    """The exit code says whether /livez answers 200."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("REWARM_HTTP__PORT", str(server.server_port))
        try:
            assert rewarm("healthcheck").code == code
            assert json.loads(rewarm("healthcheck", "--json").out)["status"] == status
        finally:
            server.shutdown()
            thread.join()


def test_healthcheck_fails_when_nobody_answers(rewarm: "Command", monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon the exit code is 1, with one line that says so."""
    monkeypatch.setenv("REWARM_HTTP__PORT", "1")

    code, _, err = rewarm("healthcheck")

    assert code == 1
    assert "does not answer" in err


def test_ui_becomes_mlflow(rewarm: "Command", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch) -> None:
    """`rewarm ui` turns into MLflow's server on the configured store."""
    became: list[str] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: became.extend([path, *arguments]))

    with pytest.raises(TypeError):
        rewarm("ui", "--port", "5001")  # execv never returns, the stand-in does

    assert became[:4] == [sys.executable, sys.executable, "-m", "mlflow"]
    assert configuration.tracking_uri in became
    assert became[-1] == "5001"


def test_ui_says_when_nothing_is_recorded(
    rewarm: "Command", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a tracking URI there are no pages."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("nothing must be started"))
    file = configuration.file
    assert file is not None
    text = file.read_text(encoding="utf-8").replace('"sqlite:///var/mlflow.db"', "null")
    file.write_text(text, encoding="utf-8")

    code, _, err = rewarm("ui")

    assert code == 2
    assert "tracking_uri" in err


def test_status_shows_how_far_kafka_was_read(
    rewarm: "Command", chronicle: "Chronicle", listen: "Callable[..., Configuration]"
) -> None:
    """From the journal alone: nobody answers at the address, and none of kafka-python is loaded."""
    listen("127.0.0.1:1", "events", "more")
    for partition, offset in enumerate((1200, 34)):
        chronicle.read(
            Position(source="kafka", cluster="C", topic="events", topic_id="A", partition=partition, offset=offset)
        )
    trouble = "There is no topic more: create it."
    chronicle.tell(SourceDegraded(name="kafka:kafka/more", reason=trouble), pipeline=None)

    out = rewarm("status").out

    assert "kafka/events: read up to 1,234 in 2 partitions" in out
    assert "kafka/more: not read yet" in out
    assert f"kafka:kafka/more: {trouble}" in out
    told = json.loads(rewarm("status", "--json").out)
    assert told["kafka"]["kafka"]["events"] == {"partitions": 2, "position": 1234}
    assert told["degraded"] == {"kafka:kafka/more": trouble}
    loaded = "import sys; from daemon.cli import main; main(['status']); sys.exit('kafka' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert (
        subprocess.run([sys.executable, "-c", loaded], check=False, env=environment, capture_output=True).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("running", "told"), [(True, "kafka:kafka: down"), (False, "when the last daemon ended: down")]
)
def test_what_was_degraded_is_told_as_what_it_is(running: bool, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """While no daemon runs nobody looks: what stands there is what the last one said."""
    nobody = Daemon(running=False)
    journal = JournalStatus(path="journal.db", position=1)
    degraded = {"kafka:kafka": "down"}

    show(
        *render(
            Status(
                pipelines={},
                dead_letters=0,
                followers={},
                daemon=Daemon(running=running),
                standby=nobody,
                journal=journal,
                degraded=degraded,
            )
        )
    )

    assert told in capsys.readouterr().out


def test_check_config_shows_kafka_without_its_secrets(
    rewarm: "Command", configuration: "Configuration", listen: "Callable[..., Configuration]"
) -> None:
    """Topics, who we are, what is told in return; not even the name of the password's file."""
    security = "{protocol: sasl_plaintext, mechanism: PLAIN, username: ann, password_file: s3cret}"
    topics = ("events", "{name: uploads, pipeline: docs-lm}")
    listen("broker:9092", *topics, rest=f", security: {security}, transitions: {{on: [run.failed]}}, operators: true")

    code, out, err = rewarm("check-config")

    assert code == 0
    told = " ".join(out.split())
    assert "kafka kafka events, uploads → docs-lm at broker:9092; sasl_plaintext, PLAIN as ann; group rewarm;" in told
    assert (
        "dead letters to rewarm.dlq; tells rewarm.transitions of run.failed; whoever writes to it may operate" in told
    )
    assert "sends its password unencrypted" in err
    view = json.loads(rewarm("check-config", "--json").out)
    assert view["kafka"]["kafka"]["topics"] == {"events": None, "uploads": "docs-lm"}
    assert len(view["warnings"]) == 1
    assert "s3cret" not in out + err + json.dumps(view)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ("security: {protocol: sasl_ssl, mechanism: PLAIN, username: a, password_file: b}, operators: true", []),
        (
            "security: {protocol: sasl_plaintext, mechanism: SCRAM-SHA-256, username: a, password_file: b}",
            ["sends everything unencrypted"],
        ),
        (
            "security: {protocol: sasl_plaintext, mechanism: OAUTHBEARER, oauth: {token_file: t}}",
            ["sends its token unencrypted"],
        ),
        ("security: {protocol: ssl, check_hostname: false}", ["any certificate of a trusted authority"]),
        ("operators: true", ["lets everybody operate"]),
        ("security: {protocol: ssl, certificate_file: c, key_file: k}, operators: true", []),
    ],
)
def test_what_should_be_meant_is_warned_of(
    rewarm: "Command", listen: "Callable[..., Configuration]", settings: str, warned: list[str]
) -> None:
    """Secrets in the clear, names that nobody checks, operators whom nobody knows."""
    listen("broker:9092", "events", rest=f", {settings}")
    told = json.loads(rewarm("check-config", "--json").out)["warnings"]
    assert len(told) == len(warned)
    assert all(word in warning for word, warning in zip(warned, told, strict=True))
