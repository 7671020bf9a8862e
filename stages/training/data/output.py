"""The files of a shard while they grow; each is hashed while it is written."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from stages.training.data.encoding import Encoded
from stages.training.files import Stamp


class Output:
    """A new file; `finish` flushes it to the disk and says what it is."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = path.open("xb")  # closed by the `with`
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += data.nbytes

    def finish(self) -> Stamp:
        """Return the file's sha256 and size once it is durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return Stamp(sha256=self._sha256.hexdigest(), bytes=self._bytes)


class PartOutput:
    """Tokens, offsets and, with `ends`, what tokens are in bytes, of the documents that are added to a part."""

    def __init__(self, open_: Callable[[str], Output], part: str, dtype: npt.DTypeLike, *, ends: bool) -> None:
        self._dtype = np.dtype(dtype)
        self._tokens = open_(f"{part}.bin")
        self._offsets = open_(f"{part}.offsets")
        self._ends = open_(f"{part}.ends") if ends else None
        self._offsets.write(np.zeros(1, dtype="<u8").data)
        self.documents = self.tokens = 0

    def add(self, encoded: list[Encoded], end: int | None) -> None:
        """Add documents; `end` follows each one's tokens."""
        more = int(end is not None)
        offsets = np.cumsum([len(each.tokens) + more for each in encoded], dtype=np.uint64)
        tokens = np.full(int(offsets[-1]) if encoded else 0, end or 0, dtype=self._dtype)
        at = 0
        for each in encoded:
            tokens[at : at + len(each.tokens)] = each.tokens
            at += len(each.tokens) + more
        self._tokens.write(tokens.data)
        self._offsets.write((offsets + np.uint64(self.tokens)).astype("<u8").data)
        if self._ends:
            for each in encoded:
                self._ends.write(np.append(each.ends, each.ends.max(initial=0)).astype("<u4").data)
        self.documents += len(encoded)
        self.tokens += len(tokens)
