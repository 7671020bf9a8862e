"""How a run moves from stage to stage when no policy has to be asked, and how commands become events."""

from typing import Final

from daemon.core.attempts import DRAINED
from daemon.core.commands import (
    AnyCommand,
    CancelRun,
    FailRun,
    FixPlan,
    HoldRun,
    KillStage,
    PostponeRun,
    PreemptRun,
    RejectRun,
    RollBack,
    RunStage,
    StartRun,
)
from daemon.core.decisions import Decision
from daemon.core.events import (
    AnyEvent,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunSucceeded,
    run_of,
)
from daemon.core.state import Pipeline, Run

GATED: Final = "promote"
"""The one stage that runs only when a policy, or a person, has said so."""
TRAINS: Final = ("curate", "train")
"""The stages that a look does not reach."""
ABOUT_ACTIVE: Final = (RunStage, KillStage, FixPlan, FailRun, RejectRun, HoldRun, PreemptRun, PostponeRun)
MAX_PREEMPTIONS: Final = 3


def consequences(pipeline: Pipeline, decision: Decision) -> list[AnyEvent]:
    """Return the events that a decision's commands about runs bring at once."""
    return [event for command in decision.commands for event in _carry_out(pipeline, command, decision.reason)]


def _carry_out(pipeline: Pipeline, command: AnyCommand, reason: str) -> list[AnyEvent]:
    active = pipeline.active
    match command:
        case FixPlan():
            return [PlanFixed(run=command.run, plan=command.plan)]
        case PostponeRun():
            return [RunPostponed(run=command.run, reason=reason)]
        case HoldRun():
            return [RunHeld(run=command.run, reason=reason)]
        case RejectRun() if active is not None:
            rejected = ModelRejected(run=command.run, reason=reason, spans=active.plan.spans, amounts=active.plan.new)
            return [rejected, RunSucceeded(run=command.run, outcome="rejected")]
        case FailRun() if active is not None:
            return [RunFailed(run=command.run, stage=active.stage, failure=command.failure, reason=reason)]
        case CancelRun() if active is None or active.run != command.run:
            return [RunCancelled(run=command.run, reason=reason, again=command.again)]
        case RollBack() if pipeline.champion is not None and pipeline.previous is not None:
            rolled_back = ModelRolledBack(
                run=pipeline.champion.run,
                withdrawn_version=pipeline.champion.version,
                model_version=pipeline.previous.version,
                path=pipeline.previous.path,
                sha256=pipeline.previous.sha256,
                reason=reason,
            )
            held, withdrawn = pipeline.held, pipeline.champion.version
            if held is None or held.plan.start.version != withdrawn:
                return [rolled_back]
            why = f"Its candidate goes on from version {withdrawn}, which was rolled back."
            return [rolled_back, RunCancelled(run=held.run, reason=why)]
        case _:
            return []


def applicable(pipeline: Pipeline, command: AnyCommand) -> str | None:
    """Return why a command about a run cannot be carried out now, or None when it can."""
    run = run_of(command)
    if run is None:
        return None
    living = {r.run for r in (pipeline.active, pipeline.held, pipeline.yielded) if r is not None}
    if run not in living:
        return f"run {run} is not alive"
    active = pipeline.active
    about_active = isinstance(command, ABOUT_ACTIVE)
    if about_active and (active is None or active.run != run):
        return f"run {run} is not active"
    if about_active and active is not None and active.stop is not None:
        return f"run {run} is being stopped ({active.stop})"
    if active is None or not about_active:
        return None
    if isinstance(command, PreemptRun):
        return unpreemptible(pipeline, active, limited=command.until is None)
    if isinstance(command, KillStage):
        return _not_at_work(active, command)
    return None if isinstance(command, FixPlan) else _unready(active, command)


def _not_at_work(run: Run, command: KillStage) -> str | None:
    ordered = run.order
    if ordered is None or (ordered.stage, ordered.attempt) != (command.stage, command.attempt):
        return f"attempt {command.attempt} of stage {command.stage} of run {run.run} is not at work"
    return f"attempt {ordered.attempt} of stage {ordered.stage} is being ended already" if ordered.lost else None


def _unready(run: Run, command: AnyCommand) -> str | None:
    if run.order is not None:
        return f"stage {run.order.stage} of run {run.run} is still going on"
    if run.promoted and (not isinstance(command, RunStage) or command.stage == GATED):
        return f"the candidate of run {run.run} is promoted already"
    if isinstance(command, PostponeRun) and not run.intent.look:
        return f"run {run.run} was begun to train"
    if isinstance(command, RunStage):
        if command.stage not in run.plan.stages:
            return f"run {run.run} has no stage {command.stage}"
        if command.attempt != run.attempts.get(command.stage, 0) + 1:
            return f"attempt {command.attempt} of stage {command.stage} is not the next"
    return None


