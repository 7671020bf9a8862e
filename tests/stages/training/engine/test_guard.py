"""The guard: spikes and numbers that are none never reach the optimiser."""

import math

import pytest
import torch

from stages.training.engine.guard import FEWEST, WINDOW, Guard
from stages.training.engine.optimiser import dump_moments, make_optimiser, set_rate, withhold

CPU = torch.device("cpu")


def judge(guard: Guard, loss: float, norm: float = 1.0) -> tuple[bool, bool]:
    """Return (withheld, halted) of a step."""
    _, _, withheld, halted = guard.judge(torch.tensor(loss), torch.tensor(norm)).tolist()
    return bool(withheld), bool(halted)


def warmed(sigma: float | None, steps: int = FEWEST) -> Guard:
    """Return a guard that has seen losses and norms of deviation 0.1 or so."""
    guard = Guard(sigma, CPU)
    for step in range(steps):
        assert judge(guard, 2 + 0.1 * math.sin(step), 1 + 0.1 * math.cos(step)) == (False, False)
    return guard


@pytest.mark.parametrize(
    ("loss", "norm", "withheld"), [(2.2, 1.1, False), (3.0, 1.0, True), (2.0, 2.0, True), (0.5, 0.1, False)]
)
def test_what_lies_far_above_the_last_ones_is_left_out(loss: float, norm: float, withheld: bool) -> None:
    """Loss or norm above six deviations; a fall is no spike."""
    assert judge(warmed(6.0), loss, norm) == (withheld, False)


def test_few_steps_say_nothing_and_no_sigma_means_never() -> None:
    """Before 64 steps, and where the plan asks for nothing, only numbers that are none are withheld."""
    assert judge(warmed(6.0, FEWEST - 2), 100.0) == (False, False)
    assert judge(warmed(None), 100.0) == (False, False)


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_after_a_number_that_is_none_everything_is_withheld(bad: tuple[float, float]) -> None:
    """Whoever reads it later finds the weights of the step before it."""
    guard = Guard(None, CPU)

    assert judge(guard, *bad) == (True, True)
    assert judge(guard, 1.0) == (True, True)


def test_a_resumed_guard_judges_as_the_one_before() -> None:
    """The last losses and norms are kept, as are the counts; more than a window of them is forgotten."""
    guard = warmed(3.0, WINDOW + 7)
    guard.skipped = 2
    other = Guard(3.0, CPU)
    other.load({name: tensor.clone() for name, tensor in guard.dump().items()})

    assert other.skipped == 2
    for loss in (2.05, 2.3, 2.6, 1.0, 2.1):
        first, second = (each.judge(torch.tensor(loss), torch.tensor(1.0)) for each in (guard, other))
        assert torch.equal(first, second)


def test_a_withheld_step_changes_nothing() -> None:
    """Neither weights nor moments nor their count; the next step is as if it had not been."""
    model = torch.nn.Linear(3, 3)
    optimiser = make_optimiser(model)
    set_rate(optimiser, 0.1)

    def step(bad: float, gradient: float) -> dict[str, torch.Tensor]:
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, gradient)
        withhold(optimiser, torch.tensor(bad))
        optimiser.step()
        return {
            name: value.clone() for name, value in (*model.named_parameters(), *dump_moments(model, optimiser).items())
        }

    before = step(0.0, 1.0)
    after = step(1.0, math.nan)
    moved = step(0.0, 1.0)

    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(before["weight"], moved["weight"])
    assert moved["weight/step"] == 2
