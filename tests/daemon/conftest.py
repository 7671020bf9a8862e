"""A loop on a journal in memory, with a clock that is set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.core.decisions import Decision
from daemon.core.errors import JournalFull
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DaemonStopped,
    DataArrived,
    PipelineSettings,
    PolicySettings,
    Record,
    TimerFired,
)
from daemon.core.state import Pipeline, State, dump
from daemon.core.transition import evolve
from daemon.door import Door, Offer
from daemon.journal.base import Journal, Transaction, scan
from daemon.journal.memory import MemoryJournal, MemoryTransaction
from daemon.journal.sqlite import open_journal
from daemon.loop import Loop
from daemon.sources.queue import Inbox
from tests.daemon.office import Office

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Complete = Callable[[Transaction, State, Offer], AnyEvent]


class Waker:
    """A policy that asks to be woken ten seconds after the first arrival and after each call."""

    label = "waker"
    version = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wake-up."""
        if not isinstance(record.event, DataArrived | TimerFired):
            return None
        at = record.recorded_at + timedelta(seconds=10)
        return Decision(verdict="waiting", reason="It waits.", wakes={"key": at} if not state.timers else {})


class FullJournal(MemoryJournal):
    """A journal on a disk that is full for so many transactions."""

    full = 0

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Raise while the disk is full."""
        if self.full > 0:
            self.full -= 1
            raise JournalFull("no room")
        with super().transaction() as transaction:
            yield transaction


class Bench:
    """A loop on a journal in memory, a clock that is set, and what it told."""

    def __init__(self, complete: Complete | None = None) -> None:
        self.journal = FullJournal()
        self.inbox = Inbox()
        self.now = NOON
        self.published: list[tuple[int, ...]] = []
        self.forgotten = 0
        self.kept_house = 0
        self.door = Door(pipelines={"p": None}, roots=())
        self.loop = Loop(
            journal=self.journal,
            state=State(),
            policies={"p": (Waker(),)},
            inbox=self.inbox,
            receive=self.door.receive,
            complete=complete or (lambda transaction, state, offer: offer.event or DaemonStopped(reason="")),
            observers=(self._observe,),
            now=lambda: self.now,
            forget=self._forget,
            housekeeping=self._housekeeping,
        )
        policies = (PolicySettings(name="waker", kind="waker", version=1, configuration="{}"),)
        known = {"p": PipelineSettings(stages=("train",), policies=policies)}
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known))
        self.published.clear()

    def _observe(self, records: Sequence[Record], state: State) -> None:
        assert state is self.loop.state
        self.published.append(tuple(record.position for record in records))

    def _forget(self) -> None:
        self.forgotten += 1

    def _housekeeping(self) -> None:
        self.kept_house += 1

    def records(self, kind: str | None = None) -> list[Record]:
        """Return what is stored."""
        return [record for record in scan(self.journal) if kind in (None, record.event.kind)]

    def refolded(self) -> State:
        """Return the state that the stored records give."""
        state = State()
        for record in scan(self.journal):
            state = evolve(state, record)
        return state


@pytest.fixture
def make_bench() -> Iterable[Callable[..., Bench]]:
    """Make benches; in the end the state of each is the fold of what it stored."""
    made: list[Bench] = []

    def make(complete: Complete | None = None) -> Bench:
        made.append(Bench(complete))
        return made[-1]

    yield make
    for bench in made:
        assert dump(bench.refolded()) == dump(bench.loop.state)


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Bench:
    """Make a bench on which every event is complete already."""
    return make_bench()


@pytest.fixture(params=["memory", "sqlite"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """Give an office on either journal; in the end its state is the fold of what was stored."""
    root = tmp_path / "root"
    root.mkdir()
    journal: Journal = MemoryJournal() if request.param == "memory" else open_journal(tmp_path / "journal.db")
    made = Office(journal, root)
    yield made
    assert dump(made.folded()) == dump(made.loop.state)
    assert made.loop.state.dead_letters == len(made.open())
    journal.close()
