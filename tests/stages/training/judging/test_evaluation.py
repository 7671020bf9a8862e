"""Evaluation: nats per byte as they should be, intervals that mean something."""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, DataIngested
from daemon.core.plans import DataSettings, ModelSettings, Plan, TokenizerSettings
from stages.run_folder import Arrival
from stages.training.data.encoding import BYTES
from stages.training.data.shards import Part
from stages.training.judging.evaluation import (
    EXCERPT_TOKENS,
    Budget,
    Floats,
    Side,
    choose,
    choose_examples,
    compare,
    shift_between,
    summarise,
)
from stages.training.models.decoder import PRESETS, Decoder, initialise
from stages.training.models.language import Language
from stages.training.models.llama import Llama

Make = Callable[..., Part]
ALMOST_ALL = 0.9999


def texts(sizes: Sequence[int]) -> list[str]:
    """Return texts of so many characters that have nothing in common."""
    generator = random.Random("texts")
    return ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz ", k=size)).strip() + "." for size in sizes]


@pytest.fixture
def make_part(
    state: Path,
    arrive: Callable[..., Arrival],
    run_stage: Callable[..., list[AnyEvent]],
    make_base_plan: Callable[..., Plan],
) -> Make:
    """Give what is held out of an arrival with these texts: all but one of them."""

    def make(documents: list[str], tokenizer: TokenizerSettings | None = None) -> Part:
        model = ModelSettings(preset="micro", tokenizer=tokenizer or TokenizerSettings())
        plan = msgspec.structs.replace(make_base_plan(), model=model, data=DataSettings(held_out=ALMOST_ALL))
        name = f"p-{hashlib.sha256(repr(documents).encode()).hexdigest()[:8]}-{model.tokenizer.kind}"
        told = run_stage("ingest", run=name, plan=plan, arrivals=(arrive(name, documents, "a"),))
        (ingested,) = [event for event in told if isinstance(event, DataIngested)]
        part = Part(state / ingested.manifest, "held_out")
        assert len(part) == len(documents) - 1
        return part

    return make


class Even(torch.nn.Module):
    """A model for which every word has even odds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(264))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits of zero."""
        return self.weight.expand(*tokens.shape, 264)


def test_even_odds_cost_their_logarithm(make_part: Make) -> None:
    """Every byte and every end is predicted exactly once, whatever the windows."""
    part = make_part(texts((1, 2, 30, 31, 32, 33, 100, 300)))
    excerpts = choose([part], Budget(documents=100, bytes=10_000))
    nats = Language().document_nats(Even(), excerpts.tokens, context=32, beat=lambda: None)

    assert nats == pytest.approx((excerpts.bytes + 1) * math.log(264))


def test_windows_of_unlike_length_do_not_touch_each_other(make_part: Make) -> None:
    """A document's loss does not depend on which others are measured with it."""
    model = Decoder(PRESETS["micro"])
    initialise(model, 0)
    part = make_part(texts(range(1, 200, 10)))
    excerpts = choose([part], Budget(documents=100, bytes=10_000))
    together = Language().document_nats(model, excerpts.tokens, context=32, beat=lambda: None)
    for at, tokens in enumerate(excerpts.tokens):
        alone = Language().document_nats(model, [tokens], context=32, beat=lambda: None)
        assert alone == pytest.approx(together[at], rel=1e-5)


def test_a_large_vocabulary_is_measured_in_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are what takes memory: no more of them at once than there is room for, and the same losses."""
    seen: list[torch.Size] = []

    class Watched(Even):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            seen.append(tokens.shape)
            return super().forward(tokens)

    tokens = [np.arange(33, dtype=np.uint16)] * 5
    monkeypatch.setattr("stages.training.models.language.LOGITS", 2 * 32 * 257)
    adapter = Llama(ModelSettings(preset="micro"), BYTES, 32)
    nats = adapter.document_nats(Watched(), tokens, context=32, beat=lambda: None)

    assert seen == [(2, 32), (2, 32), (1, 32)]
    assert nats == pytest.approx(32 * math.log(264))


def test_the_choice_is_bounded_and_does_not_change(make_part: Make) -> None:
    """Documents, bytes and the length of an excerpt are bounded; the least hashes are chosen."""
    part = make_part(texts([80] * 60))
    few = choose([part], Budget(documents=10, bytes=10_000))
    small = choose([part], Budget(documents=100, bytes=500))
    assert len(few.tokens) == 10
    assert 0 < small.bytes.sum() <= 500
    assert all(np.array_equal(a, b) for a, b in zip(few.tokens, small.tokens, strict=False))
    assert few.tokens[0][0] == few.tokens[0][-1] == BYTES.end

    long = choose([make_part(texts([10_000] * 4))], Budget(documents=10, bytes=100_000))
    assert [len(tokens) for tokens in long.tokens] == [EXCERPT_TOKENS + 1] * 3
    assert all(EXCERPT_TOKENS - 1 <= size <= EXCERPT_TOKENS for size in long.bytes)


def test_bytes_are_those_of_the_text_whatever_the_tokenizer(make_part: Make) -> None:
    """With tokens of many bytes an excerpt's bytes are those of the text that its predicted tokens are."""
    documents = [f"{text} \u00e4\u4e16" for text in texts([50, 500, 9_000, 12_000])]
    part = make_part(documents, TokenizerSettings(kind="train", vocabulary=400))
    excerpts = choose([part], Budget(documents=10, bytes=100_000))

    assert part.manifest.vocabulary > BYTES.vocabulary
    whole = {len(text.encode()) for text in documents}
    for tokens, size in zip(excerpts.tokens, excerpts.bytes, strict=True):
        if len(tokens) <= EXCERPT_TOKENS:
            assert size in whole
        else:
            assert size > EXCERPT_TOKENS


