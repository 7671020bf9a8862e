"""A run's story, out of the journal: frozen values without any formatting."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from daemon import backfill
from daemon.core.arrivals import amount_of
from daemon.core.errors import RewarmError
from daemon.core.events import (
    Comparison,
    DataArrived,
    DataCurated,
    DataIngested,
    DataRejected,
    DecisionMade,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    ModelRolledBack,
    Numbers,
    OperatorRequested,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Amount, Plan, Span
from daemon.journal.base import Reader

E = TypeVar("E")
MOST_ARRIVALS = 200
PAGE = 1000
STARTS = frozenset({RunStarted.kind})
RECOVERIES = frozenset({"ending", "watching", "replaced_already", "retry", "backing_off", "given_up", "failed"})


class UnknownRun(RewarmError):
    """No run has this name; the message names the latest ones."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival that the run was for; `exact` once ingest has counted it, `refused` if it could not be used.

    `place` is where in a topic it lay, `traceparent` the trace that it belongs to; "" for none.
    """

    position: int
    recorded_at: datetime
    source: str
    id: str
    domain: str
    uri: str
    estimate: Amount
    exact: Amount | None = None
    duplicates: int = 0
    refused: str | None = None
    place: str = ""
    traceparent: str = ""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A stored decision."""

    position: int
    recorded_at: datetime
    policy: str
    version: int
    verdict: str
    reason: str
    inputs: Numbers
    thresholds: Numbers
    suppressed_by: str | None
    shadow: bool = False


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a stage; `seconds` is None while it goes on."""

    number: int
    started_at: datetime
    outcome: Literal["going on", "succeeded", "failed", "interrupted"] = "going on"
    seconds: float | None = None
    metrics: dict[str, float] = {}
    message: str = ""


class StageTold(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of the run with all its attempts."""

    stage: str
    attempts: tuple[Attempt, ...]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended: promoted, rejected, finished, failed, cancelled, held; or `active`."""

    outcome: str
    reason: str = ""
    at: datetime | None = None
    seconds: float | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of causes of a run, from what arrived to where its files lie.

    `traceparent` is that of the fact that led to its start; `asked` says who did where it was a person's request.
    """

    run: str
    pipeline: str
    started_at: datetime
    started_position: int
    arrivals: tuple[Arrived, ...]
    further_arrivals: int
    again: tuple[backfill.Again, ...]
    decision: Decided | None
    waited: float
    drafted: Plan
    plan: Plan
    planned_by: Decided | None
    stages: tuple[StageTold, ...]
    recoveries: tuple[Decided, ...]
    probe: ProbeMeasured | None
    curated: DataCurated | None
    evaluation: dict[str, Comparison]
    judgement: Decided | None
    shadows: tuple[Decided, ...]
    promoted: ModelPromoted | None
    rolled_back: ModelRolledBack | None
    interludes: tuple[str, ...]
    ending: Ending
    traceparent: str = ""
    asked: str = ""


def runs(reader: Reader, pipeline: str | None = None) -> list[Record]:
    """Return the starts of all runs, in order."""
    found: list[Record] = []
    after = 0
    while page := reader.records(after, PAGE, kinds=STARTS, pipeline=pipeline):
        found += page
        after = page[-1].position
    return found


