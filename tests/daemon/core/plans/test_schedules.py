"""Every schedule against points computed by hand from its paper."""

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.plans import Length, Schedule, ScheduleKind, course, falling_peak, rate

PAPER = 132_366
"""Steps of the 300B-token stage of arXiv 2403.08763."""


def schedule(kind: ScheduleKind, **fields: object) -> Schedule:
    """Return a schedule with the rates of arXiv 2403.08763."""
    return Schedule(kind=kind, peak=3e-4, floor=3e-5, plateau=1.65e-4, **fields)  # type: ignore[arg-type]


REWARM, INFINITE = schedule("rewarm"), schedule("infinite")
INVERSE_SQRT = schedule("infinite", cooling="inverse_sqrt")
CONTINUED = schedule("infinite", warmup=0.0, cooldown=0.0)
CONSTANT, LINEAR = schedule("constant", warmup=0.1), schedule("linear", warmup=0.1)
WSD, WSD_S = schedule("wsd", warmup=0.1, anneal=0.8), schedule("wsd_s", warmup=0.1, anneal=0.9)
IN_STEPS = schedule("wsd", warmup=Length(steps=20), anneal=Length(steps=100))
IN_TOKENS = schedule(
    "infinite", warmup=Length(tokens=2_500), cooldown=Length(tokens=50_000), anneal=Length(tokens=20_000)
)
ALL = [REWARM, INFINITE, INVERSE_SQRT, CONTINUED, CONSTANT, LINEAR, WSD, WSD_S, IN_STEPS, IN_TOKENS]


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
        (INVERSE_SQRT, 10, 1000, 3e-4),
        (INVERSE_SQRT, 300, 1000, 1.862e-4),
        (INVERSE_SQRT, 600, 1000, 1.65e-4),
        (INVERSE_SQRT, 1000, 1000, 3e-5),
        (CONTINUED, 1, 1000, 1.65e-4),
        (CONTINUED, 850, 1000, 1.65e-4),
        (CONTINUED, 925, 1000, 7.0356236397e-5),
        (CONTINUED, 1000, 1000, 3e-5),
        (CONSTANT, 50, 1000, 1.5e-4),
        (CONSTANT, 100, 1000, 3e-4),
        (CONSTANT, 1000, 1000, 3e-4),
        (LINEAR, 50, 1000, 1.5e-4),
        (LINEAR, 100, 1000, 3e-4),
        (LINEAR, 550, 1000, 1.65e-4),
        (LINEAR, 1000, 1000, 3e-5),
        (WSD, 50, 1000, 1.5e-4),
        (WSD, 800, 1000, 3e-4),
        (WSD, 850, 1000, 1.65e-4),
        (WSD, 1000, 1000, 3e-5),
        (WSD_S, 900, 1000, 3e-4),
        (WSD_S, 950, 1000, 5.4545e-5),
        (WSD_S, 1000, 1000, 3e-5),
        (IN_STEPS, 10, 1000, 1.5e-4),
        (IN_STEPS, 900, 1000, 3e-4),
        (IN_STEPS, 925, 1000, 1.65e-4),
        (IN_TOKENS, 25, 1000, 3e-4),
        (IN_TOKENS, 500, 1000, 1.65e-4),
        (IN_TOKENS, 800, 1000, 1.65e-4),
        (IN_TOKENS, 900, 1000, 7.0356236397e-5),
    ],
)
def test_the_rate_meets_points_computed_by_hand(schedule: Schedule, step: int, total: int, expected: float) -> None:
    """Every phase of every schedule gives the rate of its paper's formula at its ends and in its middle."""
    assert rate(course(schedule, total, 100), step) == pytest.approx(expected, rel=1e-4)


def test_every_kind_is_among_them() -> None:
    """No schedule is without its points."""
    assert {each.kind for each in ALL} == set(get_args(ScheduleKind))


@pytest.mark.parametrize("schedule", ALL)
@given(total=st.integers(1, 3000), tokens_per_step=st.integers(1, 10_000))
def test_the_rate_stays_in_its_bounds(schedule: Schedule, total: int, tokens_per_step: int) -> None:
    """However short the run, every step has a rate above nothing and at most the peak; after the warm-up none rises."""
    laid = course(schedule, total, tokens_per_step)
    assert 0 <= laid.warm <= laid.total
    assert laid.annealing <= laid.total
    rates = [rate(laid, step) for step in range(1, total + 1, max(1, total // 50))]
    assert all(0 < each <= schedule.peak * (1 + 1e-12) for each in rates)
    falling = [rate(laid, step) for step in range(max(1, laid.warm), total + 1, max(1, total // 50))]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(falling))


def test_a_continued_infinite_schedule_is_warmed_to_the_plateau_alone() -> None:
    """An increment that warms up while it resumes the plateau never passes it."""
    laid = course(schedule("infinite", warmup=0.1, cooldown=0.0), 100, 1)
    assert max(rate(laid, step) for step in range(1, 101)) == pytest.approx(1.65e-4)


@pytest.mark.parametrize(("before", "new", "expected"), [(0, 100, 3e-4), (100, 100, 1.65e-4), (300, 100, 6.9543e-5)])
def test_the_peak_falls_over_increments(before: int, new: int, expected: float) -> None:
    """An increment peaks where one cosine over all tokens so far stands at its start (arXiv 2504.02107)."""
    assert falling_peak(3e-4, 3e-5, before=before, new=new) == pytest.approx(expected, rel=1e-4)
