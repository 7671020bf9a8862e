"""Dead letters with the real daemon: what was refused is mended, retried by a person, and counts once."""

import json
import sys

import pytest

from daemon import dead_letters
from daemon.cli import main
from daemon.core.events import DataArrived, DataIngested, DataRejected, InputRejected, OperatorRequested, RunSucceeded
from daemon.journal.sqlite import open_reader
from daemon.testing import Life
from tests.acceptance.home import NOTE, PATIENCE, Home, event

pytestmark = pytest.mark.slow

BINARY = b"\xff\xfe\x00 no event \x1b[2J"


@pytest.fixture
def rewarm(home: Home, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> "Command":
    """Give the command line, as somebody types it beside the daemon."""
    return Command(home, capfdbinary, monkeypatch)


class Command:
    """Runs `rewarm dead-letters …` in this process."""

    def __init__(self, home: Home, captured: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._captured = captured
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, code: int = 0) -> bytes:
        """Run one command; return what it wrote."""
        self._captured.readouterr()
        with self._monkeypatch.context() as patch:
            patch.setattr("sys.stdout", open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - as it is outside of a test
            found = main(["--config", str(self._home.configuration), "dead-letters", *arguments])
            sys.stdout.flush()
        out, err = self._captured.readouterr()
        assert found == code, (out, err)
        return out


def mend(home: Home, *roots: str) -> None:
    """Change the configured roots."""
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    home.configuration.write_text(json.dumps({**content, "roots": list(roots)}), encoding="utf-8")


def outcome(home: Home, position: int) -> str | None:
    """Return what became of a dead letter."""
    with open_reader(home.journal) as reader:
        settled = dead_letters.find(reader, position).settled
    return settled.outcome if settled is not None else None


def position(home: Home, reason: str) -> int:
    """Return the position of the first dead letter of a reason."""
    letters = [r for r in home.records() if isinstance(r.event, InputRejected) and r.event.reason == reason]
    return letters[0].position


def test_a_mended_root_and_a_retry_start_the_run(home: Home, rewarm: Command) -> None:
    """A file lay outside the roots: after the mend, a restart and a retry the run starts, once; the rest is dropped."""
    home.configure(http=True)
    elsewhere = home.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data.jsonl").write_text('{"text": "Some words."}\n', encoding="utf-8")
    daemon = home.start()
    sent = json.dumps(event("data.arrived", {"uri": str(elsewhere / "data.jsonl"), "domain": "words"}, "1")).encode()
    home.send(sent)
    home.send(BINARY, "binary")
    home.wait_for(InputRejected, 2)
    outside, binary = position(home, "outside_roots"), position(home, "malformed")
    assert rewarm("show", str(outside), "--raw") == sent
    assert rewarm("show", str(binary), "--raw") == BINARY
    refused = rewarm("retry", str(outside), code=1).decode()
    assert "refused again: dead letter" in refused
    again = refused.split("dead letter ")[1].split()[0]
    home.stop(daemon)

    mend(home, "inbox", "elsewhere")
    home.start()
    home.wait_for(OperatorRequested)
    home.wait(lambda: home.get("/readyz")[0] == 200, "a daemon that is ready")
    assert b"accepted at" in rewarm("retry", again)
    home.wait_for(RunSucceeded)
    accepted = next(record for record in home.records() if isinstance(record.event, DataArrived))
    assert (accepted.source, accepted.id, accepted.text) == ("/test", "1", sent)
    assert b"was settled already" not in rewarm("drop", str(binary))
    assert rewarm("list") == b"There is no open dead letter.\n"
    assert home.fold().dead_letters == 0
    assert len(home.notes()) == 1


def test_a_retry_in_the_spool_counts_once_through_kills(home: Home, rewarm: Command) -> None:
    """Asked twice while no daemon ran, killed before the commit and after it: one request, one arrival, one run."""
    daemon = home.start()
    home.arrive("1", uri="late.jsonl")
    home.wait_for(InputRejected)
    home.stop(daemon)
    letter = str(position(home, "file_missing"))
    home.data(name="late.jsonl")
    for _ in range(2):
        assert b"No daemon is running" in rewarm("retry", letter)
    files = list(home.spool.glob("*.json"))
    assert len(files) == 2
    (home.spool / "twice.json").write_bytes(files[0].read_bytes())

    for boundary, count in (("journal.before_commit", 2), ("spool.before_move", 1)):
        assert home.start(Life(config=str(home.configuration), boundary=boundary, count=count)).wait(PATIENCE) < 0
    home.start()
    home.wait_for(RunSucceeded)
    home.wait(home.read_out, "an empty spool")
    assert len(home.events(OperatorRequested)) == len(home.events(DataArrived)) == len(home.notes()) == 1
    assert outcome(home, int(letter)) == "accepted"
    assert home.fold().dead_letters == 0


def test_a_retried_arrival_is_ingested_by_the_next_run(home: Home, rewarm: Command) -> None:
    """Ingest found half a file; once all of it is there and the arrival is retried, a run takes it in."""
    home.configure("ingest", NOTE)
    whole = "".join(json.dumps({"text": f"Sentence {n} of some words."}) + "\n" for n in range(40))
    half = home.data(whole[: len(whole) // 2])
    home.start()
    home.send(event("data.arrived", {"uri": half, "domain": "words", "bytes": len(whole)}, "1"))
    home.wait_for(DataRejected)
    home.wait(lambda: home.pipeline().last, "the end of the run")
    assert (home.pipeline().pending, home.events(DataRejected)[0].reason) == ({}, "truncated")
    (rejected,) = [r for r in home.records() if isinstance(r.event, DataRejected)]
    home.data(whole)

    assert b"is pending again" in rewarm("retry", str(rejected.position), "--spool")
    home.wait_for(DataIngested)
    home.wait_for(RunSucceeded)
    assert (home.pipeline().pending, home.pipeline().set_aside, home.pipeline().readmitted) == ({}, {}, ())
    assert outcome(home, rejected.position) == "pending"
