"""What rows are drawn from: shards end to end as a ring of tokens, or as a list of examples."""

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence

import numpy as np

from daemon.core.errors import StageError
from daemon.core.plans import Document
from stages.training.data.shards import Part
from stages.training.mixing.order import Ordinals
from stages.training.models.base import Row


class Pool:
    """Parts of shards in their order, and where in it each one ends; base of the two ways to read rows from them.

    Of the documents `without` nothing is drawn: in the place of a row with one of them comes the next without.
    """

    def __init__(
        self, parts: Sequence[Part], sizes: Sequence[int], without: Collection[Document] = frozenset()
    ) -> None:
        self._parts = [part for part, size in zip(parts, sizes, strict=True) if size]
        self._ends = np.cumsum([size for size in sizes if size], dtype=np.int64)
        self._without = without
        begins = [0, *self._ends.tolist()]
        self._gone = sorted(
            self._extent(part, begin, document.number)
            for part, begin in zip(self._parts, begins, strict=False)
            for document in without
            if document.arrival == part.arrival and document.number < len(part)
        )

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    @property
    def domains(self) -> list[str]:
        """The domains in which there is anything."""
        return sorted({part.domain for part in self._parts})

    def domain(self, start: int) -> str:
        """Return the domain in which the row that begins there begins."""
        return self._parts[self._find(start)[0]].domain

    def spared(self, starts: Ordinals, context: int) -> Ordinals:
        """Return where rows begin instead that hold nothing of what is left out; the others stay where they are.

        Raises StageError (bad_sample) when no row is left.
        """
        if not self._gone:
            return starts
        return np.array([self._spared(start, context) for start in starts.tolist()], dtype=np.int64)

    def _spared(self, start: int, context: int) -> int:
        """Return where the next row begins that holds nothing of what is left out: that one, or one behind it."""
        size, length = len(self), self.length(context)
        for _ in range(2 * len(self._gone) + 2):
            touched = self._touched(start, start + length)
            if touched is None:
                return start
            start = touched % size
        message = (
            f"Without the {len(self._gone)} documents that are left out no row of {length} is left to train on: send "
            "more data, or lower `context`."
        )
        raise StageError("bad_sample", message)

    def _touched(self, start: int, end: int) -> int | None:
        """Return where what is left out of [start, end) ends, or None where nothing is; a ring comes round again."""
        size = len(self)
        if end > size:
            return self._touched(start, size) or self._touched(0, min(end - size, size))
        place = bisect_left(self._gone, (end, 0)) - 1
        gone = self._gone[place] if place >= 0 else (0, 0)
        return gone[1] if gone[1] > start else None

    def _find(self, start: int) -> tuple[int, int]:
        index = int(np.searchsorted(self._ends, start, side="right"))
        return index, start - (int(self._ends[index - 1]) if index else 0)

    @abstractmethod
    def length(self, context: int) -> int:
        """Return how many places a row takes."""

    @abstractmethod
    def documents(self, start: int, context: int) -> list[Document]:
        """Return which documents the row that begins there holds."""

    @abstractmethod
    def _extent(self, part: Part, begin: int, number: int) -> tuple[int, int]:
        """Return the places [first, last) of a document in a part that begins there."""

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

    def __init__(self, parts: Sequence[Part], without: Collection[Document] = frozenset()) -> None:
        super().__init__(parts, [len(part.tokens) for part in parts], without)
        self._tokens = [np.asarray(part.tokens) for part in self._parts]  # slices of a memmap cost ten times as much

    def only(self, domain: str) -> "Stream":
        """Return the ring of one domain."""
        return Stream([part for part in self._parts if part.domain == domain], self._without)

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

    def length(self, context: int) -> int:
        """Return how many tokens a window has: the one before the first is one of them."""
        return context + 1

    def documents(self, start: int, context: int) -> list[Document]:
        """Return which documents the window that begins there holds a token of."""
        found: list[Document] = []
        left = min(context + 1, len(self))
        while left > 0:
            index, at = self._find(start % len(self))
            part = self._parts[index]
            first = bisect_right(part.offsets, at) - 1
            last = bisect_left(part.offsets, min(at + left, len(part.tokens)))
            found += [Document(arrival=part.arrival, number=number) for number in range(first, last)]
            start, left = start + len(part.tokens) - at, left - (len(part.tokens) - at)
        return found

    def _extent(self, part: Part, begin: int, number: int) -> tuple[int, int]:
        return begin + int(part.offsets[number]), begin + int(part.offsets[number + 1])


class Examples(Pool):
    """Documents that are examples: each is a row by itself, whole."""

    def __init__(self, parts: Sequence[Part], without: Collection[Document] = frozenset()) -> None:
        super().__init__(parts, [len(part) for part in parts], without)

    def only(self, domain: str) -> "Examples":
        """Return the examples of one domain."""
        return Examples([part for part in self._parts if part.domain == domain], self._without)

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

    def length(self, context: int) -> int:
        """Return how many places an example takes: its own."""
        return 1

    def documents(self, start: int, context: int) -> list[Document]:
        """Return which document the example is."""
        index, at = self._find(start)
        return [Document(arrival=self._parts[index].arrival, number=at)]

    def _extent(self, part: Part, begin: int, number: int) -> tuple[int, int]:
        return begin + number, begin + number + 1
