"""What a pipeline spent and waited: charged to the right day, learned as a line, never negative."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.ledger import Cost, Spent, charge
from daemon.core.state import free_waited

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_an_attempt_over_midnight_is_divided() -> None:
    """What lies before midnight is of yesterday, which is over; the month, which is new too, has the rest as well."""
    begun = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    spent = charge(Spent(), begun, begun + timedelta(hours=2), 1)

    assert spent == Spent(day="2026-03-01", day_seconds=5400.0, month="2026-03", month_seconds=5400.0)
    assert spent.on(begun) == (0.0, 0.0)


def test_several_processes_spend_at_once() -> None:
    """Compute is charged per process; two attempts of one day add up, another day begins anew in its month."""
    spent = charge(Spent(), NOON, NOON + timedelta(minutes=10), 4)
    spent = charge(spent, NOON, NOON + timedelta(minutes=10), 1)
    assert spent.on(NOON) == (3000.0, 3000.0)

    later = charge(spent, NOON + DAY, NOON + DAY + timedelta(seconds=60), 1)
    assert later.on(NOON + DAY) == (60.0, 3060.0)
    assert later.on(NOON) == (0.0, 3060.0)


@given(
    st.lists(st.tuples(st.floats(0, 86_400 * 3), st.floats(0, 86_400 * 2), st.integers(1, 8)), max_size=8),
)
def test_a_day_has_no_more_than_its_seconds(attempts: list[tuple[float, float, int]]) -> None:
    """Whatever is charged, one after the other: never negative, never more a day than a day has of each process."""
    spent, now = Spent(), NOON
    for pause, length, processes in attempts:
        begun = now + timedelta(seconds=pause)
        now = begun + timedelta(seconds=length)
        spent = charge(spent, begun, now, processes)
        day, month = spent.on(now)
        assert 0 <= day <= 86_400 * 8
        assert day <= month + 1e-6


def test_costs_are_a_line() -> None:
    """Runs on a line are gone on with; one run alone goes through the origin; without any nothing is known."""
    assert Cost().expected(1e6) is None
    assert Cost().after(2_000_000, 100.0).expected(1_000_000) == pytest.approx(50.0)

    cost = Cost()
    for size in (1, 2, 4, 3):
        cost = cost.after(size * 1e6, 10.0 + 20.0 * size)
    assert cost.expected(10e6) == pytest.approx(210.0)


def test_a_falling_line_goes_through_the_origin() -> None:
    """Where larger runs took less, the mean rate is what is told: never less than nothing."""
    cost = Cost().after(1e6, 100.0).after(2e6, 20.0)

    told = cost.expected(4e6)
    assert told is not None
    assert told > 0


def test_waiting_is_token_seconds(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Tokens times the seconds that they waited; what an active run has taken waits no more, and does again."""
    world = make_world(parts.Starter(after=300))
    world.arrive(100)
    world.arrive(100)
    world.now += timedelta(seconds=9)

    assert free_waited(world.of(), world.now) == pytest.approx(100 * 10 + 100 * 9)

    world.arrive(100)  # a run takes them all
    run = world.run().run
    assert free_waited(world.of(), world.now) == 0
    world.request("cancel", run=run)
    world.stopped()
    since = world.now
    assert world.of().active is None
    assert free_waited(world.of(), since) == pytest.approx(100 * 13 + 100 * 12 + 100 * 2)
