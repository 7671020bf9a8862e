"""Continue the champion on new data: re-warm, replay the past, re-decay (Ibrahim et al. 2024, arXiv 2403.08763)."""

from datetime import datetime
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from msgspec.structs import replace
from pydantic import Field, model_validator

from daemon.core.commands import FixPlan
from daemon.core.decisions import Decision, rounded
from daemon.core.events import Numbers, Record
from daemon.core.plans import Intent, ScheduleKind, Training, budget, tokens
from daemon.core.state import Pipeline, Run, free_arrivals, free_tokens
from policies.base import RECONSIDERED, Period, Starting, blocked, finished_stage

AGE = "age"


class RewarmReplay(Starting):
    """An increment when enough new tokens wait, or when they have waited long enough.

    The first data gives a base training. After the probe the plan is fixed: with `replay: auto` the share of
    old tokens follows from the shift (the champion's loss on the new data above its loss on the old): 1 %
    below 0.02 nats per byte, 5 % below 0.7, 25 % above (the paper's weak and strong shifts, section 6).
    """

    version: ClassVar[int] = 1
    kind: Literal["rewarm_replay"] = "rewarm_replay"
    after_tokens: int = Field(default=2_000_000, ge=1, description="pending tokens that make an increment due")
    max_age: Period | None = Field(default=None, description="longest that pending data may wait")
    schedule: ScheduleKind = "rewarm"
    replay: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        default="auto", description="share of old tokens in every batch"
    )
    weak_shift: float = Field(default=0.02, ge=0, description="nats per byte: below it 1 % is replayed")
    strong_shift: float = Field(default=0.7, ge=0, description="nats per byte: from it on 25 % is replayed")

    @model_validator(mode="after")
    def _shifts_in_order(self) -> Self:
        if self.weak_shift > self.strong_shift:
            message = "`weak_shift` must not lie above `strong_shift`"
            raise ValueError(message)
        return self

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish to start, or the plan once the probe has spoken."""
        if isinstance(record.event, RECONSIDERED):
            verdict, wakes = self._weigh(state, record.recorded_at)
            wanted = self._wanted(state) if verdict == "due" else None
            return None if self.repeats(state, record, verdict, wakes, wanted) else self.opinion(state, record)
        run = state.active
        if run is not None and run.policy == self.label and finished_stage(record, "probe"):
            return self._fix(run)
        return None

    def opinion(self, state: Pipeline, record: Record) -> Decision:
        """Return whether an increment is due, with the numbers."""
        verdict, wakes = self._weigh(state, record.recorded_at)
        waiting, arrivals = free_tokens(state), free_arrivals(state)
        thresholds: Numbers = {"tokens": self.after_tokens}
        inputs: Numbers = {"tokens": waiting, "arrivals": arrivals}
        if self.max_age is not None:
            oldest = state.waiting_since if arrivals else None
            thresholds["age_seconds"] = self.max_age.total_seconds()
            inputs["age_seconds"] = rounded((record.recorded_at - oldest).total_seconds()) if oldest else None
        if verdict == "blocked":
            reason = f"The last run over this data {state.last.outcome if state.last else 'failed'}; new data or retry."
        elif verdict == "due":
            what = "a base training" if state.champion is None else "an increment"
            why = f"{waiting:,} new tokens wait" if waiting >= self.after_tokens else f"data waited {self.max_age}"
            reason = f"{why}: {what} is due."
        else:
            reason = f"{waiting:,} of {self.after_tokens:,} new tokens wait."
        decision = Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=thresholds, wakes=wakes)
        if verdict == "due":
            return self.due(state, record, decision, self._wanted(state))
        return self.not_due(state, decision)

    def _weigh(self, state: Pipeline, now: datetime) -> tuple[str, dict[str, datetime]]:
        """Return the verdict, and when to be asked again."""
        if blocked(state):
            return "blocked", {}
        enough = free_tokens(state) >= self.after_tokens
        if not enough and self.max_age is None:
            return "waiting", {}
        if not free_arrivals(state):
            return "waiting", {}
        if enough:
            return "due", {}
        if self.max_age is None or state.waiting_since is None:
            return "waiting", {}
        aged = state.waiting_since + self.max_age
        return ("due", {}) if now >= aged else ("waiting", {AGE: aged})

    def _wanted(self, state: Pipeline) -> Intent:
        return self._intents[state.champion is None]

    @cached_property
    def _intents(self) -> tuple[Intent, Intent]:
        """The whole intents of an increment and of a base training; the share is a draft until the probe has spoken."""
        share = 0.05 if self.replay == "auto" else self.replay

        def training(*, first: bool) -> Training:
            return self.training.training(self.training.schedule(self.schedule, first=first), share)

        increment = Intent(kind="increment", start="champion", training=training(first=False))
        return self.whole(increment), self.whole(Intent(kind="base", start="scratch", training=training(first=True)))

    def _fix(self, run: Run) -> Decision:
        replay, rule = self._share(run)
        new = tokens(run.plan.new)
        total = (
            budget(new, replay, run.intent.epochs, run.intent.max_tokens)
            if run.plan.kind != "retrain"
            else run.plan.training.tokens
        )
        plan = replace(run.plan, training=replace(run.plan.training, replay=replay, tokens=total), rule=rule)
        return Decision(
            verdict="planned",
            reason=f"Train on {total:,} tokens, {replay:.0%} of them replayed: {rule}.",
            inputs={"shift": rounded(run.shift) if run.shift is not None else None, "new_tokens": new},
            thresholds={"weak_shift": self.weak_shift, "strong_shift": self.strong_shift},
            commands=(FixPlan(run=run.run, plan=plan),),
        )

    def _share(self, run: Run) -> tuple[float, str]:
        if not tokens(run.plan.past):
            return 0.0, "there is no past to replay"
        if self.replay != "auto":
            return self.replay, "the share is configured"
        if run.shift is None:
            return 0.05, "no shift was measured, so the default of 5 %"
        shift = rounded(run.shift)
        if shift < self.weak_shift:
            return 0.01, f"a shift of {shift:.3f} is below {self.weak_shift:g} nats per byte"
        if shift < self.strong_shift:
            return 0.05, f"a shift of {shift:.3f} lies below {self.strong_shift:g} nats per byte"
        return 0.25, f"a shift of {shift:.3f} is strong (from {self.strong_shift:g} nats per byte)"
