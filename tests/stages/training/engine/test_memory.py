"""No memory left: told as such, with what to change."""

import pytest
import torch
from msgspec.structs import replace

from daemon.core.errors import StageError
from daemon.core.plans import Engine, Schedule, Training
from stages.training.engine.memory import advice, telling_sizes

TRAINING = Training(
    tokens=1,
    batch=16,
    context=256,
    replay=0.0,
    schedule=Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0),
    optimiser="keep",
    seed=0,
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 64 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
    ],
)
def test_a_shortage_names_the_sizes(error: Exception) -> None:
    """Each kind of it becomes out_of_memory, with all that decides how much memory a step takes."""
    with pytest.raises(StageError) as caught, telling_sizes(TRAINING, torch.device("cpu")):
        raise error

    assert caught.value.failure == "out_of_memory"
    for word in ("batch 16", "context 256", "accumulate 1", "recompute false", "precision auto", "Set accumulate to 2"):
        assert word in str(caught.value)


def test_a_real_allocation_that_is_too_large_is_one() -> None:
    """What the allocator itself says is understood."""
    with pytest.raises(StageError, match="not enough memory"), telling_sizes(TRAINING, torch.device("cpu")):
        torch.empty(2**58, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    """What is no shortage keeps its own words."""
    with pytest.raises(RuntimeError, match="shape"), telling_sizes(TRAINING, torch.device("cpu")):
        raise RuntimeError("the shape is wrong")


def test_the_advice_ends_with_what_changes_the_training() -> None:
    """Parts first, then recomputing; when both are used up, a smaller context or batch."""
    engine = Engine(accumulate=16, recompute=True)

    assert advice(replace(TRAINING, engine=engine)) == "Halve context to 128 or batch to 8."
    assert advice(replace(TRAINING, engine=Engine(accumulate=8))).startswith(
        "Set accumulate to 16 (parts of 1 sequences), then set recompute: true;"
    )
