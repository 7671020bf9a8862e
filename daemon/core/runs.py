"""The fold of a run's life: started, resumed, postponed, held, preempted, ended."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from daemon.core import arrivals
from daemon.core.attempts import order
from daemon.core.commands import ResumeRun, RunStage, StartRun, command_id, policy_of
from daemon.core.decisions import OPERATOR
from daemon.core.events import (
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
)
from daemon.core.plans import NO_REMEDY, Claim, Plan, add, subtract, tokens
from daemon.core.state import Ended, Failures, Pipeline, Run, Wish, free_waited

POSTPONED = "postponed"
MAX_CLAIMS = 256

RunEvent = (
    RunStarted
    | RunResumed
    | PlanFixed
    | RunHeld
    | RunPreempted
    | RunPostponed
    | RunSucceeded
    | RunFailed
    | RunCancelled
    | ModelRejected
    | ModelRolledBack
)


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
            fixed = replace(run, plan=event.plan)
            if not run.intent.look:
                return replace(pipeline, active=fixed)
            fixed = replace(fixed, intent=replace(run.intent, look=False))  # it has looked, and trains
            return replace(_begun(pipeline, record, run.policy, run.intent.claim), active=fixed)
        case RunPostponed():
            given_back = _given_back(pipeline, run, record)
            left = replace(
                given_back, looked=run.plan.new, looked_at=record.recorded_at, looked_upto=_upto(pipeline, run)
            )
            return _ended(left, record, run.run, POSTPONED)
        case RunHeld():
            superseded = pipeline.held.plan.new if pipeline.held else {}
            held = replace(run, order=None, held=True, approved=False)
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
            if "train" in run.plan.stages:
                cost = pipeline.cost.after(run.plan.training.tokens, run.seconds)
                pipeline = replace(pipeline, cost=cost)
            return _ended(replace(pipeline, runs=counts), record, run.run, event.outcome)
        case RunFailed():
            counts = replace(pipeline.runs, failed=pipeline.runs.failed + 1)
            given_back = _given_back(replace(pipeline, runs=counts, failed_upto=_upto(pipeline, run)), run, record)
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
    takes_all = _takes_all(pipeline, event.plan)
    waited = free_waited(pipeline, record.recorded_at)
    if takes_all:
        run = replace(run, waited=waited)
    if not event.intent.look:
        pipeline = _begun(pipeline, record, event.policy, event.intent.claim)
    return replace(
        pipeline,
        active=order(run, event.command, first, record),
        wishes=_passed_over(pipeline, event.policy),
        waiting_since=None if takes_all else pipeline.waiting_since,
        waited=0.0 if takes_all else waited,
        waited_at=record.recorded_at,
    )


def _begun(pipeline: Pipeline, record: Record, policy: str, claim: Claim | None) -> Pipeline:
    """Note that a policy's training begins, and let it have its key."""
    begun = {**pipeline.begun, policy: record.recorded_at}
    if claim is None:
        return replace(pipeline, begun=begun)
    until = record.recorded_at + timedelta(seconds=claim.seconds)
    claims = {key: at for key, at in pipeline.claims.items() if at > record.recorded_at}
    claims = dict(sorted({**claims, claim.key: until}.items(), key=lambda each: each[1])[-MAX_CLAIMS:])
    return replace(pipeline, begun=begun, claims=claims)


def _takes_all(pipeline: Pipeline, plan: Plan) -> bool:
    """Return whether nothing is left pending; what came after the request is not of an adoption."""
    return any(span.upto >= pipeline.last_arrival for span in plan.spans)


def _resumed(pipeline: Pipeline, record: Record, event: RunResumed) -> Pipeline | str:
    run = next((r for r in (pipeline.held, pipeline.yielded) if r is not None and r.run == event.run), None)
    if run is None:
        return "no_such_waiting_run"
    was_held = run is pipeline.held
    by_person = was_held and policy_of(event.command) == OPERATOR  # a policy takes up again what it held, and judges
    run = replace(run, stop=None, approved=run.approved or by_person, forced=run.forced or event.forced)
    again = RunStage(
        run=run.run,
        stage=event.stage,
        attempt=run.attempts.get(event.stage, 0) + 1,
        resume=not was_held,
        remedy=run.remedy if event.stage == run.stage else NO_REMEDY,
    )
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
    yielded = replace(
        run, stage=event.stage, order=None, stop=None, stop_until=None, done=False, preempted=run.preempted + 1
    )
    if event.stage != run.stage:
        yielded = replace(yielded, failures=Failures(), checkpoint_step=0, remedy=NO_REMEDY)
    key = resume_key(run.policy)
    wish = Wish(
        policy=run.policy,
        command=command_id(record.cause or record.position, pipeline.name, key, 0),
        since=record.position,
        since_at=record.recorded_at,
        priority=run.priority,
        resume=run.run,
        not_before=event.until,
    )
    pipeline = _given_back(pipeline, run, record)
    wishes = pipeline.wishes
    if event.until is not None:  # what its policy wished meanwhile is bounded by the same
        mine = {k: replace(w, not_before=event.until) for k, w in wishes.items() if w.policy == run.policy}
        wishes = {**wishes, **mine}
    return replace(pipeline, active=None, yielded=yielded, wishes={**wishes, key: wish})


