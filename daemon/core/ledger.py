"""What a pipeline has measured, spent and waited: numbers that triggers and guards weigh, each kept within bounds."""

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from daemon.core.plans import Amounts

FORGETS = 0.9
"""What a past run still counts for, in what runs cost, once another has ended."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a signal, and the version of the champion that it says something of."""

    value: float
    at: datetime
    position: int
    version: int | None = None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of compute on the day and in the month (UTC) that were charged last, as `day` and `month` name them."""

    day: str = ""
    day_seconds: float = 0.0
    month: str = ""
    month_seconds: float = 0.0

    def on(self, now: datetime) -> tuple[float, float]:
        """Return what was spent on the day and in the month of an instant."""
        today, this_month = now.strftime("%Y-%m-%d"), now.strftime("%Y-%m")
        return self.day_seconds if self.day == today else 0.0, self.month_seconds if self.month == this_month else 0.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What runs that trained took, as sums over them (older ones count less): a line seconds = fixed + per x tokens."""

    runs: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def after(self, tokens: float, seconds: float) -> "Cost":
        """Return the sums with one more run, in millions of tokens."""
        size = tokens / 1e6
        return Cost(
            runs=FORGETS * self.runs + 1,
            tokens=FORGETS * self.tokens + size,
            seconds=FORGETS * self.seconds + seconds,
            squares=FORGETS * self.squares + size * size,
            products=FORGETS * self.products + size * seconds,
        )

    def expected(self, tokens: float) -> float | None:
        """Return the seconds that a run over so many tokens takes by least squares; None before there was one.

        Where the line would have a part below zero it goes through the origin.
        """
        if self.runs <= 0:
            return None
        size = tokens / 1e6
        spread = self.runs * self.squares - self.tokens * self.tokens
        if spread > 1e-9 * max(1.0, self.squares):
            slope = (self.runs * self.products - self.tokens * self.seconds) / spread
            fixed = (self.seconds - slope * self.tokens) / self.runs
            if slope >= 0 and fixed >= 0:
                return fixed + slope * size
        return self.seconds / self.tokens * size if self.tokens > 0 else self.seconds / self.runs


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy in shadow would have taken, had it acted, and how often it would have started, or looked.

    `at` is when it last would have done either, `position` that of its last start, `began` when that was. `since` and
    `waited` are of what came after it, as in the pipeline; `claims` are the keys that it would have taken;
    `retrained` and `increments` tell of the last of its starts that was no increment.
    """

    taken: Amounts
    at: datetime
    position: int
    starts: int = 1
    kind: str = ""
    began: datetime | None = None
    since: datetime | None = None
    waited: float = 0.0
    waited_at: datetime | None = None
    looks: int = 0
    looked: Amounts = {}
    looked_at: datetime | None = None
    claims: dict[str, datetime] = {}
    retrained: int = 0
    retrained_at: datetime | None = None
    increments: int = 0


def charge(spent: Spent, begun: datetime, ended: datetime, processes: int) -> Spent:
    """Return the account with an attempt that was at work; what lies before the day of its end is of days past."""
    if ended <= begun:
        return spent
    midnight = ended.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight.replace(day=1)
    day, month = ended.strftime("%Y-%m-%d"), ended.strftime("%Y-%m")
    day_before, month_before = spent.on(ended)
    return replace(
        spent,
        day=day,
        day_seconds=day_before + _seconds(ended - max(begun, midnight)) * processes,
        month=month,
        month_seconds=month_before + _seconds(ended - max(begun, first)) * processes,
    )


def _seconds(span: timedelta) -> float:
    return max(0.0, span.total_seconds())
