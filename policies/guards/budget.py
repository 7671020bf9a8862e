"""The budget: what a pipeline may compute a day and a month (UTC), in hours or in money."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Self

import msgspec
from pydantic import Field, model_validator

from daemon.core.decisions import rounded
from daemon.core.events import Numbers
from daemon.core.plans import Intent, budget, tokens
from daemon.core.state import Pipeline, Run, free_tokens
from policies.guards.base import Guarded, GuardSettings, Start, shown

HOUR: Final = 3600.0
CLOSE: Final = 1e-3
"""Seconds of compute that are no difference: instants are kept to the microsecond."""
SPARE: Final = 1.0
"""Seconds of compute with which nothing can be begun: to stop takes as long."""

Positive = Annotated[float, Field(gt=0)]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What of a day or a month is used, in seconds of compute, and when the next one begins."""

    name: str
    used: float
    limit: float
    end: datetime

    @property
    def empty(self) -> bool:
        """Return whether nothing is left."""
        return self.used >= self.limit - min(SPARE, self.limit / 2)


class Budget(GuardSettings):
    """Amounts are hours of compute; with `price`, what an hour costs, they are money."""

    per_day: Positive | None = Field(default=None, description="most in a day (UTC)")
    per_month: Positive | None = Field(default=None, description="most in a month (UTC)")
    price: Positive | None = Field(default=None, description="what an hour of compute costs")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.per_day is None and self.per_month is None:
            message = "a budget needs `per_day`, `per_month`, or both"
            raise ValueError(message)
        return self

    def against(self, start: Start) -> Guarded | None:
        """Return what keeps a start from fitting into what is left; of an unknown cost anything left is enough.

        A run that costs more than all of a day's budget fits into a whole one: it yields when that is used up.
        """
        expected = start.state.cost.expected(wanted(start.state, start.intent))
        for account in reversed(self.accounts(start.state, start.now)):
            need = min(expected, account.limit) if expected is not None else 0.0
            if account.empty or rounded(account.used + need) > rounded(account.limit + CLOSE):
                if start.brief:
                    return Guarded(verdict="over_budget", reason="", until=account.end)
                asked = f", a run takes about {self._amount(expected)}" if expected is not None else ""
                return Guarded(
                    verdict="over_budget",
                    reason=f"{self._told(account)}{asked}: not before {shown(account.end)}.",
                    until=account.end,
                    inputs={
                        **self._inputs(account),
                        "expected": rounded(self._units(expected)) if expected is not None else None,
                    },
                    thresholds=self._thresholds(account),
                )
        return None

    def course(self, state: Pipeline, run: Run, now: datetime) -> tuple[datetime | None, Guarded | None]:
        """Return when to look at the active run again, or, once nothing is left, why it goes on later and when."""
        accounts = self.accounts(state, now)
        for account in reversed(accounts):
            if account.empty:
                kept = Guarded(
                    verdict="over_budget",
                    reason=f"{self._told(account)}: run {run.run} yields, and goes on from {shown(account.end)}.",
                    until=account.end,
                    inputs=self._inputs(account),
                    thresholds=self._thresholds(account),
                )
                return None, kept
        if run.order is None:
            return None, None
        rate = processes(run)
        ends = (min(each.end, now + timedelta(seconds=(each.limit - each.used) / rate)) for each in accounts)
        return min(ends), None

    def accounts(self, state: Pipeline, now: datetime) -> list[Account]:
        """Return the day and the month, as far as they are bounded, with what the attempt at work has used."""
        day, month = state.spent.on(now)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        first = midnight.replace(day=1)
        found = []
        if self.per_day is not None:
            end = midnight + timedelta(days=1)
            found.append(("day", day + going(state, midnight, now), self.per_day, end))
        if self.per_month is not None:
            end = (first + timedelta(days=32)).replace(day=1)
            found.append(("month", month + going(state, first, now), self.per_month, end))
        return [Account(name=name, used=used, limit=self._seconds(most), end=end) for name, used, most, end in found]

    def _seconds(self, amount: float) -> float:
        return amount * HOUR if self.price is None else amount / self.price * HOUR

    def _units(self, seconds: float) -> float:
        return seconds / HOUR * (1.0 if self.price is None else self.price)

    def _amount(self, seconds: float) -> str:
        return f"{self._units(seconds):.4g}" + (" h" if self.price is None else "")

    def _told(self, account: Account) -> str:
        return f"Of the {account.name}'s budget of {self._amount(account.limit)}, {self._amount(account.used)} are used"

    def _inputs(self, account: Account) -> Numbers:
        return {f"used_per_{account.name}": rounded(self._units(account.used))}

    def _thresholds(self, account: Account) -> Numbers:
        return {f"used_per_{account.name}": rounded(self._units(account.limit))}


def going(state: Pipeline, since: datetime, now: datetime) -> float:
    """Return the seconds of compute that the attempt at work has used since an instant; they are not charged yet."""
    run = state.active
    if run is None or run.order is None:
        return 0.0
    begun = max(since, run.order.started_at or run.order.ordered_at)
    return max(0.0, (now - begun).total_seconds()) * processes(run)


def processes(run: Run) -> int:
    """Return how many processes the stage computes in: as its attempts are charged."""
    return run.plan.training.engine.processes if run.stage == "train" else 1


def wanted(state: Pipeline, intent: Intent) -> int:
    """Return how many tokens a run would train on that started now."""
    if intent.training.tokens:
        return intent.training.tokens  # its plan is drafted
    past = tokens(state.champion.past) if state.champion is not None else 0
    if intent.kind == "retrain":
        return budget(tokens(state.pending) + past, 0.0, intent.epochs, intent.max_tokens)
    replay = intent.training.replay if past else 0.0
    return budget(free_tokens(state), replay, intent.epochs, intent.max_tokens)
