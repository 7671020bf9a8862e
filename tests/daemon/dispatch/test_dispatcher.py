"""What is done for an order, by what its attempt's folder shows."""

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.core.errors import WorkerError
from daemon.core.events import StageStarted, StageSucceeded
from daemon.core.state import Pipeline, Run, State
from daemon.dispatch import attempts
from daemon.dispatch import dispatcher as module
from daemon.dispatch.attempts import Exit
from daemon.dispatch.dispatcher import Dispatcher
from daemon.dispatch.launcher import Launcher
from daemon.dispatch.specification import attempt_folder
from daemon.journal.base import Cursor
from daemon.journal.memory import MemoryJournal
from daemon.sources.queue import Inbox
from stages.run_folder import Outcome, finished, hold, lines, place_specification, read_specification, sign

Build = Any
NAMES: Any = {"run": "p-9", "stage": "train", "attempt": 1}
STARTED = StageStarted(**NAMES, command="9/p/x/1", host="h", pid=1)
SUCCEEDED = StageSucceeded(**NAMES, seconds=1.0)


class Starter(Launcher):
    """A launcher that notes what it should start."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, warm=False)
        self.launched: list[str] = []
        self.ready = True
        self.broken: Exception | None = None
        self.warmed = 0

    def launch(self, folder: Path) -> bool:
        """Note the folder."""
        if self.broken is not None:
            raise self.broken
        if self.ready:
            self.launched.append(str(folder))
        return self.ready

    def warm_up(self) -> None:
        """Count."""
        self.warmed += 1


class Clock:
    """A monotonic clock that is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        """Return what was set."""
        return self.seconds


class Bench:
    """A dispatcher with everything around it in memory, but for the run folders."""

    def __init__(self, build: Build, state: Path) -> None:
        self.build = build
        self.state = state
        self.journal = MemoryJournal()
        self.inbox = Inbox()
        self.launcher = Starter(state)
        self.boundaries: list[str] = []
        self.dispatcher = Dispatcher(
            reader=self.journal,
            inbox=self.inbox,
            launcher=self.launcher,
            state=state,
            roots=(),
            threads=1,
            boundary=self.boundaries.append,
        )
        self.order = build.order()
        self.folder = attempt_folder(state, "p-9", "train", 1)

    def attend(self, **fields: object) -> None:
        """Attend to the order once."""
        run: Run = self.build.run(self.order, **fields)
        pipeline: Pipeline = self.build.pipeline(run)
        self.dispatcher.attend(pipeline, run, self.order)

    def tell(self, *events: StageStarted | StageSucceeded) -> None:
        """Write outcome lines as the stage does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        outcome = Outcome(self.folder)
        for event in events:
            outcome.write(event)
        outcome.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the dispatcher a monotonic clock that is set."""
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def bench(build: Build, state: Path, clock: Clock) -> Bench:
    """A bench with one order that nobody has begun."""
    return Bench(build, state)


def test_an_order_is_placed_and_sent(bench: Bench, clock: Clock) -> None:
    """The specification is written before anybody is asked to start; it is asked again only after a while."""
    bench.attend()
    assert read_specification(bench.folder).command == "9/p/x/1"
    assert bench.launcher.launched == [str(bench.folder)]
    assert bench.boundaries == ["dispatch.before_place", "dispatch.before_send", "dispatch.after_send"]
    bench.attend()
    assert len(bench.launcher.launched) == 1
    clock.seconds += module.AGAIN_SECONDS
    bench.attend()
    assert len(bench.launcher.launched) == 2
    assert bench.boundaries.count("dispatch.before_place") == 1


def test_a_worker_that_is_not_ready_is_asked_at_once_again(bench: Bench) -> None:
    """Only what was sent has to be waited for."""
    bench.launcher.ready = False
    bench.attend()
    bench.launcher.ready = True
    bench.attend()
    assert len(bench.launcher.launched) == 1


def test_another_commands_folder_is_not_used(bench: Bench) -> None:
    """A folder of another journal's life is an error that names it."""
    place_specification(bench.folder, bench.build.specification(bench.order, bench.state, command="1/other/x/0"))
    with pytest.raises(WorkerError, match="belongs to another command"):
        bench.attend()
    assert not bench.launcher.launched


def test_a_living_attempt_is_adopted(bench: Bench) -> None:
    """Whoever holds the lock is left to work, by whatever daemon it was started."""
    bench.folder.mkdir(parents=True)
    with hold(bench.folder):
        bench.attend()
        assert not bench.launcher.launched
        bench.attend(stop="preempt")
        assert (bench.folder / "stop").read_text() == "preempt"


