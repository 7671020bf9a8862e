"""Policies and folds that are broken on purpose, each in one place: the property that it breaks has to say so."""

from datetime import timedelta

from msgspec.structs import replace

from daemon.core.commands import PreemptRun
from daemon.core.decisions import Decision
from daemon.core.events import DecisionMade, ModelRolledBack, Record, RunPreempted, RunStarted
from daemon.core.plans import Intent
from daemon.core.state import Pipeline, State
from daemon.core.transition import evolve
from policies.guards import Guarded
from policies.rewarm_replay import RewarmReplay


class Unguarded(RewarmReplay):
    """Asks none of its guards."""

    def _tried(
        self, state: Pipeline, record: Record, intent: Intent, *, brief: bool = False
    ) -> tuple[Intent, Guarded | None]:
        del brief
        return self.guards.whole(state, self.label, intent, record.recorded_at), None


class Spendthrift(RewarmReplay):
    """Looks at its budget before it starts, and never again."""

    def spending(self, state: Pipeline, record: Record) -> Decision | None:
        """Return nothing."""
        del state, record
        return None


class Oversleeping(RewarmReplay):
    """Yields until the next day, and asks nobody to be woken then."""

    def spending(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the decision to yield without its wake-up."""
        decision = super().spending(state, record)
        yields = decision is not None and any(isinstance(command, PreemptRun) for command in decision.commands)
        return replace(decision, wakes={}) if decision is not None and yields else decision


class Hoarding(RewarmReplay):
    """Asks for every wake-up under a key of its own."""

    def not_due(self, state: Pipeline, decision: Decision) -> Decision:
        """Return the decision with one more wake-up that nobody needs."""
        at = state.last_arrival_at
        wakes = {f"{state.last_arrival}": at + timedelta(days=300)} if at is not None else {}
        return replace(super().not_due(state, decision), wakes=wakes)


def forgetful(state: State, record: Record) -> State:
    """Drop what waits as soon as a guard keeps it waiting."""
    after = evolve(state, record)
    if isinstance(record.event, DecisionMade) and record.event.verdict == "debouncing":
        return _changed(after, record, pending={}, waiting=0)
    return after


def abandoning(state: State, record: Record) -> State:
    """Forget a run that has yielded."""
    after = evolve(state, record)
    if isinstance(record.event, RunPreempted):
        wishes = {k: w for k, w in _pipeline(after, record).wishes.items() if w.resume != record.event.run}
        return _changed(after, record, yielded=None, wishes=wishes)
    return after


def loose(state: State, record: Record) -> State:
    """Forget which keys are taken."""
    after = evolve(state, record)
    return _changed(after, record, claims={}) if isinstance(record.event, RunStarted) else after


def stubborn(state: State, record: Record) -> State:
    """Keep the champion that was rolled back."""
    after = evolve(state, record)
    if isinstance(record.event, ModelRolledBack):
        return _changed(after, record, champion=_pipeline(state, record).champion)
    return after


def clinging(state: State, record: Record) -> State:
    """Let a wish stand although it was acted on."""
    after = evolve(state, record)
    if isinstance(record.event, RunStarted):
        before = _pipeline(state, record).wishes
        return _changed(after, record, wishes={**before, **_pipeline(after, record).wishes})
    return after


def _pipeline(state: State, record: Record) -> Pipeline:
    return state.pipelines[record.pipeline or ""]


def _changed(state: State, record: Record, **fields: object) -> State:
    changed = replace(_pipeline(state, record), **fields)
    return replace(state, pipelines={**state.pipelines, record.pipeline or "": changed})
