"""Ticks become facts once each: on time, late as configured, and whatever happens to the daemon or its clock."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from daemon.core.errors import JournalFull
from daemon.core.events import (
    CatchUp,
    Record,
    ScheduleFired,
)
from daemon.core.state import State, dump
from daemon.core.transition import evolve
from daemon.journal.memory import MemoryStore
from daemon.sources import clock, schedule
from policies.periodic_retraining import PeriodicRetraining
from tests.daemon.sources.schedule_world import (
    LABEL,
    MINUTE,
    MortalJournal,
    Policies,
    World,
    at,
    every,
    times,
)


@pytest.fixture
def world() -> Iterator[World]:
    """Give a world on a journal in memory; in the end its state is the fold of its records."""
    store = MemoryStore()
    made = World(lambda boundary: MortalJournal(store, boundary))
    yield made
    assert dump(made.folded()) == dump(made.state)


def test_a_tick_is_a_fact_of_its_schedule(world: World) -> None:
    """It fires when its instant has come, once, and says which schedule it belongs to; its id is made of that."""
    policies = every("0 11 * * mon", timezone="Europe/Berlin")
    world.live([*times("09:00 09:59"), at("09:59:59.999999"), at("10:00"), at("10:00:30"), at("23:00")], policies)
    ((record, event),) = world.ticks()
    settings = policies["p"].ticks
    assert settings is not None
    assert event == ScheduleFired(
        policy=LABEL,
        specification=settings.specification,
        scheduled_for=at("10:00"),
        cron="0 11 * * mon",
        timezone="Europe/Berlin",
    )
    assert (record.recorded_at, record.pipeline, record.source) == (at("10:00"), "p", "/rewarm/clock")
    assert record.id == f"tick:p/{LABEL}:{settings.specification}:2026-03-02T10:00:00+00:00"


def test_the_next_tick_is_told_beforehand(world: World) -> None:
    """The loop waits until the earliest next tick of all schedules; a pipeline without one has none."""
    assert clock.next_due(State()) is None
    policies = {**every(), "q": PeriodicRetraining(cron="30 10 * * *"), "r": PeriodicRetraining(after_increments=1)}
    world.live(times("10:00"), policies)
    assert list(schedule.upcoming(world.state)) == [("p", LABEL, at("11:00")), ("q", LABEL, at("10:30"))]
    assert clock.next_due(world.state) == at("10:30")


def test_ticks_of_one_instant_all_fire(world: World) -> None:
    """Schedules of several pipelines that meet do not hinder each other; the earlier tick goes first."""
    policies = {**every(), "a": PeriodicRetraining(cron="*/30 * * * *", catch_up="all"), "q": every()["p"]}
    world.live(times("09:50 11:10"), policies)
    ticks = [(record.pipeline, event.scheduled_for) for record, event in world.ticks()]
    assert ticks == [
        *(("a", each) for each in times("10:00 10:30")),
        *((name, at("11:00")) for name in ("a", "p", "q")),
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("skip", "11:00 15:00"), ("last", "11:00 14:00 15:00"), ("all", "11:00 12:00 13:00 14:00 15:00")],
)
def test_a_daemon_that_was_down_over_three_ticks(world: World, rule: CatchUp, expected: str) -> None:
    """Once it is back it tells none of them, the last, or all: as configured; then it goes on as always."""
    policies = every(catch_up=rule)
    world.live(times("10:30 10:59 11:10"), policies)
    world.live(times("14:20 14:21 14:59 15:00 15:01"), policies)
    assert world.clock() == expected.split()
    late = [record for record, event in world.ticks() if event.scheduled_for.hour in {12, 13, 14}]
    assert {record.recorded_at for record in late} <= {at("14:20")}


@pytest.mark.parametrize("rule", ["skip", "last", "all"])
def test_nothing_fires_from_before_the_schedule(world: World, rule: CatchUp) -> None:
    """A schedule begins when it is configured, however old the journal is and however it catches up."""
    world.live(times("02:00"), {"p": PeriodicRetraining(after_increments=3)})
    world.live(times("14:20 14:50 15:00"), every(catch_up=rule))
    assert world.clock() == ["15:00"]


@pytest.mark.parametrize("between", [every("0 7 * * *"), every(timezone="Asia/Tokyo"), {}, {"q": every()["p"]}])
def test_a_schedule_that_went_and_came_back_begins_anew(world: World, between: Policies) -> None:
    """What would have ticked while another schedule, another zone, or none stood in its place is not made up for."""
    policies = every(catch_up="all")
    world.live(times("10:30 11:10"), policies)
    world.live(times("13:20 13:21"), between)
    world.live(times("14:20 14:50 15:00"), policies)
    assert [hour for hour in world.clock() if hour != "13:00"] == ["11:00", "15:00"]
    ids = [record.id for record in world.records]
    assert len(set(ids)) == len(ids)


def test_another_way_to_catch_up_is_the_same_schedule(world: World) -> None:
    """The rule in force when the daemon starts decides what becomes of the ticks that it missed."""
    world.live(times("10:30 11:10"), every(catch_up="skip"))
    world.live(times("13:20 13:21"), every(catch_up="all"))
    assert world.clock() == ["11:00", "12:00", "13:00"]


def test_another_spelling_is_the_same_schedule(world: World) -> None:
    """Spaces and capitals make no other schedule: no tick comes a second time."""
    world.live(times("10:30 11:10"), every("0 11 * * mon"))
    world.live(times("10:40 11:20"), every(" 0  11 * * MON "))
    assert world.clock() == ["11:00"]


@pytest.mark.parametrize(("rule", "count"), [("skip", 0), ("last", 1), ("all", 100)])
def test_a_year_of_minutes_is_not_made_up_for(world: World, rule: CatchUp, count: int) -> None:
    """Of half a million missed ticks at most the last hundred come, in one transaction, and at once."""
    policies = every("* * * * *", rule)
    world.live(times("10:30"), policies)
    back = at("10:30:30", "2027-03-02")
    world.live([back, back + timedelta(seconds=1)], policies)
    assert world.fired() == [at("10:30", "2027-03-02") - n * MINUTE for n in reversed(range(count))]
    assert len(world.records) < 210


def test_a_clock_that_goes_back_repeats_nothing(world: World) -> None:
    """Ticks that fired do not fire again when their instant comes again; after a restart neither."""
    policies = every("*/10 * * * *", "all")
    world.live(times("10:55 11:01 10:45 10:50 10:59 11:05"), policies)
    world.live(times("10:30 10:41 11:00 11:09 11:10"), policies)
    assert world.clock() == ["11:00", "11:10"]


def test_the_loop_wakes_by_itself(world: World) -> None:
    """It waits for the tick and no longer: not for an input, and not until the end of its longest wait."""
    begun = time.monotonic()
    world.longest_wait = 60.0
    world.clock_runs = lambda: at("10:59:59.7") + timedelta(seconds=time.monotonic() - begun)
    world.live(times("10:59"), every())
    ((record, event),) = world.ticks()
    assert event.scheduled_for == at("11:00")
    assert record.recorded_at >= at("11:00")
    assert time.monotonic() - begun < 30


def test_a_tick_waits_for_a_full_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is recorded when there is room, for the instant that it was scheduled for; those missed, as configured."""
    monkeypatch.setattr("daemon.loop.RETRY_SECONDS", 0.0)
    left = [3]

    def full(name: str) -> None:
        if name == "journal.before_commit" and world.phase == "turn" and left[0]:
            left[0] -= 1
            if not left[0]:
                world.now = at("14:10")
            raise JournalFull("no room")

    world.boundary = full
    world.live(times("10:30 11:00 14:20"), every(catch_up="all"))
    assert left == [0]
    assert world.clock() == ["11:00", "12:00", "13:00", "14:00"]
    assert world.ticks()[0][0].recorded_at == at("14:10")


def test_a_tick_that_is_not_ours_changes_nothing(world: World) -> None:
    """A tick of another schedule, or one that the last is later than, is counted and folded into nothing."""
    world.live(times("10:30 11:00"), every())
    scheduled = world.state.pipelines["p"].schedules[LABEL]
    assert scheduled.last == at("11:00")
    for specification, hour, why in (
        ("0" * 12, "12:00", "schedule_not_configured"),
        (scheduled.specification, "11:00", "schedule_fired_already"),
    ):
        event = ScheduleFired(
            policy=LABEL, specification=specification, scheduled_for=at(hour), cron="0 * * * *", timezone="UTC"
        )
        record = Record(
            position=world.state.position + 1, recorded_at=at("12:00"), source="/t", id="1", pipeline="p", event=event
        )
        pipeline = evolve(world.state, record).pipelines["p"]
        assert pipeline.schedules == world.state.pipelines["p"].schedules
        assert pipeline.ignored == {why: 1}
