"""What follows from a person's request, before any policy is asked."""

from msgspec.structs import replace

from daemon.core import adoption
from daemon.core.commands import CancelRun, ResumeRun, RollBack, WithdrawWish
from daemon.core.decisions import AWAITING, OPERATOR, Decision
from daemon.core.events import OperatorRequested
from daemon.core.state import Pipeline


def answer(pipeline: Pipeline, event: OperatorRequested) -> Decision | None:
    """Return the decision that a request brings by itself; None where the fold or a policy answers it."""
    match event.verb:
        case "approve" if event.decision is not None:
            return _approve_start(pipeline, event, event.decision)
        case "approve" | "promote":
            return _approve(pipeline, event)
        case "cancel":
            return _cancel(pipeline, event)
        case "rollback":
            return _roll_back(pipeline, event)
        case "freeze":
            reason = "Frozen: runs go on and are judged, and no candidate is promoted until it is thawed."
            return Decision(verdict="frozen", reason=_because(event, reason))
        case "thaw":
            return Decision(verdict="thawed", reason=_because(event, "Candidates are promoted again."))
        case "adopt":
            decision = adoption.adopt(pipeline, event)
            return replace(decision, reason=_because(event, decision.reason))
        case _:
            return None


def _because(event: OperatorRequested, sentence: str) -> str:
    return f"{sentence} Asked by {event.by or 'unknown'}" + (f": {event.reason}" if event.reason else ".")


def _approve(pipeline: Pipeline, event: OperatorRequested) -> Decision:
    held = pipeline.held
    if held is None or event.run not in (None, held.run):
        return Decision(verdict="not_possible", reason=_because(event, "No candidate of that run is held."))
    return Decision(
        verdict="approved",
        reason=_because(event, f"The candidate of {held.run} may be promoted."),
        commands=(ResumeRun(run=held.run, forced=event.verb == "promote"),),
    )


def _approve_start(pipeline: Pipeline, event: OperatorRequested, position: int) -> Decision | None:
    """Return why there is no start to approve; None: the policy that asked answers."""
    waiting = {name: each.position for name, each in pipeline.verdicts.items() if each.verdict == AWAITING}
    if position in waiting.values():
        return None
    told = " and ".join(f"that of {name}, position {at}" for name, at in sorted(waiting.items()))
    sentence = f"No decision at position {position} waits for an approval: {told or 'none'} does."
    return Decision(verdict="not_possible", reason=_because(event, sentence), inputs={"decision": position})


def _cancel(pipeline: Pipeline, event: OperatorRequested) -> Decision:
    living = [run for run in (pipeline.active, pipeline.yielded, pipeline.held) if run is not None]
    chosen = next((run for run in living if event.run in (None, run.run)), None)
    if chosen is None and event.run is None and adoption.waiting(pipeline) is not None:
        reason = _because(event, "The adoption that waits is taken back.")
        return Decision(verdict="withdrawn", reason=reason, commands=(WithdrawWish(wish=OPERATOR),))
    if chosen is None:
        return Decision(verdict="not_possible", reason=_because(event, "There is no such run to cancel."))
    return Decision(
        verdict="cancelled",
        reason=_because(event, f"Run {chosen.run} is cancelled."),
        commands=(CancelRun(run=chosen.run),),
    )


def _roll_back(pipeline: Pipeline, event: OperatorRequested) -> Decision:
    if pipeline.champion is None or pipeline.previous is None:
        return Decision(verdict="not_possible", reason=_because(event, "There is no previous champion."))
    return Decision(
        verdict="rolled_back",
        reason=_because(event, f"Version {pipeline.previous.version} is champion again."),
        inputs={"champion": pipeline.champion.version, "previous": pipeline.previous.version},
        commands=(RollBack(),),
    )
