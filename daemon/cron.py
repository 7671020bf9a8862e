"""Cron expressions on a zone's wall clock, with a plain answer to daylight saving time.

APScheduler does the calendar on wall-clock times without a zone; here they become instants. A local time that
occurs twice is taken once, the first; one that does not exist becomes the first instant after the gap. Day of the
month and day of the week must both hold, where both are given.
"""

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.core.errors import ConfigurationError

DAY = 4
FIELDS = {"minute": "minute", "hour": "hour", "day": "day", "month": "month", "day_of_week": "day of the week"}
WINDOW = timedelta(hours=1)
REACH = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock's time: any; a calendar that comes true does so after it


class Cron:
    """One expression in one zone; raises ConfigurationError for what never fires or is not understood."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        from apscheduler.triggers.cron import CronTrigger

        fields = expression.lower().split()
        if len(fields) != len(FIELDS):
            raise ConfigurationError(
                f"cron: {expression!r} has {len(fields)} field{'s' * (len(fields) != 1)}; "
                f"it needs {len(FIELDS)}: {', '.join(FIELDS.values())}."
            )
        if any(character.isdigit() for character in fields[DAY]):
            raise ConfigurationError(
                f"cron: {expression!r} names the day of the week by a number ({fields[DAY]}), which programs count "
                "differently: write sun, mon, tue, wed, thu, fri or sat."
            )
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"timezone: there is no time zone {zone!r}; use a name of the tz database, like UTC or Europe/Berlin."
            ) from error
        given = dict(zip(FIELDS, fields, strict=True))
        for key, text in given.items():
            try:
                CronTrigger(**{key: text}, timezone=UTC)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(
                    f"cron: in {expression!r} the {FIELDS[key]} {text!r} is not understood: {error}."
                ) from error
        # The trigger's own zone is a fixed one: it counts on the wall clock, whatever instant that is.
        self._calendar = CronTrigger(**given, timezone=UTC)
        if self._tick(REACH) is None:
            raise ConfigurationError(f"cron: {expression!r} never fires: no month of these has such a day.")

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first tick after an instant, in UTC; None when the calendar ends before."""
        wall = instant.astimezone(self._zone).replace(tzinfo=None)
        while (tick := self._tick(wall)) is not None:
            at = self._instant(tick)
            if at > instant:
                return at
            wall = tick  # the second pass through an hour that occurs twice: it was taken in the first
        return None

    def latest(self, after: datetime, upto: datetime, most: int) -> list[datetime]:
        """Return the last `most` ticks in (after, upto], in order; what lies long before them is never looked at."""
        window = WINDOW
        while True:
            begin = max(after, upto - window) if upto - after > window else after
            ticks = self._between(begin, upto)
            if len(ticks) >= most or begin == after:
                return ticks[-most:]
            window *= 2

    def _between(self, after: datetime, upto: datetime) -> list[datetime]:
        ticks = []
        while (tick := self.next_after(after)) is not None and tick <= upto:
            ticks.append(tick)
            after = tick
        return ticks

    def _tick(self, wall: datetime) -> datetime | None:
        """Return the first wall-clock time after another that the calendar names."""
        begin = wall.replace(tzinfo=UTC) + timedelta(microseconds=1)
        tick = self._calendar.get_next_fire_time(None, begin)
        return None if tick is None else tick.replace(tzinfo=None)

    def _instant(self, wall: datetime) -> datetime:
        """Return when a wall clock shows a time: first, where it does so twice; the gap's end, where it never does."""
        local = wall.replace(tzinfo=self._zone)  # fold 0: the first of two, and in a gap the offset before it
        at = local.astimezone(UTC)
        shown = at.astimezone(self._zone).replace(tzinfo=None)
        return at if shown == wall else self._gap_end(at, shown - wall)

    def _gap_end(self, beyond: datetime, gap: timedelta) -> datetime:
        """Return the instant at which the clock was put forward by `gap`.

        With the offset from before the gap a missing time lies behind the change, by less than the gap is long.
        """
        offset = beyond.astimezone(self._zone).utcoffset()
        low, high = beyond - gap, beyond
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) // 2
            if middle.astimezone(self._zone).utcoffset() == offset:
                high = middle
            else:
                low = middle
        return high.replace(microsecond=0)


@functools.lru_cache(maxsize=1024)
def cron(expression: str, zone: str) -> Cron:
    """Return the schedule of an expression in a zone, made once."""
    return Cron(expression, zone)


@functools.lru_cache(maxsize=4096)
def next_tick(expression: str, zone: str, after: datetime) -> datetime | None:
    """Return the first tick after an instant; the same question is answered from memory."""
    return cron(expression, zone).next_after(after)
