"""The rules: what each answer of a policy has to be."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from daemon.core.commands import FixPlan, ResumeRun, RunStage, StartRun
from daemon.core.decisions import Decision
from daemon.core.encoding import decode, encode
from daemon.core.errors import EventError
from daemon.core.events import DecisionMade, Record
from daemon.core.state import Pipeline
from policies.base import BasePolicy

MOST_BYTES: Final = 64 << 10
"""A decision is a row in the journal: it must not grow with history."""
MOST_REASON: Final = 4096

Rule = Literal[
    "configuration",
    "survives",
    "clock",
    "randomness",
    "outside",
    "repeatable",
    "deterministic",
    "arguments",
    "json",
    "wording",
    "commands",
    "wakes",
    "bounded",
]

RULES: Final[dict[Rule, str]] = {
    "configuration": "it is a frozen value that comes back from its own JSON",
    "survives": "it answers every kind of fact in every state, and raises nothing",
    "clock": "it reads no clock: `record.recorded_at` is the only now",
    "randomness": "it draws nothing at random",
    "outside": "it opens no file, connection or process, and reads no environment",
    "repeatable": "asked the same again, it answers the same",
    "deterministic": "it answers the same in another process, order, time zone and order of hashes",
    "arguments": "it changes neither the state, nor the fact, nor itself",
    "json": "its decisions come back from their JSON",
    "wording": "a verdict is a short word of small letters, a reason one sentence",
    "commands": "its commands are about runs that exist, and a start stands alone",
    "wakes": "it asks to be woken in the future",
    "bounded": f"a decision has less than {MOST_BYTES >> 10} KiB, and it keeps nothing of what it was asked",
}
"""What is checked → what holds."""


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that does not hold, and what was seen."""

    rule: Rule
    why: str


def as_event(policy: BasePolicy, decision: Decision) -> DecisionMade:
    """Return a decision as the journal keeps it."""
    return DecisionMade(
        policy=policy.label,
        policy_version=policy.version,
        verdict=decision.verdict,
        reason=decision.reason,
        inputs=decision.inputs,
        thresholds=decision.thresholds,
        commands=decision.commands,
        wakes=decision.wakes,
    )


def judge(policy: BasePolicy, state: Pipeline, record: Record, answer: object) -> Iterator[Broken]:
    """Yield what is wrong with an answer, whatever it says."""
    if answer is None:
        return
    if not isinstance(answer, Decision):
        yield Broken(rule="json", why=f"it answered {type(answer).__name__}, and neither a Decision nor None")
        return
    made = as_event(policy, answer)
    try:
        data = encode(made)
        again = decode("decision.made", 1, data)
    except (EventError, msgspec.MsgspecError, TypeError, ValueError) as error:
        yield Broken(rule="json", why=f"the decision cannot be kept: {error}")
        return
    if again != made:
        yield Broken(rule="json", why="the decision that comes back from its JSON is another one")
    if len(data) >= MOST_BYTES:
        yield Broken(rule="bounded", why=f"the decision has {len(data):,} bytes, at most {MOST_BYTES:,} are possible")
    yield from _worded(answer)
    yield from _commanded(state, answer)
    late = {key: at for key, at in answer.wakes.items() if at <= record.recorded_at}
    if late:
        key, at = min(late.items())
        yield Broken(
            rule="wakes",
            why=f"it asks to be woken for {key!r} at {at}, which is past at {record.recorded_at}: it would be at once, "
            "again and again",
        )


def _worded(decision: Decision) -> Iterator[Broken]:
    if not decision.verdict.replace("_", "").isalpha() or decision.verdict != decision.verdict.lower():
        yield Broken(rule="wording", why=f"the verdict {decision.verdict!r} is no word of small letters and _")
    if not decision.reason.endswith("."):
        yield Broken(rule="wording", why=f"the reason {decision.reason[-80:]!r} does not end like a sentence")
    if len(decision.reason) > MOST_REASON:
        yield Broken(rule="wording", why=f"the reason has {len(decision.reason):,} characters")


def _commanded(state: Pipeline, decision: Decision) -> Iterator[Broken]:
    starts = [command for command in decision.commands if isinstance(command, StartRun | ResumeRun)]
    if len(starts) > 1:
        yield Broken(rule="commands", why=f"{len(starts)} starts in one decision: a policy has one wish")
    elif starts and len(decision.commands) > 1:
        yield Broken(rule="commands", why="a start beside other commands, which nobody would carry out")
    living = {run.run: run for run in (state.active, state.held, state.yielded) if run is not None}
    for command in decision.commands:
        name = getattr(command, "run", None)
        if name is None:
            continue
        run = living.get(name)
        if run is None:
            alive = ", ".join(sorted(living)) or "none"
            yield Broken(rule="commands", why=f"{type(command).__name__} names run {name!r}; alive: {alive}")
        elif isinstance(command, RunStage) and command.stage not in run.plan.stages:
            yield Broken(rule="commands", why=f"RunStage names stage {command.stage!r}, which {name} has not")
        elif isinstance(command, FixPlan) and command.plan.stages != run.plan.stages:
            yield Broken(rule="commands", why=f"FixPlan gives {name} other stages than it is going through")
