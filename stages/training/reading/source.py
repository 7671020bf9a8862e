"""The content of an arrival, held open from the first look until its last document was read."""

import os
from pathlib import Path

import msgspec

from stages.training.reading.unusable import Unusable

Stamp = tuple[int, int]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival's content as a local file that nobody can exchange: `path` leads to an open descriptor.

    `name` is what messages call it, `sha256` and `bytes` are of the file as it lies, compressed or not. `stamp` is
    its size and time of change (ns) when it was hashed.
    """

    path: Path
    sha256: str
    bytes: int
    name: str = "the file"
    stamp: Stamp | None = None

    def settle(self) -> None:
        """Raise Unusable where the file has changed since it was hashed."""
        if self.stamp is not None and stamp_of(os.stat(self.path)) != self.stamp:  # noqa: PTH116 - as below
            raise changed(self.name)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return by what a change of a file is told."""
    return status.st_size, status.st_mtime_ns


def changed(name: str) -> Unusable:
    """Return the error of a file that did not stand still."""
    return Unusable("checksum", f"{name} changed while it was read: move it in when it is whole.")
