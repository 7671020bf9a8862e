"""An arrival's way: which runs had it, and which versions of the model saw it, out of the journal."""

from datetime import datetime
from typing import Literal

import msgspec

from daemon.core.arrivals import amount_of, within
from daemon.core.errors import RewarmError
from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunStarted,
    RunSucceeded,
    StageStarted,
)
from daemon.core.plans import Amount, Plan
from daemon.journal.base import Reader, scan_where

How = Literal["trained", "replayed", "continues"]
KINDS = tuple(
    event.kind
    for event in (
        DataIngested,
        DataRejected,
        DataWithdrawn,
        ModelPromoted,
        ModelRolledBack,
        OperatorRequested,
        PlanFixed,
        RunCancelled,
        RunFailed,
        RunHeld,
        RunStarted,
        RunSucceeded,
        StageStarted,
    )
)


class UnknownArrival(RewarmError):
    """No arrival lies at this position of the journal."""


class Had(msgspec.Struct, frozen=True, kw_only=True):
    """A run that ingested the arrival, and how it ended; `active` while it goes on."""

    run: str
    outcome: str


class Saw(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was trained on the arrival, replayed it, or continues one that did (`of`)."""

    version: int
    run: str
    how: How
    promoted_at: datetime
    of: int | None = None
    rolled_back: bool = False


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an arrival; `champion` is the present one and `carried` whether it saw the arrival.

    `again` are the positions of the backfills that made it pending once more.
    """

    position: int
    pipeline: str
    arrived_at: datetime
    source: str
    id: str
    domain: str
    uri: str
    amount: Amount
    duplicates: int = 0
    refused: str | None = None
    withdrawn: int | None = None
    withdrawn_at: datetime | None = None
    again: tuple[int, ...] = ()
    had: tuple[Had, ...] = ()
    saw: tuple[Saw, ...] = ()
    champion: int | None = None

    @property
    def carried(self) -> bool:
        """Whether the present champion saw it."""
        return any(each.version == self.champion for each in self.saw)


def follow(reader: Reader, position: int) -> Way:
    """Return the way of the arrival at `position`; raises UnknownArrival where there is none."""
    record = next(iter(reader.records(position - 1, 1, upto=position)), None)
    if record is None or not isinstance(record.event, DataArrived) or record.pipeline is None:
        what = "nothing is recorded there" if record is None else f"record {position} is {record.event.kind}"
        raise UnknownArrival(f"No arrival lies at position {position}: {what}. `rewarm events --kind data.arrived`.")
    found = _Search(record, record.event)
    for later in scan_where(reader, 0, pipeline=record.pipeline, kinds=KINDS):
        found.fold(later)
    return found.way


class _Search:
    """Folds a pipeline's records into the way of one arrival."""

    def __init__(self, record: Record, event: DataArrived) -> None:
        self.way = Way(
            position=record.position,
            pipeline=record.pipeline or "",
            arrived_at=record.recorded_at,
            source=record.source,
            id=record.id,
            domain=event.domain,
            uri=event.uri,
            amount=amount_of(event),
        )
        self._plans: dict[str, Plan] = {}
        self._trained_at: dict[str, int] = {}
        self._past: set[int] = set()
        self._past_before: set[int] = set()
        self._began: dict[str, int] = {}

    def fold(self, record: Record) -> None:
        """Take the next record."""
        event, way = record.event, self.way
        match event:
            case DataIngested() if event.arrival == way.position:
                runs = (*(each for each in way.had if each.run != event.run), Had(run=event.run, outcome="active"))
                self._put(amount=event.amount, duplicates=event.duplicates, had=runs, refused=None)
            case DataRejected() if event.arrival == way.position:
                runs = tuple(each for each in way.had if each.run != event.run)
                self._put(had=runs, refused=f"{event.reason}: {event.message}")
            case DataWithdrawn() if event.arrival == way.position:
                self._put(withdrawn=record.position, withdrawn_at=record.recorded_at)
            case RunStarted() | PlanFixed():
                self._plans[event.run] = event.plan
                self._began.setdefault(event.run, record.position)
            case OperatorRequested(verb="backfill") if within(event.spans, way.position):
                self._past_before, self._past = self._past, set()
                self._put(again=(*way.again, record.position))
            case StageStarted() if event.stage == "train":
                self._trained_at[event.run] = record.position
            case ModelPromoted():
                self._promoted(record, event)
            case ModelRolledBack():
                back = event.withdrawn_version
                saw = tuple(msgspec.structs.replace(s, rolled_back=True) if s.version == back else s for s in way.saw)
                self._put(saw=saw, champion=event.model_version)
            case RunSucceeded() | RunFailed() | RunCancelled() | RunHeld():
                outcome = event.outcome if isinstance(event, RunSucceeded) else event.kind.removeprefix("run.")
                had = (Had(run=each.run, outcome=outcome) if each.run == event.run else each for each in way.had)
                self._put(had=tuple(had))
            case _:
                pass

    def _promoted(self, record: Record, event: ModelPromoted) -> None:
        plan = self._plans.get(event.run)
        ingested = any(each.run == event.run for each in self.way.had)
        earlier = any(self._began.get(event.run, 0) < again for again in self.way.again[-1:])
        past = event.parent in (self._past_before if earlier else self._past)  # as it was when the run began
        if ingested or (past and not earlier):
            self._past.add(event.model_version)
        self._put(champion=event.model_version)
        how: How | None = None
        of = None
        if self._sampled(event.run) and ingested:
            how = "trained"
        elif self._sampled(event.run) and past and plan is not None and plan.training.replay > 0:
            how = "replayed"
        elif plan is not None and any(each.version == plan.start.version for each in self.way.saw):
            how, of = "continues", plan.start.version
        if how is not None:
            version = event.model_version
            saw = Saw(version=version, run=event.run, how=how, promoted_at=record.recorded_at, of=of)
            self._put(saw=(*self.way.saw, saw))

    def _sampled(self, run: str) -> bool:
        """Return whether the run's last training began before the arrival was withdrawn."""
        return self.way.withdrawn is None or self._trained_at.get(run, 0) < self.way.withdrawn

    def _put(self, **fields: object) -> None:
        self.way = msgspec.structs.replace(self.way, **fields)