def test_outcome_lines_become_inputs_once(bench: Bench) -> None:
    """Each line is offered once by this dispatcher; after `forget`, from where the journal stands."""
    bench.tell(STARTED)
    bench.attend()
    bench.attend(stop=None)
    bench.tell(SUCCEEDED)
    bench.attend()
    bench.attend()
    taken = bench.inbox.take(0)
    assert [[offer.id for offer in item.offers] for item in taken] == [["1"], ["2"]]
    bench.dispatcher.forget()
    bench.attend()
    (again,) = bench.inbox.take(0)
    assert [offer.id for offer in again.offers] == ["1", "2"]
    assert "outcome.after_read" in bench.boundaries


def test_reading_begins_where_the_journal_stands(bench: Bench) -> None:
    """A restarted daemon does not offer what is recorded already."""
    with bench.journal.transaction() as transaction:
        transaction.move(Cursor(name="outcome:p-9/train/1", expected=None, next=1))
    bench.tell(STARTED, SUCCEEDED)
    bench.attend()
    (item,) = bench.inbox.take(0)
    assert [offer.id for offer in item.offers] == ["2"]


def test_a_finished_attempt_is_neither_started_nor_buried(bench: Bench) -> None:
    """Once its last line is offered, the order waits for the journal."""
    bench.tell(STARTED, SUCCEEDED)
    for _ in range(3):
        bench.attend()
    assert not bench.launcher.launched
    assert len(lines(bench.folder)) == 2


def test_the_dead_are_buried_after_a_moment(bench: Bench, clock: Clock) -> None:
    """The worker gets a moment to tell how the process ended; then the terminal line is written."""
    bench.tell(STARTED)
    bench.attend()
    bench.attend()
    assert not finished(bench.folder)
    clock.seconds += module.EXIT_PATIENCE
    bench.attend()
    assert finished(bench.folder)
    assert bench.boundaries[-2:] == ["dispatch.before_bury", "dispatch.after_bury"]
    bench.attend()
    assert [[offer.id for offer in item.offers] for item in bench.inbox.take(0)] == [["1"], ["2"]]


def test_a_death_that_was_noted_needs_no_wait(bench: Bench) -> None:
    """With exit.json there is nothing to wait for, also when the process died before its first line."""
    place_specification(bench.folder, bench.build.specification(bench.order, bench.state))
    (bench.folder / "exit.json").write_bytes(msgspec.json.encode(Exit(pid=1, code=1, signal=None)))
    bench.attend()
    assert finished(bench.folder)


def test_a_stop_before_the_start_ends_the_attempt(bench: Bench) -> None:
    """What nobody began is ended with the reason, and never started."""
    bench.attend(stop="cancel")
    assert finished(bench.folder)
    bench.attend(stop="cancel")
    (item,) = bench.inbox.take(0)
    assert getattr(item.offers[0].event, "reason", None) == "cancel"
    assert not bench.launcher.launched


def test_what_hangs_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A living attempt that is overdue is killed; its lock is freed by that, and it is buried later."""
    killed: list[Path] = []
    monkeypatch.setattr(attempts, "overdue", lambda folder, attempt, limits, now: "hang")
    monkeypatch.setattr(attempts, "kill", killed.append)
    bench.folder.mkdir(parents=True)
    with hold(bench.folder):
        sign(bench.folder)
        bench.attend()
    assert killed == [bench.folder]


def run_until(bench: Bench, state: State, done: threading.Event) -> None:
    """Let the dispatcher run in its thread until something happened."""
    bench.dispatcher.observe((), state)
    thread = threading.Thread(target=bench.dispatcher.run)
    thread.start()
    try:
        assert done.wait(10)
    finally:
        bench.dispatcher.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("error", [WorkerError("no worker"), OSError(28, "full"), ValueError("odd")])
def test_one_order_in_trouble_keeps_no_other_one_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The error is told in the health, the other pipeline's order is carried out, the thread goes on."""
    done = threading.Event()
    real = bench.dispatcher.attend

    def attend(pipeline: Pipeline, run: Run, order: Any) -> None:  # noqa: ANN401 - an order
        if pipeline.name == "a":
            raise error
        real(pipeline, run, order)
        done.set()

    monkeypatch.setattr(bench.dispatcher, "attend", attend)
    bad = bench.build.pipeline(bench.build.run(bench.build.order(run="a-1")), name="a")
    good = bench.build.pipeline(bench.build.run(bench.order))
    run_until(bench, bench.build.state(bad, good), done)
    assert bench.launcher.launched == [str(bench.folder)]
    assert bench.dispatcher.trouble in {str(error), None}


def test_without_orders_a_worker_is_kept_warm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing runs, the launcher is asked to have one ready."""
    done = threading.Event()
    monkeypatch.setattr(bench.launcher, "warm_up", done.set)
    run_until(bench, State(), done)
    assert not bench.launcher.launched
