"""The fold of a run's life: ordered, started, stopped, held, promoted, ended."""

from datetime import datetime

from msgspec.structs import replace

from daemon.core import arrivals
from daemon.core.commands import KillStage, ResumeRun, RunStage, StartRun, command_id
from daemon.core.events import (
    CheckpointSaved,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Plan, add, subtract
from daemon.core.state import Ended, Failures, Model, Order, Pipeline, Progress, Run, Wish

FIRST = frozenset({"scratch", "folder"})
"""The starts of a model that later retrains may begin from: it continues no champion."""
DRAINED = "drain"
"""What `failures.last` is while the stage stands still because a daemon drained."""

RunEvent = (
    RunStarted
    | RunResumed
    | PlanFixed
    | RunHeld
    | RunPreempted
    | RunSucceeded
    | RunFailed
    | RunCancelled
    | ModelRejected
    | ModelRolledBack
)
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
        ),
        done=False,
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
            run = replace(run, order=replace(run.order, started=True, host=event.host, pid=event.pid))
        case StageProgressed():
            run = replace(run, progress=Progress(step=event.step, steps=event.steps))
        case CheckpointSaved():
            failures = run.failures
            if event.step > run.checkpoint_step:
                failures = replace(failures, without_progress=0)
            run = replace(run, checkpoint_step=event.step, failures=failures)
        case StageSucceeded():
            run = replace(run, order=None, done=True)
        case StageFailed() | StageInterrupted():
            run = replace(run, order=None, failures=_failed(run, event))
        case ProbeMeasured():
            run = replace(
                run,
                shift=event.shift,
                probe_new=event.new,
                probe_past=event.past,
                near_duplicates=event.near_duplicates,
                law=event.law,
            )
        case ModelEvaluated():
            run = replace(run, evaluation=event.domains)
        case ModelPromoted():
            return _promoted(pipeline, run, record, event)
    return replace(pipeline, active=run)


def _failed(run: Run, event: StageFailed | StageInterrupted) -> Failures:
    if run.stop is not None:
        return run.failures
    if isinstance(event, StageInterrupted) and event.reason == "drain":
        return replace(run.failures, last=DRAINED, message=event.message)  # the daemon asked for it: no failure
    return Failures(
        total=run.failures.total + 1,
        without_progress=run.failures.without_progress + 1,
        last=_failure(run.order, event),
        message=event.message,
    )


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
    best = before.best if before else {}
    past = pipeline.champion.past if pipeline.champion else {}
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
        best={**best, **{name: min(loss, best.get(name, loss)) for name, loss in event.losses.items()}},
        trained=run.plan.training.tokens + (before.trained if before else 0),
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
        increments=pipeline.increments + 1 if run.plan.kind == "increment" else 0,
    )


def _line(pipeline: Pipeline, run: Run) -> Model | None:
    """Return the model that the run continued."""
    return {"champion": pipeline.champion, "base": pipeline.base}.get(run.plan.start.kind)


def run_event(pipeline: Pipeline, record: Record, event: RunEvent) -> Pipeline | str:  # noqa: PLR0911, C901 - one return a case
    """Fold a step of a run that the daemon recorded."""
    run = pipeline.active
    match event:
        case RunStarted():
            return _started(pipeline, record, event) if run is None else "pipeline_is_busy"
        case RunResumed():
            return _resumed(pipeline, record, event) if run is None else "pipeline_is_busy"
        case RunCancelled():
            return _cancelled(pipeline, record, event)
        case ModelRolledBack():
            return _rolled_back(pipeline, event)
        case _ if run is None or run.run != event.run:
            return "not_the_active_run"
        case PlanFixed():
            return replace(pipeline, active=replace(run, plan=event.plan))
        case RunHeld():
            superseded = pipeline.held.plan.new if pipeline.held else {}
            held = replace(run, order=None, approved=False)
            pipeline = arrivals.consumed(pipeline, run)
            pipeline = replace(pipeline, held=held, set_aside=add(pipeline.set_aside, superseded))
            return _ended(pipeline, record, run.run, "held")
        case RunPreempted():
            return _preempted(pipeline, record, run, event)
        case ModelRejected():
            pipeline = arrivals.consumed(pipeline, run)
            return replace(pipeline, set_aside=add(pipeline.set_aside, event.amounts))
        case RunSucceeded():
            if event.outcome == "finished":
                pipeline = arrivals.consumed(pipeline, run)
            counts = replace(pipeline.runs, succeeded=pipeline.runs.succeeded + 1)
            return _ended(replace(pipeline, runs=counts), record, run.run, event.outcome)
        case RunFailed():
            counts = replace(pipeline.runs, failed=pipeline.runs.failed + 1)
            given_back = _given_back(replace(pipeline, runs=counts, failed_upto=_upto(pipeline, run)), run)
            return _ended(given_back, record, run.run, "failed")


def resume_key(policy: str) -> str:
    """Return the key of a policy's wish to take a run up again, beside its wish to start."""
    return f"{policy}:resume"


def wish_key(policy: str, wanted: StartRun | ResumeRun) -> str:
    """Return the key under which a policy's wish stands."""
    return policy if isinstance(wanted, StartRun) else resume_key(policy)


def _started(pipeline: Pipeline, record: Record, event: RunStarted) -> Pipeline | str:
    if not event.plan.stages:
        return "plan_without_stages"
    adopts = event.plan.kind == "adopt"  # asked for by a person: it yields to nobody, and the gate is open to it
    run = Run(
        run=event.run,
        policy=event.policy,
        command=event.command,
        plan=event.plan,
        intent=event.intent,
        priority=event.intent.priority,
        preemptible=not event.passed_over and not adopts,
        started_at=record.recorded_at,
        started_position=record.position,
        waiting_since=pipeline.waiting_since,
        stage="",
        forced=adopts,
    )
    first = RunStage(run=event.run, stage=event.plan.stages[0], attempt=1)
    return replace(
        pipeline,
        active=order(run, event.command, first, record),
        wishes=_passed_over(pipeline, event.policy),
        waiting_since=None if _takes_all(pipeline, event.plan) else pipeline.waiting_since,
    )


