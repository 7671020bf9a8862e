"""Retrain from a base or from scratch on everything, after so many increments or so much time."""

from datetime import datetime, timedelta
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from daemon.core.decisions import Decision
from daemon.core.events import ModelPromoted, Numbers, OperatorRequested, Record, TimerFired
from daemon.core.plans import Intent
from daemon.core.state import Pipeline, Run, timer_key
from policies.base import RECONSIDERED, Period, Starting, blocked, finished_stage

INTERVAL = "interval"
JUDGED = "judged"


class PeriodicRetraining(Starting):
    """A retrain after `after_increments` promoted increments, every `every`, or when an operator asks.

    The interval counts from the last promotion of a model that was retrained or trained first; it rests on a
    wake-up that is pending in the state, so a daemon that was down fires it when it is back. A retrained candidate
    that was refused is an occasion used: the next one comes with another promoted increment, or after `every`.
    """

    version: ClassVar[int] = 1
    kind: Literal["periodic_retraining"] = "periodic_retraining"
    after_increments: int | None = Field(default=None, ge=1, description="promoted increments between retrains")
    every: Period | None = Field(default=None, description="time between retrains")
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
        if isinstance(record.event, RECONSIDERED):
            return self.opinion(state, record)
        run = state.active
        if run is not None and self._is_mine(run) and finished_stage(record, "evaluate"):
            return Decision(
                verdict=JUDGED,
                reason=f"The candidate of {run.run} is judged; the next occasion counts from here.",
                wakes={INTERVAL: record.recorded_at + self.every} if self.every else {},
            )
        return None

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return whether a retrain is due, with the numbers."""
        if state.champion is None or state.base is None:
            return None
        due_at = self._due_at(state, record)
        since = record.recorded_at - (due_at - self.every if due_at and self.every else state.base.promoted_at)
        inputs: Numbers = {"increments": state.increments, "seconds": round(since.total_seconds(), 3)}
        thresholds: Numbers = {
            "increments": self.after_increments,
            "seconds": self.every.total_seconds() if self.every else None,
        }
        occasion = self._occasion(state, record, due_at)
        obstacle = None if occasion is None or self._asked(record) else self._obstacle(state, record)
        if obstacle is not None:
            verdict, reason = obstacle
            blocking = Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=thresholds)
            return blocking if verdict != "blocked" and self._keeps_wish(state) else self.not_due(state, blocking)
        if occasion is not None:
            decision = Decision(verdict="due", reason=occasion, inputs=inputs, thresholds=thresholds)
            return self.due(state, record, decision, self._intent())
        wakes = {INTERVAL: due_at} if due_at else {}
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

    def _is_mine(self, run: Run) -> bool:
        return run.policy == self.label and run.plan.kind == "retrain"

    def _obstacle(self, state: Pipeline, record: Record) -> tuple[str, str] | None:
        """Return the verdict and the reason that speak against a retrain although its occasion has come."""
        if blocked(state):
            return "blocked", "The last run over this data ended without a model; new data or retry."
        standing = state.verdicts.get(self.label)
        judged = standing.position if standing is not None and standing.verdict == JUDGED else 0
        woken = isinstance(record.event, TimerFired) and record.event.policy == self.label
        if not woken and state.champion is not None and state.champion.position < judged:
            return JUDGED, "The last retrained candidate was not promoted; another increment or the interval."
        for run in (state.active, state.yielded, state.held):
            if run is not None and self._is_mine(run):
                return "running", f"Run {run.run} is the retrain that was due."
        return None

    def _due_at(self, state: Pipeline, record: Record) -> datetime | None:
        """Return when the interval is over: as the pending wake-up says, which the last full training set."""
        if self.every is None or state.base is None or state.champion is None:
            return None
        run = state.active
        if isinstance(record.event, ModelPromoted) and run is not None and run.plan.kind != "increment":
            return state.champion.promoted_at + self.every
        pending = state.timers.get(timer_key(self.label, INTERVAL))
        if pending is not None:
            return min(pending, record.recorded_at + self.every)  # `every` may have become shorter
        return state.base.promoted_at + self.every

    def _occasion(self, state: Pipeline, record: Record, due_at: datetime | None) -> str | None:
        if self._asked(record):
            return "An operator asked for a retrain."
        if self.after_increments is not None and state.increments >= self.after_increments:
            return f"{state.increments} increments were promoted since the last full training."
        if due_at is not None and record.recorded_at >= due_at:
            return f"The last full training is older than {self.every}."
        return None

    def _intent(self) -> Intent:
        schedule = self.training.schedule(self.schedule, first=True)
        return Intent(kind="retrain", start=self.start, training=self.training.training(schedule, 0.0))
