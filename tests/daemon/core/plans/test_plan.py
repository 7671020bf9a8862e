"""Budgets, trunks, shares and amounts against numbers computed by hand."""

import pytest

from daemon.core.plans import (
    Amount,
    Phase,
    Replaying,
    Schedule,
    ScheduleKind,
    Training,
    add,
    budget,
    learning_rate,
    replay_share,
    steps,
    subtract,
    tokens,
    trunk_step,
)


def training(kind: ScheduleKind = "rewarm", **fields: object) -> Training:
    """Return 1,000 steps of 4 x 8 tokens."""
    schedule = Schedule(kind=kind, peak=3e-4, floor=3e-5, plateau=1.65e-4)
    given = {"tokens": 32_000, "batch": 4, "context": 8, "replay": 0.25, "seed": 0, "optimiser": "keep", **fields}
    return Training(schedule=schedule, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("rewarm", 1000), ("constant", 1000), ("linear", 1000), ("wsd_s", 1000), ("infinite", 850), ("wsd", 850)],
)
def test_the_trunk_is_saved_before_the_anneal(kind: ScheduleKind, expected: int) -> None:
    """An infinite schedule and WSD leave their trunk before the anneal; the others in the end."""
    assert trunk_step(training(kind)) == expected


def test_the_rate_counts_the_steps_of_the_budget() -> None:
    """The last step of a budget has the schedule's last rate, and the middle of its decay the middle rate."""
    assert learning_rate(training(), 1000) == pytest.approx(3e-5)
    assert learning_rate(training(), 505) == pytest.approx(1.65e-4)


def test_the_replayed_share_follows_the_phases() -> None:
    """Each phase holds until its share of the steps; without phases every batch has the same share."""
    phases = (Phase(until=0.1, share=0.5), Phase(until=0.9, share=0.2), Phase(until=1.0, share=0.4))
    phased = training(replaying=Replaying(phases=phases))
    assert [replay_share(phased, step) for step in (1, 100, 101, 900, 901, 1000)] == [0.5, 0.5, 0.2, 0.2, 0.4, 0.4]
    assert {replay_share(training(), step) for step in (1, 500, 1000)} == {0.25}


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
    assert steps(training(tokens=total)) == expected


def test_amounts_are_added_and_subtracted_per_domain() -> None:
    """A domain without arrivals disappears, and nothing falls below zero."""
    one, two = Amount(arrivals=1, tokens=10), Amount(arrivals=2, tokens=25)
    assert add({"a": one}, {"a": one, "b": two}) == {"a": Amount(arrivals=2, tokens=20), "b": two}
    assert subtract({"a": two, "b": one}, {"a": one, "b": two, "c": one}) == {"a": Amount(arrivals=1, tokens=15)}
    assert tokens({"a": one, "b": two}) == 35
