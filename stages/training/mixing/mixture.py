"""Which rows make a batch: new data and replayed past, as a pure function of (plan, shards, seed, step).

There is no state to save and no generator to restore: a resumed run draws what an uninterrupted one draws.
Without an arrival that was withdrawn a run is another run, of other shards, and begins anew. Where the past is
weighed by domain, the windows of every domain but the withdrawn arrival's own are the same as before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from daemon.core.errors import StageError
from daemon.core.plans import Document, Training
from stages.base import Context
from stages.run_folder import Shard
from stages.training.curating.kept import trained_on
from stages.training.data.shards import Part
from stages.training.mixing.order import NEW, PAST, places, stream_of
from stages.training.mixing.replay import Part as Course
from stages.training.mixing.replay import parts, replayed, split_of
from stages.training.mixing.streams import Examples, Pool, Stream
from stages.training.models.base import Row

Place = tuple[Pool, int]
"""A row that is not read yet: where it begins."""
Share = Callable[[Sequence[Place]], Sequence[Place]]


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a batch, replayed ones first.

    `domains`, `places` and `past` (how many are replayed) are of the whole batch, `rows` of the part that this process
    reads.
    """

    rows: list[Row]
    domains: list[str]
    past: int
    places: Sequence[Place] = ()


def everything(rows: Sequence[Place]) -> Sequence[Place]:
    """Return all rows: the part of a process that trains alone."""
    return rows


class Mixture:
    """What is drawn from, and how. Without past every row is new; without new data every row is past."""

    def __init__(self, training: Training, new: Pool, past: Pool) -> None:
        self.new = new
        self.past = past
        self.batch = training.batch
        self.context = training.context
        self.seed = training.seed
        self._course = parts(training)
        if not len(new) or not len(past):
            self._course = (Course(None, 1.0 if len(past) else 0.0),)
        self._split = split_of(training.replaying.weights, past.domains)
        self._domains = {domain: past.only(domain) for domain in past.domains} if self._split else {}

    def replayed(self, step: int) -> int:
        """Return how many rows of the first `step` batches are past."""
        return replayed(self._course, self.batch, step)

    def draw(self, step: int, share: Share = everything) -> Batch:
        """Return batch `step` (1, 2, …), with the rows that `share` leaves of it read."""
        before, after = self.replayed(step - 1), self.replayed(step)
        drawn = list(self._draw_past(before, after))
        drawn += self._draw(self.new, NEW, (step - 1) * self.batch - before, step * self.batch - after)
        return Batch(
            rows=[pool.read(start, self.context) for pool, start in share(drawn)],
            domains=[pool.domain(start) for pool, start in drawn],
            past=after - before,
            places=drawn,
        )

    def documents(self, place: Place) -> list[Document]:
        """Return which documents the row at a place holds."""
        pool, start = place
        return pool.documents(start, self.context)

    def _draw_past(self, before: int, after: int) -> Iterator[Place]:
        if self._split is None:
            # As the tokens fall: all domains in one order.
            yield from self._draw(self.past, PAST, before, after)
            return
        counts = self._split.count(before)
        for domain, upto in sorted(self._split.count(after).items()):
            yield from self._draw(self._domains[domain], stream_of(domain), counts[domain], upto)

    def _draw(self, pool: Pool, stream: int, first: int, upto: int) -> list[Place]:
        if first == upto:
            return []
        count = pool.rows(self.context)
        taken, offsets = places(self.seed, stream, np.arange(first, upto), count=count, size=len(pool))
        starts = pool.spared(pool.begins(taken, offsets, self.context), self.context)
        return [(pool, int(start)) for start in starts]


def make_mixture(context: Context, *, windows: bool) -> Mixture:
    """Return what the plan trains on: windows of tokens, or else whole examples.

    Raises StageError: bad_sample when there is nothing at all or a shard is damaged, user_error for weights that are
    none and for shards that were made for another kind of model.
    """
    specification = context.specification
    without = frozenset(specification.remedy.without)

    def gather(shards: Iterable[Shard]) -> Pool:
        found = [Part(context.resolve(shard.manifest), "train", shard.position) for shard in shards]
        other = [part.domain for part in found if (part.manifest.tokenizer is not None) != windows]
        if other:
            was, takes = ("records", "text") if windows else ("text", "records")
            message = (
                f"What arrived of domain {other[0]} was kept as {was}, and the model takes {takes}: the kind of "
                "the pipeline's `model` was changed. Change it back, or begin a pipeline of another name."
            )
            raise StageError("user_error", message)
        return Stream(found, without) if windows else Examples(found, without)

    new, past = map(gather, trained_on(context))
    if not len(new) and not len(past):
        raise StageError("bad_sample", "There is nothing to train on: every arrival of the run is empty.")
    return Mixture(specification.plan.training, new, past)
