"""By what documents that are nearly equal are known: MinHash signatures of their words, in bands.

Two documents share a band with probability 1 - (1 - J^8)^14, where J is the share of word 5-grams that both have among
those that either has (Jaccard): 56 % at 0.7, 92 % at 0.8, 99 % at 0.85, 5 % at 0.5. Number of words, permutations and
bands are those of FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.4), which, too, takes a shared band for
enough; Lee et al. 2022 (arXiv 2107.06499) found 0.8 to be where near-duplicates begin. Signatures are rensa's.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

WORDS = 5
BANDS = 14
ROWS = 8
PERMUTATIONS = BANDS * ROWS
SEED = 1
LONGEST = 1 << 20
"""Bytes of a document that are looked at, its first ones."""
IDEOGRAPH = 0xE0
"""From this byte on begin the characters of scripts that mostly do not part words: each is one."""
BASE = 0x9E3779B97F4A7C15
Keys = npt.NDArray[np.uint64]


def sketch_name() -> str:
    """Return how keys are made: only those made the same way can be compared."""
    import rensa  # type: ignore[import-untyped]

    return f"words-{WORDS}-bands-{BANDS}x{ROWS}-rensa-{rensa.RMinHash.ALGORITHM_VERSION}"


def band_keys(documents: Sequence[bytes]) -> Keys:
    """Return (n, BANDS) keys, even numbers; documents nearly equal have one in common. Zeros: there are no words.

    Of words count letters of any script, digits and underscores, in lower case where they are ASCII. Documents of
    fewer than WORDS words are nearly equal when all of their words are.
    """
    import rensa

    keys = np.zeros((len(documents), BANDS), dtype=np.uint64)
    shingles, counts = _shingles([document[:LONGEST] for document in documents])
    some = np.flatnonzero(counts)
    if not len(some):
        return keys
    offsets = np.concatenate(([0], np.cumsum(counts[some]))).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, PERMUTATIONS, SEED)
    rows = np.array(matrix.to_rows(), dtype=np.uint32).view(np.uint64).reshape(len(some), BANDS, ROWS // 2)
    mixed = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), (len(some), BANDS))
    for at in range(ROWS // 2):
        mixed = _mix(mixed + rows[:, :, at])
    keys[some] = np.maximum(mixed & ~np.uint64(1), 2)
    return keys


def _shingles(documents: Sequence[bytes]) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the hashes of all WORDS-grams, document after document, and how many each document has."""
    flat = np.frombuffer(b"\0".join((*documents, b"")), dtype=np.uint8)
    letters = _letters()[flat]
    begins = letters > 0
    begins[1:] &= (letters[:-1] == 0) | (flat[1:] >= IDEOGRAPH)
    starts = np.flatnonzero(begins)
    ends = np.cumsum([len(document) + 1 for document in documents])
    last = np.searchsorted(starts, ends)  # of each document, the word after its last
    first = np.concatenate(([0], last[:-1]))
    if not len(starts):
        return np.zeros(0, dtype=np.uint64), last - first
    words = _words(letters, starts)
    sums, count = words.copy(), last - first
    for place in range(1, WORDS):
        sums[:-place] += words[place:] * _place(place)
    short = np.flatnonzero((count > 0) & (count < WORDS))
    sums[first[short]] = words[first[short]]
    for place in range(1, WORDS):  # what follows a short document is no part of it
        longer = short[count[short] > place]
        sums[first[longer]] += words[first[longer] + place] * _place(place)
    whole = np.maximum(np.minimum(count, 1), count - WORDS + 1)
    shingles = np.arange(int(whole.sum())) + np.repeat(first - np.cumsum(whole) + whole, whole)
    return _mix(sums[shingles]), whole


def _place(place: int) -> np.uint64:
    return np.uint64(pow(BASE, place, 2**64))


def _words(letters: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> Keys:
    """Return the hash of each word: its letters as digits to the base BASE, modulo 2^64."""
    powers, inverse = _powers(1 << (len(letters) - 1).bit_length())
    sums = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(letters * powers[: len(letters)], dtype=np.uint64)))
    between = np.append(sums[starts[1:]], sums[-1]) - sums[starts]
    return _mix(between * inverse[starts])


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Keys, Keys]:
    base = np.full(count, BASE, dtype=np.uint64)
    inverse = np.full(count, pow(BASE, -1, 2**64), dtype=np.uint64)
    base[0] = inverse[0] = 1
    return np.multiply.accumulate(base), np.multiply.accumulate(inverse)


@lru_cache(maxsize=1)
def _letters() -> npt.NDArray[np.uint8]:
    """Return what each byte counts as: 0 where it parts words."""
    letters = np.arange(256, dtype=np.uint8)
    for byte in range(128):
        letters[byte] = ord(chr(byte).lower()) if chr(byte).isalnum() or chr(byte) == "_" else 0
    return letters


def _mix(x: Keys) -> Keys:
    """Return numbers whose every bit depends on every bit (Stafford's thirteenth variant, as in SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
