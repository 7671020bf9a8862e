"""What every start of a policy is held against, in order: the first that keeps it back is named."""

from datetime import datetime, timedelta
from functools import cached_property
from typing import Self

from msgspec.structs import replace
from pydantic import Field, model_validator

from daemon.core.decisions import AWAITING
from daemon.core.plans import Intent
from daemon.core.state import Pipeline, free_arrivals
from policies.guards import once, quiet
from policies.guards.base import Guarded, GuardSettings, Start, shown
from policies.guards.budget import Budget
from policies.guards.once import Once
from policies.guards.quiet import Window
from policies.periods import Period, told

AT_MOST = 10
"""How many times `debounce` the oldest arrival waits where `debounce_at_most` is not given."""


class Guards(GuardSettings):
    """What keeps a policy from starting although it is due; a person's request goes past all of it."""

    cooldown: Period | None = Field(default=None, description="shortest time from one start to the next")
    once: Once | None = Field(default=None, description="one start for each key")
    budget: Budget | None = Field(default=None, description="most that the pipeline may compute a day and a month")
    quiet: tuple[Window, ...] = Field(default=(), max_length=20, description="hours in which nothing starts")
    debounce: Period | None = Field(default=None, description="silence that must follow the last arrival")
    debounce_at_most: Period | None = Field(
        default=None, description="longest that the oldest arrival waits for the silence; none: ten times `debounce`"
    )
    approval: bool = Field(default=False, description="whether a person has to approve each start")

    @model_validator(mode="after")
    def _bounds_belong_to_something(self) -> Self:
        if self.debounce_at_most is not None and (self.debounce is None or self.debounce_at_most < self.debounce):
            message = "`debounce_at_most` bounds how long `debounce` can last: give both, and it must not be shorter"
            raise ValueError(message)
        return self

    @cached_property
    def idle(self) -> bool:
        """Whether nothing is guarded."""
        return self == Guards()

    def whole(self, state: Pipeline, policy: str, intent: Intent, now: datetime) -> Intent:
        """Return the intent with the key that its start takes."""
        return intent if self.once is None else replace(intent, claim=self.once.claim(state, policy, intent, now))

    def against(self, start: Start) -> Guarded | None:
        """Return what keeps the policy from starting now, if anything."""
        if self.idle:
            return None
        return (
            self._cooling(start)
            or (once.against(start) if self.once is not None else None)
            or (self.budget.against(start) if self.budget is not None else None)
            or (quiet.against(self.quiet, start) if self.quiet else None)
            or self._debouncing(start)
            or self._awaiting(start)
        )

    def closes(self, now: datetime) -> datetime | None:
        """Return until when at the latest a start that waits may happen: quiet hours begin then."""
        return quiet.next_begin(self.quiet, now) if self.quiet else None

    def _cooling(self, start: Start) -> Guarded | None:
        if self.cooldown is None or start.looked:
            return None
        run, begun = start.state.active, start.state.begun.get(start.policy)
        if run is not None and run.policy == start.policy and run.intent.look:
            until = max(run.started_at, start.now) + self.cooldown
            return Guarded(
                verdict="cooling_down",
                reason=f"Run {run.run} of {start.policy} looks, and may train: nothing starts beside it.",
                until=until,
            )
        if begun is None or start.now >= begun + self.cooldown:
            return None
        until = begun + self.cooldown
        return Guarded(
            verdict="cooling_down",
            reason=f"The last run of {start.policy} began at {shown(begun)}: not again before {shown(until)}.",
            until=until,
            inputs={"since_start_seconds": round((start.now - begun).total_seconds(), 3)},
            thresholds={"since_start_seconds": self.cooldown.total_seconds()},
        )

    def _debouncing(self, start: Start) -> Guarded | None:
        state, now = start.state, start.now
        last, oldest = state.last_arrival_at, state.waiting_since
        if self.debounce is None or last is None or start.looked or not free_arrivals(state):
            return None
        longest = self.debounce_at_most or self._ten_times
        until = min(last + self.debounce, (oldest or last) + longest)
        if now >= until:
            return None
        return Guarded(
            verdict="debouncing",
            reason=f"Data still comes: it starts when none has come for {told(self.debounce)}, at the latest at "
            f"{shown((oldest or last) + longest)}.",
            until=until,
            inputs={
                "silence_seconds": round((now - last).total_seconds(), 3),
                "oldest_seconds": round((now - (oldest or last)).total_seconds(), 3),
            },
            thresholds={
                "silence_seconds": self.debounce.total_seconds(),
                "oldest_seconds": longest.total_seconds(),
            },
        )

    def _awaiting(self, start: Start) -> Guarded | None:
        if not self.approval or start.looked:
            return None
        return Guarded(
            verdict=AWAITING,
            reason=f"A person has to approve it: rewarm request approve {start.state.name} --decision POSITION.",
        )

    @cached_property
    def _ten_times(self) -> timedelta:
        return min(AT_MOST * (self.debounce or timedelta(0)), timedelta(days=36_525))
