"""One step's gradients: in parts, compiled or not, and random alike."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from daemon.core.plans import Engine, ModelSettings, Schedule, Training
from stages.training.data.encoding import BYTES
from stages.training.engine.device import precision, seed_step
from stages.training.engine.step import Stepper
from stages.training.engine.team import Alone
from stages.training.models.llama import Llama

CPU = torch.device("cpu")
ADAPTER = Llama(ModelSettings(preset="micro"), BYTES, 16)
ROWS = torch.randint(0, 256, (6, 17), generator=torch.Generator().manual_seed(0))


def training(engine: Engine) -> Training:
    """Return a training of which only the engine matters."""
    schedule = Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0)
    return Training(
        tokens=1, batch=6, context=16, replay=0.0, schedule=schedule, optimiser="keep", seed=3, engine=engine
    )


def gradients(parts: list[Tensor], engine: Engine = Engine()) -> tuple[Tensor, Tensor, Stepper]:  # noqa: B008 - frozen
    """Return the rows' losses, all gradients in a row, and what computed them."""
    model = ADAPTER.make(1)
    stepper = Stepper(ADAPTER, model, training(engine), CPU, Alone())
    losses = stepper.backward(1, parts, 6)
    return (
        losses,
        torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]),
        stepper,
    )


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_in_parts_it_is_the_same_batch(size: int) -> None:
    """Parts of any size, equal or not: the same losses and gradients, to rounding."""
    whole, expected, _ = gradients([ROWS])
    losses, found, _ = gradients(list(torch.split(ROWS, size)))

    assert torch.allclose(losses, whole, atol=1e-6)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_nearly_the_same_on_a_processor() -> None:
    """The products are shorter, and the direction holds."""
    _, expected, _ = gradients([ROWS])
    losses, found, _ = gradients([ROWS], Engine(precision="bfloat16"))

    assert losses.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99


def test_auto_is_float32_on_a_processor() -> None:
    """Autocast is on only where it is asked for."""
    with precision(CPU):
        assert not torch.is_autocast_enabled("cpu")
    with precision(CPU, "bfloat16"):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("when", ["made", "called"])
def test_what_cannot_be_compiled_is_trained_without(
    when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a compiler there is one warning, the same gradients, and the step is as if nothing had been tried."""

    def compiled(losses: Callable[[nn.Module, object], Tensor]) -> Callable[[nn.Module, object], Tensor]:
        def fails(model: nn.Module, inputs: object) -> Tensor:
            torch.rand(3)
            (losses(model, inputs).sum()).backward()  # type: ignore[no-untyped-call]
            raise RuntimeError("no compiler was found")

        if when == "made":
            raise RuntimeError("not on this platform")
        return fails

    expected_losses, expected, _ = gradients([ROWS])
    monkeypatch.setattr(torch, "compile", compiled)
    with caplog.at_level(logging.WARNING, "rewarm.stage"):
        losses, found, stepper = gradients([ROWS], Engine(compile=True))
        stepper.backward(2, [ROWS], 6)

    assert len(caplog.records) == 1
    assert not stepper.compiled
    assert torch.equal(losses, expected_losses)
    assert torch.equal(found, expected)


def test_no_memory_is_not_taken_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortage in the first step is told as one."""

    def fails(model: nn.Module, inputs: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(torch, "compile", lambda _: fails)
    with pytest.raises(MemoryError):
        gradients([ROWS], Engine(compile=True))


def test_what_is_random_in_a_step_hangs_on_nothing_before_it() -> None:
    """The same in the same step of the same seed and process; another in any other."""

    def draw(seed: int, step: int, rank: int = 0) -> float:
        seed_step(CPU, seed, step, rank)
        return float(torch.rand(1))

    first = draw(1, 5)
    torch.rand(100)

    assert draw(1, 5) == first
    assert len({draw(1, 5), draw(1, 6), draw(2, 5), draw(1, 5, 1)}) == 4
