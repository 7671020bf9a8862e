"""The mixture: exact shares, every row once, and a batch that is a function of its step."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import numpy as np
import pytest

from daemon.core.errors import StageError
from daemon.core.plans import Phase, Replaying, Schedule, Training
from stages.base import Context
from stages.run_folder import Outcome, read_specification
from stages.training.mixing.mixture import Batch, Mixture, make_mixture
from stages.training.mixing.streams import Examples, Stream

if TYPE_CHECKING:
    from stages.training.data.shards import Part

T = TypeVar("T")


class Documents:
    """Documents of a domain, of these sizes, whose tokens count on from `first`."""

    def __init__(self, domain: str, sizes: Sequence[int], first: int = 0) -> None:
        self.domain = domain
        self.offsets = np.cumsum([0, *sizes])
        self.tokens = np.arange(first, first + self.offsets[-1]).astype(np.uint16)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> object:
        """Return a document's tokens."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def stream(*parts: Documents) -> Stream:
    """Return the parts end to end."""
    return Stream(cast("Sequence[Part]", parts))


def examples(*parts: Documents) -> Examples:
    """Return the parts' documents."""
    return Examples(cast("Sequence[Part]", parts))


TRAINING = Training(
    tokens=40 * 5 * 8,
    batch=5,
    context=8,
    replay=0.3,
    schedule=Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0),
    optimiser="keep",
    seed=11,
)


def plan(*, weights: dict[str, float] | None = None, **fields: object) -> Training:
    """Return a plan of 40 steps."""
    return msgspec.structs.replace(TRAINING, replaying=Replaying(weights=weights or {}), **fields)


def same(one: Batch, other: Batch) -> bool:
    """Return whether two batches are the same."""
    rows = zip(one.rows, other.rows, strict=True)
    return (one.domains, one.past) == (other.domains, other.past) and all(np.array_equal(a, b) for a, b in rows)


NEW = Documents("code", [20, 30])
PAST = (Documents("prose", [60], 100), Documents("poems", [30], 200))


def test_the_draws_are_those_of_the_first_release() -> None:
    """A checkpoint of any release is gone on from with the rows that its run would have drawn."""
    mixture = Mixture(plan(), stream(NEW), stream(*PAST))
    drawn = hashlib.sha256()
    for step in range(1, 41):
        batch = mixture.draw(step)
        drawn.update(repr((batch.domains, batch.past)).encode())
        for row in batch.rows:
            drawn.update(row.tobytes())
    assert drawn.hexdigest() == "e14d52f13a86e70dd2327f83ea459c18d46bd81b988f38c95346c72e0a6a5d26"


@pytest.mark.parametrize("weights", [{}, {"prose": 1.0, "poems": 1.0}])
@pytest.mark.parametrize("pool", [stream, examples])
def test_a_batch_is_a_function_of_its_step(pool: Callable[..., Stream | Examples], weights: dict[str, float]) -> None:
    """Drawn alone, again, or in another order, a batch is the same; its rows are as announced."""
    past = (Documents("prose", [7] * 9, 100), Documents("poems", [5] * 4, 200))
    mixture = Mixture(plan(weights=weights), pool(NEW), pool(*past))
    forwards = [mixture.draw(step) for step in range(1, 30)]
    another = Mixture(plan(weights=weights), pool(NEW), pool(*past))
    backwards = [another.draw(step) for step in range(29, 0, -1)][::-1]
    for step, (one, other) in enumerate(zip(forwards, backwards, strict=True), start=1):
        assert same(one, other)
        assert len(one.rows) == 5
        assert one.past == mixture.replayed(step) - mixture.replayed(step - 1)
        assert [domain != "code" for domain in one.domains] == [row < one.past for row in range(5)]
    assert mixture.replayed(40) == 60


def test_a_stream_is_a_ring() -> None:
    """A window may run over the end of a shard into the next one, and from the last into the first."""
    ring = stream(Documents("a", [3]), Documents("empty", []), Documents("b", [2, 2], 50), Documents("c", [1], 90))
    whole = np.array([0, 1, 2, 50, 51, 52, 53, 90])
    for start in range(len(whole)):
        for context in range(20):
            assert np.array_equal(ring.read(start, context), np.resize(np.roll(whole, -start), context + 1))
        assert ring.domain(start) == "aaabbbbc"[start]
    assert ring.domains == ["a", "b", "c"]


