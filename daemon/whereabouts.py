"""Where an arrival is counted now: pending, among what champions were trained on, or set aside.

The state knows amounts per domain, not arrivals; the journal knows what became of each. A withdrawal asks it once,
and so does a backfill.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

import msgspec

from daemon.core import arrivals
from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    Record,
    RunStarted,
    RunSucceeded,
)
from daemon.core.events.outside import Account
from daemon.core.plans import Amount, Span
from daemon.core.state import Pipeline
from daemon.journal.base import Reader, scan_where

KINDS = (
    DataIngested.kind,
    DataRejected.kind,
    DataWithdrawn.kind,
    OperatorRequested.kind,
    ModelPromoted.kind,
    ModelRolledBack.kind,
    RunStarted.kind,
    RunSucceeded.kind,
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The account that an arrival is in, and as how much; no account: it is pending, or a living run's.

    What a run without a gate has used is counted nowhere: `used`.
    `gone`: it cannot be used again. What is `unusable`, withdrawn or refused by ingest, no run takes, even where it
    lies in the run's spans; what is `forgotten` with a rejected candidate, one would.
    """

    account: Account | Literal["used"] | None
    amount: Amount
    gone: Literal["", "unusable", "forgotten"] = ""


def find(reader: Reader, arrival: Record, pipeline: Pipeline | None) -> tuple[Account | None, Amount]:
    """Return the account that an arrival is in, and as how much.

    No account: it is pending or a living run's, which the fold can tell by its position.
    """
    place = places(reader, [arrival], pipeline)[arrival.position]
    return (None if place.account == "used" else place.account), place.amount


def places(reader: Reader, found: Collection[Record], pipeline: Pipeline | None) -> dict[int, Place]:
    """Return where each of these arrivals of one pipeline is, by its position: the journal is read once for all."""
    if not found:
        return {}
    seen = _Seen({each.position for each in found})
    first = min(found, key=lambda each: each.position)
    for record in scan_where(reader, first.position, pipeline=first.pipeline, kinds=KINDS):
        seen.fold(record)
    return {
        each.position: seen.place(each.position, arrivals.amount_of(each.event), pipeline)
        for each in found
        if isinstance(each.event, DataArrived)
    }


def withdrawal(reader: Reader, pipeline: str | None, arrival: int) -> Record | None:
    """Return the record by which an arrival was withdrawn, if it was."""
    for record in scan_where(reader, arrival, pipeline=pipeline, kinds=("data.withdrawn",)):
        if isinstance(record.event, DataWithdrawn) and record.event.arrival == arrival:
            return record
    return None


class _Seen:
    """What became of some arrivals since the first of them came."""

    def __init__(self, wanted: Collection[int]) -> None:
        self._wanted = sorted(wanted)
        self._amounts: dict[int, Amount] = {}
        self._rejected: dict[int, int] = {}
        self._dropped: set[int] = set()
        self._withdrawn: set[int] = set()
        self._forgotten: set[int] = set()
        self._finished: set[int] = set()
        self._promoted: dict[int, list[str]] = {position: [] for position in self._wanted}
        """Arrival → the runs for it whose models were published since it was last pending."""
        self._took: dict[int, list[str]] = {position: [] for position in self._wanted}
        self._ingesting: set[str] = set()
        self._spans: dict[str, tuple[Span, ...]] = {}
        self._kept: set[str] = set()
        self._rolled_back: set[str] = set()

    def fold(self, record: Record) -> None:
        """Take in one record, in order."""
        match record.event:
            case DataIngested(arrival=arrival, run=run):
                self._ingesting.add(run)
                if arrival in self._took:
                    self._amounts[arrival] = record.event.amount
                    self._took[arrival].append(run)
            case DataRejected(arrival=arrival) if arrival in self._took:
                self._amounts[arrival] = record.event.estimate
                self._rejected[arrival] = record.position
            case DataWithdrawn(arrival=int() as arrival):
                self._withdrawn.add(arrival)
            case OperatorRequested():
                self._requested(record.event)
            case ModelPromoted(run=run):
                for each in self._within(record.event.spans):
                    self._promoted[each].append(run)
            case ModelRolledBack(run=run):
                self._rolled_back.add(run)
            case RunStarted(run=run):
                self._spans[run] = record.event.plan.spans
            case RunSucceeded(outcome="promoted", run=run):
                self._kept.add(run)
            case RunSucceeded(outcome="finished", run=run):
                self._finished.update(self._within(self._spans.get(run, ())))
            case _:
                pass

    def _requested(self, event: OperatorRequested) -> None:
        match event.verb:
            case "retry":
                self._rejected = {each: at for each, at in self._rejected.items() if at != event.dead_letter}
            case "drop":
                self._dropped |= {each for each, at in self._rejected.items() if at == event.dead_letter}
            case "withdraw":
                self._forgotten.update(
                    each for each in self._within(event.spans) if self._took[each][-1:] in ([], [event.run])
                )
            case "backfill":
                for each in self._within(event.spans):
                    self._promoted[each].clear()
                    self._finished.discard(each)
            case _:
                pass

    def _within(self, spans: Iterable[Span]) -> Iterator[int]:
        """Yield the arrivals in these spans: there may be many arrivals, and many a promotion."""
        for span in spans:
            yield from self._wanted[bisect_right(self._wanted, span.after) : bisect_right(self._wanted, span.upto)]

    def place(self, arrival: int, estimate: Amount, pipeline: Pipeline | None) -> Place:
        """Return where one of the arrivals is."""
        amount = self._amounts.get(arrival, estimate)
        gone: Literal["", "unusable"] = "unusable" if arrival in self._withdrawn else ""
        if arrival in self._dropped:
            return Place(account="set_aside", amount=Amount(), gone="unusable")
        if arrival in self._rejected:
            return Place(account="set_aside", amount=amount, gone="unusable")
        if pipeline is None or arrivals.is_pending(pipeline, arrival):
            return Place(account=None, amount=amount, gone=gone)
        trained = self._trained(arrival, pipeline)
        if trained is not None:
            champion = pipeline.champion is not None and pipeline.champion.run == trained
            return Place(account="champion" if champion else "past", amount=amount, gone=gone)
        living = (run for run in (pipeline.active, pipeline.yielded, pipeline.held) if run and not run.promoted)
        if any(arrivals.counts(pipeline, run.plan.spans, arrival) for run in living):
            return Place(account=None, amount=amount, gone=gone)
        if arrival in self._forgotten:
            return Place(account="set_aside", amount=Amount(), gone=gone or "forgotten")
        return Place(account="used" if arrival in self._finished else "set_aside", amount=amount, gone=gone)

    def _trained(self, arrival: int, pipeline: Pipeline) -> str | None:
        """Return the run that made a model of an arrival since it was last pending, if one was kept."""
        kept = {model.run for model in (pipeline.champion, pipeline.previous) if model is not None}
        for run in self._promoted[arrival]:
            if run in self._rolled_back or not (run in self._kept or run in kept):
                continue
            if run not in self._ingesting or run in self._took[arrival]:
                return run  # a pipeline without ingest takes them as they are
        return None
