"""Evaluation: nats per byte as they should be, intervals that mean something."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import StageError
from stages.training.evaluation import EXCERPT_TOKENS, Budget, choose, compare, document_nats, summarise
from stages.training.files import MANIFEST
from stages.training.models.decoder import PRESETS, Decoder, initialise
from stages.training.shards import END, Part, write_shard

Texts = list[bytes]


@pytest.fixture
def make_part(tmp_path: Path) -> Callable[[Texts], Part]:
    """Give the training part of a shard of documents."""

    def make(documents: Texts) -> Part:
        folder = write_shard(tmp_path, source_sha256="0" * 64, domain="a", documents=documents, seen=set())
        assert folder is not None
        return Part(folder / MANIFEST, "train")

    return make


class Even(torch.nn.Module):
    """A model for which every word has even odds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(264))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits of zero."""
        return self.weight.expand(*tokens.shape, 264)


def test_even_odds_cost_their_logarithm(make_part: Callable[[Texts], Part]) -> None:
    """Every byte and every END is predicted exactly once, whatever the windows."""
    part = make_part([b"x" * size for size in (1, 2, 30, 31, 32, 33, 100, 300)])
    excerpts = choose([part], Budget(documents=100, bytes=10_000))
    nats = document_nats(Even(), excerpts, context=32, beat=lambda: None)  # type: ignore[arg-type]

    assert nats == pytest.approx((excerpts.bytes + 1) * math.log(264))


def test_windows_of_unlike_length_do_not_touch_each_other(make_part: Callable[[Texts], Part]) -> None:
    """A document's loss does not depend on which others are measured with it."""
    model = Decoder(PRESETS["micro"])
    initialise(model, 0)
    part = make_part([bytes([65 + at]) * (10 * at + 1) for at in range(20)])
    excerpts = choose([part], Budget(documents=100, bytes=10_000))
    together = document_nats(model, excerpts, context=32, beat=lambda: None)
    for at, tokens in enumerate(excerpts.tokens):
        alone = type(excerpts)(tokens=[tokens], bytes=excerpts.bytes[at : at + 1])
        assert document_nats(model, alone, context=32, beat=lambda: None) == pytest.approx(together[at], rel=1e-5)


def test_the_choice_is_bounded_and_does_not_change(make_part: Callable[[Texts], Part]) -> None:
    """Documents, bytes and the length of an excerpt are bounded; the least hashes are chosen."""
    part = make_part([f"{at}".encode() * 40 for at in range(200)])
    few = choose([part], Budget(documents=10, bytes=10_000))
    small = choose([part], Budget(documents=100, bytes=500))
    assert len(few.tokens) == 10
    assert 0 < small.bytes.sum() <= 500
    assert all(np.array_equal(a, b) for a, b in zip(few.tokens, small.tokens, strict=False))

    long = make_part([b"first", bytes(range(256)) * 40])
    sizes = choose([long], Budget(documents=10, bytes=100_000)).tokens
    assert max(len(tokens) for tokens in sizes) <= EXCERPT_TOKENS + 1
    assert few.tokens[0][0] == few.tokens[0][-1] == END


def test_a_loss_that_is_no_number_is_an_error(make_part: Callable[[Texts], Part]) -> None:
    """A broken model has no loss, not an infinite one."""
    model = Even()
    model.weight.data[0] = math.nan
    excerpts = choose([make_part([b"a", b"b"])], Budget(documents=2, bytes=100))

    with pytest.raises(StageError) as caught:
        document_nats(model, excerpts, context=8, beat=lambda: None)  # type: ignore[arg-type]
    assert caught.value.failure == "not_finite"


@given(
    st.lists(st.tuples(st.floats(0.5, 3.0), st.integers(1, 5000)), min_size=1, max_size=60),
    st.integers(0, 100),
)
def test_intervals_hold_the_mean(documents: list[tuple[float, int]], seed: int) -> None:
    """The mean is all nats over all bytes and lies inside the range of the documents, as does the interval."""
    sizes = np.array([size for _, size in documents], dtype=np.float64)
    nats = np.array([loss for loss, _ in documents]) * sizes
    loss = summarise(nats, sizes, seed=seed)

    assert loss.mean == pytest.approx(nats.sum() / sizes.sum(), abs=1e-8)
    assert min(nats / sizes) - 1e-8 <= loss.low <= loss.high <= max(nats / sizes) + 1e-8
    assert loss == summarise(nats, sizes, seed=seed)


def test_pairs_are_narrower_than_their_parts() -> None:
    """Documents differ far more from each other than two models do on the same one."""
    generator = np.random.Generator(np.random.Philox(key=1))
    sizes = generator.integers(100, 2000, 80).astype(np.float64)
    champion = generator.normal(2.0, 0.5, 80) * sizes
    candidate = champion - generator.normal(0.05, 0.02, 80) * sizes
    comparison = compare(candidate, champion, sizes, seed=1)

    assert comparison.difference is not None
    assert comparison.difference.low < -0.05 < comparison.difference.high < 0
    width = comparison.difference.high - comparison.difference.low
    assert width < (comparison.candidate.high - comparison.candidate.low) / 5


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Over 300 samples of 60 documents the 95 % interval holds the true mean in 90 to 99 of 100."""
    generator = np.random.Generator(np.random.Philox(key=2))
    held = 0
    for seed in range(300):
        sizes = generator.integers(50, 2000, 60).astype(np.float64)
        nats = generator.normal(1.5, 0.4, 60) * sizes
        loss = summarise(nats, sizes, seed=seed)
        held += loss.low <= 1.5 <= loss.high

    assert 0.90 <= held / 300 <= 0.99
