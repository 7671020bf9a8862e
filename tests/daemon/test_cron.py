"""Cron expressions on a wall clock: the calendar, daylight saving time in tables made by hand, and properties."""

import random
import zoneinfo
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.core.errors import ConfigurationError
from daemon.cron import Cron, cron, next_tick

MINUTE = timedelta(minutes=1)
SPAN = timedelta(days=3)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
HOURLY, HALF_PAST, MINUTELY = "0 * * * *", "30 * * * *", "* * * * *"


def utc(text: str) -> datetime:
    """Return the instant that `2026-03-29 01:00` names in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(expression: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next ticks after an instant, written in UTC."""
    schedule, at, found = cron(expression, zone), utc(after), []
    for _ in range(count):
        following = schedule.next_after(at)
        assert following is not None
        found.append(f"{following:%Y-%m-%d %H:%M}")
        at = following
    return found


# Berlin 2026: at 01:00Z on March 29 the clock goes from 02:00 (+1) to 03:00 (+2), at 01:00Z on October 25 back from
# 03:00 to 02:00. New York 2026: at 07:00Z on March 8 from 02:00 (-5) to 03:00 (-4), at 06:00Z on November 1 back from
# 02:00 to 01:00. Lord Howe 2026, by half an hour: at 15:00Z on April 4 back from 02:00 (+11) to 01:30 (+10:30), at
# 15:30Z on October 3 from 02:00 to 02:30. All ticks below were worked out by hand from these six facts.
TABLE = [
    # The local time does not exist on the second day: the first instant after.
    ("30 2 * * *", BERLIN, "2026-03-28 00:00", "2026-03-28 01:30, 2026-03-29 01:00, 2026-03-30 00:30"),
    ("30 2 * * *", NEW_YORK, "2026-03-07 00:00", "2026-03-07 07:30, 2026-03-08 07:00, 2026-03-09 06:30"),
    ("15 2 * * *", LORD_HOWE, "2026-10-02 00:00", "2026-10-02 15:45, 2026-10-03 15:30, 2026-10-04 15:15"),
    # It occurs twice on the second day: the first.
    ("30 2 * * *", BERLIN, "2026-10-24 00:00", "2026-10-24 00:30, 2026-10-25 00:30, 2026-10-26 01:30"),
    ("30 1 * * *", NEW_YORK, "2026-10-31 00:00", "2026-10-31 05:30, 2026-11-01 05:30, 2026-11-02 06:30"),
    ("45 1 * * *", LORD_HOWE, "2026-04-03 00:00", "2026-04-03 14:45, 2026-04-04 14:45, 2026-04-05 15:15"),
    # At the very instants of the change.
    ("0 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-29 01:00, 2026-03-30 00:00"),
    ("0 3 * * *", BERLIN, "2026-03-28 12:00", "2026-03-29 01:00, 2026-03-30 01:00"),
    ("0 2,3 * * *", BERLIN, "2026-03-28 12:00", "2026-03-29 01:00, 2026-03-30 00:00, 2026-03-30 01:00"),
    ("0 3 * * *", BERLIN, "2026-10-24 12:00", "2026-10-25 02:00, 2026-10-26 02:00"),
    ("0 2 * * *", LORD_HOWE, "2026-04-04 00:00", "2026-04-04 15:30, 2026-04-05 15:30"),
    # Every hour: in spring none is missed or doubled; in autumn the hour that comes again is silent.
    (HOURLY, BERLIN, "2026-03-28 23:00", "2026-03-29 00:00, 2026-03-29 01:00, 2026-03-29 02:00"),
    (HOURLY, BERLIN, "2026-10-24 23:00", "2026-10-25 00:00, 2026-10-25 02:00, 2026-10-25 03:00"),
    (HOURLY, NEW_YORK, "2026-03-08 05:00", "2026-03-08 06:00, 2026-03-08 07:00, 2026-03-08 08:00"),
    (HOURLY, NEW_YORK, "2026-11-01 04:00", "2026-11-01 05:00, 2026-11-01 07:00, 2026-11-01 08:00"),
    (HOURLY, LORD_HOWE, "2026-10-03 14:00", "2026-10-03 14:30, 2026-10-03 15:30, 2026-10-03 16:00"),
    (HOURLY, LORD_HOWE, "2026-04-04 13:30", "2026-04-04 14:00, 2026-04-04 15:30, 2026-04-04 16:30"),
    (HALF_PAST, BERLIN, "2026-03-29 00:00", "2026-03-29 00:30, 2026-03-29 01:00, 2026-03-29 01:30"),
    # Every minute: the missing hour is one tick, the hour that comes again none.
    (MINUTELY, BERLIN, "2026-03-29 00:58", "2026-03-29 00:59, 2026-03-29 01:00, 2026-03-29 01:01"),
    (MINUTELY, BERLIN, "2026-10-25 00:58", "2026-10-25 00:59, 2026-10-25 02:00, 2026-10-25 02:01"),
    (MINUTELY, NEW_YORK, "2026-03-08 06:58", "2026-03-08 06:59, 2026-03-08 07:00, 2026-03-08 07:01"),
    (MINUTELY, NEW_YORK, "2026-11-01 05:58", "2026-11-01 05:59, 2026-11-01 07:00, 2026-11-01 07:01"),
    (MINUTELY, LORD_HOWE, "2026-10-03 15:28", "2026-10-03 15:29, 2026-10-03 15:30, 2026-10-03 15:31"),
    (MINUTELY, LORD_HOWE, "2026-04-04 14:58", "2026-04-04 14:59, 2026-04-04 15:30, 2026-04-04 15:31"),
    # From within the hour that comes again.
    (MINUTELY, BERLIN, "2026-10-25 01:30", "2026-10-25 02:00, 2026-10-25 02:01"),
    ("30 2 * * *", BERLIN, "2026-10-25 01:15", "2026-10-26 01:30"),
    # A zone that left out December 30, 2011: its noon is the first instant of the 31st.
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-29 12:00", "2011-12-30 10:00, 2012-12-29 22:00"),
    # UTC knows no such thing.
    (HOURLY, "UTC", "2026-10-25 00:00", "2026-10-25 01:00, 2026-10-25 02:00, 2026-10-25 03:00"),
    # The calendar: weekdays by name, leap days, the century that has none, the end of a year.
    ("0 3 * * sun", "UTC", "2026-12-24 00:00", "2026-12-27 03:00, 2027-01-03 03:00"),
    ("0 3 * * SUN", BERLIN, "2026-03-23 00:00", "2026-03-29 01:00, 2026-04-05 01:00"),
    ("0 0 29 2 *", "UTC", "2026-01-01 00:00", "2028-02-29 00:00, 2032-02-29 00:00"),
    ("0 0 29 feb *", "UTC", "2096-03-01 00:00", "2104-02-29 00:00"),
    ("59 23 31 12 *", "UTC", "2026-12-31 23:58", "2026-12-31 23:59, 2027-12-31 23:59"),
    ("0 0 1 1 *", BERLIN, "2026-06-01 00:00", "2026-12-31 23:00, 2027-12-31 23:00"),
    ("0 3 last * *", "UTC", "2027-02-01 00:00", "2027-02-28 03:00, 2027-03-31 03:00"),
    ("*/20 8-9 * * mon-fri", "UTC", "2026-07-31 09:30", "2026-07-31 09:40, 2026-08-03 08:00, 2026-08-03 08:20"),
    # A day of the month and of the week: both must hold, so this is the first Monday of each month.
    ("0 3 1-7 * mon", "UTC", "2026-07-29 00:00", "2026-08-03 03:00, 2026-09-07 03:00"),
]


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), TABLE)
def test_ticks_are_those_of_the_table(expression: str, zone: str, after: str, expected: str) -> None:
    """Each schedule ticks at the instants that were worked out by hand, one after the other."""
    wanted = expected.split(", ")
    assert ticks(expression, zone, after, len(wanted)) == wanted


