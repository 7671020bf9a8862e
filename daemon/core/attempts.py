"""The fold of an attempt: ordered, started, measured, ended; and of the champion that it made."""

from msgspec.structs import replace

from daemon.core import arrivals, signals
from daemon.core.commands import KillStage, RunStage
from daemon.core.events import (
    CheckpointSaved,
    ModelEvaluated,
    ModelPromoted,
    ProbeMeasured,
    Record,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
from daemon.core.ledger import charge
from daemon.core.plans import add
from daemon.core.state import Failures, Model, Order, Pipeline, Progress, Run, lowest

FIRST = frozenset({"scratch", "folder"})
"""The starts of a model that later retrains may begin from: it continues no champion."""
DRAINED = "drain"
"""What `failures.last` is while the stage stands still because a daemon drained."""

AttemptEvent = (
    StageStarted
    | StageProgressed
    | CheckpointSaved
    | StageSucceeded
    | StageFailed
    | StageInterrupted
    | ProbeMeasured
    | ModelEvaluated
    | ModelPromoted
)


def is_current(pipeline: Pipeline, event: StageEvent) -> bool:
    """Return whether an attempt is the one that was ordered: only its outcome counts."""
    run = pipeline.active
    if run is None or event.run != run.run:
        return False
    ordered = run.order
    return ordered is not None and event.stage == ordered.stage and event.attempt == ordered.attempt


def order(run: Run, command: str, ordered: RunStage, record: Record) -> Run:
    """Put a stage attempt on the run: from here on the dispatcher sees it."""
    changed = ordered.stage != run.stage
    return replace(
        run,
        stage=ordered.stage,
        attempts={**run.attempts, ordered.stage: ordered.attempt},
        order=Order(
            command=command,
            run=run.run,
            stage=ordered.stage,
            attempt=ordered.attempt,
            resume=ordered.resume,
            ordered_at=record.recorded_at,
            remedy=ordered.remedy,
        ),
        done=False,
        remedy=ordered.remedy,
        failures=Failures() if changed else run.failures,
        progress=Progress(),
        checkpoint_step=0 if changed else run.checkpoint_step,
    )


def lose(run: Run, killed: KillStage) -> Run:
    """Mark the attempt that is at work as lost: the dispatcher ends it."""
    ordered = run.order
    if ordered is None or (ordered.stage, ordered.attempt) != (killed.stage, killed.attempt):
        return run
    return replace(run, order=replace(ordered, lost=killed.failure))


def attempt_event(pipeline: Pipeline, record: Record, event: AttemptEvent) -> Pipeline | str:
    """Fold what the current attempt of a stage tells."""
    run = pipeline.active
    if run is None or run.order is None or not is_current(pipeline, event):
        return "stale_attempt"
    match event:
        case StageStarted():
            begun = replace(run.order, started=True, started_at=record.recorded_at, host=event.host, pid=event.pid)
            run = replace(run, order=begun)
        case StageProgressed():
            run = replace(run, progress=Progress(step=event.step, steps=event.steps))
        case CheckpointSaved():
            failures = run.failures
            if event.step > run.checkpoint_step:
                failures = replace(failures, without_progress=0)
            run = replace(run, checkpoint_step=event.step, failures=failures)
        case StageSucceeded():
            pipeline, run = _charged(pipeline, run, record)
            run = replace(run, order=None, done=True)
            if run.stage == "evaluate" and run.plan.kind == "retrain":
                pipeline = replace(pipeline, retrained=record.position)
        case StageFailed() | StageInterrupted():
            failures = _failed(run, event)
            pipeline, run = _charged(pipeline, run, record)
            run = replace(run, order=None, failures=failures)
        case ProbeMeasured():
            run = replace(
                run,
                shift=event.shift,
                probe_new=event.new,
                probe_past=event.past,
                near_duplicates=event.near_duplicates,
                law=event.law,
                expected_gain=event.expected_gain,
            )
            pipeline = signals.read(pipeline, record, event)
        case ModelEvaluated():
            run = replace(run, evaluation=event.domains)
            pipeline = signals.read(pipeline, record, event)
        case ModelPromoted():
            return _promoted(pipeline, run, record, event)
    return replace(pipeline, active=run)


def _failed(run: Run, event: StageFailed | StageInterrupted) -> Failures:
    if run.stop is not None:
        return run.failures
    if isinstance(event, StageInterrupted) and event.reason == "drain":
        return replace(run.failures, last=DRAINED, message=event.message)  # the daemon asked for it: no failure
    before, failure = run.failures, _failure(run.order, event)
    step = event.step if isinstance(event, StageFailed) else None
    documents = event.documents if isinstance(event, StageFailed) else ()
    return Failures(
        total=before.total + 1,
        without_progress=before.without_progress + 1,
        last=failure,
        message=event.message,
        classes={**before.classes, failure: before.classes.get(failure, 0) + 1},
        step=step,
        documents=documents,
        again=failure == before.last and step is not None and (step, documents) == (before.step, before.documents),
    )


def _charged(pipeline: Pipeline, run: Run, record: Record) -> tuple[Pipeline, Run]:
    """Charge the attempt that has ended to the day and the month, and to its run."""
    order = run.order
    if order is None:
        return pipeline, run
    begun = order.started_at or order.ordered_at
    processes = run.plan.training.engine.processes if order.stage == "train" else 1
    seconds = max(0.0, (record.recorded_at - begun).total_seconds()) * processes
    spent = charge(pipeline.spent, begun, record.recorded_at, processes)
    return replace(pipeline, spent=spent), replace(run, seconds=run.seconds + seconds)


def _failure(ordered: Order | None, event: StageFailed | StageInterrupted) -> str:
    if isinstance(event, StageFailed):
        return event.failure
    if ordered is not None and ordered.lost:
        return ordered.lost
    return "hang" if event.reason == "hang" else "worker_lost"


def _promoted(pipeline: Pipeline, run: Run, record: Record, event: ModelPromoted) -> Pipeline | str:
    if run.promoted:
        return "already_promoted"
    if run.stop == "cancel":
        # It was published, but too late: what it builds on may have been rolled back. The version is not used again.
        ignored = {**pipeline.ignored, "promoted_too_late": pipeline.ignored.get("promoted_too_late", 0) + 1}
        return replace(pipeline, versions=max(pipeline.versions, event.model_version), ignored=ignored)
    before = _line(pipeline, run)
    past = pipeline.champion.past if pipeline.champion else {}
    follows = run.plan.kind == "increment"
    increments = pipeline.increments + 1 if follows else 0
    model = Model(
        version=event.model_version,
        run=run.run,
        path=event.path,
        sha256=event.sha256,
        trunk=event.trunk,
        parent=event.parent,
        losses=event.losses,
        past=add(past, run.plan.new),
        promoted_at=record.recorded_at,
        position=record.position,
        best=lowest(before.best if before else {}, event.losses),
        trained=run.plan.training.tokens + (before.trained if before else 0),
        increments=increments,
        full_at=pipeline.champion.fully_trained_at if follows and pipeline.champion else None,
        forgotten=_forgotten(pipeline, run),
    )
    pipeline = arrivals.consumed(pipeline, run)
    return replace(
        pipeline,
        failed_upto=0,
        active=replace(run, promoted=True),
        champion=model,
        previous=pipeline.champion,
        base=model if run.plan.start.kind in FIRST else pipeline.base,
        versions=max(pipeline.versions, event.model_version),
        increments=increments,
        retrained=pipeline.retrained if follows else record.position,
    )


def _forgotten(pipeline: Pipeline, run: Run) -> dict[str, float]:
    """Return what was forgotten since the last full training, with what this increment adds."""
    if run.plan.kind != "increment":
        return {}
    total = dict(pipeline.champion.forgotten) if pipeline.champion else {}
    for domain, rise in signals.forgetting(run.plan, run.evaluation).items():
        total[domain] = total.get(domain, 0.0) + rise
    return total


def _line(pipeline: Pipeline, run: Run) -> Model | None:
    """Return the model that the run continued."""
    return {"champion": pipeline.champion, "base": pipeline.base}.get(run.plan.start.kind)
