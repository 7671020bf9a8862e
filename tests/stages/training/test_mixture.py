"""The mixture: exact shares, every window once, no state."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.training.files import MANIFEST
from stages.training.mixture import Mixture, Stream, replay_rows, replayed, window_start
from stages.training.shards import Part, write_shard

MakeStream = Callable[..., Stream]


@pytest.fixture
def make_stream(tmp_path: Path) -> MakeStream:
    """Give a stream of shards: each argument is a domain and how many tokens it has."""

    def make(*shards: tuple[str, int]) -> Stream:
        parts = []
        for number, (domain, size) in enumerate(shards):
            documents = [f"{number:03d}{at:05d}".encode() for at in range(size)]
            folder = write_shard(
                tmp_path, source_sha256=f"{number:064d}", domain=domain, documents=documents, seen=set()
            )
            assert folder is not None
            parts.append(Part(folder / MANIFEST, "train"))
        return Stream(parts)

    return make


@given(
    replay=st.floats(0, 1).map(lambda share: round(share, 4)),
    batch=st.integers(1, 512),
    step=st.integers(1, 100_000),
)
def test_replay_is_exact_over_time(replay: float, batch: int, step: int) -> None:
    """After every step the rows replayed are within half a row of the share; no batch is overfull."""
    assert abs(replayed(replay, batch, step) - replay * batch * step) <= 0.5 + 1e-6 * batch * step
    assert 0 <= replay_rows(replay, batch, step) <= batch
    assert replayed(replay, batch, step) - replayed(replay, batch, step - 1) == replay_rows(replay, batch, step)


@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 500),
    context=st.integers(1, 64),
    epoch=st.integers(0, 5),
)
def test_an_epoch_takes_every_window_once(seed: int, size: int, context: int, epoch: int) -> None:
    """No token is read twice in an epoch, and only a remainder shorter than a window is left out."""
    count = max(1, size // context)
    read: Counter[int] = Counter()
    for ordinal in range(epoch * count, (epoch + 1) * count):
        start = window_start(seed, 0, ordinal, size=size, context=context)
        read.update((start + at) % size for at in range(min(context, size)))

    assert max(read.values()) == 1
    assert len(read) == min(size, count * context)


def test_windows_differ_by_seed_epoch_and_stream() -> None:
    """Another seed, another epoch or the other stream reads in another order."""
    orders = [
        [window_start(seed, stream, epoch * 50 + at, size=1000, context=20) for at in range(50)]
        for seed, stream, epoch in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    ]

    assert len({tuple(order) for order in orders}) == 4


def test_a_stream_is_a_ring(make_stream: MakeStream) -> None:
    """A window may run over the end of a shard into the next one, and from the last into the first."""
    stream = make_stream(("a", 3), ("b", 4))
    whole = np.concatenate([part.tokens for part in stream.parts])
    length = len(whole)

    for start in range(length):
        tokens, domain = stream.read(start, 2 * length + 3)
        assert np.array_equal(tokens, np.resize(np.roll(whole, -start), 2 * length + 3))
        assert domain == ("a" if start < len(stream.parts[0].tokens) else "b")


def test_a_batch_is_a_function_of_its_step(make_stream: MakeStream) -> None:
    """Drawn alone, again, or in another order, a batch is the same; its rows are as announced."""
    new, past = make_stream(("code", 50)), make_stream(("prose", 60), ("poems", 30))
    mixture = Mixture(new=new, past=past, replay=0.3, batch=5, context=8, seed=11)
    forwards = [mixture.draw(step) for step in range(1, 30)]
    backwards = [mixture.draw(step) for step in range(29, 0, -1)][::-1]

    for step, (one, other) in enumerate(zip(forwards, backwards, strict=True), start=1):
        assert np.array_equal(one.tokens, other.tokens)
        assert one.tokens.shape == (5, 9)
        assert one.past == replay_rows(0.3, 5, step)
        assert [domain != "code" for domain in one.domains] == [row < one.past for row in range(5)]


def test_replayed_domains_fall_as_their_tokens(make_stream: MakeStream) -> None:
    """A domain with twice the past tokens is replayed twice as often."""
    past = make_stream(("prose", 200), ("poems", 100))
    mixture = Mixture(new=make_stream(("code", 50)), past=past, replay=1.0, batch=9, context=9, seed=1)
    drawn = Counter(domain for step in range(1, 101) for domain in mixture.draw(step).domains)

    assert drawn["prose"] / drawn["poems"] == pytest.approx(2, rel=0.1)


def test_without_a_past_everything_is_new(make_stream: MakeStream) -> None:
    """A base model is trained on what arrived alone, whatever share the plan names."""
    mixture = Mixture(new=make_stream(("code", 50)), past=Stream([]), replay=0.5, batch=4, context=8, seed=1)

    assert mixture.draw(1).domains == ["code"] * 4
