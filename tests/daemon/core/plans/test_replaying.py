"""When the past is replayed more, and which of it: the share in all stays, and no domain gets nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.plans.replaying import FLOOR, by_increase, even, phases

names = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Draw parts of a run: ends that rise to 1, and factors above zero."""
    ends = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    return [(end / 100, draw(st.floats(0.01, 100))) for end in [*ends, 100]]


@given(schedules(), st.floats(0.001, 0.999))
def test_the_share_in_all_stays(parts: list[tuple[float, float]], share: float) -> None:
    """Whatever the factors, the mean over the run is the share, and no part replays more than everything."""
    made = phases(parts, share)
    before = [0.0, *(phase.until for phase in made)]
    mean = sum((phase.until - begin) * phase.share for phase, begin in zip(made, before, strict=False))
    assert mean == pytest.approx(share, abs=1e-9)
    assert all(0 <= phase.share <= 1 for phase in made)


def test_by_hand() -> None:
    """Twice as much in the first tenth and at the end, capped where it would be more than everything."""
    made = phases([(0.1, 2), (0.9, 1), (1.0, 2)], 0.12)
    assert [(phase.until, phase.share) for phase in made] == [(0.1, 0.2), (0.9, 0.1), (1.0, 0.2)]
    capped = phases([(0.5, 9), (1.0, 1)], 0.75)
    assert [phase.share for phase in capped] == [1.0, 0.5]
    assert phases([], 0.3) == ()


def test_a_factor_of_zero_replays_nothing() -> None:
    """Then the other parts replay all of it, and where they cannot, as much as they can."""
    assert [phase.share for phase in phases([(0.5, 0), (1.0, 1)], 0.25)] == [0.0, 0.5]
    assert [phase.share for phase in phases([(0.5, 0), (1.0, 1)], 0.8)] == [0.0, 1.0]


@given(
    names,
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 9)),
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 9)),
)
def test_every_domain_gets_something(domains: list[str], now: dict[str, float], best: dict[str, float]) -> None:
    """Weights add up to one, and none falls below its part of the floor."""
    weights = by_increase(domains, now, best)
    assert list(weights) == sorted(domains)
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) >= FLOOR / len(domains) - 1e-9


def test_what_was_forgotten_is_replayed_more() -> None:
    """The weight grows with how far the loss lies above the lowest ever; without such a rise all weigh the same."""
    weights = by_increase(["a", "b", "c"], {"a": 1.3, "b": 1.1, "c": 0.9}, {"a": 1.0, "b": 1.0, "c": 1.0})
    assert weights == pytest.approx({"a": 0.2 / 3 + 0.6, "b": 0.2 / 3 + 0.2, "c": 0.2 / 3})
    assert by_increase(["b", "a"], {"a": 1.0}, {}) == even(["a", "b"]) == {"a": 0.5, "b": 0.5}


def test_losses_that_make_no_sense_give_weights_all_the_same() -> None:
    """What no sum can hold is no reason for a weight that is no number."""
    weights = by_increase(["a", "b"], {"a": 1e308, "b": 1e308}, {"a": 0.0, "b": -1e308})
    assert weights == {"a": 0.5, "b": 0.5}
