"""Where the arithmetic happens, and how it is made to repeat itself bit by bit."""

import contextlib

import torch

THREADS = 2


def prepare(threads: int) -> torch.device:
    """Return the device to use: CUDA where there is one, else the processor, there deterministic.

    The number of threads is fixed (0 means two): sums are split by it, and with it their last bits.
    """
    torch.set_num_threads(threads or THREADS)
    if torch.cuda.is_available():
        return torch.device("cuda")
    # The same switch as use_deterministic_algorithms, which loads the whole compiler first: three seconds.
    torch.set_deterministic_debug_mode("error")
    # Every tensor is written before it is read; filling it first costs a tenth of the speed.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cpu")


def precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context for a forward pass: bfloat16 products on CUDA, plain float32 on the processor."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
