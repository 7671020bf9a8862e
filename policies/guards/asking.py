"""How a policy asks its guards: who goes past them, when to ask again, and what becomes of a run that is under way."""

from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final

from daemon.core.commands import PreemptRun
from daemon.core.decisions import AWAITING, Decision
from daemon.core.events import ConfigurationChanged, DaemonStarted, OperatorRequested, Record, StageStarted, TimerFired
from daemon.core.state import Pipeline, timer_key
from policies.guards.budget import Budget

GUARD: Final = "guard"
"""The wake-up at which time alone ends what keeps a start back, or quiet hours begin for one that waits."""
BUDGET: Final = "budget"
"""The wake-up at which the active run has used up what is left, or may go on."""
SLACK: Final = 50
"""A wake-up is asked for anew when it comes earlier by more than this part of what is left: not with every arrival."""


def asked(state: Pipeline, record: Record, policy: str, verbs: AbstractSet[str]) -> bool:
    """Return whether a person asks for a start just now, or approves the one that a guard keeps back."""
    event = record.event
    if not isinstance(event, OperatorRequested):
        return False
    if event.verb == "approve":
        standing = state.verdicts.get(policy)
        named = standing is not None and standing.verdict == AWAITING and standing.position == event.decision
        return event.decision is not None and named
    return event.verb in verbs


def stays(state: Pipeline, policy: str) -> bool:
    """Return whether the wish that stands is one that a person asked for or approved: it needs nothing else."""
    wish = state.wishes.get(policy)
    return wish is not None and wish.intent is not None and wish.intent.asked


def armed(state: Pipeline, policy: str, key: str, now: datetime, at: datetime | None) -> dict[str, datetime]:
    """Return the wake-up; one that is pending stays where it comes first, or hardly later: it asks again."""
    if at is None:
        return {}
    pending = state.timers.get(timer_key(policy, key))
    if pending is not None and pending > now and (pending - at) * SLACK <= at - now:
        return {key: pending}
    return {key: at}


def spending(state: Pipeline, record: Record, policy: str, budget: Budget | None) -> Decision | None:
    """Return the end of the active run's share of a budget, or the wake-up at which it comes; None: no change.

    It is asked when an attempt begins, and when the wake-up is given. A run whose candidate is being promoted goes on.
    """
    run = state.active
    if budget is None or run is None or run.policy != policy or run.intent.asked:
        return None
    event = record.event
    woken = isinstance(event, TimerFired) and (event.policy, event.key) == (policy, BUDGET)
    if not woken and not isinstance(event, StageStarted | ConfigurationChanged | DaemonStarted):
        return None
    if run.stop is not None or run.consumed:
        return None
    now = record.recorded_at
    at, kept = budget.course(state, run, now)
    if kept is not None and kept.until is not None:
        return Decision(
            verdict=kept.verdict,
            reason=kept.reason,
            inputs=kept.inputs,
            thresholds=kept.thresholds,
            commands=(PreemptRun(run=run.run, until=kept.until),),
            wakes={BUDGET: kept.until},
        )
    pending = state.timers.get(timer_key(policy, BUDGET))
    if at is None or at <= now or (pending is not None and now < pending <= at):
        return None  # asked early it is asked again
    reason = f"Run {run.run} may compute until {at:%Y-%m-%d %H:%M:%S} UTC by its budget, if nothing else computes."
    return Decision(verdict="spending", reason=reason, wakes={BUDGET: at})