def unpreemptible(pipeline: Pipeline, run: Run, *, limited: bool = True) -> str | None:
    """Return why a run cannot yield its slot, or None when it can; to others only so often (`limited`).

    Two cannot wait at once: one that must not go on before an instant is cancelled then, and its wish waits.
    """
    if limited and run.preempted >= MAX_PREEMPTIONS:
        return f"run {run.run} has yielded {run.preempted} times"
    if run.consumed:
        return f"the candidate of run {run.run} is being promoted"
    if limited and pipeline.yielded is not None:
        return f"run {pipeline.yielded.run} has yielded already"
    return None


def about(pipeline: Pipeline, decision: Decision, fact: AnyEvent) -> str | None:
    """Return the run that a decision is about: of its command, the champion's that goes, or of the fact.

    A wish to start is about none yet, whatever run the fact tells of.
    """
    for command in decision.commands:
        if isinstance(command, RollBack):
            return pipeline.champion.run if pipeline.champion is not None else None
        if isinstance(command, StartRun) or run_of(command) is not None:
            return run_of(command)
    return run_of(fact)


def orphaned(pipeline: Pipeline, run: Run) -> bool:
    """Return whether what the run goes on from was rolled back: the champion is an older version."""
    start, champion = run.plan.start.version, pipeline.champion
    return start is not None and champion is not None and champion.version < start


def following(run: Run) -> str | None:
    """Return the stage after the current one."""
    stages = run.plan.stages
    if run.stage not in stages:
        return None
    index = stages.index(run.stage) + 1
    return stages[index] if index < len(stages) else None


def advance(pipeline: Pipeline) -> Decision | AnyEvent | None:
    """Return what must follow for the active run when no policy has said anything else.

    A run is never stuck: an attempt that ended without a retry, and without a wake-up under the run's id, fails.
    """
    run = pipeline.active
    if run is None or run.order is not None or (pipeline.settings is None and run.stop is None and not run.promoted):
        return None if pipeline.settings is not None else _unconfigured(pipeline)
    following_stage = following(run)
    if run.promoted and (run.stop or (following_stage is None if run.done else run.stage == GATED)):
        return RunSucceeded(run=run.run, outcome="promoted")  # its model is live, whatever became of the attempt
    if run.stop == "cancel":
        return RunCancelled(run=run.run, reason=run.stop_reason, again=run.stop_again)
    if run.done and following_stage is None:
        return RunSucceeded(run=run.run, outcome="finished")
    if run.stop == "preempt":
        return _yielding(pipeline, run, following_stage)
    if run.done and following_stage is not None:
        return _next_stage(run, following_stage)
    if run.failures.last == DRAINED:
        return _drained(run)
    if any(key.endswith(f":{run.run}") for key in pipeline.timers):
        return None
    failed = run.failures
    return Decision(
        verdict="failed",
        reason=f"Stage {run.stage} ended ({failed.last}: {failed.message}) and no policy retries it.",
        commands=(FailRun(run=run.run, failure=failed.last or "user_error"),),
    )


def _yielding(pipeline: Pipeline, run: Run, following_stage: str | None) -> AnyEvent:
    if pipeline.yielded is not None:
        return RunCancelled(run=run.run, reason=f"Run {pipeline.yielded.run} has yielded already.", again=True)
    # What leads to the gate is done again: its judgement was not heard, and the gate opens to a judgement alone.
    stage = following_stage if run.done and following_stage not in (None, GATED) else None
    return RunPreempted(run=run.run, stage=stage or run.stage, until=run.stop_until)


def _drained(run: Run) -> Decision:
    """Return the order to go on where a drain stopped the stage; the next daemon carries it out."""
    attempt = run.attempts.get(run.stage, 0) + 1
    where = f"after step {run.checkpoint_step}" if run.checkpoint_step else "from its start"
    return Decision(
        verdict="resume",
        reason=f"Stage {run.stage} was stopped by a drain; it goes on {where} (attempt {attempt}).",
        inputs={"stage": run.stage, "checkpoint_step": run.checkpoint_step},
        commands=(RunStage(run=run.run, stage=run.stage, attempt=attempt, resume=True, remedy=run.remedy),),
    )


def _next_stage(run: Run, stage: str) -> Decision:
    """Return the order for the stage that follows, or what becomes of a run that no policy took further."""
    if stage == GATED and not run.forced:
        return Decision(
            verdict="held",
            reason="No policy judged the candidate: it waits for a person (rewarm request approve).",
            commands=(HoldRun(run=run.run),),
        )
    if stage in TRAINS and run.intent.look:
        return Decision(
            verdict="postponed",
            reason="No policy said that this look shall train: what it looked at stays pending.",
            commands=(PostponeRun(run=run.run),),
        )
    attempt = run.attempts.get(stage, 0) + 1
    return Decision(
        verdict="advance",
        reason=f"Stage {run.stage} succeeded; {stage} follows.",
        inputs={"stage": run.stage},
        commands=(RunStage(run=run.run, stage=stage, attempt=attempt),),
    )


def _unconfigured(pipeline: Pipeline) -> Decision | None:
    waiting = [run for run in (pipeline.active, pipeline.yielded) if run is not None and run.stop is None]
    if not waiting:
        return None
    return Decision(
        verdict="cancelled",
        reason="The pipeline is no longer configured.",
        commands=(CancelRun(run=waiting[0].run),),
    )
