"""No tick is lost or doubled: daemons that die at random, against every minute looked at."""

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from daemon.core.events import (
    CatchUp,
)
from daemon.core.state import dump
from daemon.journal.memory import MemoryStore
from daemon.journal.sqlite import open_journal
from daemon.sources import schedule
from tests.daemon.sources.schedule_world import (
    MINUTE,
    Killed,
    MortalJournal,
    Policies,
    World,
    at,
    every,
)

Calendar = tuple[str, str, str, Callable[[datetime], bool]]
CALENDARS: tuple[Calendar, ...] = (
    ("* * * * *", "UTC", "2026-12-31", lambda wall: True),
    ("*/7 * * * *", "UTC", "2028-02-29", lambda wall: wall.minute % 7 == 0),
    ("0 * * * *", "Europe/Berlin", "2026-10-24", lambda wall: wall.minute == 0),
    ("30 2 * * *", "Europe/Berlin", "2026-03-27", lambda wall: (wall.hour, wall.minute) == (2, 30)),
    ("15,45 * * * *", "Australia/Lord_Howe", "2026-10-03", lambda wall: wall.minute in (15, 45)),
)


def all_ticks(calendar: Calendar, after: datetime, upto: datetime) -> list[datetime]:
    """Return the ticks of (after, upto] by looking at each minute; a time left out comes true after the gap."""
    _, zone, _, names = calendar
    found = []
    minute = after.replace(second=0, microsecond=0) - timedelta(hours=3)
    latest = minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    while (minute := minute + MINUTE) <= upto:
        wall = minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        new = [latest + n * MINUTE for n in range(1, 1 + int((wall - latest) / MINUTE))]
        if minute > after and any(map(names, new)):
            found.append(minute)
        latest = max(latest, wall)
    return found


def lives(dice: random.Random, world: World, policies: Policies, begin: datetime) -> list[tuple[str, datetime]]:
    """Let daemons live, be killed around commits, and start again; return what was committed when, in order."""
    committed: list[tuple[str, datetime]] = []
    steps = [timedelta(seconds=20), timedelta(seconds=70), 11 * MINUTE, 90 * MINUTE, -5 * MINUTE]
    for _ in range(dice.randint(2, 7)):
        doomed, left = dice.choice(["journal.before_commit", "journal.after_commit", ""]), [dice.randint(1, 5)]

        def boundary(name: str, doomed: str = doomed, left: list[int] = left) -> None:
            if name == "journal.after_commit":
                committed.append((world.phase, world.now))
            left[0] -= name == doomed
            if not left[0]:
                raise Killed

        walk = [begin]
        for _ in range(dice.randint(1, 12)):
            walk.append(walk[-1] + dice.choice(steps))
        world.boundary = boundary
        with suppress(Killed):
            world.live(walk, policies)
        begin = world.now + dice.choice([timedelta(0), MINUTE, 25 * MINUTE, timedelta(hours=7), -10 * MINUTE])
    world.boundary = lambda name: committed.append((world.phase, world.now)) if "after_commit" in name else None
    world.live([begin, max([begin, *(now for _, now in committed)]) + MINUTE], policies)
    return committed


def expected(rule: CatchUp, calendar: Calendar, committed: list[tuple[str, datetime]], end: datetime) -> list[datetime]:
    """Return what should have fired: the rule, applied to the list of all ticks at each commit that happened."""
    since = committed[0][1]
    every_tick = all_ticks(calendar, since, end)
    if rule == "all" and max(count for _, count in missed(every_tick, committed)) <= schedule.MOST:
        return every_tick  # none is lost, none comes twice: whatever happened
    fired: list[datetime] = []
    after, started, stamp = since, since, since
    for phase, now in committed:
        stamp = max(stamp, now)
        if phase == "start":
            started = stamp
            continue
        begin = max(after, started) if rule == "skip" else after
        due = [tick for tick in every_tick if begin < tick <= now][-(schedule.MOST if rule == "all" else 1) :]
        fired += due
        after = due[-1] if due else after
    return fired


def missed(every_tick: list[datetime], committed: list[tuple[str, datetime]]) -> list[tuple[datetime, int]]:
    """Return how many ticks came due between the turns that committed."""
    turns = [committed[0][1], *(now for phase, now in committed if phase == "turn")]
    return [
        (now, sum(1 for tick in every_tick if max(turns[:number]) < tick <= now))
        for number, now in enumerate(turns)
        if number
    ] or [(turns[0], 0)]


@pytest.mark.parametrize("seed", range(50))
def test_no_tick_is_lost_or_doubled_however_the_daemon_dies(seed: int, tmp_path: Path) -> None:
    """Killed around any commit, restarted soon or late, its clock put forward and back: the ticks are right."""
    dice = random.Random(seed)
    rule: CatchUp = dice.choice(["all", "all", "last", "skip"])
    calendar = CALENDARS[seed % len(CALENDARS)]
    store = MemoryStore()
    on_disk = seed % 10 == 0
    world = World(
        (lambda boundary: open_journal(tmp_path / "journal.db", boundary=boundary))
        if on_disk
        else (lambda boundary: MortalJournal(store, boundary))
    )
    begin = at("22:13:20", calendar[2])
    policies = every(calendar[0], rule, timezone=calendar[1])
    committed = lives(dice, world, policies, begin)
    fired = world.fired()
    assert fired == expected(rule, calendar, committed, world.now)
    assert fired == sorted(set(fired))
    assert dump(world.folded()) == dump(world.state)
