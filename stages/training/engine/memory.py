"""Running out of memory, told as what it is: with the sizes that the plan has, and which to change."""

import contextlib
from collections.abc import Iterator

import torch

from daemon.core.errors import StageError
from daemon.core.plans import Training

WORDS = ("out of memory", "not enough memory", "can't allocate memory", "DefaultCPUAllocator")


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means that there was no memory left, on the processor or on CUDA."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


@contextlib.contextmanager
def telling_sizes(training: Training, device: torch.device) -> Iterator[None]:
    """Turn a shortage of memory in the block into StageError (out_of_memory) with the sizes to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        first = str(error).strip().partition("\n")[0]
        message = f"There was not enough memory on {device.type}: {sizes(training)}. {advice(training)} ({first})"
        raise StageError("out_of_memory", message) from error


def sizes(training: Training) -> str:
    """Return what of a plan decides how much memory a step takes."""
    engine = training.engine
    return (
        f"batch {training.batch}, context {training.context}, accumulate {engine.accumulate}, "
        f"recompute {str(engine.recompute).lower()}, precision {engine.precision}"
    )


def advice(training: Training) -> str:
    """Return what to change first: what costs time only, then what changes the training."""
    engine = training.engine
    steps = []
    if engine.accumulate < training.batch:
        rows = -(-training.batch // min(training.batch, 2 * engine.accumulate))
        steps.append(f"Set accumulate to {min(training.batch, 2 * engine.accumulate)} (parts of {rows} sequences)")
    if not engine.recompute:
        steps.append("set recompute: true" if steps else "Set recompute: true")
    halves = f"halve context to {max(1, training.context // 2)}"
    if training.batch > 1:
        halves += f" or batch to {training.batch // 2}"
    told = ", then ".join(steps)
    return f"{told}; if that is not enough, {halves}." if told else f"{halves[0].upper()}{halves[1:]}."