ZONES = {
    BERLIN: ("2026-03-29", "2026-10-25"),
    NEW_YORK: ("2026-03-08", "2026-11-01"),
    LORD_HOWE: ("2026-04-04", "2026-10-03"),
    "America/Havana": ("2026-03-08", "2026-11-01"),  # the missing hour is the first of a day
    "Antarctica/Troll": ("2026-03-29", "2026-10-25"),  # by two hours
    "Africa/Casablanca": ("2026-02-15", "2026-03-22"),  # back for Ramadan, and forward again
    "Pacific/Apia": ("2011-12-30",),  # by a day
    "Asia/Kathmandu": ("2026-06-01",),  # +05:45, never
    "UTC": ("2026-06-01",),
}
AROUND = [(zone, day) for zone, days in ZONES.items() for day in days]


@cache
def clock(zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """Return each minute of the days around one, as an instant and as the zone's wall clock shows it."""
    begin = utc(day) - SPAN
    minutes = [begin + number * MINUTE for number in range(int(2 * SPAN / MINUTE))]
    return [(at, at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for at in minutes]


class Fields:
    """A calendar as sets of numbers, with its expression; it is asked of every minute there is."""

    def __init__(self, minutes: set[int], hours: set[int], days: set[int], weekdays: set[int]) -> None:
        self.sets = (minutes, hours, days, weekdays)
        texts = [",".join(map(str, sorted(numbers))) or "*" for numbers in self.sets[:3]]
        self.expression = f"{texts[0]} {texts[1]} {texts[2]} * {','.join(DAYS[n] for n in sorted(weekdays)) or '*'}"

    def __repr__(self) -> str:
        return self.expression

    def names(self, wall: datetime) -> bool:
        """Return whether the calendar names a time."""
        values = (wall.minute, wall.hour, wall.day, wall.weekday())
        return all(not numbers or value in numbers for numbers, value in zip(self.sets, values, strict=True))


def brute_force(fields: Fields, zone: str, day: str) -> Iterator[datetime]:
    """Yield the ticks around a day by looking at every minute: of the wall clock, and of what it shows."""
    latest = None
    for at, wall in clock(zone, day):
        new = [wall] if latest is None or wall > latest else []
        if latest is not None and wall > latest + MINUTE:  # put forward: all that was left out comes true now
            new += [latest + n * MINUTE for n in range(1, int((wall - latest) / MINUTE))]
        if any(fields.names(each) for each in new):
            yield at
        latest = max(wall, latest) if latest is not None else wall


def numbers(low: int, high: int) -> st.SearchStrategy[set[int]]:
    """Draw no number (meaning all of them) or a few."""
    return st.sets(st.integers(low, high), max_size=3)


calendars = st.builds(Fields, numbers(0, 59), numbers(0, 23) | numbers(0, 3), numbers(1, 31), numbers(0, 6))


@settings(max_examples=60)
@given(fields=calendars, around=st.sampled_from(AROUND))
@example(Fields(set(), set(), set(), set()), (BERLIN, "2026-10-25"))
@example(Fields(set(), set(), set(), set()), ("Pacific/Apia", "2011-12-30"))
@example(Fields({30}, {0}, set(), set()), ("America/Havana", "2026-03-08"))
@example(Fields({0, 30}, {1, 2}, set(), set()), ("Antarctica/Troll", "2026-03-29"))
def test_ticks_are_those_of_every_minute_looked_at(fields: Fields, around: tuple[str, str]) -> None:
    """Around every change of a clock the ticks are what looking at each minute finds: none more, none less."""
    zone, day = around
    minutes = clock(zone, day)
    begin, end = minutes[0][0], minutes[-1][0]
    expected = [at for at in brute_force(fields, zone, day) if at > begin]
    try:
        schedule = cron(fields.expression, zone)
    except ConfigurationError:
        assert not expected
        return
    found, at = [], schedule.next_after(begin)
    while at is not None and at <= end:
        found.append(at)
        at = schedule.next_after(at)
    assert found == expected


@settings(max_examples=60)
@given(
    fields=calendars,
    around=st.sampled_from(AROUND),
    ends=st.lists(st.integers(1, int(2 * SPAN / timedelta(seconds=1)) - 60), min_size=2, max_size=2),
    most=st.integers(1, 120),
)
def test_the_latest_are_the_end_of_all(fields: Fields, around: tuple[str, str], ends: list[int], most: int) -> None:
    """The last so many ticks of any interval (its end belongs to it, its beginning does not) are those of the list."""
    zone, day = around
    begin = clock(zone, day)[0][0]
    after, upto = (begin + timedelta(seconds=number) for number in sorted(ends))
    expected = [at for at in brute_force(fields, zone, day) if after < at <= upto]
    try:
        schedule = cron(fields.expression, zone)
    except ConfigurationError:
        assert not expected
        return
    assert schedule.latest(after, upto, most) == expected[-most:]


@settings(max_examples=100)
@given(
    fields=calendars,
    zone=st.sampled_from(sorted(ZONES)),
    instant=st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - as hypothesis wants it
)
def test_ticks_increase_and_show_the_calendars_time(fields: Fields, zone: str, instant: datetime) -> None:
    """A tick lies after the instant asked about; its wall time is the calendar's, or the first after a gap; once."""
    try:
        schedule = cron(fields.expression, zone)
    except ConfigurationError:
        return
    shown: list[datetime] = []
    at = instant
    for _ in range(10):
        following = schedule.next_after(at)
        assert following is not None
        assert following > at
        assert following.tzinfo is UTC
        wall, before = (t.astimezone(ZoneInfo(zone)) for t in (following, following - timedelta(seconds=1)))
        put_forward = wall.replace(tzinfo=None) - before.replace(tzinfo=None) > timedelta(seconds=1)
        assert fields.names(wall.replace(tzinfo=None)) or put_forward
        assert wall.second == 0 or put_forward
        assert wall.fold == 0
        shown.append(wall.replace(tzinfo=None))
        at = following
    assert len(set(shown)) == len(shown)
    assert shown == sorted(shown)


@pytest.mark.parametrize(
    ("expression", "years", "most", "count"),
    [(MINUTELY, 1, 100, 100), (MINUTELY, 10, 1, 1), ("0 3 * * sun", 1, 100, 52), ("0 0 29 2 *", 40, 100, 10)],
)
def test_a_long_absence_costs_little(
    monkeypatch: pytest.MonkeyPatch, expression: str, years: int, most: int, count: int
) -> None:
    """The last ticks of years are found without looking at all the others: by some hundred steps of the calendar."""
    schedule, steps = Cron(expression), 0
    tick = Cron._tick  # noqa: SLF001 - what every step of the calendar goes through

    def counted(self: Cron, wall: datetime) -> datetime | None:
        nonlocal steps
        steps += 1
        return tick(self, wall)

    monkeypatch.setattr(Cron, "_tick", counted)
    now = utc("2026-07-29 12:00")
    found = schedule.latest(now - timedelta(days=365.25 * years), now, most)
    assert len(found) == count
    assert steps < 500


def test_a_calendar_that_ends_has_no_next_tick() -> None:
    """Beyond the last year that there is, nothing follows, and nothing is raised."""
    assert cron("0 0 1 1 *", "UTC").next_after(utc("9999-06-01 00:00")) is None
    assert cron("0 0 29 2 *", "UTC").latest(utc("9997-01-01 00:00"), utc("9999-06-01 00:00"), 5) == []


def test_the_same_question_is_answered_from_memory() -> None:
    """The loop asks after each batch when a schedule ticks next: that is looked up, not worked out."""
    question = ("7 7 7 7 *", BERLIN, utc("2026-01-01 00:00"))
    expected = next_tick(*question)
    hits = next_tick.cache_info().hits
    assert [next_tick(*question) for _ in range(100)] == [expected] * 100
    assert next_tick.cache_info().hits == hits + 100


def test_zones_need_no_files_of_the_system() -> None:
    """Where the system has no time zones (a slim image), those of the tzdata package are found."""
    path = zoneinfo.TZPATH
    try:
        zoneinfo.reset_tzpath(())
        ZoneInfo.clear_cache()
        schedule = Cron("30 2 * * *", "Asia/Tokyo")
    finally:
        zoneinfo.reset_tzpath(path)
        ZoneInfo.clear_cache()
    assert schedule.next_after(utc("2026-01-01 00:00")) == utc("2026-01-01 17:30")


REFUSED = {
    "0 0 30 2 *": "never fires",
    "0 0 31 4,6,9,11 *": "never fires",
    "0 3 * * 0": "by a number .0., .*write sun, mon",
    "0 3 * * mon-5": "by a number",
    "0 3 * * fri#2": "by a number",
    "@daily": "has 1 field; it needs 5: minute, hour",
    "* * * * * *": "has 6 fields; it needs 5",
    "0 3 * *": "has 4 fields",
    "": "has 0 fields",
    "60 * * * *": "the minute '60' is not understood: .*maximum value .59.",
    "* 24 * * *": "the hour '24'",
    "* * 0 * *": "the day '0'",
    "* * * 13 *": "the month '13'",
    "* * * * funday": "the day of the week 'funday' .*Invalid weekday name",
    "* * * * sun-tue": "the day of the week 'sun-tue'",
    "*/0 * * * *": "the minute '.*/0'.*Increment must be higher than 0",
    "5-1 * * * *": "the minute '5-1'",
    "1,,2 * * * *": "the minute '1,,2'",
    "? * L W @": "the minute '\\?'",
    "every day at three o'clock": "the minute 'every'",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    """What never fires, or could mean something else, is refused with its place and with what to write instead."""
    with pytest.raises(ConfigurationError, match=f"^cron: .*{REFUSED[expression]}"):
        Cron(expression)


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "", "UTC+2", "../../etc/passwd", "/etc/localtime", "a\0b", "\ud800", "Europe"]
)
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    """A name that the tz database does not have is refused, whatever the operating system makes of it."""
    with pytest.raises(ConfigurationError, match=r"^timezone: there is no time zone .* UTC or Europe/Berlin"):
        Cron("0 3 * * *", zone)


def test_junk_is_refused_and_raises_nothing_else() -> None:
    """Whatever the characters: a schedule, or a ConfigurationError."""
    dice = random.Random(7)
    for _ in range(2000):
        fields = ["".join(dice.choices("0159*/-,?lLW#@sunjafeb \t\0é٣", k=dice.randint(1, 4))) for _ in range(5)]
        with suppress(ConfigurationError):
            assert Cron(" ".join(fields)).next_after(utc("2026-01-01 00:00")) is not None
