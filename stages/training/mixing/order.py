"""In which order the rows of a stream are drawn: a permutation for every epoch, as a function of its key alone.

Nothing is drawn twice before everything is drawn once. A short order is a sorted table, as in the first releases;
a long one is a keyed bijection, which needs no memory at all and gives any place of it by itself.
"""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

NEW, PAST = 0, 1
"""Streams that are drawn as a whole; a replayed domain's own is named by `stream_of`."""
SORTED = 1 << 20
"""Longest order of a whole stream that is a table; one takes 8 MiB and 0.1 s."""
SHORT = 1 << 12
"""The same of a domain's: there may be a thousand of them, and of few places a network knows few orders."""
ROUNDS = 4
Ordinals = npt.NDArray[np.int64]


def stream_of(domain: str) -> int:
    """Return the stream of a domain: its own whatever other domains there are."""
    return int.from_bytes(hashlib.blake2b(domain.encode(), digest_size=8).digest(), "little") | 2


def places(seed: int, stream: int, ordinals: Ordinals, *, count: int, size: int) -> tuple[Ordinals, Ordinals]:
    """Return for the stream's `ordinals`-th draws (0, 1, …, ascending) which of `count` places each takes.

    And beside each the offset of its epoch, in 0..`size` - 1: where a ring of that size is cut.
    """
    taken, offsets = np.empty_like(ordinals), np.empty_like(ordinals)
    epochs = ordinals // count
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1) if len(ordinals) else ():
        here = epochs == epoch
        index = ordinals[here] - epoch * count
        if stream in (NEW, PAST) and count <= SORTED:
            order, offset = _long_table(seed, stream, epoch, count)
            taken[here] = order[index]
        elif count <= SHORT:
            order, offset = _short_table(seed, stream, epoch, count)
            taken[here] = order[index]
        else:
            keys, offset = _keys(seed, stream, epoch)
            taken[here] = shuffle(index, count, keys)
        offsets[here] = offset % size
    return taken, offsets


def _table(seed: int, stream: int, epoch: int, count: int) -> tuple[Ordinals, int]:
    # Philox counts instead of evolving (Salmon et al. 2011), and sorting its raw words makes a permutation
    # that no change in numpy's distributions can alter.
    words = _words(seed, stream, epoch, count + 1)
    return np.argsort(words[1:], kind="stable").astype(np.int64, copy=False), _offset(words)


_long_table = lru_cache(maxsize=4)(_table)
_short_table = lru_cache(maxsize=256)(_table)


@lru_cache(maxsize=1024)
def _keys(seed: int, stream: int, epoch: int) -> tuple[npt.NDArray[np.uint64], int]:
    words = _words(seed, stream, epoch, ROUNDS + 1)
    return words[1:], _offset(words)


def _words(seed: int, stream: int, epoch: int, count: int) -> npt.NDArray[np.uint64]:
    return np.random.Philox(key=seed, counter=[0, epoch, stream, 0]).random_raw(count)


def _offset(words: npt.NDArray[np.uint64]) -> int:
    return abs(int(words[:1].astype(np.int64)[0]))


def shuffle(index: Ordinals, count: int, keys: npt.NDArray[np.uint64]) -> Ordinals:
    """Return where a permutation of 0..`count` - 1 takes each index; the keys say which permutation.

    A Feistel network of balanced halves is a bijection of the next power of four (Luby and Rackoff 1988, four
    rounds); what falls beyond `count` goes round again until it does not (Black and Rogaway 2002, section 4).
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    taken = _network(index.astype(np.uint64), half, mask, keys)
    while len(beyond := np.flatnonzero(taken >= count)):
        taken[beyond] = _network(taken[beyond], half, mask, keys)
    return taken.astype(np.int64)


def _network(
    value: npt.NDArray[np.uint64], half: np.uint64, mask: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << half | right


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014); products wrap around on purpose.
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
