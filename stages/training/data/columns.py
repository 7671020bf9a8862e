"""Numbers about documents, one row each, in files without a name: what is not being looked at takes no memory.

Such a file is gone with its process, however that ends.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 16
"""Rows that are looked at at once."""


class Column:
    """Rows of `width` numbers that are appended, then read."""

    def __init__(self, folder: Path, dtype: npt.DTypeLike, width: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._dtype = np.dtype(dtype)
        self._width = width
        self._count = 0

    def append(self, rows: npt.NDArray[np.generic]) -> None:
        """Add rows: (n,) numbers, or (n, width)."""
        if not rows.size:
            return
        rest = np.ascontiguousarray(rows, dtype=self._dtype).data.cast("B")
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._count += rows.size // self._width

    def rows(self) -> npt.NDArray[Any]:
        """Return all rows, mapped: (n,), or (n, width) of a width above one; what is changed is changed in the file."""
        shape = (self._count,) if self._width == 1 else (self._count, self._width)
        if not self._count:
            return np.zeros(shape, dtype=self._dtype)
        size = self._count * self._width * self._dtype.itemsize
        return np.frombuffer(mmap.mmap(self._descriptor, size), dtype=self._dtype).reshape(shape)


def chunks(count: int) -> Iterator[slice]:
    """Yield the slices in which so many rows are looked at."""
    return (slice(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK))


def mapped(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Return a file of numbers, mapped for reading; an empty one cannot be, and is none."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    # A plain array on the mapping: slices of a memmap cost ten times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
