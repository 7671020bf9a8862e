"""Quiet hours: windows of a zone's wall clock in which nothing starts.

The rules of time zones are a table, not a clock: the same instant lies in the same window in every process.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from policies.guards.base import Guarded, GuardSettings, Start, shown

WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
MOST: Final = 16
"""Windows that may follow one another without a gap; after so many it is asked again."""


def _clock(text: object) -> str:
    if not isinstance(text, str) or not CLOCK.fullmatch(text):  # without quotes YAML reads 18:00 as a number
        message = 'a time of the day has the form "08:00", in quotes'
        raise ValueError(message)
    return text


def _days(text: str) -> str:
    named(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        message = f"there is no time zone {name!r}; use a name of the tz database, like UTC or Europe/Berlin"
        raise ValueError(message) from error
    return name


def named(text: str) -> frozenset[int]:
    """Return the days that are named, Monday as 0; raises ValueError for what names none."""
    found: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in WEEK or (dash and last not in WEEK):
            message = f"days are named as in mon-fri or sat,sun: {text!r} is not understood"
            raise ValueError(message)
        begin, end = WEEK.index(first), WEEK.index(last if dash else first)
        found |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return frozenset(found)


class Window(GuardSettings):
    """Hours of some days; a window that ends before it begins goes on into the next day."""

    days: Annotated[str, AfterValidator(_days)] = Field(
        default="mon-sun", max_length=50, description="days on which it begins: mon-fri, or sat,sun"
    )
    begins: Annotated[str, BeforeValidator(_clock)] = Field(alias="from", description="time of the day, as in 08:00")
    ends: Annotated[str, BeforeValidator(_clock)] = Field(alias="to", description="time of the day; not quiet any more")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", max_length=100, description="whose wall clock it is read on"
    )

    def within(self, now: datetime) -> datetime | None:
        """Return when the window ends that an instant lies in; None: in none."""
        today = now.astimezone(self._place).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() in self._weekdays:
                begin, end = instants(self.begins, self.ends, self.timezone, day)
                if begin <= now < end:
                    return end
        return None

    def after(self, now: datetime) -> datetime | None:
        """Return when the next window begins, if one does within eight days."""
        today = now.astimezone(self._place).date()
        for days in range(9):
            day = today + timedelta(days=days)
            if day.weekday() in self._weekdays:
                begin, end = instants(self.begins, self.ends, self.timezone, day)
                if now < begin < end:
                    return begin
        return None

    @cached_property
    def _place(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def _weekdays(self) -> frozenset[int]:
        return named(self.days)


@lru_cache(maxsize=1024)
def instants(begins: str, ends: str, zone: str, day: date) -> tuple[datetime, datetime]:
    """Return when the window of a day begins and ends.

    Of an hour that occurs twice both are within; where one is left out, the window reaches over the gap on either side.
    """
    place = ZoneInfo(zone)
    first, last = time.fromisoformat(begins), time.fromisoformat(ends)
    begin = datetime.combine(day, first, place)
    until = datetime.combine(day if last > first else day + timedelta(days=1), last, place)
    return min(_both(begin)), max(_both(until))


def _both(wall: datetime) -> tuple[datetime, datetime]:
    """Return the instants that a wall clock's time may mean; where it means one, twice the same."""
    return wall.replace(fold=0).astimezone(UTC), wall.replace(fold=1).astimezone(UTC)


def against(windows: tuple[Window, ...], start: Start) -> Guarded | None:
    """Return the quiet hours that keep a start from happening now."""
    end = _end(windows, start.now)
    if end is None:
        return None
    for _ in range(MOST):
        further = _end(windows, end)
        if further is None:
            break
        end = further
    return Guarded(verdict="quiet_hours", reason=f"It is quiet until {shown(end)}.", until=end)


def next_begin(windows: tuple[Window, ...], now: datetime) -> datetime | None:
    """Return when the next quiet hours begin: what waits for a slot must not start in them."""
    return min((at for window in windows if (at := window.after(now)) is not None), default=None)


def _end(windows: tuple[Window, ...], now: datetime) -> datetime | None:
    return max((end for window in windows if (end := window.within(now)) is not None), default=None)
