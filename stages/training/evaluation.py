"""A model's loss on held-out documents, and intervals over documents.

Losses are nats per byte of text: all nats of an excerpt (those of the end of its document too) over its
bytes. Intervals are percentile bootstraps over documents (Efron 1979), paired where two models are compared.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.events import Comparison, Loss
from stages.training.shards import END, Part, Tokens

EXCERPT_TOKENS = 2048
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
Floats = npt.NDArray[np.float64]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's measurement may cost; whichever is reached first."""

    documents: int
    bytes: int


class Excerpts(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of a domain: tokens, each with the one before the first, and their bytes of text."""

    tokens: list[Tokens]
    bytes: Floats


def choose(parts: Sequence[Part], budget: Budget) -> Excerpts:
    """Return excerpts of the documents with the least hashes: always the same ones, and a fair sample.

    A document longer than EXCERPT_TOKENS is read from a place that its hash gives.
    """
    order = sorted((name, at, index) for at, part in enumerate(parts) for index, name in enumerate(part.hashes))
    tokens: list[Tokens] = []
    sizes: list[int] = []
    for name, at, index in order:
        excerpt = _excerpt(parts[at].document(index), name)
        size = int(np.count_nonzero(excerpt[1:] != END))
        if len(sizes) == budget.documents or (sizes and sum(sizes) + size > budget.bytes):
            break
        tokens.append(excerpt)
        sizes.append(size)
    return Excerpts(tokens=tokens, bytes=np.array(sizes, dtype=np.float64))


def _excerpt(document: Tokens, name: bytes) -> Tokens:
    whole = np.concatenate((np.array([END], dtype=np.uint16), document))
    spare = len(whole) - 1 - EXCERPT_TOKENS
    start = int.from_bytes(name[8:], "little") % (spare + 1) if spare > 0 else 0
    return whole[start : start + EXCERPT_TOKENS + 1]


def _resample(count: int, seed: int) -> npt.NDArray[np.int64]:
    generator = np.random.Generator(np.random.Philox(key=seed))
    return generator.integers(0, count, size=(RESAMPLES, count))


def summarise(nats: Floats, sizes: Floats, *, seed: int) -> Loss:
    """Return total nats over total bytes with its 95 % interval; of one document the interval has no width."""
    rows = _resample(len(nats), seed)
    low, high = np.percentile(nats[rows].sum(axis=1) / sizes[rows].sum(axis=1), INTERVAL)
    return Loss(
        mean=round(float(nats.sum() / sizes.sum()), 9),
        low=round(float(low), 9),
        high=round(float(high), 9),
        documents=len(nats),
        bytes=int(sizes.sum()),
    )


def compare(candidate: Floats, champion: Floats | None, sizes: Floats, *, seed: int) -> Comparison:
    """Return both losses and their difference; the difference resamples documents in pairs."""
    measured = summarise(candidate, sizes, seed=seed)
    if champion is None:
        return Comparison(candidate=measured)
    return Comparison(
        candidate=measured,
        champion=summarise(champion, sizes, seed=seed),
        difference=summarise(candidate - champion, sizes, seed=seed),
    )
