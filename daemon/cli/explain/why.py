"""Why a pipeline does what it does now: each policy's opinion recomputed, and what keeps its wishes waiting."""

from collections import deque
from datetime import datetime
from typing import Final

import msgspec

from daemon.cli.shadow import InShadow, in_shadow
from daemon.cli.status import Waiting, describe, hindrance
from daemon.config import Configuration
from daemon.core.commands import StartRun, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.drafts import draft
from daemon.core.events import DecisionMade, Numbers, Record, TimerFired
from daemon.core.plans import Plan
from daemon.core.shadowing import acting
from daemon.core.shadows import view
from daemon.core.state import Pipeline, State
from daemon.core.transition import evolve
from daemon.journal.base import Reader, scan_where
from daemon.story import Decided, decided
from policies.base import BasePolicy

LISTED: Final = 5
"""Starts of a policy in shadow that are shown."""
SCANNED: Final = 100_000
"""Records before the last of them that are looked through for the others."""


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would say now; `verdict` None: it has nothing to say.

    `plan` is the run that would start; `obstacle` what keeps it from starting at once. One in `shadow` is asked of the
    pipeline as it would be, had it acted.
    """

    policy: str
    verdict: str | None = None
    reason: str = ""
    inputs: Numbers = {}
    thresholds: Numbers = {}
    wakes: dict[str, datetime] = {}
    due: bool = False
    plan: Plan | None = None
    obstacle: str | None = None
    shadow: InShadow | None = None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline's present: what its policies think, what waits, and what was decided last.

    `spent_day` and `spent_month` are seconds of compute; `shadows` are the last starts that were not.
    """

    pipeline: str
    at: datetime
    position: int
    champion: int | None
    pending: dict[str, int]
    set_aside: dict[str, int]
    approvals: dict[str, int]
    paused: str | None
    active: str | None
    held: str | None
    frozen: str | None
    spent_day: float
    spent_month: float
    claims: dict[str, datetime]
    opinions: tuple[Opinion, ...]
    wishes: tuple[Waiting, ...]
    decisions: tuple[Decided, ...]
    shadows: tuple[Decided, ...]


def hypothetical(state: State, configuration: Configuration, now: datetime) -> State:
    """Return the state as it would be if the daemon took the configuration now; nothing is stored."""
    at = max(now, state.recorded_at) if state.recorded_at else now
    record = Record(
        position=state.position + 1,
        recorded_at=at,
        source="/cli/hypothetical",
        id="configuration",
        event=configuration.changed(),
    )
    folded = evolve(state, record)
    return msgspec.structs.replace(folded, position=state.position)


def opinions(state: State, pipeline: Pipeline, policies: tuple[BasePolicy, ...], now: datetime) -> tuple[Opinion, ...]:
    """Return what every policy of a pipeline would say at `now`."""
    question = Record(
        position=state.position + 1,
        recorded_at=now,
        source="/cli/hypothetical",
        id="now",
        pipeline=pipeline.name,
        event=TimerFired(policy="", key="", due=now),
    )
    shadows = in_shadow(pipeline)
    return tuple(_opinion(state, pipeline, policy, question, shadows.get(policy.label)) for policy in policies)


def look(configuration: Configuration, reader: Reader | None, state: State, name: str, now: datetime) -> Why:
    """Return why a pipeline does what it does."""
    state = hypothetical(state, configuration, now)
    pipeline = state.pipelines[name]
    status = describe(state, pipeline, configured=True)
    day, month = pipeline.spent.on(now)
    return Why(
        pipeline=name,
        at=now,
        position=state.position,
        champion=pipeline.champion.version if pipeline.champion else None,
        pending=status.pending,
        set_aside=status.set_aside,
        approvals=status.approvals,
        paused=pipeline.paused,
        active=pipeline.active.run if pipeline.active else None,
        held=status.held,
        frozen=pipeline.frozen,
        spent_day=day,
        spent_month=month,
        claims={key: at for key, at in sorted(pipeline.claims.items()) if at > now},
        opinions=opinions(state, pipeline, configuration.settings.pipelines[name].policies, now),
        wishes=status.wishes,
        decisions=tuple(_latest(reader, pipeline)) if reader is not None else (),
        shadows=tuple(_unstarted(reader, pipeline)) if reader is not None else (),
    )


def _opinion(
    state: State, pipeline: Pipeline, policy: BasePolicy, question: Record, shadow: InShadow | None
) -> Opinion:
    # Whoever acts is shown nothing of those in shadow; these see what they would have left.
    seen = acting(pipeline) if shadow is None else view(pipeline, policy.label, question.recorded_at)
    try:
        decision = policy.opinion(seen, question)
    except Exception as error:  # noqa: BLE001 - a user's policy may raise anything
        return Opinion(policy=policy.label, verdict="raised", reason=f"{type(error).__name__}: {error}.", shadow=shadow)
    if decision is None:
        return Opinion(policy=policy.label, shadow=shadow)
    start = next((command for command in decision.commands if isinstance(command, StartRun)), None)
    plan, obstacle = None, None
    if start is not None:
        drafted = draft(seen, start.intent, state.position)
        plan = drafted if isinstance(drafted, Plan) else None
        obstacle = drafted if isinstance(drafted, str) else _obstacle(state, pipeline)
    return Opinion(
        policy=policy.label,
        verdict=decision.verdict,
        reason=decision.reason + _taken_back(decision),
        inputs=decision.inputs,
        thresholds=decision.thresholds,
        wakes=decision.wakes,
        due=start is not None,
        plan=plan,
        obstacle=obstacle,
        shadow=shadow,
    )


def _taken_back(decision: Decision) -> str:
    return " It would take its wish back." if any(isinstance(c, WithdrawWish) for c in decision.commands) else ""


def _obstacle(state: State, pipeline: Pipeline) -> str | None:
    busy = sum(1 for other in state.pipelines.values() if other.active is not None)
    free = pipeline.active is None and pipeline.paused is None and busy < state.slots
    return None if free else hindrance(state, pipeline)


def _unstarted(reader: Reader, pipeline: Pipeline) -> list[Decided]:
    """Return the last starts of policies in shadow, newest first."""
    found: dict[str, deque[Decided]] = {}
    names = [name for name, each in in_shadow(pipeline).items() if each.starts or each.looks]
    if not names:
        return []
    after = max(0, min(pipeline.shadows[name].position for name in names) - SCANNED)
    for record in scan_where(reader, after, kinds=(DecisionMade.kind,), pipeline=pipeline.name):
        event = record.event
        if isinstance(event, DecisionMade) and event.shadow and any(isinstance(c, StartRun) for c in event.commands):
            found.setdefault(event.policy, deque(maxlen=LISTED)).append(decided(record, event))
    return sorted((each for name in names for each in found.get(name, ())), key=lambda each: -each.position)


def _latest(reader: Reader, pipeline: Pipeline) -> list[Decided]:
    """Return the decisions that brought the standing verdicts, newest first."""
    standing = sorted(pipeline.verdicts.values(), key=lambda verdict: -verdict.position)
    records = (record for verdict in standing for record in reader.records(verdict.position - 1, 1))
    return [decided(record, record.event) for record in records if isinstance(record.event, DecisionMade)]
