"""Orders: every place once an epoch, another order for every key, and no memory for a long one."""

import hashlib
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.training.mixing.order import NEW, PAST, SHORT, places, shuffle, stream_of

KEYS = np.arange(11, 15, dtype=np.uint64)


@given(
    seed=st.integers(0, 2**63),
    stream=st.sampled_from([NEW, PAST, stream_of("prose")]),
    count=st.integers(1, 200),
    first=st.integers(0, 400),
)
def test_an_epoch_takes_every_place_once(seed: int, stream: int, count: int, first: int) -> None:
    """Any stretch of draws gives what its epochs give one by one; an epoch has each place, and one offset."""
    whole, offsets = places(seed, stream, np.arange(4 * count), count=count, size=7 * count)
    for epoch in range(4):
        here = slice(epoch * count, (epoch + 1) * count)
        assert sorted(whole[here]) == list(range(count))
        assert len(set(offsets[here])) == 1
    assert 0 <= offsets.min() <= offsets.max() < 7 * count
    stretch = np.arange(first, 4 * count)
    again, _ = places(seed, stream, stretch, count=count, size=7 * count)
    assert np.array_equal(again, whole[first:])


@given(count=st.one_of(st.integers(1, 300), st.integers(SHORT, SHORT + 2000)), first=st.integers(0, 2**63 - 1))
def test_a_shuffle_is_a_bijection(count: int, first: int) -> None:
    """Of any length, by any keys."""
    keys = np.array([first + at for at in range(4)], dtype=np.uint64)
    taken = shuffle(np.arange(count), count, keys)
    assert np.array_equal(np.sort(taken), np.arange(count))


def test_a_long_order_is_well_mixed() -> None:
    """Neighbours come to lie a third of the length apart, as in a fair order, and keys that differ by a bit differ."""
    count = 100_000
    taken = shuffle(np.arange(count), count, KEYS)
    other = shuffle(np.arange(count), count, KEYS ^ np.uint64(1))
    assert np.abs(np.diff(taken)).mean() / count == pytest.approx(1 / 3, abs=0.01)
    assert abs(np.corrcoef(np.arange(count), taken)[0, 1]) < 0.02
    assert abs(np.corrcoef(other, taken)[0, 1]) < 0.02
    # A place falls into each tenth as often from each tenth.
    pairs = Counter(zip(np.arange(count) // 10_000, taken // 10_000, strict=True))
    assert min(pairs.values()) > 850
    assert max(pairs.values()) < 1150


def test_an_order_stays_what_it_is() -> None:
    """A checkpoint is gone on from by a later release, with another numpy: the rows must be those of its run."""
    taken = shuffle(np.arange(100_000), 100_000, KEYS)
    drawn = np.stack(places(7, stream_of("prose"), np.arange(0, 20_000, 7), count=9001, size=10**6))
    assert hashlib.sha256(taken.astype("<i8").tobytes()).hexdigest().startswith("48f9fe314181f26d")
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest().startswith("3621d95fe796e54d")


def test_a_long_order_needs_no_memory() -> None:
    """A batch of a corpus of 10^12 tokens costs what its rows cost."""
    tracemalloc.start()
    taken, _ = places(3, NEW, np.arange(512), count=10**10, size=10**12)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(taken)) == 512
    assert peak < 200_000


def test_a_table_is_made_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when more domains than a few are drawn from in turn."""
    made: list[object] = []
    philox = np.random.Philox

    def note(**key: object) -> np.random.Philox:
        made.append(key)
        return philox(**key)  # type: ignore[arg-type]

    monkeypatch.setattr(np.random, "Philox", note)
    streams = [stream_of(f"domain {number}") for number in range(64)]
    for step in range(5):
        for stream in streams:
            places(99, stream, np.arange(step, step + 1), count=50, size=500)
    assert len(made) == len(streams)
