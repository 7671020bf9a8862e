"""Tokenizers: bytes as a Hugging Face tokenizer, training that repeats, and one tokenizer for ever."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from daemon.core.errors import StageError
from daemon.core.plans import Checkpoint, ModelSettings, Plan, TokenizerSettings
from stages.base import Context
from stages.run_folder import Arrival, Champion, Outcome, Shard, read_specification
from stages.training.data.encoding import BYTES, PIECE_CHARACTERS, Tokenizer
from stages.training.data.manifests import Manifest
from stages.training.data.tokenizer_training import train_tokenizer
from stages.training.data.tokenizers import keep, read_tokenizer, tokenizer_of

Specify = Callable[..., Context]
DEFAULT = TokenizerSettings()
TEXT = "größe € 🙂 漢字 and plain words, 123 <|endoftext|>  two  blanks\n\ttabs"


def texts(count: int = 200) -> list[str]:
    """Return texts, always the same ones."""
    generator = random.Random(1)
    words = ["größe", "weite", "länge", "breite", "höhe", "tiefe", "the", "a", "model"]
    return [" ".join(generator.choices(words, k=30)) for _ in range(count)]


@pytest.fixture(scope="session")
def trained() -> Tokenizer:
    """A small trained tokenizer."""
    return train_tokenizer(texts(), 280)


@pytest.fixture
def specify(state: Path, place: Callable[..., Path], make_base_plan: Callable[..., Plan]) -> Specify:
    """Give the context of an attempt whose model has these settings: (settings, **specification)."""

    def make(settings: TokenizerSettings = DEFAULT, **fields: object) -> Context:
        model = ModelSettings(preset="micro", tokenizer=settings)
        (state / "runs/p-9/ingest/1/spec.json").unlink(missing_ok=True)
        folder = place("ingest", plan=msgspec.structs.replace(make_base_plan(), model=model), **fields)
        return Context(read_specification(folder), folder, Outcome(folder), lambda: 0.0)

    return make


@pytest.fixture
def shard(state: Path) -> Callable[[Tokenizer, int], Shard]:
    """Place a shard's manifest that names a tokenizer, at a position."""

    def make(tokenizer: Tokenizer, position: int) -> Shard:
        keep(state, tokenizer)
        manifest = Manifest(
            source_sha256="",
            domain="a",
            train_documents=0,
            train_tokens=0,
            held_out_documents=0,
            held_out_tokens=0,
            text_bytes=0,
            duplicates=0,
            files={},
            tokenizer=tokenizer.sha256,
            end=tokenizer.end,
        )
        path = state / f"{position}.json"
        path.write_bytes(msgspec.json.encode(manifest))
        return Shard(position=position, domain="a", manifest=str(path))

    return make


def place_champion(state: Path, json: bytes) -> Champion:
    """Place a champion of which nothing but the tokenizer is there."""
    (state / "models/p/v1").mkdir(parents=True)
    (state / "models/p/v1/tokenizer.json").write_bytes(json)
    checkpoint = Checkpoint(path="models/p/v1", sha256="0" * 64)
    return Champion(version=1, model=checkpoint, trunk=checkpoint)


def test_bytes_are_a_tokenizer_of_hugging_face() -> None:
    """The library and transformers read the default tokenizer: ids are bytes, then the end."""
    library = tokenizers.Tokenizer.from_buffer(BYTES.json)
    library.encode_special_tokens = True

    assert library.encode(TEXT).ids == list(TEXT.encode())
    assert library.decode(list(TEXT.encode())) == TEXT
    assert library.token_to_id("<|endoftext|>") == BYTES.end == 256
    assert library.get_vocab_size() == BYTES.vocabulary
    (found,) = BYTES.encode([TEXT.encode()])
    assert (found.tokens.tolist(), found.ends[-1]) == (library.encode(TEXT).ids, len(TEXT.encode()))


def test_the_first_release_s_tokenizer_is_bytes(tmp_path: Path) -> None:
    """What rewarm 0.1.0 wrote beside its models counts as the default."""
    path = tmp_path / "tokenizer.json"
    path.write_text('{"kind": "bytes", "encoding": "utf-8", "vocabulary": 257, "end_of_document": 256}')

    assert read_tokenizer(path) is BYTES