def _given_back(pipeline: Pipeline, run: Run, record: Record) -> Pipeline:
    """Give a run's arrivals back: to the pending ones, where they still count, or, of a candidate, set aside."""
    if run.promoted or not run.plan.spans:
        return pipeline
    if run.consumed or run is pipeline.held:
        return replace(pipeline, set_aside=add(pipeline.set_aside, run.plan.new))
    now = record.recorded_at
    waited = free_waited(pipeline, now) + run.waited
    if run is pipeline.active:
        waited += tokens(run.plan.new) * max(0.0, (now - run.started_at).total_seconds())
    since = run.waiting_since or pipeline.waiting_since
    return replace(pipeline, waiting_since=since, waited=waited, waited_at=now)


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
    known = {policy.name for policy in pipeline.settings.policies if not policy.shadow} if pipeline.settings else set()
    if event.again and run.policy in known and run.policy not in wishes:
        wishes[run.policy] = Wish(
            policy=run.policy,
            command=command_id(record.cause or record.position, pipeline.name, f"{run.policy}:again", 0),
            since=record.position,
            since_at=record.recorded_at,
            priority=run.priority,
            intent=replace(run.intent, expires_at=None),  # it was acted on in time
            not_before=run.stop_until,
        )
    was_active = run is pipeline.active
    blocked = _upto(pipeline, run) if was_active and not event.again else pipeline.failed_upto
    pipeline = replace(
        _given_back(pipeline, run, record),
        runs=counts,
        wishes=wishes,
        timers=_without(pipeline.timers, run.run),
        fired=_without(pipeline.fired, run.run),
        failed_upto=blocked,
        claims=_released(pipeline.claims, run) if event.again else pipeline.claims,
        yielded=None if run is pipeline.yielded else pipeline.yielded,
        held=None if run is pipeline.held else pipeline.held,
    )
    return _ended(pipeline, record, run.run, "cancelled") if was_active else pipeline


def _released(claims: dict[str, datetime], run: Run) -> dict[str, datetime]:
    """Return the keys that are taken without that of a run which begins again: its own must not keep it from that."""
    claim = run.intent.claim
    return claims if claim is None else {key: at for key, at in claims.items() if key != claim.key}


def _rolled_back(pipeline: Pipeline, event: ModelRolledBack) -> Pipeline | str:
    champion, previous = pipeline.champion, pipeline.previous
    if champion is None or previous is None or previous.version != event.model_version:
        return "no_previous_champion"
    aside = add(pipeline.set_aside, subtract(champion.past, previous.past))
    base = pipeline.base
    if base is not None and base.version == champion.version:
        base = previous  # what was rolled back is never continued, not by a retrain from the base either
    return replace(
        pipeline, champion=previous, previous=None, base=base, increments=previous.increments, set_aside=aside
    )


def _upto(pipeline: Pipeline, run: Run) -> int:
    return max((span.upto for span in run.plan.spans), default=pipeline.last_arrival)


def _ended(pipeline: Pipeline, record: Record, run: str, outcome: str) -> Pipeline:
    last = Ended(run=run, outcome=outcome, position=record.position, at=record.recorded_at)
    timers, fired = _without(pipeline.timers, run), _without(pipeline.fired, run)
    settled = pipeline.settled if outcome == POSTPONED else record.position
    return replace(pipeline, active=None, last=last, settled=settled, timers=timers, fired=fired)


def _without(timers: dict[str, datetime], run: str) -> dict[str, datetime]:
    """Return the wake-ups that were not asked under the run's id."""
    return {key: at for key, at in timers.items() if not key.endswith(f":{run}")}