def test_a_loss_that_is_no_number_is_an_error(make_part: Make) -> None:
    """A broken model has no loss, not an infinite one."""
    model = Even()
    model.weight.data[0] = math.nan
    excerpts = choose([make_part(texts([5, 6, 7]))], Budget(documents=2, bytes=100))

    with pytest.raises(StageError) as caught:
        Language().document_nats(model, excerpts.tokens, context=8, beat=lambda: None)
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


def side(losses: dict[str, float], documents: int = 40, *, spread: float = 0.1, stream: int = 0) -> Side:
    """Return a side whose domains have about these losses, each domain weighing ten times the one before."""
    generator = np.random.Generator(np.random.Philox(key=[9, stream]))
    sizes: dict[str, Floats] = {
        domain: generator.integers(200, 2000, documents).astype(np.float64) for domain in losses
    }
    nats = {domain: generator.normal(loss, spread, documents) * sizes[domain] for domain, loss in losses.items()}
    return Side(nats=nats, bytes=sizes, weights={domain: 10**at for at, domain in enumerate(losses)})


def test_a_shift_is_weighted_as_the_means_are() -> None:
    """Where documents of a domain do not differ the shift is the difference of the weighted means, without width."""
    shift = shift_between(side({"a": 3.0}, spread=0.0), side({"b": 1.0, "c": 2.1}, spread=0.0), seed=1)

    assert shift is not None
    assert shift.mean == pytest.approx(3.0 - (1.0 + 10 * 2.1) / 11)
    assert shift.low == pytest.approx(shift.mean)
    assert shift.high == pytest.approx(shift.mean)


def test_a_shift_is_as_uncertain_as_both_its_sides() -> None:
    """Both sides are drawn anew: the interval is wider than either side's own, and narrower than both together."""
    new, past = side({"a": 2.0}, stream=1), side({"b": 1.5}, stream=2)
    shift = shift_between(new, past, seed=1)
    parts = [summarise(s.nats[d], s.bytes[d], seed=1) for s, d in ((new, "a"), (past, "b"))]

    assert shift is not None
    assert shift.low < shift.mean < shift.high
    widths = [part.high - part.low for part in parts]
    assert max(widths) < shift.high - shift.low < sum(widths)
    assert shift == shift_between(new, past, seed=1)


def test_the_interval_of_no_shift_holds_zero_as_often_as_it_says() -> None:
    """Over 120 pairs of samples of one distribution zero lies in 89 to 99 of 100 intervals."""
    held = 0
    for seed in range(120):
        new, past = side({"a": 1.5}, stream=2 * seed), side({"a": 1.5, "b": 1.5}, stream=2 * seed + 1)
        shift = shift_between(new, past, seed=seed)
        assert shift is not None
        held += shift.low <= 0.0 <= shift.high

    assert 0.89 <= held / 120 <= 0.99


def test_one_side_alone_is_no_shift() -> None:
    """Where nothing of a side was held out there is no shift, and none is made up."""
    assert shift_between(side({"a": 2.0}), Side(), seed=1) is None
    assert shift_between(Side(), side({"a": 2.0}), seed=1) is None


def test_examples_are_whole_and_count_one_each(make_part: Make) -> None:
    """Of a model that is not of language every document is an example: never cut, of size one, as many as allowed."""
    part = make_part(texts([3000] * 13))
    few = choose_examples([part], Budget(documents=1, bytes=1, examples=10))

    assert few.bytes.tolist() == [1.0] * 10
    assert min(len(tokens) for tokens in few.tokens) > EXCERPT_TOKENS
    assert len(choose_examples([part], Budget(documents=1, bytes=1)).tokens) == len(part)