@pytest.mark.parametrize(("tokens", "context"), [(1000, 20), (1007, 20), (19, 20), (1, 256), (300, 1)])
def test_an_epoch_reads_every_token_once(tokens: int, context: int) -> None:
    """Only a remainder shorter than a window is left out, another one in every epoch; a single token is enough."""
    mixture = Mixture(plan(batch=1, context=context), stream(Documents("code", [tokens])), stream())
    windows = max(1, tokens // context)
    for epoch in range(3):
        steps = range(epoch * windows + 1, (epoch + 1) * windows + 1)
        rows = [mixture.draw(step).rows[0] for step in steps]
        assert {len(row) for row in rows} == {context + 1}
        read = Counter(int(token) for row in rows for token in row[: min(context, tokens)])
        assert set(read.values()) == {1}
        assert len(read) == min(tokens, windows * context)


@pytest.mark.parametrize("times", [1, 3])
def test_an_epoch_takes_every_example_once(times: int) -> None:
    """Whole, however long it is, whatever the plan's context, and also where a batch has more than there are."""
    training = plan(batch=3 * times, context=1)
    mixture = Mixture(training, examples(Documents("a", [1, 9]), Documents("b", [4], 50)), examples())
    for step in range(1, 6):
        batch = mixture.draw(step)
        assert sorted(len(row) for row in batch.rows) == sorted([1, 4, 9] * times)
        assert [domain == "b" for domain in batch.domains] == [len(row) == 4 for row in batch.rows]


def test_replayed_domains_fall_as_their_tokens() -> None:
    """A domain with twice the past tokens is replayed twice as often."""
    past = stream(Documents("prose", [2000]), Documents("poems", [1000]))
    mixture = Mixture(plan(replay=1.0, batch=9, context=9), stream(NEW), past)
    drawn = Counter(domain for step in range(1, 101) for domain in mixture.draw(step).domains)
    assert drawn["prose"] / drawn["poems"] == pytest.approx(2, rel=0.1)


def test_weights_say_what_is_replayed() -> None:
    """To the row, however few tokens a domain has; what each domain reads, it reads once an epoch."""
    past = stream(Documents("prose", [2000]), Documents("poems", [3], 5000), Documents("prose", [100], 3000))
    mixture = Mixture(plan(weights={"prose": 1.0, "poems": 3.0}, replay=0.5, batch=8), stream(NEW), past)
    batches = [mixture.draw(step) for step in range(1, 101)]
    assert [Counter(batch.domains)["poems"] for batch in batches] == [3] * 100
    assert [Counter(batch.domains)["prose"] for batch in batches] == [1] * 100
    prose = [
        row for batch in batches for row, domain in zip(batch.rows, batch.domains, strict=True) if domain == "prose"
    ]
    assert len({int(row[0]) for row in prose}) == 100
    assert all(row[0] < 5000 for row in prose)


def test_phases_say_how_much_is_replayed_when() -> None:
    """Nothing at first, and then a half."""
    phases = (Phase(until=0.25, share=0.0), Phase(until=1.0, share=0.5))
    training = msgspec.structs.replace(plan(batch=4), tokens=40 * 4 * 8, replaying=Replaying(phases=phases))
    mixture = Mixture(training, stream(NEW), stream(*PAST))
    assert [mixture.draw(step).past for step in range(1, 41)] == [0] * 10 + [2] * 30


def test_a_withdrawn_arrival_leaves_the_other_domains_as_they_were() -> None:
    """Where the past is weighed by domain: the windows of the others, and how many each has."""
    weights = {"prose": 2.0, "poems": 1.0}
    poems, withdrawn, rest = (
        Documents("poems", [500], 0),
        Documents("prose", [300], 900),
        Documents("prose", [400], 2000),
    )
    whole = Mixture(plan(weights=weights, replay=0.6), stream(NEW), stream(poems, withdrawn, rest))
    less = Mixture(plan(weights=weights, replay=0.6), stream(NEW), stream(poems, rest))
    for step in range(1, 41):
        one, other = whole.draw(step), less.draw(step)
        assert one.domains == other.domains
        for domain, row, again in zip(one.domains, one.rows, other.rows, strict=True):
            assert domain == "prose" or np.array_equal(row, again)
            assert domain != "prose" or again.min() >= 2000


def test_without_a_past_everything_is_new() -> None:
    """A base model is trained on what arrived alone, whatever share, phases and weights the plan names."""
    phases = (Phase(until=1.0, share=0.5),)
    training = msgspec.structs.replace(plan(), replaying=Replaying(phases=phases, weights={"prose": 1.0}))
    mixture = Mixture(training, stream(NEW), stream())
    assert mixture.draw(1).domains == ["code"] * 5
    assert mixture.replayed(40) == 0


def test_without_anything_new_everything_is_past() -> None:
    """A retraining reads all of it, each window once."""
    mixture = Mixture(plan(replay=0.1), stream(), stream(*PAST))
    assert mixture.draw(1).past == 5


def test_a_process_reads_its_part_of_a_batch() -> None:
    """And knows whose the other rows are."""
    mixture = Mixture(plan(batch=6), stream(NEW), stream(*PAST))

    def share(rank: int) -> Callable[[Sequence[T]], Sequence[T]]:
        return lambda rows: rows[3 * rank : 3 * rank + 3]

    for step in range(1, 10):
        whole, first, second = mixture.draw(step), mixture.draw(step, share(0)), mixture.draw(step, share(1))
        assert whole.domains == first.domains == second.domains
        assert whole.past == first.past == second.past
        assert len(first.rows) == len(second.rows) == 3
        assert all(np.array_equal(*rows) for rows in zip(whole.rows, [*first.rows, *second.rows], strict=True))


@pytest.mark.parametrize("windows", [True, False])
def test_an_empty_corpus_is_told(place: Callable[..., Path], windows: bool) -> None:
    """As a fact about the data."""
    folder = place("train")
    context = Context(read_specification(folder), folder, Outcome(folder), lambda: 0.0)
    with pytest.raises(StageError, match="nothing to train on") as refused:
        make_mixture(context, windows=windows)
    assert refused.value.failure == "bad_sample"
