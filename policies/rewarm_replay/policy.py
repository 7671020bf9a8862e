"""Continue the champion on new data: re-warm, replay the past, re-decay (Ibrahim et al. 2024, arXiv 2403.08763)."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import ClassVar, Final, Literal, Self

from msgspec.structs import replace
from pydantic import Field, model_validator

from daemon.core.commands import PostponeRun
from daemon.core.decisions import Decision
from daemon.core.events import (
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    ModelEvaluated,
    Numbers,
    OperatorRequested,
    Record,
    StageFailed,
    StageInterrupted,
)
from daemon.core.plans import Intent, Training, tokens
from daemon.core.state import Pipeline, Run, free_tokens, free_waited
from policies.base import RECONSIDERED, SOON, blocked, finished_stage
from policies.guards.asking import armed, stays
from policies.periods import Period
from policies.rewarm_replay.planning import Planning
from policies.triggers import AnyTrigger, Moment, Told, Trigger, leaves, moment, needed, together, unseen
from policies.triggers.amounts import Arrivals, Tokens
from policies.triggers.costs import Regret
from policies.triggers.signals import Signal
from policies.triggers.times import Age
from policies.triggers.votes import AnyOf

AFTER_TOKENS: Final = 2_000_000
WHEN: Final = "when"
MEASURED: Final = (EvaluationReported, LabelArrived, DriftDetected, ModelEvaluated)
FIRST: Final = Arrivals(arrivals=1)
"""What makes the first training due where nothing of `when` can be told before there is a champion."""


class RewarmReplay(Planning):
    """An increment when `when` holds of the data that waits; the first data gives a base training.

    `look` says when a probe shall measure what waits although `when` does not hold yet: if it holds then, the run goes
    on and trains, else it is postponed. Before there is a champion nothing is measured: of `when` counts what can be
    told without one, and if there is no such thing, `look`, or whether anything waits at all.
    """

    version: ClassVar[int] = 3
    kind: Literal["rewarm_replay"] = "rewarm_replay"
    when: AnyTrigger | None = Field(default=None, description="what makes an increment due")
    look: AnyTrigger | None = Field(default=None, description="when a probe looks although `when` does not hold yet")
    after_tokens: int | None = Field(
        default=None, ge=1, description="short for `when`: pending tokens; 2000000 where neither is given"
    )
    max_age: Period | None = Field(default=None, description="short for `when`: or the longest that data may wait")

    @model_validator(mode="after")
    def _one_way_to_say_when(self) -> Self:
        if self.when is not None and (self.after_tokens is not None or self.max_age is not None):
            message = (
                "`when` takes the place of `after_tokens` and `max_age`: leave them out, and say the same in it, as in"
                " `when: {any: [{tokens: 2000000}, {age: P7D}]}`"
            )
            raise ValueError(message)
        probed = _probed(self.when)
        if probed and self.look is None:
            message = (
                f"`when` looks at {probed}, which a probe measures: say in `look` when one shall, as in"
                " `look: {tokens: 200000}`"
            )
            raise ValueError(message)
        if early := _probed(self.look):
            message = f"`look` cannot wait for {early}: looking is what measures it"
            raise ValueError(message)
        if self.look is not None and any(isinstance(leaf, Regret) for leaf in leaves(self.look)):
            message = "`regret` weighs what training costs, and a look does not train: it belongs into `when`"
            raise ValueError(message)
        return self

    @property
    def signals(self) -> Mapping[str, int]:
        """What `when` and `look` look at."""
        return needed(each for each in (self.when, self.look) if each is not None)

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish to start, or the plan once the probe has spoken."""
        if (spent := self.spending(state, record)) is not None:
            return spent
        if isinstance(record.event, self._weighed_after):
            verdict, wakes = self._weigh(state, record)
            wanted = None if verdict == "waiting" else self._wanted(state, verdict)
            return None if self.repeats(state, record, verdict, wakes, wanted) else self.opinion(state, record)
        run = state.active
        if run is not None and isinstance(record.event, StageFailed | StageInterrupted):
            return self._given_back(state, record)
        if run is not None and run.policy == self.label and finished_stage(record, "probe"):
            said = self._looked(state, run, record) if run.intent.look else self.fix(state, run)
            return self.still_awaits(state, record, said)
        return None

    def opinion(self, state: Pipeline, record: Record) -> Decision:
        """Return whether an increment is due, with the numbers."""
        verdict, wakes = self._weigh(state, record)
        free = moment(state, record.recorded_at)
        told = self._tell(free, unseen(state, record.recorded_at), verdict)
        reason = self._because(state, record, verdict, told.why)
        inputs: Numbers = {
            **told.inputs,
            "tokens": told.inputs.get("tokens", tokens(free.pending)),
            "arrivals": told.inputs.get("arrivals", sum(each.arrivals for each in free.pending.values())),
        }
        decision = Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=told.thresholds, wakes=wakes)
        wanted = self._wanted(state, verdict)
        return self.due(state, record, decision, wanted) if wanted is not None else self.not_due(state, decision)

    def _weigh(self, state: Pipeline, record: Record) -> tuple[str, dict[str, datetime]]:
        """Return the verdict, and when to be asked again."""
        now, event = record.recorded_at, record.event
        requested = isinstance(event, OperatorRequested) and event.verb in self.verbs
        if not requested and free_tokens(state) < self._too_few and not stays(state, self.label):
            return "blocked" if blocked(state) else "waiting", {}
        free = moment(state, now)
        if requested:
            return "asked" if self._looking(state) else "due" if free.pending else "nothing_pending", {}
        if self.look is not None and self._asked_of_look(state):
            return "asked", {}
        if not free.pending:
            return "blocked" if blocked(state) else "waiting", {}
        if stays(state, self.label):
            return "due", {}
        if blocked(state):
            return "blocked", {}
        trigger = self._counting(free)
        if trigger.holds(free):
            return "due", {}
        at = trigger.wakes(free)
        if self.look is not None and state.champion is not None:
            rest = unseen(state, now)
            if rest.pending and self.look.holds(rest):
                return "look", armed(state, self.label, WHEN, now, at)
            if rest.pending:
                at = _earlier(at, self.look.wakes(rest))
        return "waiting", armed(state, self.label, WHEN, now, at) if at is not None else {}

    def _looking(self, state: Pipeline) -> bool:
        """Return whether a run of this policy looks at what waited."""
        run = state.active
        return run is not None and run.policy == self.label and run.intent.look and run.stop is None

    def _asked_of_look(self, state: Pipeline) -> bool:
        """Return whether a person has asked for an increment while a run looked, which therefore trains."""
        standing = state.verdicts.get(self.label)
        return standing is not None and standing.verdict == "asked" and self._looking(state)

    def _wanted(self, state: Pipeline, verdict: str) -> Intent | None:
        """Return the whole intent that a verdict wishes for, if any."""
        increment, base, look = self._intents
        if verdict == "due":
            return base if state.champion is None else increment
        return look if verdict == "look" else None

    def _looked(self, state: Pipeline, run: Run, record: Record) -> Decision:
        """Return the plan of a run that has looked, when `when` holds now that it has, or its end."""
        after = left(state, run, record.recorded_at)
        free, rest = moment(after, record.recorded_at), unseen(after, record.recorded_at)
        told = self._tell(free, rest, "looked")
        trigger = self._counting(free)
        asked = self._asked_of_look(state)
        if not run.plan.new:
            return self.fix(state, run)
        if asked or trigger.holds(free):
            plan = self.fix(state, run)
            both = together([told, Told(why="", inputs=plan.inputs, thresholds=plan.thresholds)], "")
            why = "A person asked for it" if asked else _sentence(told.why)
            plan = replace(plan, reason=f"{why}. {plan.reason}", inputs=both.inputs, thresholds=both.thresholds)
            return replace(plan, wakes=self._meanwhile(state, record)) if asked else self.trains(state, record, plan)
        at = trigger.wakes(free)
        if self.look is not None and rest.pending:
            at = _earlier(at, self.look.wakes(rest))
        return Decision(
            verdict="postponed",
            reason=f"{_sentence(told.why)}: what run {run.run} looked at stays pending.",
            inputs=told.inputs,
            thresholds=told.thresholds,
            commands=(PostponeRun(run=run.run),),
            wakes=armed(after, self.label, WHEN, record.recorded_at, at),
        )

    def _given_back(self, state: Pipeline, record: Record) -> Decision | None:
        """Return when to weigh again what has come: if the run is given up now, its data waits with it."""
        if not free_tokens(state) or self._weigh(state, record)[0] != "waiting":
            return None
        decision = self.opinion(state, record)
        return replace(decision, wakes={**decision.wakes, WHEN: record.recorded_at + SOON})

    def _meanwhile(self, state: Pipeline, record: Record) -> dict[str, datetime]:
        """Return when to weigh what came while the run looked as asked: until now no number of it counted."""
        free = moment(state, record.recorded_at)
        trigger = self._counting(free)
        at = record.recorded_at + SOON if free.pending and trigger.holds(free) else trigger.wakes(free)
        return {WHEN: at} if at is not None else {}

    def _tell(self, free: Moment, rest: Moment, verdict: str) -> Told:
        """Return the numbers of `when` and `look`, and why it is due, why a look is, or why neither."""
        told = self._counting(free).tell(free)
        if self.look is None or free.state.champion is None or verdict == "looked":
            return told
        look = self.look.tell(rest)
        named = Told(why=look.why, inputs=_prefixed(look.inputs), thresholds=_prefixed(look.thresholds))
        return together([told, named], look.why if verdict == "look" else told.why)

    def _because(self, state: Pipeline, record: Record, verdict: str, why: str) -> str:
        what = "a base training" if state.champion is None else "an increment"
        match verdict:
            case "blocked":
                how = "was cancelled" if state.last is not None and state.last.outcome == "cancelled" else "failed"
                return f"The last run over this data {how}: it waits for more, or `rewarm request retry {state.name}`."
            case "nothing_pending":
                return "Nothing waits that could be trained on."
            case "asked":
                return (
                    f"A person asked for {what}: run {state.active.run if state.active else ''}, which looks, trains."
                )
            case "due" if isinstance(record.event, OperatorRequested) and record.event.verb in self.verbs:
                return f"{record.event.by or 'A person'} asked for {what} on what waits."
            case "due" if stays(state, self.label):
                return f"A person asked for {what} on what waits."
            case "due":
                return f"{_sentence(why)}: {what} is due."
            case "look":
                return f"{_sentence(why)}: a probe looks at what waits."
            case _:
                return f"{_sentence(why)}."

    def _counting(self, free: Moment) -> Trigger:
        """Return what makes training due: `when`, or, where nothing of it can be told yet, `look` or the first data."""
        when = self._when
        if when.speaks(free):
            return when
        return self.look if self.look is not None and self.look.speaks(free) else FIRST

    @cached_property
    def _when(self) -> Trigger:
        if self.when is not None:
            return self.when
        enough = Tokens(tokens=self.after_tokens if self.after_tokens is not None else AFTER_TOKENS)
        return enough if self.max_age is None else AnyOf(any=(enough, Age(age=self.max_age)))

    @cached_property
    def _too_few(self) -> int:
        """Fewer tokens than that make nothing due, whatever else there is: seen without weighing, with every fact."""
        return self._when.tokens if self.look is None and isinstance(self._when, Tokens) else 0

    @cached_property
    def _weighed_after(self) -> tuple[type, ...]:
        """The facts after which it is weighed anew: what is measured only where a signal is looked at."""
        return (*RECONSIDERED, *MEASURED) if self.signals else RECONSIDERED

    @cached_property
    def _intents(self) -> tuple[Intent, Intent, Intent]:
        """The whole intents of an increment, a base training and a look; the share is a draft until the probe spoke."""
        share = self.mild_replay if self.replay == "auto" else self.replay

        def training(*, first: bool) -> Training:
            return self.training.training(self.training.schedule(self.schedule, first=first), share)

        increment = self.whole(Intent(kind="increment", start="champion", training=training(first=False)))
        base = self.whole(Intent(kind="base", start="scratch", training=training(first=True)))
        return increment, base, replace(increment, look=True)


def left(state: Pipeline, run: Run, now: datetime) -> Pipeline:
    """Return the pipeline as it is once a run that has only looked is postponed."""
    waited = run.waited + tokens(run.plan.new) * max(0.0, (now - run.started_at).total_seconds())
    return replace(
        state,
        active=None,
        waiting_since=run.waiting_since or state.waiting_since,
        waited=free_waited(state, now) + waited,
        waited_at=now,
        looked=run.plan.new,
        looked_at=now,
        looked_upto=max((span.upto for span in run.plan.spans), default=state.last_arrival),
    )


def _probed(trigger: Trigger | None) -> str:
    """Return the first signal of a trigger that a probe measures; "": there is none."""
    found = leaves(trigger) if trigger is not None else ()
    return next((leaf.signal for leaf in found if isinstance(leaf, Signal) and leaf.probed), "")


def _earlier(first: datetime | None, second: datetime | None) -> datetime | None:
    both = [at for at in (first, second) if at is not None]
    return min(both, default=None)


def _prefixed(numbers: Numbers) -> Numbers:
    return {f"look_{name}": value for name, value in numbers.items()}


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:]
