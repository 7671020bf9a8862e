"""What rows are drawn from: shards end to end as a ring of tokens, or as a list of examples."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from stages.training.data.shards import Part
from stages.training.mixing.order import Ordinals
from stages.training.models.base import Row


class Pool:
    """Parts of shards in their order, and where in it each one ends; base of the two ways to read rows from them."""

    def __init__(self, parts: Sequence[Part], sizes: Sequence[int]) -> None:
        self._parts = [part for part, size in zip(parts, sizes, strict=True) if size]
        self._ends = np.cumsum([size for size in sizes if size], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    @property
    def domains(self) -> list[str]:
        """The domains in which there is anything."""
        return sorted({part.domain for part in self._parts})

    def domain(self, start: int) -> str:
        """Return the domain in which the row that begins there begins."""
        return self._parts[self._find(start)[0]].domain

    def _find(self, start: int) -> tuple[int, int]:
        index = int(np.searchsorted(self._ends, start, side="right"))
        return index, start - (int(self._ends[index - 1]) if index else 0)

    @abstractmethod
    def only(self, domain: str) -> "Pool":
        """Return the same of one domain alone."""

    @abstractmethod
    def rows(self, context: int) -> int:
        """Return how many rows an epoch has: at least one."""

    @abstractmethod
    def begins(self, places: Ordinals, offsets: Ordinals, context: int) -> Ordinals:
        """Return where the rows at these places of their epochs' order begin, a ring being cut at the offsets."""

    @abstractmethod
    def read(self, start: int, context: int) -> Row:
        """Return the row that begins there."""


class Stream(Pool):
    """Documents end to end, closed to a ring: every position begins a window of any length.

    No token is left out and none is padding. A window may begin anywhere in a document and hold parts of several;
    each ends with the tokenizer's end token, so that whoever reads a window sees where the next one begins. Neither
    attention nor loss is masked there. What that costs, measured once: a nano model after 0.5 million bytes of
    docstrings (median 178 bytes) in windows of 256 reads held-out ones 0.030 [0.023, 0.038] nats per byte worse than
    one whose attention is masked; the more of a document lies in its window, the less. A mask would take the fused
    causal attention away from everybody.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts, [len(part.tokens) for part in parts])
        self._tokens = [np.asarray(part.tokens) for part in self._parts]  # slices of a memmap cost ten times as much

    def only(self, domain: str) -> "Stream":
        """Return the ring of one domain."""
        return Stream([part for part in self._parts if part.domain == domain])

    def rows(self, context: int) -> int:
        """Return how many windows the ring is cut into; a remainder shorter than one is another in every epoch."""
        return max(1, len(self) // context)

    def begins(self, places: Ordinals, offsets: Ordinals, context: int) -> Ordinals:
        """Return where the windows begin."""
        return (places * context + offsets) % len(self)

    def read(self, start: int, context: int) -> Row:
        """Return `context` + 1 tokens from a position on; a ring shorter than that comes round again."""
        length = context + 1
        index, at = self._find(start)
        row = self._tokens[index][at : at + length]
        if len(row) == length:
            return row
        if len(self) < length:
            return np.take(np.concatenate(self._tokens), np.arange(start, start + length), mode="wrap")
        pieces = [row]
        length -= len(row)
        while length > 0:
            index = (index + 1) % len(self._tokens)
            pieces.append(self._tokens[index][:length])
            length -= len(pieces[-1])
        return np.concatenate(pieces)


class Examples(Pool):
    """Documents that are examples: each is a row by itself, whole."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts, [len(part) for part in parts])

    def only(self, domain: str) -> "Examples":
        """Return the examples of one domain."""
        return Examples([part for part in self._parts if part.domain == domain])

    def rows(self, context: int) -> int:
        """Return how many examples there are."""
        return max(1, len(self))

    def begins(self, places: Ordinals, offsets: Ordinals, context: int) -> Ordinals:
        """Return the places themselves."""
        return places

    def read(self, start: int, context: int) -> Row:
        """Return an example."""
        index, at = self._find(start)
        return self._parts[index].document(at)