def _takes_all(pipeline: Pipeline, plan: Plan) -> bool:
    """Return whether nothing is left pending; what came after the request is not of an adoption."""
    return any(span.upto >= pipeline.last_arrival for span in plan.spans)


def _resumed(pipeline: Pipeline, record: Record, event: RunResumed) -> Pipeline | str:
    run = next((r for r in (pipeline.held, pipeline.yielded) if r is not None and r.run == event.run), None)
    if run is None:
        return "no_such_waiting_run"
    was_held = run is pipeline.held
    run = replace(run, stop=None, approved=run.approved or was_held, forced=run.forced or event.forced)
    again = RunStage(run=run.run, stage=event.stage, attempt=run.attempts.get(event.stage, 0) + 1, resume=not was_held)
    key = next((k for k, wish in pipeline.wishes.items() if wish.resume == event.run), "")
    return replace(
        pipeline,
        active=order(run, event.command, again, record),
        held=None if was_held else pipeline.held,
        yielded=pipeline.yielded if was_held else None,
        wishes=_passed_over(pipeline, key),
    )


def _preempted(pipeline: Pipeline, record: Record, run: Run, event: RunPreempted) -> Pipeline | str:
    if pipeline.yielded is not None:
        return "another_run_has_yielded"
    yielded = replace(run, stage=event.stage, order=None, stop=None, done=False, preempted=run.preempted + 1)
    if event.stage != run.stage:
        yielded = replace(yielded, failures=Failures(), checkpoint_step=0)
    key = resume_key(run.policy)
    wish = Wish(
        policy=run.policy,
        command=command_id(record.cause or record.position, pipeline.name, key, 0),
        since=record.position,
        since_at=record.recorded_at,
        priority=run.priority,
        resume=run.run,
    )
    return _given_back(replace(pipeline, active=None, yielded=yielded, wishes={**pipeline.wishes, key: wish}), run)


def _given_back(pipeline: Pipeline, run: Run) -> Pipeline:
    """Give a run's arrivals back: to the pending ones, where they still count, or, of a candidate, set aside."""
    if run.promoted or not run.plan.spans:
        return pipeline
    if run.consumed or run is pipeline.held:
        return replace(pipeline, set_aside=add(pipeline.set_aside, run.plan.new))
    return replace(pipeline, waiting_since=run.waiting_since or pipeline.waiting_since)


def _passed_over(pipeline: Pipeline, chosen: str) -> dict[str, Wish]:
    return {key: replace(w, passed_over=True) for key, w in pipeline.wishes.items() if key != chosen}


def _cancelled(pipeline: Pipeline, record: Record, event: RunCancelled) -> Pipeline | str:
    run = next(
        (r for r in (pipeline.active, pipeline.yielded, pipeline.held) if r is not None and r.run == event.run),
        None,
    )
    if run is None:
        return "not_a_living_run"
    counts = replace(pipeline.runs, cancelled=pipeline.runs.cancelled + 1)
    wishes = {key: wish for key, wish in pipeline.wishes.items() if wish.resume != event.run}
    known = {policy.name for policy in pipeline.settings.policies} if pipeline.settings else set()
    if event.again and run.policy in known and run.policy not in wishes:
        wishes[run.policy] = Wish(
            policy=run.policy,
            command=command_id(record.cause or record.position, pipeline.name, f"{run.policy}:again", 0),
            since=record.position,
            since_at=record.recorded_at,
            priority=run.priority,
            intent=run.intent,
        )
    was_active = run is pipeline.active
    blocked = _upto(pipeline, run) if was_active and not event.again else pipeline.failed_upto
    pipeline = replace(
        _given_back(pipeline, run),
        runs=counts,
        wishes=wishes,
        timers=_without(pipeline.timers, run.run),
        fired=_without(pipeline.fired, run.run),
        failed_upto=blocked,
        yielded=None if run is pipeline.yielded else pipeline.yielded,
        held=None if run is pipeline.held else pipeline.held,
    )
    return _ended(pipeline, record, run.run, "cancelled") if was_active else pipeline


def _rolled_back(pipeline: Pipeline, event: ModelRolledBack) -> Pipeline | str:
    champion, previous = pipeline.champion, pipeline.previous
    if champion is None or previous is None or previous.version != event.model_version:
        return "no_previous_champion"
    aside = add(pipeline.set_aside, subtract(champion.past, previous.past))
    base = pipeline.base
    if base is not None and base.version == champion.version:
        base = previous  # what was rolled back is never continued, not by a retrain from the base either
    return replace(pipeline, champion=previous, previous=None, base=base, set_aside=aside)


def _upto(pipeline: Pipeline, run: Run) -> int:
    return max((span.upto for span in run.plan.spans), default=pipeline.last_arrival)


def _ended(pipeline: Pipeline, record: Record, run: str, outcome: str) -> Pipeline:
    last = Ended(run=run, outcome=outcome, position=record.position, at=record.recorded_at)
    timers, fired = _without(pipeline.timers, run), _without(pipeline.fired, run)
    return replace(pipeline, active=None, last=last, timers=timers, fired=fired)


def _without(timers: dict[str, datetime], run: str) -> dict[str, datetime]:
    """Return the wake-ups that were not asked under the run's id."""
    return {key: at for key, at in timers.items() if not key.endswith(f":{run}")}
