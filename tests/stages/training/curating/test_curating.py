"""The parts of a curation: what documents say, their scores, bands, and what is written of them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from daemon.core.errors import StageError
from daemon.core.plans import Curation, Cut, Engine, Plan
from stages.training.curating import bands, scoring
from stages.training.curating.rewriting import Rewriting
from stages.training.curating.texts import Texts
from stages.training.curating.trying import trial_plan
from stages.training.curating.writing import Writer
from stages.training.data.encoding import BYTES, Tokenizer
from stages.training.data.seen import Seen
from stages.training.data.shards import Part
from stages.training.data.tokenizer_training import train_tokenizer
from stages.training.data.writing import Making, Named, write_shard
from stages.training.files import MANIFEST
from stages.training.models.language import Language

TEXTS = ["größe € 🙂 漢字 and plain words", "<|endoftext|>  two  blanks\n\ttabs", "a", "more of the same old words"]


class Document(msgspec.Struct, frozen=True):
    """A document as it is read."""

    text: bytes
    group: str | None = None


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    """A small trained tokenizer."""
    return train_tokenizer(TEXTS * 20, 290)


def shard(state: Path, tokenizer: Tokenizer | None, texts: list[bytes]) -> Part:
    """Return the training documents of a shard of these."""
    state.mkdir(parents=True, exist_ok=True)
    folder = write_shard(
        state / "shards",
        Named(source_sha256="0" * 64, domain="d"),
        documents=lambda: map(Document, texts),
        seen=Seen(state, [], lambda: None),
        making=Making(tokenizer=tokenizer),
    )
    assert folder is not None
    return Part(folder / MANIFEST, "train", 7)


def test_documents_are_read_as_they_were(tmp_path: Path, words: Tokenizer) -> None:
    """By bytes and by a tokenizer alike: the text, and its bytes as the unit of the loss."""
    for name, tokenizer in (("bytes", BYTES), ("words", words)):
        part, texts = shard(tmp_path / name, tokenizer, [text.encode() for text in TEXTS]), Texts(tokenizer)
        documents = [part.document(index) for index in range(len(part))]
        found = [texts.read(each) for each in documents]
        assert len(found) >= 2
        assert set(map(str, found)) <= set(TEXTS)
        assert texts.sizes(documents).tolist() == [len(str(text).encode()) for text in found]
        for content, document in zip(found, documents, strict=True):
            raw, encoded = texts.write(content)
            assert raw.decode() == content
            assert encoded.tokens.tolist() == document[:-1].tolist()


def test_examples_are_records(tmp_path: Path) -> None:
    """Of a module's example the loss is counted per example."""
    part, texts = shard(tmp_path, None, [b'{"x":1}', b'{"x":2}', b'{"x":3}']), Texts(None)
    documents = [part.document(index) for index in range(len(part))]
    assert texts.sizes(documents).tolist() == [1.0] * len(part)
    assert texts.read(documents[0]) in [{"x": 1}, {"x": 2}, {"x": 3}]
    assert texts.write({"x": 9})[0] == b'{"x":9}'


class Counting(Language):
    """A model of language whose logits favour the token that its context is long."""

    vocabulary = BYTES.vocabulary

    def logits(self, model: torch.nn.Module, tokens: Tensor) -> Tensor:
        """Return logits that tell where in its window a token lies, and what it is."""
        places = torch.arange(tokens.shape[1]).expand(tokens.shape)
        return torch.nn.functional.one_hot((tokens + places) % self.vocabulary, self.vocabulary).float()


def test_a_long_document_scores_in_pieces_as_it_does_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows are the same wherever it is cut."""
    texts = [bytes([65 + at]) * (40 * at + 1) + bytes(range(97, 120)) for at in range(1, 8)]
    part = shard(tmp_path, BYTES, texts)
    adapter, model = Counting(), torch.nn.Linear(1, 1)

    def score() -> bands.Floats:
        return scoring.score(
            adapter,  # type: ignore[arg-type]
            model,
            part,
            Texts(BYTES),
            without=np.zeros(len(part), dtype=bool),
            context=16,
            beat=lambda _: None,
        )

    whole = score()
    monkeypatch.setattr(scoring, "GROUP_TOKENS", 50)
    assert [last - first for first, last in scoring.groups(part)] == [1] * len(part)
    np.testing.assert_allclose(score(), whole, rtol=1e-6)


def test_what_is_written_is_what_was_kept(tmp_path: Path, words: Tokenizer) -> None:
    """Tokens, names and sizes are those of the documents, whatever made them."""
    part = shard(tmp_path, words, [f"the number {at}".encode() for at in range(40)])
    kept = np.arange(len(part)) % 3 == 0
    written = Writer(Texts(words)).write(tmp_path / "kept", part, kept, arrival=7, name="f" * 64, beat=lambda _: None)
    found = Part(written.manifest, "train")
    numbers = np.flatnonzero(kept).tolist()
    assert [found.document(at).tolist() for at in range(len(found))] == [part.document(n).tolist() for n in numbers]
    assert found.hashes.tolist() == part.hashes[kept].tolist()
    assert found.manifest.text_bytes == sum(len(str(Texts(words).read(part.document(n))).encode()) for n in numbers)
    assert len(Part(written.manifest, "held_out")) == 0


def test_bounds_by_quantile_and_by_sigma() -> None:
    """Shares of the documents, or distances from the mean."""
    scores = np.arange(101.0)
    assert bands.bounds(scores, Cut(low=0.1, high=0.3), "quantile") == bands.Bounds(10.0, 70.0)
    found = bands.bounds(scores, Cut(low=1.0, high=0.5), "sigma")
    assert (found.low, found.high) == pytest.approx((50 - scores.std(), 50 + scores.std() / 2))
    assert bands.bounds(np.ones(4), Cut(low=0.2, high=0.2), "quantile").keeps(np.ones(4)).all()
    assert bands.band(np.ones(4), found, bands.scale(np.ones(4))).counts[0] == 4


def test_an_answer_that_cannot_be_stored_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a character is no text."""
    (tmp_path / "half_a_character.py").write_text("def cut(text): return '\\ud800'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    part = shard(tmp_path / "s", BYTES, [b"one text", b"another text", b"a third"])
    writer = Writer(Texts(BYTES), Rewriting("half_a_character:cut"))
    with pytest.raises(StageError, match=r"returned what cannot be stored .* for document 0 of arrival 7") as raised:
        writer.write(
            tmp_path / "kept", part, np.ones(len(part), dtype=bool), arrival=7, name="f" * 64, beat=lambda _: None
        )
    assert raised.value.failure == "user_error"


def test_a_trial_is_a_short_run_of_its_own(make_base_plan: Callable[..., Plan]) -> None:
    """A share of the budget from the same start, by one process, without replay; at least a batch of it."""
    plan = make_base_plan(tokens=10_000, replay=0.5, engine=Engine(processes=2, evaluations=3))
    plan = msgspec.structs.replace(plan, curation=Curation(trial=0.25))
    trial = trial_plan(plan)
    assert (trial.training.tokens, trial.training.replay, trial.start) == (2500, 0.0, plan.start)
    assert (trial.training.engine.processes, trial.training.engine.evaluations) == (1, 0)
    assert (trial.limits.spike_factor, trial.curation) == (None, None)
    least = trial_plan(msgspec.structs.replace(plan, curation=Curation(trial=1e-6)))
    assert least.training.tokens == plan.training.batch * plan.training.context
