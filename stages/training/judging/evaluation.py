"""A model's loss on held-out documents, and intervals over documents.

Losses are nats per byte of text: all nats of an excerpt (those of the end of its document too) over its
bytes; of a model that is not of language, its own loss per example. Intervals are percentile bootstraps over
documents (Efron 1979), paired where two models are compared.
"""

import heapq
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.events import Comparison, Loss
from stages.training.data.columns import chunks
from stages.training.data.shards import Part, Tokens

EXCERPT_TOKENS = 2048
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
Floats = npt.NDArray[np.float64]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's measurement may cost; of text whichever of the first two is reached first, else `examples`."""

    documents: int
    bytes: int
    examples: int = 1024


class Excerpts(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of a domain: documents' names, tokens (each with the one before the first), bytes of text."""

    names: tuple[bytes, ...]
    tokens: list[Tokens]
    bytes: Floats


def choose(parts: Sequence[Part], budget: Budget) -> Excerpts:
    """Return excerpts of the documents with the least hashes: always the same ones, and a fair sample.

    A document longer than EXCERPT_TOKENS is read from a place that its hash gives.
    """
    tokens: list[Tokens] = []
    sizes: list[int] = []
    names: list[bytes] = []
    for name, at, index in _least(parts, budget.documents):
        start, excerpt = _excerpt(parts[at], index, name)
        size = parts[at].text_bytes(index, start, start + EXCERPT_TOKENS)
        if sizes and sum(sizes) + size > budget.bytes:
            break
        if size:
            tokens.append(excerpt)
            sizes.append(size)
            names.append(name)
    return Excerpts(tokens=tokens, bytes=np.array(sizes, dtype=np.float64), names=tuple(names))


def choose_examples(parts: Sequence[Part], budget: Budget) -> Excerpts:
    """Return the whole documents with the least hashes, each an example of size one: losses count per example."""
    chosen = _least(parts, budget.examples)
    return Excerpts(
        tokens=[parts[at].document(index) for _, at, index in chosen],
        bytes=np.ones(len(chosen)),
        names=tuple(name for name, _, _ in chosen),
    )


def together(samples: Sequence[Excerpts]) -> Excerpts:
    """Return what is in any of several samples of one domain, each document once."""
    found = {
        name: (tokens, size)
        for each in samples
        for name, tokens, size in zip(each.names, each.tokens, each.bytes.tolist(), strict=True)
    }
    return Excerpts(
        tokens=[tokens for tokens, _ in found.values()],
        bytes=np.array([size for _, size in found.values()], dtype=np.float64),
        names=tuple(found),
    )


def _least(parts: Sequence[Part], count: int) -> list[tuple[bytes, int, int]]:
    """Return the least hashes in their order, each with its part and place in it; memory does not grow with them."""
    least: list[tuple[bytes, int, int]] = []
    for at, part in enumerate(parts):
        for piece in chunks(len(part)):
            rows = np.ascontiguousarray(part.hashes[piece])
            heads = rows.view(">u8")[:, 0]
            few = heads <= np.partition(heads, count - 1)[count - 1] if len(heads) > count else heads >= 0
            named = [(rows[row].tobytes(), at, piece.start + row) for row in np.flatnonzero(few).tolist()]
            least = heapq.nsmallest(count, [*least, *named])
    return least


def _excerpt(part: Part, index: int, name: bytes) -> tuple[int, Tokens]:
    """Return where an excerpt begins in its document, and its tokens after the one before them."""
    document = part.document(index)
    spare = len(document) - EXCERPT_TOKENS
    start = int.from_bytes(name[8:], "little") % (spare + 1) if spare > 0 else 0
    before = document[start - 1 : start] if start else np.array([part.manifest.end], dtype=document.dtype)
    return start, np.concatenate((before, document[start : start + EXCERPT_TOKENS]))


def resample(nats: Floats, sizes: Floats, *, seed: int, stream: int = 0) -> Floats:
    """Return the means (total nats over total bytes) of RESAMPLES draws of as many documents, with replacement.

    Draws of the same seed, stream and number of documents take the same documents; other streams are independent.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, stream]))
    rows = generator.integers(0, len(nats), size=(RESAMPLES, len(nats)))
    means: Floats = nats[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    return means


def summarise(nats: Floats, sizes: Floats, *, seed: int) -> Loss:
    """Return total nats over total bytes with its 95 % interval; of one document the interval has no width."""
    low, high = np.percentile(resample(nats, sizes, seed=seed), INTERVAL)
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


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a shift: what its domains' documents cost, their bytes, and each domain's weight in the mean.

    `documents` are their tokens, of a model of language.
    """

    nats: dict[str, Floats] = {}
    bytes: dict[str, Floats] = {}
    weights: dict[str, int] = {}
    documents: dict[str, list[Tokens]] = {}

    def mean(self) -> float | None:
        """Return the weighted mean loss; None where nothing was measured."""
        weight = sum(self.weights[domain] for domain in self.nats)
        if not weight:
            return None
        return sum(self.weights[d] * float(n.sum() / self.bytes[d].sum()) for d, n in self.nats.items()) / weight

    def losses(self) -> Floats:
        """Return every document's loss per byte (or example)."""
        return np.concatenate([self.nats[domain] / self.bytes[domain] for domain in sorted(self.nats)] or [np.zeros(0)])

    def draws(self, *, seed: int, first: int) -> Floats:
        """Return resampled means, each domain by a stream of its own from `first` on."""
        total = np.zeros(RESAMPLES)
        for stream, domain in enumerate(sorted(self.nats), start=first):
            drawn = resample(self.nats[domain], self.bytes[domain], seed=seed, stream=stream)
            total += self.weights[domain] * drawn
        return total / sum(self.weights[domain] for domain in self.nats)


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How much further the new is than the past, in nats per byte, with its 95 % interval."""

    mean: float
    low: float
    high: float


def shift_between(new: Side, past: Side, *, seed: int) -> Shift | None:
    """Return the difference of the means; None unless both sides were measured.

    The documents of the two sides are others, so they are drawn independently: the interval holds what either lacks.
    """
    mean_new, mean_past = new.mean(), past.mean()
    if mean_new is None or mean_past is None:
        return None
    drawn = new.draws(seed=seed, first=1) - past.draws(seed=seed, first=1 + len(new.nats))
    low, high = np.percentile(drawn, INTERVAL)
    return Shift(mean=round(mean_new - mean_past, 9), low=round(float(low), 9), high=round(float(high), 9))