def test_the_same_texts_train_the_same_tokenizer(trained: Tokenizer) -> None:
    """Another process, with another hash seed and more threads, makes the same bytes; each byte has a token."""
    code = (
        f"from stages.training.data.tokenizer_training import train_tokenizer\n"
        f"print(train_tokenizer({texts()!r}, 280).sha256)"
    )
    environment = {"PYTHONHASHSEED": "5", "RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == trained.sha256
    assert trained.vocabulary == 280
    (found,) = trained.encode(["größe weite 漢".encode()])
    assert len(found.tokens) < len("größe weite 漢".encode())


def test_ends_are_bytes_of_the_document(trained: Tokenizer) -> None:
    """After each token stands how many bytes of the document are behind it; the last one is its length."""
    library = tokenizers.Tokenizer.from_buffer(trained.json)
    for text in (TEXT, "größe", "🙂", "x"):
        (found,) = trained.encode([text.encode()])
        assert found.tokens.dtype == np.uint16
        assert trained.end not in found.tokens
        for at, end in enumerate(found.ends):
            begun = text.encode()[:end].decode(errors="replace")
            assert library.decode(found.tokens[: at + 1].tolist()) == begun
        assert found.ends[-1] == len(text.encode())


def test_a_tokenizer_that_changes_the_text_is_counted_by_characters(tmp_path: Path) -> None:
    """Where a token is not the text's own bytes the library's offsets tell; blanks between words are counted."""
    library = tokenizers.Tokenizer(models.WordLevel({"<eos>": 0, "größe": 1, "weite": 2, "?": 3}, unk_token="?"))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    tokenizer = read_tokenizer(path)

    (found,) = tokenizer.encode(["GRÖSSE größe  WEITE  ".encode()])

    assert tokenizer.end == 0
    assert found.tokens.tolist() == [3, 1, 2]
    assert found.ends.tolist() == [7, 15, 24]


def test_long_documents_are_encoded_in_pieces(trained: Tokenizer) -> None:
    """A document of many pieces becomes the tokens that it becomes as a whole, among others of the batch."""
    text = " ".join(texts(1500))
    assert len(text) > 3 * PIECE_CHARACTERS
    short, long, other = trained.encode([b"a", text.encode(), b"model"])

    assert long.tokens.tolist() == tokenizers.Tokenizer.from_buffer(trained.json).encode(text).ids
    assert (np.diff(long.ends.astype(np.int64)) > 0).all()
    assert long.ends[-1] == len(text.encode())
    assert (len(short.tokens), other.ends[-1]) == (1, 5)


@pytest.mark.parametrize(
    ("beside", "end"),
    [
        ({}, "</s>"),
        ({"tokenizer_config.json": {"eos_token": "<x>"}}, "<x>"),
        ({"tokenizer_config.json": {"eos_token": {"content": "<x>"}}}, "<x>"),
        ({"config.json": {"eos_token_id": 1}, "tokenizer_config.json": {"eos_token": "</s>"}}, "<x>"),
        ({"config.json": {"eos_token_id": [1, 0]}}, "<x>"),
    ],
)
def test_the_end_token_is_told_by_the_files_beside(
    tmp_path: Path, beside: dict[str, dict[str, object]], end: str
) -> None:
    """The model's configuration says which token ends a document, then the tokenizer's, then a usual name."""
    library = tokenizers.Tokenizer(models.BPE({"a": 2}, []))
    library.add_special_tokens(["</s>", "<x>"])
    described = json.loads(library.to_str())
    described["model"]["vocab"] = {"</s>": 0, "<x>": 1, "a": 2}
    for number, token in enumerate(described["added_tokens"]):
        token["id"] = number
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    for name, content in beside.items():
        (tmp_path / name).write_text(json.dumps(content))

    assert read_tokenizer(tmp_path / "tokenizer.json").end == {"</s>": 0, "<x>": 1}[end]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "cannot be read"),
        (b'{"model": {}}', "cannot be used"),
        (None, "cannot be read"),
        (b"[]", "cannot be used"),
    ],
)
def test_what_is_no_tokenizer_is_told(tmp_path: Path, content: bytes | None, told: str) -> None:
    """A file that is missing, or something else, is the user's mistake, with the file's name in it."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=told) as raised:
        read_tokenizer(path)
    assert raised.value.failure == "user_error"
    assert str(path) in str(raised.value)


def test_a_tokenizer_without_an_end_is_told(tmp_path: Path) -> None:
    """Without an end token documents could not be told apart."""
    tokenizers.Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(StageError, match="eos_token"):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_the_configured_tokenizer_is_kept(specify: Specify, state: Path, trained: Tokenizer) -> None:
    """Bytes and files lie below the state folder, by their content."""
    path = state.parent / "tokenizer.json"
    path.write_bytes(trained.json)

    assert tokenizer_of(specify()) is BYTES
    found = tokenizer_of(specify(TokenizerSettings(kind="file", path=str(path))))
    assert (found.sha256, found.end) == (trained.sha256, trained.end)
    assert {each.name for each in (state / "tokenizers").iterdir()} == {f"{t.sha256}.json" for t in (BYTES, trained)}


def test_a_tokenizer_is_trained_on_the_first_arrivals(
    specify: Specify, arrive: Callable[..., Arrival], state: Path
) -> None:
    """It sees what has arrived but for what is unusable, and is the same when asked again."""
    good, bad = arrive("a", texts()), arrive("b", ["x"], position=2)
    Path(bad.path).write_bytes(b"no JSON")
    settings = TokenizerSettings(kind="train", vocabulary=280)
    first, again = (tokenizer_of(specify(settings, arrivals=(bad, good))) for _ in range(2))

    assert first.sha256 == again.sha256
    assert first.vocabulary == 280
    assert tokenizer_of(specify(settings, arrivals=(bad,))).vocabulary == BYTES.vocabulary
    with pytest.raises(StageError, match="no arrival") as raised:
        tokenizer_of(specify(settings))
    assert raised.value.failure == "user_error"


def test_shards_say_which_tokenizer_it_is(
    specify: Specify, state: Path, shard: Callable[[Tokenizer, int], Shard], trained: Tokenizer
) -> None:
    """Shards of one tokenizer give it; of two they are refused with both named; a lost one is told."""
    one, other = shard(trained, 1), shard(BYTES, 2)
    settings = TokenizerSettings(kind="train", vocabulary=280)

    assert tokenizer_of(specify(settings, new=(one,))).sha256 == trained.sha256
    with pytest.raises(StageError, match=r"changed between arrivals: arrival 1 .* arrival 2") as raised:
        tokenizer_of(specify(settings, past=(one,), new=(other,)))
    assert raised.value.failure == "user_error"
    (state / "tokenizers" / f"{trained.sha256}.json").write_bytes(b"damaged")
    with pytest.raises(StageError, match="missing or damaged") as raised:
        tokenizer_of(specify(settings, new=(one,)))
    assert raised.value.failure == "bad_sample"


def test_a_pipeline_keeps_its_champion_s_tokenizer(
    specify: Specify, state: Path, shard: Callable[[Tokenizer, int], Shard], trained: Tokenizer
) -> None:
    """It is used without being configured again, and neither configuration nor shards may ask for another."""
    champion = place_champion(state, trained.json)
    train = TokenizerSettings(kind="train", vocabulary=280)
    lost = TokenizerSettings(kind="file", path=str(state / "lost.json"))

    assert tokenizer_of(specify(train, champion=champion)).sha256 == trained.sha256
    assert tokenizer_of(specify(lost, champion=champion)).sha256 == trained.sha256
    with pytest.raises(StageError, match=r"another than the champion's .280 tokens, sha256 "):
        tokenizer_of(specify(champion=champion))
    with pytest.raises(StageError, match="another than the champion's"):
        tokenizer_of(specify(TokenizerSettings(kind="train", vocabulary=279), champion=champion))
    with pytest.raises(StageError, match="changed between arrivals"):
        tokenizer_of(specify(train, champion=champion, past=(shard(BYTES, 1),)))