def tell(reader: Reader, run: str) -> Story:
    """Return a run's story; raises UnknownRun when there is none of that name."""
    records = _all(reader, run)
    started = next((record for record in records if isinstance(record.event, RunStarted)), None)
    if started is None or not isinstance(started.event, RunStarted):
        known = [r.event.run for r in runs(reader) if isinstance(r.event, RunStarted)]
        listed = ", ".join(known[-10:]) or "none yet"
        earlier = f" (and {len(known) - 10} before)" if len(known) > 10 else ""  # noqa: PLR2004 - as many as are named
        raise UnknownRun(f"There is no run {run!r}. Runs: {listed}{earlier}.")
    event, pipeline = started.event, started.pipeline or ""
    told = [decided(r, r.event) for r in records if isinstance(r.event, DecisionMade)]
    decisions = [each for each in told if not each.shadow]
    arrivals, further = _arrivals(reader, pipeline, event.plan.spans)
    plans = [r for r in records if isinstance(r.event, PlanFixed)]
    plan = plans[-1].event.plan if plans and isinstance(plans[-1].event, PlanFixed) else event.plan
    wish, cause = _wish(reader, pipeline, event), _cause(reader, event)
    return Story(
        run=run,
        pipeline=pipeline,
        started_at=started.recorded_at,
        started_position=started.position,
        arrivals=_counted(arrivals, records),
        further_arrivals=further,
        again=tuple(backfill.behind(reader, pipeline, started.position, event.plan.spans)),
        decision=wish,
        waited=(started.recorded_at - wish.recorded_at).total_seconds() if wish else 0.0,
        drafted=event.plan,
        plan=plan,
        planned_by=next((d for d in reversed(decisions) if d.verdict == "planned"), None),
        stages=_stages(records),
        recoveries=tuple(d for d in decisions if d.verdict in RECOVERIES or d.verdict.startswith("failure_")),
        probe=_last(records, ProbeMeasured),
        curated=_last(records, DataCurated),
        evaluation=evaluated.domains if (evaluated := _last(records, ModelEvaluated)) else {},
        judgement=next((d for d in reversed(decisions) if d.verdict in {"promote", "reject", "hold", "held"}), None),
        shadows=tuple(each for each in told if each.shadow),
        promoted=_last(records, ModelPromoted),
        rolled_back=_last(records, ModelRolledBack),
        interludes=tuple(_interludes(records)),
        ending=_ending(records, started),
        traceparent=cause.carrier.traceparent if cause is not None and cause.carrier is not None else "",
        asked=_asked(cause),
    )


def _all(reader: Reader, run: str) -> list[Record]:
    found: list[Record] = []
    after = 0
    while page := reader.records(after, PAGE, run=run):
        found += page
        after = page[-1].position
    return found


def _last(records: Sequence[Record], kind: type[E]) -> E | None:
    return next((r.event for r in reversed(records) if isinstance(r.event, kind)), None)


def decided(record: Record, event: DecisionMade) -> Decided:
    """Return a stored decision."""
    return Decided(
        position=record.position,
        recorded_at=record.recorded_at,
        policy=event.policy,
        version=event.policy_version,
        verdict=event.verdict,
        reason=event.reason,
        inputs=event.inputs,
        thresholds=event.thresholds,
        suppressed_by=event.suppressed_by,
        shadow=event.shadow,
    )


def _wish(reader: Reader, pipeline: str, started: RunStarted) -> Decided | None:
    """Return the decision whose command the run carries out: the id names the position of its cause."""
    cause = started.command.partition("/")[0]
    policy = started.command.rpartition("/")[0].rpartition("/")[2]
    if not cause.isdecimal():
        return None
    for record in reader.records(int(cause), 100, kinds={DecisionMade.kind}, pipeline=pipeline):
        if record.cause != int(cause):
            break
        if isinstance(record.event, DecisionMade) and record.event.policy == policy and _acts(record.event):
            return decided(record, record.event)
    return None


def _acts(decision: DecisionMade) -> bool:
    return bool(decision.commands) and not decision.shadow


def _cause(reader: Reader, started: RunStarted) -> Record | None:
    """Return the fact that led to a run's start."""
    cause = started.command.partition("/")[0]
    page = reader.records(int(cause) - 1, 1, upto=int(cause)) if cause.isdecimal() else []
    return page[0] if page else None


def _asked(cause: Record | None) -> str:
    """Return a person's request in words; "" for any other fact."""
    if cause is None or not isinstance(cause.event, OperatorRequested):
        return ""
    event = cause.event
    return f"{event.verb} by {event.by or 'unknown'}{event.reason and f': {event.reason}'} (#{cause.position})"


def _arrivals(reader: Reader, pipeline: str, spans: Iterable[Span]) -> tuple[list[Record], int]:
    found: list[Record] = []
    for span in spans:
        after = span.after
        while page := reader.records(after, PAGE, upto=span.upto, kinds={DataArrived.kind}, pipeline=pipeline):
            found += page
            after = page[-1].position
    return found[:MOST_ARRIVALS], max(0, len(found) - MOST_ARRIVALS)


