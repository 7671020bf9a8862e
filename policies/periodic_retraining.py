"""Retrain from a base or from scratch on everything: after so many increments, so much time, or by a calendar."""

from datetime import datetime, timedelta
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from daemon.core.decisions import Decision
from daemon.core.events import (
    CatchUp,
    ModelPromoted,
    Numbers,
    OperatorRequested,
    Record,
    ScheduleFired,
    ScheduleSettings,
    TimerFired,
)
from daemon.core.plans import Intent, ScheduleKind
from daemon.core.state import Pipeline, Run, timer_key
from policies.base import RECONSIDERED, Period, Starting, blocked, finished_stage

INTERVAL = "interval"
JUDGED = "judged"
NO_MODEL = Decision(verdict="no_model", reason="There is no model yet that could be trained again: this tick passes.")


class PeriodicRetraining(Starting):
    """A retrain after `after_increments` promoted increments, every `every`, at each tick of `cron`, or on request.

    The interval counts from the last promotion of a model that was retrained or trained first; it rests on a
    wake-up that is pending in the state, so a daemon that was down fires it when it is back. A retrained candidate
    that was refused is an occasion used: the next one comes with another promoted increment, after `every`, or with
    the next tick. A tick is an occasion of its own: where it has to wait, its wish stands until a retrain has
    happened; where the last run over the same data failed, it passes.
    """

    version: ClassVar[int] = 2
    kind: Literal["periodic_retraining"] = "periodic_retraining"
    after_increments: int | None = Field(default=None, ge=1, description="promoted increments between retrains")
    every: Period | None = Field(default=None, description="time between retrains")
    cron: str | None = Field(
        default=None, max_length=200, description="calendar of retrains: minute, hour, day, month, day of the week"
    )
    timezone: str = Field(default="UTC", max_length=100, description="whose wall clock `cron` is read on")
    catch_up: CatchUp = Field(default="last", description="what becomes of ticks that no daemon was there for")
    start: Literal["scratch", "base", "champion"] = Field(default="base", alias="from")
    schedule: ScheduleKind = "rewarm"

    @property
    def ticks(self) -> ScheduleSettings | None:
        """The calendar, if there is one."""
        if self.cron is None:
            return None
        return ScheduleSettings(cron=self.cron, timezone=self.timezone, catch_up=self.catch_up)

    @model_validator(mode="after")
    def _has_an_occasion(self) -> Self:
        if self.every is not None and self.every < timedelta(seconds=1):
            message = "`every` must be at least one second"
            raise ValueError(message)
        if self.cron is None and (self.timezone != "UTC" or self.catch_up != "last"):
            message = "`timezone` and `catch_up` say how `cron` is read: give `cron` too, or leave them out"
            raise ValueError(message)
        return self

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish to retrain when its occasion has come."""
        if isinstance(record.event, RECONSIDERED) or self._ticked(record):
            return None if self._repeats(state, record) else self.opinion(state, record)
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
            return NO_MODEL if self._ticked(record) else None
        due_at = self._due_at(state, record)
        verdict, why, wakes = self._weigh(state, record, due_at)
        since = record.recorded_at - (due_at - self.every if due_at and self.every else state.base.promoted_at)
        inputs: Numbers = {"increments": state.increments, "seconds": round(since.total_seconds(), 3)}
        thresholds: Numbers = {
            "increments": self.after_increments,
            "seconds": self.every.total_seconds() if self.every else None,
        }
        reason = why or f"{state.increments} increments since the last full training."
        decision = Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=thresholds, wakes=wakes)
        if verdict == "due":
            return self.due(state, record, decision, self._retrain)
        keeps = self._keeps_wish(state) and (verdict != "blocked" or self._ticked(record))
        return decision if keeps else self.not_due(state, decision)

    def _repeats(self, state: Pipeline, record: Record) -> bool:
        if state.champion is None or state.base is None:
            return False
        verdict, _, wakes = self._weigh(state, record, self._due_at(state, record))
        return self.repeats(state, record, verdict, wakes, self._retrain if verdict == "due" else None)

    def _weigh(self, state: Pipeline, record: Record, due_at: datetime | None) -> tuple[str, str, dict[str, datetime]]:
        """Return the verdict, its occasion or what speaks against it, and when to be asked again."""
        occasion = self._occasion(state, record, due_at)
        if occasion is None:
            return "waiting", "", {INTERVAL: due_at} if due_at else {}
        obstacle = None if self._asked(record) else self._obstacle(state, record)
        return (*(obstacle or ("due", occasion)), {})

    def _asked(self, record: Record) -> bool:
        return isinstance(record.event, OperatorRequested) and record.event.verb == "retrain"

    def _ticked(self, record: Record) -> bool:
        return isinstance(record.event, ScheduleFired) and record.event.policy == self.label

    def _keeps_wish(self, state: Pipeline) -> bool:
        """A wish that an operator or a tick asked for stands although no number does, until a retrain has happened."""
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
        woken = isinstance(record.event, TimerFired | ScheduleFired) and record.event.policy == self.label
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
        if isinstance(record.event, ScheduleFired):
            return f"The schedule {record.event.cron!r} fired for {record.event.scheduled_for.isoformat()}."
        if self.after_increments is not None and state.increments >= self.after_increments:
            return f"{state.increments} increments were promoted since the last full training."
        if due_at is not None and record.recorded_at >= due_at:
            return f"The last full training is older than {self.every}."
        return None

    @cached_property
    def _retrain(self) -> Intent:
        schedule = self.training.schedule(self.schedule, first=True)
        return self.whole(Intent(kind="retrain", start=self.start, training=self.training.training(schedule, 0.0)))
