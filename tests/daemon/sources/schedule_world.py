"""A world for schedules: a journal that stays, daemons that come and go, and a clock that is set."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from daemon.core.events import (
    AnyEvent,
    CatchUp,
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    PipelineSettings,
    PolicySettings,
    Record,
    ScheduleFired,
)
from daemon.core.state import State
from daemon.core.transition import evolve
from daemon.door import Door
from daemon.journal.base import Journal, scan
from daemon.journal.memory import MemoryJournal, MemoryStore, MemoryTransaction
from daemon.loop import Loop
from daemon.restore import restore
from daemon.sources.queue import Inbox
from policies.periodic_retraining import PeriodicRetraining

MINUTE = timedelta(minutes=1)
LABEL = "periodic_retraining"
Boundary = Callable[[str], None]
Policies = dict[str, PeriodicRetraining]


class Killed(BaseException):
    """The daemon is no more."""


class MortalJournal(MemoryJournal):
    """A journal in memory with the boundaries of the one on disk, at which a daemon can be killed."""

    def __init__(self, store: MemoryStore, boundary: Boundary) -> None:
        super().__init__(store)
        self._boundary = boundary

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """Pass by the boundaries around the commit."""
        with super().transaction() as transaction:
            yield transaction
            self._boundary("journal.before_commit")
        self._boundary("journal.after_commit")


class World:
    """A journal that stays, daemons that come and go, and a clock that is set."""

    def __init__(self, open_: Callable[[Boundary], Journal]) -> None:
        self._open = open_
        self.now = at("00:00")
        self.boundary: Boundary = lambda name: None
        self.state = State()
        self.records: list[Record] = []
        self.phase = "start"
        self.longest_wait = 0.0
        self.clock_runs: Callable[[], datetime] | None = None

    def live(self, instants: Iterable[datetime], policies: Policies) -> None:
        """Let a daemon start at the first instant, take a turn at each of them, and be killed."""
        hours = iter(instants)
        self.now = next(hours)
        self.phase = "start"
        journal = self._open(self._pass)

        def forward() -> None:
            following = next(hours, None)
            if following is None:
                loop.stop()
            else:
                self.now = following

        loop = Loop(
            journal=journal,
            state=State(),
            policies={name: (policy,) for name, policy in policies.items()},
            inbox=Inbox(),
            receive=Door(pipelines={}, roots=()).receive,
            complete=lambda transaction, state, offer: offer.event or DaemonStopped(reason=""),
            observers=(),
            now=lambda: self.clock_runs() if self.clock_runs is not None else self.now,
            forget=lambda: None,
            housekeeping=forward,
            longest_wait=self.longest_wait,
        )
        try:
            restored = restore(journal)
            loop.begin(restored.state, restored.snapshot)
            loop.tell(*self._start(configured(policies), restored.state, journal.epoch))
            self.phase = "turn"
            loop.run()
        finally:
            self.state = loop.state
            self.records = list(scan(journal))
            if len(self.records) % 3 == 0:
                with suppress(Killed):  # as if it had been saved just before: the next one starts from it
                    loop.snapshot()
            journal.close()

    def _pass(self, name: str) -> None:
        self.boundary(name)

    def _start(self, changed: ConfigurationChanged, state: State, epoch: int) -> list[AnyEvent]:
        started = DaemonStarted(epoch=epoch, release="1", reducer=1, host="h", pid=1)
        return [started] if changed.hash == state.configuration else [changed, started]

    def folded(self) -> State:
        """Return the fold of the records."""
        state = State()
        for record in self.records:
            state = evolve(state, record)
        return state

    def ticks(self) -> list[tuple[Record, ScheduleFired]]:
        """Return the ticks that are recorded."""
        return [(record, record.event) for record in self.records if isinstance(record.event, ScheduleFired)]

    def fired(self) -> list[datetime]:
        """Return for which instants ticks are recorded."""
        return [event.scheduled_for for _, event in self.ticks()]

    def clock(self) -> list[str]:
        """Return the same as hours and minutes."""
        return [f"{tick:%H:%M}" for tick in self.fired()]


def at(text: str, day: str = "2026-03-02") -> datetime:
    """Return a time of a day, in UTC."""
    return datetime.fromisoformat(f"{day} {text}").replace(tzinfo=UTC)


def times(text: str) -> list[datetime]:
    """Return times of a day that are written one after the other."""
    return [at(each) for each in text.split()]


def configured(policies: Policies) -> ConfigurationChanged:
    """Return the configuration with one policy a pipeline."""
    pipelines = {
        name: PipelineSettings(
            stages=("train",),
            policies=(
                PolicySettings(
                    name=policy.label,
                    kind=policy.kind,
                    version=policy.version,
                    configuration=policy.model_dump_json(by_alias=True),
                    schedule=policy.ticks,
                ),
            ),
        )
        for name, policy in policies.items()
    }
    return ConfigurationChanged(hash=msgspec.json.encode(pipelines).hex(), slots=1, pipelines=pipelines)


def every(cron: str = "0 * * * *", catch_up: CatchUp = "last", **fields: Any) -> Policies:  # noqa: ANN401 - its fields
    """Return one pipeline with one schedule."""
    return {"p": PeriodicRetraining(cron=cron, catch_up=catch_up, **fields)}
