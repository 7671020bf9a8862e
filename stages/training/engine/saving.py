"""Files of tensors written beside the training: it waits for a copy of them, a thread does all the rest."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from stages.training.engine.checkpoint import Contents, write_checkpoint


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that lies under its name: of which step, and its manifest's sha256."""

    folder: Path
    step: int
    sha256: str


class Writer:
    """Writes one checkpoint at a time, in the order in which they were given; `seconds` is how long it was waited for.

    The copy is made into memory that is kept and used again: once the size of what is saved, with moments three times
    the weights (four with an average), on top of the training. On CUDA it is pinned, and lies with the processor.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._buffers: dict[str, dict[str, Tensor]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Written] | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def write(self, folder: Path, contents: Contents, then: Callable[[], None] | None = None) -> None:
        """Begin to write a checkpoint, after which `then` is called in the thread; the one before must be collected."""
        began = time.monotonic()
        copied = {name: self._copy(name, tensors) for name, tensors in contents.tensors.items()}
        if any(tensor.is_cuda for tensors in contents.tensors.values() for tensor in tensors.values()):
            torch.cuda.current_stream().synchronize()
        self._writing = self._pool.submit(_write, folder, msgspec.structs.replace(contents, tensors=copied), then)
        self.seconds += time.monotonic() - began

    def collect(self, *, wait: bool) -> Written | None:
        """Return what has been written since this was asked last; raises what hindered it (OSError: a full disk)."""
        if self._writing is None or not (wait or self._writing.done()):
            return None
        began = time.monotonic()
        writing, self._writing = self._writing, None
        try:
            return writing.result()
        finally:
            self.seconds += time.monotonic() - began

    def close(self) -> None:
        """Wait for the thread to end, and let the memory go."""
        self._pool.shutdown(wait=True)
        self._buffers.clear()

    def _copy(self, file: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = self._buffers.setdefault(file, {})
        for name, tensor in tensors.items():
            buffer = kept.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            kept[name].copy_(tensor.detach(), non_blocking=True)
        return {name: kept[name] for name in tensors}


def _write(folder: Path, contents: Contents, then: Callable[[], None] | None) -> Written:
    sha256 = write_checkpoint(folder, contents)
    if then is not None:
        then()
    return Written(folder=folder, step=contents.step, sha256=sha256)