def _counted(arrivals: Iterable[Record], records: Sequence[Record]) -> tuple[Arrived, ...]:
    exact = {r.event.arrival: r.event for r in records if isinstance(r.event, DataIngested)}
    refused = {r.event.arrival: r.event for r in records if isinstance(r.event, DataRejected)}
    told = []
    for record in arrivals:
        if not isinstance(record.event, DataArrived):
            continue
        ingested, rejected = exact.get(record.position), refused.get(record.position)
        told.append(
            Arrived(
                position=record.position,
                recorded_at=record.recorded_at,
                source=record.source,
                id=record.id,
                domain=record.event.domain,
                uri=record.event.uri,
                estimate=amount_of(record.event),
                exact=ingested.amount if ingested else None,
                duplicates=ingested.duplicates if ingested else 0,
                refused=f"{rejected.reason}: {rejected.message}" if rejected else None,
                place=record.carrier.place if record.carrier else "",
                traceparent=record.carrier.traceparent if record.carrier else "",
            )
        )
    return tuple(told)


def _stages(records: Sequence[Record]) -> tuple[StageTold, ...]:
    stages: dict[str, dict[int, Attempt]] = {}
    for record in records:
        event = record.event
        if not isinstance(event, StageEvent):
            continue
        attempts = stages.setdefault(event.stage, {})
        begun = attempts.get(event.attempt)
        at = record.time or record.recorded_at
        if isinstance(event, StageStarted) or begun is None:
            begun = attempts[event.attempt] = Attempt(number=event.attempt, started_at=at)
        passed = max(0.0, (at - begun.started_at).total_seconds())
        match event:
            case StageSucceeded():
                attempts[event.attempt] = _ended(begun, "succeeded", event.seconds, "", event.metrics)
            case StageFailed():
                attempts[event.attempt] = _ended(begun, "failed", passed, f"{event.failure}: {event.message}")
            case StageInterrupted():
                attempts[event.attempt] = _ended(
                    begun, "interrupted", passed, f"{event.reason} {event.message}".strip()
                )
            case _:
                pass
    return tuple(StageTold(stage=stage, attempts=tuple(attempts.values())) for stage, attempts in stages.items())


def _ended(
    begun: Attempt,
    outcome: Literal["succeeded", "failed", "interrupted"],
    seconds: float,
    message: str,
    metrics: dict[str, float] | None = None,
) -> Attempt:
    return Attempt(
        number=begun.number,
        started_at=begun.started_at,
        outcome=outcome,
        seconds=round(seconds, 3),
        metrics=metrics or {},
        message=message,
    )


def _interludes(records: Sequence[Record]) -> Iterable[str]:
    """Yield what came between start and end: the run was preempted, held, or taken up again."""
    for record in records:
        match record.event:
            case RunPreempted():
                yield f"It gave its slot to a more urgent run before {record.event.stage}, and saved a checkpoint."
            case RunHeld():
                yield f"It was held: {record.event.reason}"
            case DecisionMade(verdict="approved" | "thawed", reason=reason):
                yield reason
            case RunResumed():
                yield f"It was taken up again at {record.event.stage}."
            case _:
                pass


def _ending(records: Sequence[Record], started: Record) -> Ending:
    for record in reversed(records):
        event = record.event
        match event:
            case RunSucceeded():
                return _end(event.outcome, "", record, started)
            case RunFailed():
                return _end("failed", f"{event.failure}: {event.reason}", record, started)
            case RunPostponed():
                return _end("postponed", event.reason, record, started)
            case RunCancelled():
                return _end("cancelled", event.reason, record, started)
            case RunHeld():
                return _end("held", event.reason, record, started)
            case RunResumed() | RunStarted():
                break
            case _:
                pass
    return Ending(outcome="active")


def _end(outcome: str, reason: str, record: Record, started: Record) -> Ending:
    seconds = (record.recorded_at - started.recorded_at).total_seconds()
    return Ending(outcome=outcome, reason=reason, at=record.recorded_at, seconds=round(seconds, 3))


def forgetting(story_plan: Plan, evaluation: dict[str, Comparison]) -> dict[str, Loss]:
    """Return the rise of the loss on older domains, by domain, with its interval."""
    return {d: c.on_old for d, c in evaluation.items() if c.on_old is not None and d in story_plan.past}


def gains(story_plan: Plan, evaluation: dict[str, Comparison]) -> dict[str, Loss]:
    """Return the change of the loss on new domains, by domain: negative is a gain."""
    return {d: c.on_new for d, c in evaluation.items() if c.on_new is not None and d in story_plan.new}
