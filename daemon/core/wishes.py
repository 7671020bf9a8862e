"""Wishes to start: what a proposal brings, whether it stands, and whose is acted on next."""

from collections.abc import Sequence
from datetime import datetime

from daemon.core import state as states
from daemon.core.commands import ResumeRun, StartRun, WithdrawWish
from daemon.core.decisions import ARBITER, OPERATOR, Decision
from daemon.core.events import DecisionMade, Record
from daemon.core.runs import resume_key, wish_key
from daemon.core.state import Pipeline, State, Wish

Proposal = tuple[str, int, Decision]
"""A policy's name, its version and its decision."""


def choose(state: State, now: datetime) -> tuple[str, str, Wish] | None:
    """Return the next wish to act on, or to drop: those first, then by priority and age; in a pipeline by `_rank`."""
    wishing = [name for name, pipeline in state.pipelines.items() if pipeline.wishes and pipeline.settings is not None]
    if not wishing:
        return None
    active = sum(1 for pipeline in state.pipelines.values() if pipeline.active is not None)
    waiting = []
    for name in sorted(wishing):
        pipeline = state.pipelines[name]
        for key, wish in sorted(pipeline.wishes.items()):
            if wish.expires(now) or orphaned(pipeline, wish):
                return name, key, wish
        if active >= state.slots:
            continue  # nobody is ranked for a slot that is not there: this is asked with every fact
        if pipeline.active is not None or pipeline.paused is not None or pipeline.settings is None:
            continue
        ready = [key for key, wish in pipeline.wishes.items() if wish.not_before is None or wish.not_before <= now]
        if not ready:
            continue
        key = min(ready, key=lambda k: _rank(pipeline, pipeline.wishes[k]))
        if pipeline.yielded is not None and key == pipeline.yielded.policy and resume_key(key) in ready:
            key = resume_key(key)  # a start would take the data of its own run that has yielded, and end that
        waiting.append((-pipeline.settings.priority, pipeline.wishes[key].since, name, key))
    if not waiting:
        return None
    _, _, name, key = min(waiting)
    return name, key, state.pipelines[name].wishes[key]


def _rank(pipeline: Pipeline, wish: Wish) -> tuple[bool, int, int, int]:
    """An adoption goes first, then what was passed over once, then priority, the configured order, and age."""
    names = [policy.name for policy in pipeline.settings.policies] if pipeline.settings else []
    order = names.index(wish.policy) if wish.policy in names else -1
    if wish.intent is not None and wish.intent.kind == "adopt":
        return False, -1, 0, wish.since  # whatever else started would make a first champion in its stead
    if wish.passed_over:
        return False, 0, 0, wish.since
    return True, -wish.priority, order, wish.since


def orphaned(pipeline: Pipeline, wish: Wish) -> bool:
    """Return whether nobody is there any more who could stand for a start: its policy is gone, or in shadow."""
    if wish.resume is not None or wish.policy == OPERATOR or pipeline.settings is None:
        return False
    for policy in pipeline.settings.policies:  # noqa: SIM110 - asked with every fact: any() takes three times as long
        if policy.name == wish.policy and not policy.shadow:
            return False
    return True


def taken(pipeline: Pipeline, wish: Wish, now: datetime) -> str | None:
    """Return who has the key of a wish already, so that it must not start; a person's wish does not ask."""
    claim = wish.intent.claim if wish.intent is not None and not wish.intent.asked else None
    until = pipeline.claims.get(claim.key) if claim is not None else None
    if claim is None or until is None or until <= now:
        return None
    return f"The wish is void: a run with the key {claim.key!r} has begun meanwhile, not again before {until}."


def keys(proposal: Proposal) -> list[str]:
    """Return the keys of the wishes that a proposal brings."""
    label, _, decision = proposal
    wanted = [command for command in decision.commands if isinstance(command, StartRun | ResumeRun)]
    return [wish_key(label, command) for command in wanted]


def withdrawn(records: Sequence[Record], names: Sequence[str]) -> str | None:
    """Return why the arbiter took one of these wishes back, if it did."""
    for record in records:
        if isinstance(record.event, DecisionMade) and record.event.policy == ARBITER:
            for command in record.event.commands:
                if isinstance(command, WithdrawWish) and command.wish in names:
                    return record.event.reason
    return None


def stands(pipeline: Pipeline, proposal: Proposal) -> bool:
    """Return whether the wish is there already, and was told as it is told now."""
    label, _, decision = proposal
    for command in decision.commands:
        if isinstance(command, StartRun | ResumeRun):
            wish = pipeline.wishes.get(wish_key(label, command))
            if wish is None or not wish.wants(command):
                return False
    return states.stands(pipeline, label, decision.verdict, decision.wakes)
