"""Which windows make a batch: new text and replayed past, as a pure function of (plan, seed, step, row).

There is no state to save and no generator to restore: a resumed run draws what an uninterrupted one draws.
Replay is compute-equivalent as in Ibrahim et al. 2024 (arXiv 2403.08763, section 4.2): of every batch a share
is past text and the rest new, out of one fixed budget.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from stages.training.shards import Part, Tokens

NEW, PAST = 0, 1
"""Key words of the two streams: they draw independently of each other."""


def replayed(replay: float, batch: int, step: int) -> int:
    """Return how many rows of the first `step` batches are past: never further than half a row from the share."""
    share = Fraction(replay).limit_denominator(1_000_000) * batch * step
    return int(share + Fraction(1, 2))


def replay_rows(replay: float, batch: int, step: int) -> int:
    """Return how many rows of batch `step` (1, 2, …) are past: the error is carried on, so the sum is exact."""
    return replayed(replay, batch, step) - replayed(replay, batch, step - 1)


class Stream:
    """Shards end to end, closed to a ring: every position begins a window of any length."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = [part for part in parts if len(part.tokens)]
        self.ends = np.cumsum([len(part.tokens) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.parts else 0

    def read(self, start: int, length: int) -> tuple[Tokens, str]:
        """Return `length` tokens from a position on, and the domain in which they begin."""
        pieces: list[Tokens] = []
        index = int(np.searchsorted(self.ends, start, side="right"))
        domain = self.parts[index].domain
        at = start - (int(self.ends[index - 1]) if index else 0)
        while length > 0:
            piece = self.parts[index].tokens[at : at + length]
            pieces.append(piece)
            length -= len(piece)
            index, at = (index + 1) % len(self.parts), 0
        return np.concatenate(pieces), domain


@lru_cache(maxsize=4)
def _epoch(seed: int, stream: int, epoch: int, count: int) -> npt.NDArray[np.intp]:
    # Philox counts instead of evolving (Salmon et al. 2011), and sorting its raw words makes a permutation
    # that no change in numpy's distributions can alter.
    words = np.random.Philox(key=seed, counter=[0, epoch, stream, 0]).random_raw(count + 1)
    return np.concatenate((np.argsort(words[1:], kind="stable"), words[:1].astype(np.intp)))


def window_start(seed: int, stream: int, ordinal: int, *, size: int, context: int) -> int:
    """Return where the stream's `ordinal`-th window (0, 1, …) begins.

    Every epoch cuts the ring of `size` tokens into windows at its own offset and takes each once, in its own
    order: nothing is read twice before everything is read once (but for a remainder shorter than a window).
    """
    count = max(1, size // context)
    epoch, index = divmod(ordinal, count)
    order = _epoch(seed, stream, epoch, count)
    return (int(order[index]) * context + abs(int(order[-1]))) % size


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of `context` + 1 tokens, replayed ones first, and the domain of each row."""

    rows: list[Tokens]
    domains: list[str]
    past: int


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn from, and how; without past text every row is new."""

    new: Stream
    past: Stream
    replay: float
    batch: int
    context: int
    seed: int

    def draw(self, step: int) -> Batch:
        """Return batch `step` (1, 2, …). A replayed row's domain falls as the past's tokens do."""
        replay = self.replay if len(self.past) else 0.0
        before = replayed(replay, self.batch, step - 1)
        past = replay_rows(replay, self.batch, step)
        fresh = (step - 1) * self.batch - before
        rows = [self._window(self.past, PAST, before + row) for row in range(past)]
        rows += [self._window(self.new, NEW, fresh + row) for row in range(self.batch - past)]
        return Batch(rows=[row for row, _ in rows], domains=[domain for _, domain in rows], past=past)

    def _window(self, stream: Stream, key: int, ordinal: int) -> tuple[Tokens, str]:
        start = window_start(self.seed, key, ordinal, size=len(stream), context=self.context)
        return stream.read(start, self.context + 1)
