"""Schedules, budgets and amounts against numbers computed by hand."""

import pytest

from daemon.core.plans import (
    Amount,
    Schedule,
    Training,
    add,
    budget,
    course,
    rate,
    steps,
    subtract,
    tokens,
    trunk_step,
)

REWARM = Schedule(kind="rewarm", peak=3e-4, floor=3e-5, plateau=1.65e-4)
INFINITE = Schedule(kind="infinite", peak=3e-4, floor=3e-5, plateau=1.65e-4)
CONSTANT = Schedule(kind="constant", peak=3e-4, floor=3e-5, plateau=1.65e-4, warmup=0.1)
CONTINUED = Schedule(kind="infinite", peak=3e-4, floor=3e-5, plateau=1.65e-4, warmup=0.0, cooldown=0.0)
PAPER = 132_366
"""Steps of the paper's 300B-token stage."""


@pytest.mark.parametrize(
    ("schedule", "step", "total", "expected"),
    [
        (REWARM, 662, PAPER, 1.5e-4),
        (REWARM, 1_324, PAPER, 3e-4),
        (REWARM, 1_324 + (PAPER - 1_324) // 4, PAPER, 2.60459e-4),
        (REWARM, 1_324 + (PAPER - 1_324) // 2, PAPER, 1.65e-4),
        (REWARM, PAPER, PAPER, 3e-5),
        (REWARM, 1, 1, 3e-4),
        (INFINITE, 5, 1000, 1.5e-4),
        (INFINITE, 10, 1000, 3e-4),
        (INFINITE, 305, 1000, 2.325e-4),
        (INFINITE, 600, 1000, 1.65e-4),
        (INFINITE, 725, 1000, 1.65e-4),
        (INFINITE, 850, 1000, 1.65e-4),
        (INFINITE, 925, 1000, 7.0356236397e-5),
        (INFINITE, 1000, 1000, 3e-5),
        (CONTINUED, 1, 1000, 1.65e-4),
        (CONTINUED, 850, 1000, 1.65e-4),
        (CONTINUED, 925, 1000, 7.0356236397e-5),
        (CONTINUED, 1000, 1000, 3e-5),
        (CONSTANT, 50, 1000, 1.5e-4),
        (CONSTANT, 100, 1000, 3e-4),
        (CONSTANT, 1000, 1000, 3e-4),
    ],
)
def test_the_learning_rate_meets_the_points_of_the_paper(
    schedule: Schedule, step: int, total: int, expected: float
) -> None:
    """Every phase of every schedule gives the rate that arXiv 2403.08763 gives at its ends and in its middle."""
    assert rate(course(schedule, total, 1), step) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", [REWARM, INFINITE, CONSTANT, CONTINUED])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 100])
def test_the_learning_rate_stays_in_its_bounds(schedule: Schedule, total: int) -> None:
    """However short the run, every step has a rate above nothing and at most the peak."""
    rates = [rate(course(schedule, total, 1), step) for step in range(1, total + 1)]
    assert all(0 < each <= schedule.peak for each in rates)


def test_a_continued_infinite_schedule_is_warmed_to_the_plateau_alone() -> None:
    """An increment that warms up while it resumes the plateau never passes it."""
    schedule = Schedule(kind="infinite", peak=3e-4, floor=3e-5, plateau=1.65e-4, warmup=0.1, cooldown=0.0)
    assert max(rate(course(schedule, 100, 1), step) for step in range(1, 101)) == pytest.approx(1.65e-4)


@pytest.mark.parametrize(("schedule", "expected"), [(REWARM, 1000), (CONSTANT, 1000), (INFINITE, 850)])
def test_the_trunk_is_saved_before_the_anneal(schedule: Schedule, expected: int) -> None:
    """An infinite schedule leaves its trunk before the anneal; the others in the end."""
    assert (
        trunk_step(Training(tokens=1000, batch=1, context=1, replay=0.0, schedule=schedule, optimiser="keep", seed=0))
        == expected
    )


@pytest.mark.parametrize(
    ("new", "replay", "epochs", "most", "expected"),
    [
        (285, 0.05, 1.0, None, 300),
        (150, 0.25, 1.0, None, 200),
        (100, 0.0, 2.0, None, 200),
        (100, 0.5, 1.0, 150, 150),
        (0, 0.5, 1.0, None, 1),
    ],
)
def test_replay_comes_on_top_of_the_new_tokens(
    new: int, replay: float, epochs: float, most: int | None, expected: int
) -> None:
    """The budget holds the new tokens `epochs` times beside the replayed share, up to a bound."""
    assert budget(new, replay, epochs, most) == expected


@pytest.mark.parametrize(("total", "expected"), [(0, 1), (31, 1), (64, 2), (70, 2)])
def test_steps_are_whole_batches_and_at_least_one(total: int, expected: int) -> None:
    """A budget gives as many steps as it has whole batches, and never none."""
    training = Training(tokens=total, batch=4, context=8, replay=0, schedule=REWARM, optimiser="keep", seed=0)
    assert steps(training) == expected


def test_amounts_are_added_and_subtracted_per_domain() -> None:
    """A domain without arrivals disappears, and nothing falls below zero."""
    one, two = Amount(arrivals=1, tokens=10), Amount(arrivals=2, tokens=25)
    assert add({"a": one}, {"a": one, "b": two}) == {"a": Amount(arrivals=2, tokens=20), "b": two}
    assert subtract({"a": two, "b": one}, {"a": one, "b": two, "c": one}) == {"a": Amount(arrivals=1, tokens=15)}
    assert tokens({"a": one, "b": two}) == 35
