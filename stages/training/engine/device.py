"""Where the arithmetic happens, in what precision, and how it is made to repeat itself bit by bit."""

import contextlib
from typing import Literal

import torch

THREADS = 2
Precision = Literal["auto", "float32", "bfloat16"]


def prepare(threads: int) -> torch.device:
    """Return the device to use: CUDA where there is one, else the processor, there deterministic.

    The number of threads is fixed (0 means two): sums are split by it, and with it their last bits.
    """
    torch.set_num_threads(threads or THREADS)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    # The same switch as use_deterministic_algorithms, which loads the whole compiler first: three seconds.
    torch.set_deterministic_debug_mode("error")
    # Every tensor is written before it is read; filling it first costs a tenth of the speed.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cpu")


def precision(device: torch.device, wanted: Precision = "auto") -> contextlib.AbstractContextManager[object]:
    """Return the context for a forward pass; auto is bfloat16 products on CUDA, plain float32 on the processor."""
    if wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def seed_step(device: torch.device, seed: int, step: int, rank: int = 0) -> None:
    """Set torch's generators to what they are in this step, whatever was drawn before it.

    Dropout then is a function of (seed, step, rank), as the data is: a resumed run draws what an uninterrupted one
    draws, and what is measured between two steps cannot disturb it. Takes a microsecond.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(mixed)
