"""What documents are like: their lengths, and what their bytes are; counted while they pass."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from daemon.core.events.stages import Lengths
from stages.training.data.columns import Column

PIECE = 1 << 20
"""Bytes that are counted at once: eight times as many are needed for it."""
ASCII = 128
BLANKS = np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8)
DIGITS = np.frombuffer(b"0123456789", dtype=np.uint8)


class Statistics:
    """Counts of documents that are added; one number for each is kept in a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._sizes = Column(folder, np.uint64)
        self._counts = np.zeros(256, dtype=np.int64)

    def add(self, texts: Sequence[bytes]) -> None:
        """Count documents."""
        self._sizes.append(np.array([len(text) for text in texts], dtype=np.uint64))
        joined = np.frombuffer(b"".join(texts), dtype=np.uint8)
        for at in range(0, len(joined), PIECE):
            self._counts += np.bincount(joined[at : at + PIECE], minlength=256)

    @property
    def bytes(self) -> int:
        """The bytes of all documents."""
        return int(self._counts.sum())

    def lengths(self) -> Lengths:
        """Return what the documents are like; of none all numbers are zero."""
        sizes = self._sizes.rows()
        total = max(1, self.bytes)
        return Lengths(
            documents=len(sizes),
            mean=round(self.bytes / max(1, len(sizes)), 3),
            median=float(np.median(sizes)) if len(sizes) else 0.0,
            longest=int(sizes.max(initial=0)),
            ascii=round(int(self._counts[:ASCII].sum()) / total, 9),
            whitespace=round(int(self._counts[BLANKS].sum()) / total, 9),
            digits=round(int(self._counts[DIGITS].sum()) / total, 9),
        )
