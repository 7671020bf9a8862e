"""A lasting rise of the loss: found where it began, and nothing else is one."""

import math
from collections.abc import Iterable

import pytest

from stages.training.engine.spike import Spike


def found(losses: Iterable[float], spike: Spike) -> tuple[int, tuple[int, float, float]] | None:
    """Return at which step a spike is told, and what is told; None where none is."""
    for step, loss in enumerate(losses, start=1):
        told = spike.note(step, loss)
        if told is not None:
            return step, told
    return None


def test_a_loss_that_rose_and_stays_is_told_with_where_it_began() -> None:
    """After 20 steps it is three times as high: more than half of the last eight steps tell so."""
    assert found([2.0] * 20 + [6.0] * 20, Spike(2.0, 8)) == (25, (21, 6.0, 2.0))


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 20 + [600.0, 600.0, 600.0] + [2.0] * 20,
        [2.0, 2.0, 2.0, 60.0] * 20,
        [5.0 - 0.1 * step for step in range(40)],
        [2.0] * 10 + [3.9] * 40,
        [0.0] * 20 + [5.0] * 20,
        [-2.0] * 20 + [5.0] * 20,
        [6.0] * 7,
    ],
)
def test_nothing_else_is_one(losses: list[float]) -> None:
    """A few steps far out, a loss that falls, one that rises less, one without a ratio, and too few steps."""
    assert found(losses, Spike(2.0, 8)) is None


def test_it_is_off_unless_asked_for() -> None:
    """Then nothing is kept either."""
    spike = Spike(None, 8)
    assert found([1.0] * 20 + [math.e**9] * 50, spike) is None
    assert spike.dump() == {}


@pytest.mark.parametrize("kept", [3, 12, 22])
def test_it_goes_on_from_what_a_checkpoint_kept(kept: int) -> None:
    """What was the lowest is known after a restart in the middle of the rise as well."""
    losses = [2.0] * 20 + [6.0] * 20
    before, after = Spike(2.0, 8), Spike(2.0, 8)
    assert found(losses[:kept], before) is None
    after.load(before.dump())
    told = None
    for step in range(kept + 1, 41):
        told = told or after.note(step, losses[step - 1])
    assert told == (21, 6.0, 2.0)
