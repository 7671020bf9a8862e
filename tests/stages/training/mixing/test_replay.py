"""Replay: exact shares of every stretch of a run, and of every domain."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import StageError
from daemon.core.plans import Phase, Replaying, Schedule, Training, replay_share, steps
from stages.training.mixing.replay import Part, Split, parts, replayed, split_of

SHARES = st.floats(0, 1).map(lambda share: round(share, 4))


def training(total: int, replay: float, *phases: tuple[float, float]) -> Training:
    """Return a plan of so many steps of one row of one token."""
    return Training(
        tokens=total,
        batch=1,
        context=1,
        replay=replay,
        schedule=Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0),
        optimiser="keep",
        seed=0,
        replaying=Replaying(phases=tuple(Phase(until=until, share=share) for until, share in phases)),
    )


@given(replay=SHARES, batch=st.integers(1, 512), step=st.integers(1, 100_000))
def test_replay_is_exact_over_time(replay: float, batch: int, step: int) -> None:
    """After every step the rows replayed are within half a row of the share; no batch is overfull."""
    course = parts(training(1, replay))
    upto = replayed(course, batch, step)
    assert abs(upto - Fraction(str(replay)) * batch * step) <= Fraction(1, 2)
    assert 0 <= upto - replayed(course, batch, step - 1) <= batch


@given(
    total=st.integers(1, 80),
    batch=st.integers(1, 64),
    untils=st.lists(st.floats(0, 1.2), min_size=1, max_size=5).map(sorted),
    shares=st.lists(SHARES, min_size=5, max_size=5),
)
def test_phases_are_exact_over_time(total: int, batch: int, untils: list[float], shares: list[float]) -> None:
    """The sum over any number of steps is that of what the plan says of each, but for half a row."""
    plan = training(total, 0.5, *zip(untils, shares, strict=False))
    course = parts(plan)
    planned = Fraction(0)
    assert steps(plan) == total
    for step in range(1, total + 1):
        planned += Fraction(str(replay_share(plan, step))) * batch
        assert abs(replayed(course, batch, step) - planned) <= Fraction(1, 2)
        assert 0 <= replayed(course, batch, step) - replayed(course, batch, step - 1) <= batch


@given(weights=st.dictionaries(st.text("abcdefgh", min_size=1), st.floats(1e-3, 1e3), min_size=1, max_size=40))
def test_every_domain_has_its_share_of_any_number_of_rows(weights: dict[str, float]) -> None:
    """Within two rows, and nobody's count ever falls; the order of the names in the plan is nothing."""
    split, total = Split(weights), sum(weights.values())
    mirrored = Split(dict(reversed(weights.items())))
    before = split.count(0)
    for rows in (*range(1, 60), 997, 10_000):
        counts = split.count(rows)
        assert sum(counts.values()) == rows
        assert all(abs(counts[domain] - rows * weight / total) < 2.02 for domain, weight in weights.items())
        assert all(counts[domain] >= before[domain] for domain in weights)
        assert mirrored.count(rows) == counts
        before = counts


def test_equal_domains_take_turns() -> None:
    """Of four equal ones each has a row of any four."""
    split = Split(dict.fromkeys("abcd", 1.0))
    assert split.count(400) == dict.fromkeys("abcd", 100)
    assert all(max(split.count(rows).values()) - min(split.count(rows).values()) <= 1 for rows in range(50))


def test_weights_choose_among_what_is_there() -> None:
    """A domain of the past that is not named, or weighs nothing, is left out; one that is named and gone as well."""
    split = split_of({"a": 3.0, "b": 1.0, "gone": 5.0, "nothing": 0.0}, ["a", "b", "nothing", "other"])
    assert split is not None
    assert split.count(100) == {"a": 75, "b": 25}


@pytest.mark.parametrize("weights", [{}, {"gone": 1.0}, {"a": 0.0}])
def test_weights_of_nothing_that_is_there_choose_nothing(weights: dict[str, float]) -> None:
    """Then the past is replayed as its tokens fall."""
    assert split_of(weights, ["a", "b"]) is None


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    """The message names the domain."""
    with pytest.raises(StageError, match=r"'a'.*finite") as refused:
        split_of({"a": weight}, ["a"])
    assert refused.value.failure == "user_error"


def test_without_phases_there_is_one_part() -> None:
    """Its share is the plan's."""
    assert parts(training(9, 0.25)) == (Part(None, 0.25),)
