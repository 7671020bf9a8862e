"""The configuration file read again: in one transaction, what can change without a restart and nothing else."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.completion import completer
from daemon.config import load
from daemon.core.errors import JournalFull
from daemon.core.events import ConfigurationChanged, DecisionMade, OperatorRequested, Record
from daemon.core.state import State
from daemon.door import Answer, Door, Input, Letter
from daemon.journal.base import scan
from daemon.journal.memory import MemoryJournal, MemoryTransaction
from daemon.loop import Loop
from daemon.replay import replay
from daemon.service.reload import Reload
from daemon.sources.queue import Inbox

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Desk:
    """A loop that was started with a file, and the file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rewarm.yaml"
        (folder / "data").write_text("data")
        self.write()
        self.journal = MemoryJournal()
        configuration = load(self.file)
        self.reload = Reload(configuration)
        self.door = Door(pipelines=self.reload.pipelines, roots=configuration.all_roots)
        self.loop = Loop(
            journal=self.journal,
            state=State(),
            policies={name: each.policies for name, each in configuration.settings.pipelines.items()},
            inbox=Inbox(),
            receive=self.door.receive,
            complete=completer(self.door, self.journal),
            observers=(),
            now=lambda: NOON,
            forget=lambda: None,
            housekeeping=lambda: None,
            reload=self.reload,
        )
        self.loop.tell(configuration.changed())
        self.sent = 0

    def write(self, *, after_tokens: int = 10**9, pipelines: tuple[str, ...] = ("p",), **others: object) -> None:
        """Write the file."""
        pipeline = {"policies": [{"kind": "rewarm_replay", "after_tokens": after_tokens}]}
        content = {"roots": ["."], "pipelines": dict.fromkeys(pipelines, pipeline), **others}
        self.file.write_text(json.dumps(content), encoding="utf-8")

    def send(self, *events: tuple[str, dict[str, Any], str | None]) -> tuple[Answer, ...]:
        """Let events in, in one transaction."""
        offers = []
        for kind, data, subject in events:
            self.sent += 1
            text = json.dumps({"type": kind, "id": f"n{self.sent}", "subject": subject, "data": data}).encode()
            offers.append(self.door.receive(Letter(text=text, where="t", source="/t", by="ann")))
        return self.loop.commit([Input(offers=tuple(offers))]).answers[0]

    def ask(self) -> Answer:
        """Ask for the file to be read again."""
        return self.send(("operator.requested", {"verb": "reload", "needs_restart": ["mine"]}, None))[0]

    def running(self) -> bool:
        """Whether pipeline p has a run."""
        return self.loop.state.pipelines["p"].active is not None

    def since(self, answer: Answer) -> list[Record]:
        """Return the records from an answer's on."""
        return list(scan(self.journal, answer.position - 1))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Make a desk with one pipeline that waits for a billion tokens; what it stored can be replayed."""
    made = Desk(tmp_path)
    yield made
    told = replay(scan(made.journal))
    assert (told.good, told.changed, told.position) == (True, {}, made.loop.state.position)


def arrival(pipeline: str = "p") -> tuple[str, dict[str, Any], str | None]:
    """Return an arrival."""
    return "data.arrived", {"uri": "data", "domain": "prose", "tokens": 100}, pipeline


def test_it_counts_from_its_own_record_on(desk: Desk) -> None:
    """Request, change, and what other policies make of it stand in one transaction, the change citing the request."""
    desk.send(arrival())
    assert not desk.running()
    desk.write(after_tokens=1)
    answer = desk.ask()
    request, changed, *decided = desk.since(answer)
    assert isinstance(request.event, OperatorRequested)
    assert (request.event.by, request.event.needs_restart) == ("ann", ())
    assert isinstance(changed.event, ConfigurationChanged)
    assert changed.cause == answer.position
    assert isinstance(decided[0].event, DecisionMade)
    assert decided[0].cause == changed.position
    assert desk.running()
    assert desk.loop.state.configuration == load(desk.file).changed().hash


def test_it_counts_for_what_comes_later(desk: Desk) -> None:
    """The next transaction asks the policies of the file that was read last."""
    desk.write(after_tokens=1)
    desk.ask()
    desk.send(arrival())
    assert desk.running()


def test_what_is_as_it_was_is_not_told_again(desk: Desk) -> None:
    """A person's request is recorded, and that is all."""
    (request,) = desk.since(desk.ask())
    assert isinstance(request.event, OperatorRequested)


def test_a_broken_file_changes_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The dead letter says what is wrong with it, and so does the log; mended, it is taken."""
    desk.write(after_tokens=-1)
    before = desk.loop.state.configuration
    answer = desk.ask()
    assert (answer.outcome, answer.reason) == ("dead_letter", "broken_configuration")
    assert "after_tokens" in answer.message
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert desk.loop.state.configuration == before
    desk.write(after_tokens=1)
    assert desk.ask().outcome == "accepted"
    assert desk.loop.state.configuration != before


def test_what_needs_a_restart_is_named_and_left(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Beside it, what needs none counts; slots belong to that."""
    desk.write(after_tokens=1, http={"port": 1}, executor={"slots": 5, "threads": 3}, roots=[".", "other"])
    with caplog.at_level("INFO"):
        answer = desk.ask()
    request, changed = (record.event for record in desk.since(answer)[:2])
    assert answer.message == "Needs a restart, and is as it was: http.port, roots, executor.threads."
    assert isinstance(request, OperatorRequested)
    assert request.needs_restart == ("http.port", "roots", "executor.threads")
    assert isinstance(changed, ConfigurationChanged)
    assert desk.loop.state.slots == 5
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert vars(told)["keys"] == "http.port, roots, executor.threads"
    assert desk.reload.configuration.settings.executor.threads == 0


def test_the_door_knows_the_pipelines_of_the_file(desk: Desk) -> None:
    """A new one takes data at once, a removed one no more."""
    assert desk.send(arrival("q"))[0].reason == "unknown_pipeline"
    desk.write(pipelines=("q",))
    desk.ask()
    assert [answer.reason for answer in desk.send(arrival("q"), arrival("p"))] == ["", "unknown_pipeline"]
    assert desk.loop.state.pipelines["p"].settings is None


def test_what_could_not_be_stored_does_not_count(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the journal is full, door and policies are as they were; tried again, it is taken."""
    desk.write(after_tokens=1, pipelines=("p", "q"))
    known = dict(desk.reload.pipelines)

    def full(*_: object) -> None:
        raise JournalFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryTransaction, "finish", full)
        with pytest.raises(JournalFull):
            desk.ask()
    assert desk.reload.pipelines == known
    desk.send(arrival())
    assert not desk.running()
    desk.ask()
    assert (sorted(desk.reload.pipelines), desk.running()) == (["p", "q"], True)


def test_a_daemon_that_stood_by_takes_the_file_as_it_is(desk: Desk) -> None:
    """Of a broken one it takes nothing: it leads with what it was started with."""
    standby = Reload(load(desk.file))
    desk.write(after_tokens=1, pipelines=("p", "q"), http={"port": 1})
    taken = standby.catch_up()
    assert (list(taken.settings.pipelines), taken.settings.http.port) == (["p", "q"], 8420)
    assert sorted(standby.pipelines) == ["p", "q"]
    desk.file.write_text("pipelines: [", encoding="utf-8")
    assert standby.catch_up() is standby.configuration
