"""The fold: `evolve(state, record)` is the state after one more record. Pure and total.

What is stale, unknown or contradictory changes nothing but a counter with its reason (`Pipeline.ignored`).
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final, assert_never

from msgspec.structs import replace

from daemon.core import arrivals, attempts, failures, runs, shadows, signals
from daemon.core.commands import (
    CancelRun,
    KillStage,
    PreemptRun,
    ResumeRun,
    RunStage,
    StartRun,
    WithdrawWish,
    command_id,
)
from daemon.core.decisions import OPERATOR, SEQUENCE
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    DataArrived,
    DataCurated,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    DecisionMade,
    DriftDetected,
    EvaluationReported,
    FailureReported,
    FilesExpired,
    InputRejected,
    LabelArrived,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    OperatorRequested,
    PipelineSettings,
    PlanFixed,
    PositionSet,
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
    ScheduleFired,
    SourceDegraded,
    SourceRecovered,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import subtract
from daemon.core.state import Pipeline, Run, Scheduled, State, Topic, Verdict, Wish, timer_key, topic_key

NEVER: Final = datetime.min.replace(tzinfo=UTC)
ABOUT_DEAD_LETTERS: Final = (InputRejected, OperatorRequested)
REDUCER_VERSION: Final = 5
"""Changes whenever `evolve` folds a record, or `react` answers it, differently; older snapshots are rebuilt."""


def evolve(state: State, record: Record) -> State:
    """Return the state after `record`."""
    if record.pipeline is not None:
        pipeline = state.pipelines.get(record.pipeline)
        if pipeline is None:
            dead = _dead_letters(state, record.event)
            return replace(state, position=record.position, recorded_at=record.recorded_at, dead_letters=dead)
        folded = _fold(pipeline, record)
        if isinstance(folded, str):
            folded = replace(pipeline, ignored={**pipeline.ignored, folded: pipeline.ignored.get(folded, 0) + 1})
        pipelines = state.pipelines.copy()
        pipelines[record.pipeline] = folded
        state = replace(state, position=record.position, recorded_at=record.recorded_at, pipelines=pipelines)
        if isinstance(record.event, ABOUT_DEAD_LETTERS):
            return replace(state, dead_letters=_dead_letters(state, record.event))
        return state
    return _fold_global(replace(state, position=record.position, recorded_at=record.recorded_at), record)


def _fold_global(state: State, record: Record) -> State:
    match record.event:
        case InputRejected() | OperatorRequested():
            return replace(state, dead_letters=_dead_letters(state, record.event))
        case DaemonStarted():
            # What does not work is told anew by whoever finds that it still does not.
            return replace(state, epoch=record.event.epoch, started_at=record.recorded_at, degraded={})
        case ConfigurationChanged():
            return _configured(state, record, record.event)
        case SourceDegraded():
            return replace(state, degraded={**state.degraded, record.event.name: record.event.reason})
        case SourceRecovered():
            rest = {name: why for name, why in state.degraded.items() if name != record.event.name}
            return replace(state, degraded=rest)
        case PositionSet(position=at):
            topic = Topic(cluster=at.cluster, topic_id=at.topic_id)
            return replace(state, topics={**state.topics, topic_key(at.source, at.topic): topic})
        case _:
            return state


def _dead_letters(state: State, event: AnyEvent) -> int:
    """Return how many dead letters nobody has retried or dropped; a rejected arrival (with spans) is none of them."""
    match event:
        case InputRejected():
            return state.dead_letters + 1
        case OperatorRequested(verb="retry" | "drop", dead_letter=int(), spans=()):
            return max(0, state.dead_letters - 1)
        case _:
            return state.dead_letters


def _fold(pipeline: Pipeline, record: Record) -> Pipeline | str:  # noqa: C901, PLR0911, PLR0912 - one return a case
    match record.event:
        case DataArrived():
            return arrivals.arrived(pipeline, record, record.event)
        case DataIngested():
            current = attempts.is_current(pipeline, record.event)
            return arrivals.ingested(pipeline, record.event) if current else "stale_attempt"
        case DecisionMade():
            return _decided(pipeline, record, record.event)
        case (
            StageStarted()
            | StageProgressed()
            | CheckpointSaved()
            | StageSucceeded()
            | StageFailed()
            | StageInterrupted()
            | ProbeMeasured()
            | ModelEvaluated()
            | ModelPromoted()
        ):
            return attempts.attempt_event(pipeline, record, record.event)
        case DataRejected():
            current = attempts.is_current(pipeline, record.event)
            return arrivals.rejected(pipeline, record.event) if current else "stale_attempt"
        case (
            RunStarted()
            | RunResumed()
            | PlanFixed()
            | RunHeld()
            | RunPreempted()
            | RunPostponed()
            | RunSucceeded()
            | RunFailed()
            | RunCancelled()
            | ModelRejected()
            | ModelRolledBack()
        ):
            return runs.run_event(pipeline, record, record.event)
        case TimerFired():
            return _fired(pipeline, record.event)
        case ScheduleFired():
            return _ticked(pipeline, record.event)
        case DataWithdrawn():
            return arrivals.withdrawn(pipeline, record.event)
        case OperatorRequested():
            return _requested(pipeline, record, record.event)
        case FailureReported():
            found = failures.at_work(pipeline, record.event)
            return found.word if isinstance(found, failures.Stray) else pipeline
        case EvaluationReported() | LabelArrived() | DriftDetected():
            return signals.read(pipeline, record, record.event)
        case DataCurated():
            return pipeline if attempts.is_current(pipeline, record.event) else "stale_attempt"
        case InputRejected() | FilesExpired():
            return pipeline
        case (
            DaemonStarted()
            | DaemonStopped()
            | ConfigurationChanged()
            | SourceDegraded()
            | SourceRecovered()
            | PositionSet()
        ):
            return "names_a_pipeline"
        case _:
            assert_never(record.event)


def _decided(pipeline: Pipeline, record: Record, event: DecisionMade) -> Pipeline:
    verdicts = {**pipeline.verdicts, event.policy: Verdict(verdict=event.verdict, position=record.position)}
    timers = pipeline.timers
    if event.wakes:
        wakes = {timer_key(event.policy, key): at for key, at in event.wakes.items()}
        # A wake-up that has been given is not given again: its id is in the journal already.
        timers = {**timers, **{key: at for key, at in wakes.items() if at > pipeline.fired.get(key, NEVER)}}
    pipeline = replace(pipeline, verdicts=verdicts, timers=timers)
    if event.shadow:
        return shadows.noted(pipeline, record, event)
    cause = record.cause or record.position
    for ordinal, command in enumerate(event.commands):
        identity = command_id(cause, pipeline.name, event.policy, ordinal)
        match command:
            case StartRun() | ResumeRun():
                pipeline = _wished(pipeline, record, event.policy, identity, command)
            case WithdrawWish():
                gone = command.wish or event.policy
                rest = {key: wish for key, wish in pipeline.wishes.items() if key != gone}
                pipeline = replace(pipeline, wishes=rest)
            case RunStage() if pipeline.active is not None and pipeline.active.run == command.run:
                pipeline = replace(pipeline, active=attempts.order(pipeline.active, identity, command, record))
            case KillStage() if pipeline.active is not None and pipeline.active.run == command.run:
                pipeline = replace(pipeline, active=attempts.lose(pipeline.active, command))
            case CancelRun() | PreemptRun() if pipeline.active is not None and pipeline.active.run == command.run:
                pipeline = replace(pipeline, active=_stopping(pipeline.active, command, event.reason))
            case _:
                pass
    return pipeline


def _wished(pipeline: Pipeline, record: Record, policy: str, command: str, wanted: StartRun | ResumeRun) -> Pipeline:
    """Let the wish stand; one that stands already keeps its age, and takes on what is wanted now."""
    key = runs.wish_key(policy, wanted)
    standing = pipeline.wishes.get(key)
    if standing is not None:
        if standing.wants(wanted):
            return pipeline
        record = replace(record, position=standing.since, recorded_at=standing.since_at)
    passed_over = standing is not None and standing.passed_over
    wish = Wish(
        policy=policy, command=command, since=record.position, since_at=record.recorded_at, passed_over=passed_over
    )
    if isinstance(wanted, StartRun):
        wish = replace(wish, intent=wanted.intent, priority=wanted.intent.priority)
    else:
        wish = replace(wish, resume=wanted.run, forced=wanted.forced)
    return replace(pipeline, wishes={**pipeline.wishes, key: wish})


def _stopping(run: Run, command: CancelRun | PreemptRun, reason: str) -> Run:
    if isinstance(command, CancelRun):
        return replace(run, stop="cancel", stop_reason=reason, stop_again=command.again)
    return run if run.stop else replace(run, stop="preempt", stop_reason=reason, stop_until=command.until)


def _fired(pipeline: Pipeline, event: TimerFired) -> Pipeline | str:
    key = timer_key(event.policy, event.key)
    if pipeline.timers.get(key) != event.due:
        return "timer_not_pending"
    timers = {k: at for k, at in pipeline.timers.items() if k != key}
    return replace(pipeline, timers=timers, fired={**pipeline.fired, key: event.due})


def _ticked(pipeline: Pipeline, event: ScheduleFired) -> Pipeline | str:
    schedule = pipeline.schedules.get(event.policy)
    if schedule is None or schedule.specification != event.specification:
        return "schedule_not_configured"
    if schedule.last is not None and event.scheduled_for <= schedule.last:
        return "schedule_fired_already"
    ticked = replace(schedule, last=event.scheduled_for)
    return replace(pipeline, schedules={**pipeline.schedules, event.policy: ticked})


def _requested(pipeline: Pipeline, record: Record, event: OperatorRequested) -> Pipeline | str:  # noqa: PLR0911 - one return a case
    match event.verb:
        case "pause":
            return replace(pipeline, paused=f"{event.by}: {event.reason}" if event.reason else event.by)
        case "resume":
            return replace(pipeline, paused=None)
        case "freeze":
            return replace(pipeline, frozen=f"{event.by}: {event.reason}" if event.reason else event.by)
        case "thaw":
            return replace(pipeline, frozen=None)
        case "accept":
            return arrivals.accepted(pipeline, record, event)
        case "backfill":
            return arrivals.backfilled(pipeline, record, event)
        case "retry" if event.dead_letter is not None and event.spans:
            return arrivals.readmitted(pipeline, record, event)
        case "drop" if event.dead_letter is None:
            return pipeline
        case "withdraw" | "drop":
            return replace(pipeline, set_aside=subtract(pipeline.set_aside, event.amounts))
        case "retry" if event.dead_letter is None:
            return replace(pipeline, failed_upto=0)
        case _:
            return pipeline


def _configured(state: State, record: Record, event: ConfigurationChanged) -> State:
    pipelines = {
        name: replace(old, settings=None, wishes={}, timers={}, schedules={}) for name, old in state.pipelines.items()
    }
    for name, settings in event.pipelines.items():
        old = state.pipelines.get(name) or Pipeline(name=name)
        known = {policy.name for policy in settings.policies} | {OPERATOR, SEQUENCE}
        shadowed = {policy.name for policy in settings.policies if policy.shadow}
        pipelines[name] = replace(
            old,
            settings=settings,
            wishes=_unbound(old.wishes, known),
            timers={key: at for key, at in old.timers.items() if key.partition(":")[0] in known},
            fired={key: at for key, at in old.fired.items() if key.partition(":")[0] in known},
            verdicts={policy: verdict for policy, verdict in old.verdicts.items() if policy in known},
            shadows={policy: shadow for policy, shadow in old.shadows.items() if policy in shadowed},
            signals=signals.kept(old.signals, settings.signals),
            schedules=_scheduled(old, record, settings),
        )
    return replace(state, configuration=event.hash, slots=event.slots, pipelines=pipelines)


def _unbound(wishes: Mapping[str, Wish], known: AbstractSet[str]) -> dict[str, Wish]:
    """Return wishes, those of policies that are gone without their instant: nobody would be woken at it."""
    return {key: wish if wish.policy in known else replace(wish, not_before=None) for key, wish in wishes.items()}


def _scheduled(old: Pipeline, record: Record, settings: PipelineSettings) -> dict[str, Scheduled]:
    """Return the schedules of the policies; one that stays the same keeps its age and its last tick."""
    schedules = {}
    for policy in settings.policies:
        if policy.schedule is not None:
            standing = old.schedules.get(policy.name)
            same = standing is not None and standing.specification == policy.schedule.specification
            begun = Scheduled(specification=policy.schedule.specification, since=record.recorded_at)
            schedules[policy.name] = standing if standing is not None and same else begun
    return schedules
