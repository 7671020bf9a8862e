"""Retrain from a base or from scratch on everything, after so many increments or so much time."""

from datetime import timedelta
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from daemon.core.decisions import Decision
from daemon.core.events import Numbers, OperatorRequested, Record
from daemon.core.plans import Intent
from daemon.core.state import Pipeline
from policies.base import RECONSIDERED, Starting, blocked

INTERVAL = "interval"


class PeriodicRetraining(Starting):
    """A retrain after `after_increments` promoted increments, every `every`, or when an operator asks.

    The interval counts from the last promotion of a model that was retrained or trained first; it rests on a
    wake-up that is pending in the state, so a daemon that was down fires it when it is back.
    """

    version: ClassVar[int] = 1
    kind: Literal["periodic_retraining"] = "periodic_retraining"
    after_increments: int | None = Field(default=None, ge=1, description="promoted increments between retrains")
    every: timedelta | None = Field(default=None, description="time between retrains")
    start: Literal["scratch", "base", "champion"] = Field(default="base", alias="from")
    schedule: Literal["rewarm", "infinite", "constant"] = "rewarm"

    @model_validator(mode="after")
    def _has_an_occasion(self) -> Self:
        if self.every is not None and self.every < timedelta(seconds=1):
            message = "`every` must be at least one second"
            raise ValueError(message)
        return self

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish to retrain when its occasion has come."""
        return self.opinion(state, record) if isinstance(record.event, RECONSIDERED) else None

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return whether a retrain is due, with the numbers."""
        if state.champion is None or state.base is None:
            return None
        since = record.recorded_at - state.base.promoted_at
        inputs: Numbers = {"increments": state.increments, "seconds": round(since.total_seconds(), 3)}
        thresholds: Numbers = {
            "increments": self.after_increments,
            "seconds": self.every.total_seconds() if self.every else None,
        }
        occasion = self._occasion(state, record)
        if occasion is not None and blocked(state) and not self._asked(record):
            blocking = Decision(
                verdict="blocked",
                reason="The last run over this data ended without a model; new data or retry.",
                inputs=inputs,
                thresholds=thresholds,
            )
            return self.not_due(state, blocking)
        if occasion is not None:
            decision = Decision(verdict="due", reason=occasion, inputs=inputs, thresholds=thresholds)
            return self.due(state, record, decision, self._intent())
        wakes = {INTERVAL: state.base.promoted_at + self.every} if self.every else {}
        waiting = Decision(
            verdict="waiting",
            reason=f"{state.increments} increments since the last full training.",
            inputs=inputs,
            thresholds=thresholds,
            wakes=wakes,
        )
        return waiting if self._keeps_wish(state) else self.not_due(state, waiting)

    def _asked(self, record: Record) -> bool:
        return isinstance(record.event, OperatorRequested) and record.event.verb == "retrain"

    def _keeps_wish(self, state: Pipeline) -> bool:
        """A wish that an operator asked for stands although no number asks for it, until a retrain has happened."""
        wish = state.wishes.get(self.label)
        return wish is not None and state.base is not None and state.base.position < wish.since

    def _occasion(self, state: Pipeline, record: Record) -> str | None:
        if self._asked(record):
            return "An operator asked for a retrain."
        if self.after_increments is not None and state.increments >= self.after_increments:
            return f"{state.increments} increments were promoted since the last full training."
        if self.every is not None and state.base and record.recorded_at >= state.base.promoted_at + self.every:
            return f"The last full training is older than {self.every}."
        return None

    def _intent(self) -> Intent:
        schedule = self.training.schedule(self.schedule, first=True)
        return Intent(kind="retrain", start=self.start, training=self.training.training(schedule, 0.0))
