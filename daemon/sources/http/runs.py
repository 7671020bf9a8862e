"""The list of runs: the latest ones, and whichever still lives, newest first."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from daemon.core.events import Record, RunCancelled, RunFailed, RunHeld, RunStarted, RunSucceeded
from daemon.core.state import State
from daemon.journal.base import Reader, scan_where

WINDOW: Final = 4096
"""Records in which the latest runs are looked for first; doubled until there are enough of them."""
ENDINGS: Final = RunSucceeded | RunFailed | RunCancelled | RunHeld
KINDS: Final = frozenset(cls.kind for cls in (RunStarted, RunSucceeded, RunFailed, RunCancelled, RunHeld))


class ListedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run in few words; `outcome`: promoted, rejected, finished, failed, cancelled, or active, yielded, held."""

    run: str
    pipeline: str
    kind: str
    policy: str
    position: int
    started_at: datetime
    outcome: str
    reason: str = ""
    ended_at: datetime | None = None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The latest runs, newest first."""

    runs: tuple[ListedRun, ...]


def living(state: State) -> dict[str, str]:
    """Return the runs that have not ended, each with how it stands."""
    found = {}
    for pipeline in state.pipelines.values():
        standing = {"active": pipeline.active, "yielded": pipeline.yielded, "held": pipeline.held}
        found.update({run.run: how for how, run in standing.items() if run is not None})
    return found


def latest(reader: Reader, alive: Mapping[str, str], limit: int) -> Listed:
    """Return the `limit` latest runs and all of `alive`; raises JournalError."""
    head, window = reader.head(), WINDOW
    while True:
        records = list(scan_where(reader, max(0, head - window), kinds=KINDS, upto=head))
        starts = [record for record in records if isinstance(record.event, RunStarted)]
        if len(starts) >= limit or window >= head:
            break
        window *= 2
    endings = {record.event.run: record for record in records if isinstance(record.event, ENDINGS)}
    chosen = {each.run: each for each in _listed(starts[-limit:], alive, endings)}
    for run in alive:
        if run not in chosen:
            begun = scan_where(reader, 0, kinds={RunStarted.kind}, run=run)
            chosen.update({each.run: each for each in _listed(list(begun), alive, endings)})
    return Listed(runs=tuple(sorted(chosen.values(), key=lambda each: -each.position)))


def _listed(starts: list[Record], alive: Mapping[str, str], endings: Mapping[str, Record]) -> Iterator[ListedRun]:
    for record in starts:
        event = record.event
        if not isinstance(event, RunStarted):
            continue
        ending = endings.get(event.run)
        outcome, reason = _outcome(ending)
        yield ListedRun(
            run=event.run,
            pipeline=record.pipeline or "",
            kind=event.plan.kind,
            policy=event.policy,
            position=record.position,
            started_at=record.recorded_at,
            outcome=alive.get(event.run, outcome),
            reason=reason,
            ended_at=ending.recorded_at if ending is not None and event.run not in alive else None,
        )


def _outcome(ending: Record | None) -> tuple[str, str]:
    match ending.event if ending is not None else None:
        case RunSucceeded(outcome=outcome):
            return outcome, ""
        case RunFailed(failure=failure, reason=reason):
            return "failed", f"{failure}: {reason}"
        case RunCancelled(reason=reason):
            return "cancelled", reason
        case RunHeld(reason=reason):
            return "held", reason
        case _:
            return "active", ""
