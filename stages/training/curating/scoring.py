"""The champion's loss on every training document, in nats per byte (a `module` model: its own per example)."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import nn

from daemon.core.errors import StageError
from daemon.core.plans import Document
from stages.training.curating.bands import Bools, Floats
from stages.training.curating.texts import Texts
from stages.training.data.shards import Part, Tokens
from stages.training.models.base import Adapter

GROUP_TOKENS = 1 << 16
GROUP_DOCUMENTS = 4096
"""What is measured at once: half a MiB of tokens, whatever the documents are like."""


def score(
    adapter: Adapter,
    model: nn.Module,
    part: Part,
    texts: Texts,
    *,
    without: Bools,
    context: int,
    beat: Callable[[int], None],
) -> Floats:
    """Return each document's score, nan of those `without` any; `beat` is told how far it is, after every batch.

    Raises StageError: bad_sample for documents that the model cannot take, which it names, and not_finite.
    """
    scores = np.full(len(part), np.nan)
    for first, last in groups(part):
        numbers = (first + np.flatnonzero(~without[first:last])).tolist()
        documents = [part.document(number) for number in numbers]

        def nats(some: list[Tokens], done: int = first) -> Floats:
            return measure(adapter, model, part, some, context=context, beat=lambda: beat(done))

        try:
            scores[numbers] = nats(documents) / texts.sizes(documents)
        except StageError as error:
            if error.failure == "bad_sample":
                refused = [number for number, each in zip(numbers, documents, strict=True) if _refuses(nats, each)]
                error.documents = tuple(Document(arrival=part.arrival, number=number) for number in refused)
            raise
    beat(len(part))
    return scores


def _refuses(nats: Callable[[list[Tokens]], Floats], document: Tokens) -> bool:
    try:
        nats([document])
    except StageError:
        return True
    return False


def measure(
    adapter: Adapter, model: nn.Module, part: Part, documents: list[Tokens], *, context: int, beat: Callable[[], None]
) -> Floats:
    """Return each document's whole loss; one of language is read in pieces, each after the token before it."""
    if not adapter.windows:
        return adapter.document_nats(model, documents, context=context, beat=beat)
    nats = np.zeros(len(documents))
    size = max(1, GROUP_TOKENS // context) * context
    end = np.array([part.manifest.end], dtype=part.tokens.dtype)
    for owners, pieces in _pieces(documents, end, size):
        np.add.at(nats, owners, adapter.document_nats(model, pieces, context=context, beat=beat))
    return nats


def groups(part: Part) -> Iterator[tuple[int, int]]:
    """Yield the documents [first, last) that are measured together: at least one, else no more than fit."""
    first = 0
    while first < len(part):
        room = int(part.offsets[first]) + GROUP_TOKENS
        last = int(np.searchsorted(part.offsets, room, side="right")) - 1
        last = min(len(part), first + GROUP_DOCUMENTS, max(first + 1, last))
        yield first, last
        first = last


def _pieces(documents: list[Tokens], end: Tokens, size: int) -> Iterator[tuple[list[int], list[Tokens]]]:
    """Yield documents with the end token before them; one longer than `size` in pieces, each a yield by itself."""
    owners: list[int] = []
    pieces: list[Tokens] = []
    for owner, document in enumerate(documents):
        first = np.concatenate((end, document[:size]))
        if len(document) <= size:
            owners.append(owner)
            pieces.append(first)
            continue
        yield [owner], [first]
        for at in range(size, len(document), size):
            yield [owner], [document[at - 1 : at + size]]
    if pieces:
        yield owners, pieces
