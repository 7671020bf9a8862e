"""Regret: what waiting costs by now against what training costs."""

from datetime import datetime, timedelta
from math import ceil
from typing import ClassVar

from msgspec.structs import replace
from pydantic import Field

from daemon.core.decisions import rounded
from daemon.core.plans import tokens
from daemon.core.state import free_tokens, free_waited
from policies.triggers.base import Moment, Told, Trigger

MILLION = 1e6
HOUR = 3600.0
NUDGES = 30
"""Tries, each twice as far from the one before, to reach the instant that rounding has moved."""
LATEST = timedelta(days=36_525)
"""What would take longer than a century asks for no wake-up."""


class Regret(Trigger):
    """What waits has waited so long that training costs less than the waiting.

    A million tokens that wait an hour are worth so many hours of compute; what a run over them takes is the line
    through past runs (`state.cost`). Where no run has trained yet there is nothing to compare with.
    """

    key: ClassVar[str] = "regret"
    regret: float = Field(gt=0, le=1e9, description="hours of compute that a million tokens' wait of an hour is worth")

    def speaks(self, moment: Moment) -> bool:
        """Return whether a run has shown what training costs."""
        return moment.state.cost.runs > 0

    def expected(self, moment: Moment) -> float | None:
        """Return the seconds that a run over what waits is expected to take."""
        return moment.state.cost.expected(tokens(moment.pending))

    def waited(self, moment: Moment) -> float:
        """Return what waiting has cost, in seconds of compute."""
        return free_waited(moment.state, moment.now) / MILLION * self.regret

    def holds(self, moment: Moment) -> bool:
        """Return whether waiting has cost as much as training would."""
        if not moment.pending:
            return False
        expected = self.expected(moment)
        return expected is not None and rounded(self.waited(moment)) >= rounded(expected)

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when it will have, to the microsecond."""
        counted = moment.state.waited_at  # from then on what is free waits on
        rate = free_tokens(moment.state) / MILLION * self.regret
        if not moment.pending or counted is None or rate <= 0 or self.holds(moment):
            return None
        expected = self.expected(moment)
        if expected is None:
            return None
        seconds = max(0.0, (expected - self.waited(moment)) / rate)
        if seconds > LATEST.total_seconds():
            return None
        at = max(moment.now, counted) + timedelta(microseconds=max(1, ceil(seconds * 1e6)))
        for doubled in range(NUDGES):
            if self.holds(replace(moment, now=at)):
                return at
            at += timedelta(microseconds=2**doubled)
        return None

    def tell(self, moment: Moment) -> Told:
        """Return both in hours of compute."""
        expected = self.expected(moment) if moment.pending else None
        cost = rounded(self.waited(moment) / HOUR) if moment.pending else 0.0
        bound = rounded(expected / HOUR) if expected is not None else None
        if not moment.pending:
            why = "nothing waits"
        elif bound is None:
            why = "no run has shown yet what training costs"
        elif self.holds(moment):
            why = f"waiting has cost {cost:.3g} hours of compute, and training takes {bound:.3g}"
        else:
            why = f"waiting has cost {cost:.3g} of the {bound:.3g} hours of compute that training takes"
        return Told(why=why, inputs={"regret_hours": cost}, thresholds={"regret_hours": bound})
