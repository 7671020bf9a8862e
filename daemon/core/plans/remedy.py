"""What an attempt does otherwise than the plan says, after earlier ones failed."""

import msgspec

from daemon.core.plans.amounts import Span


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document of an arrival, by its number among those that ingest kept."""

    arrival: int
    number: int


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """The remedies in force for a run's stage; without any, an attempt is as the plan says.

    `accumulate` multiplies the parts in which a batch is computed: less memory, the same step. `skip` are optimiser
    steps (after, upto] whose batches are left out. With `before`, the attempt goes on from the newest checkpoint at
    or before that step. `without` are documents that nothing is trained on.
    """

    accumulate: int = 1
    skip: tuple[Span, ...] = ()
    before: int | None = None
    without: tuple[Document, ...] = ()


NO_REMEDY = Remedy()
