"""Shards: what is cut from what, what never leaks, and that they are found, read and counted as written."""

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tokenizers

from daemon.core.errors import StageError
from daemon.core.plans import DataSettings
from stages.training.data.encoding import BYTES, Tokenizer
from stages.training.data.identity import fingerprint
from stages.training.data.seen import Seen
from stages.training.data.shards import Part, read_manifest
from stages.training.data.tokenizer_training import train_tokenizer
from stages.training.data.writing import DEFAULT, Making, Named, write_shard
from stages.training.files import MANIFEST, digest, stamp
from stages.training.reading import Document

Write = Callable[..., Path]
Texts = Sequence[str]
WORDS = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrst"]


def sentence(generator: random.Random, words: int = 60) -> str:
    """Return words drawn evenly."""
    return " ".join(generator.choices(WORDS, k=words))


def edited(text: str) -> str:
    """Return a text with one word in its middle exchanged: it shares nearly all of its 5-grams."""
    words = text.split()
    words[len(words) // 2] = "EDITED"
    return " ".join(words)


def reworded(text: str) -> str:
    """Return a text with another last word: only the last 5-gram is another."""
    return " ".join([*text.split()[:-1], "REWORDED"])


def read(manifest: Path, part: str) -> set[str]:
    """Return the documents of a part of bytes."""
    shard = Part(manifest, part)
    return {bytes(shard.document(at)[:-1].astype(np.uint8)).decode() for at in range(len(shard))}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a shard: (texts or documents, past manifests, number, making) → manifest."""

    def make(
        found: Sequence[str | Document], past: Sequence[Path] = (), number: int = 0, making: Making = DEFAULT
    ) -> Path:
        documents = [each if isinstance(each, Document) else Document(text=each.encode()) for each in found]
        named = Named(source_sha256=f"{number:064d}", domain="prose")
        folder = write_shard(
            tmp_path / "shards", named, documents=lambda: documents, seen=Seen(tmp_path, past), making=making
        )
        assert folder is not None
        return folder / MANIFEST

    return make


@pytest.fixture(scope="session")
def trained() -> Tokenizer:
    """A small tokenizer of its own."""
    generator = random.Random(1)
    return train_tokenizer((sentence(generator) for _ in range(100)), 400)


def test_edited_copies_are_counted_and_exact_ones_dropped(write: Write) -> None:
    """Of an arrival with 5 % edited and 3 % exact copies of the past, and 5 % edited ones of its own, just these."""
    generator = random.Random(2)
    old = [sentence(generator) for _ in range(500)]
    fresh = [sentence(generator) for _ in range(435)]
    arrival = [*fresh, *map(edited, old[:25]), *old[100:115], *map(edited, fresh[:25])]
    generator.shuffle(arrival)
    past = write(old)

    found = read_manifest(write(arrival, [past], 1))

    assert read_manifest(past).near_duplicates == 0
    assert found.duplicates == 15
    assert abs((found.near_duplicates or 0) - 50) <= 5
    assert found.train_documents + found.held_out_documents == 485


def test_a_near_duplicate_lies_where_the_other_does(write: Write) -> None:
    """What is held out is not trained on in another wording, within an arrival and across arrivals."""
    generator = random.Random(3)
    old, fresh = ([sentence(generator) for _ in range(300)] for _ in range(2))
    past = write(old)
    arrival = write([*fresh, *map(reworded, old), *map(reworded, fresh)], [past], 1)

    for part in ("train", "held_out"):
        mine = read(past, part) | read(arrival, part)
        assert {reworded(text) for text in mine & {*old, *fresh}} <= mine
    assert read_manifest(arrival).near_leaks == 0


def test_text_that_is_all_alike_is_cut_all_the_same(write: Write) -> None:
    """Of documents that all nearly are one, as logs are, about the share is held out, and the leak is counted."""
    text = sentence(random.Random(4), 100).split()
    alike = [" ".join([*text, f"line{number}"]) for number in range(400)]
    first = read_manifest(write(alike))
    second = read_manifest(write([f"{text} again" for text in alike], [write(alike)], 1))

    for manifest in (first, second):
        assert 8 <= manifest.held_out_documents <= 40
        assert manifest.near_leaks >= manifest.held_out_documents - 1
        assert (manifest.near_duplicates or 0) >= 399


def grouped(groups: Sequence[int], generator: random.Random) -> list[Document]:
    """Return a document for each group."""
    return [Document(text=sentence(generator).encode(), group=str(group)) for group in groups]


def test_a_group_is_never_in_both_parts(write: Write) -> None:
    """Documents of a group stay together within an arrival and across arrivals, whatever their texts are."""
    generator = random.Random(5)
    first = grouped([at % 100 for at in range(400)], generator)
    second = grouped([at % 150 for at in range(300)], generator)
    groups = {document.text.decode(): document.group for document in (*first, *second)}
    past = write(first)
    new = write(second, [past], 1)

    train, held_out = (
        {groups[text] for manifest in (past, new) for text in read(manifest, part)} for part in ("train", "held_out")
    )

    assert not train & held_out
    assert len(train) + len(held_out) == 150
    assert 1 <= len(held_out) <= 20
    assert read_manifest(past).groups == 100


def test_two_groups_are_one_in_each_part(write: Write) -> None:
    """There is something to train on and something to measure, as soon as there are two groups."""
    for number in range(5):
        manifest = read_manifest(write(grouped([1, 1, 1, 2, 2], random.Random(number)), number=number))
        assert sorted((manifest.train_documents, manifest.held_out_documents)) == [2, 3]


def test_one_group_is_trained_on(write: Write) -> None:
    """A single group, or document, cannot be measured without having been trained on."""
    for number, documents in enumerate((grouped([1, 1, 1], random.Random(6)), [Document(text=b"alone it is")])):
        assert read_manifest(write(documents, number=number)).held_out_documents == 0


def test_a_group_that_was_trained_on_is_never_held_out(write: Write) -> None:
    """The past binds even where one part stays empty."""
    past = write([*grouped([1] * 3, random.Random(7)), *grouped([2] * 2, random.Random(8))])
    group = 1 if read_manifest(past).train_documents == 3 else 2
    again = read_manifest(write(grouped([group] * 4, random.Random(9)), [past], 1))

    assert (again.train_documents, again.held_out_documents) == (4, 0)


def test_the_share_held_out_is_as_configured(write: Write) -> None:
    """Of many documents about the share is held out; a greater share holds all of a lesser one."""
    generator = random.Random(10)
    texts = [sentence(generator, 8) for _ in range(2000)]
    held = {
        share: read(write(texts, making=Making(data=DataSettings(held_out=share))), "held_out")
        for share in (0.02, 0.05, 0.3)
    }

    assert held[0.02] <= held[0.05] <= held[0.3]
    assert all(abs(len(found) / len(texts) - share) < 0.03 for share, found in held.items())


def test_a_tokenizer_is_read_back_byte_for_byte(write: Write, trained: Tokenizer) -> None:
    """Tokens decode to the documents, and each held-out token's bytes are known exactly."""
    generator = random.Random(11)
    texts = [f"{sentence(generator)} größe € 🙂 <|endoftext|> {number}" for number in range(60)]
    manifest = write(texts, making=Making(tokenizer=trained))
    library = tokenizers.Tokenizer.from_buffer(trained.json)
    found = {}
    for name in ("train", "held_out"):
        part = Part(manifest, name)
        for at in range(len(part)):
            tokens = part.document(at)
            assert tokens[-1] == trained.end
            assert trained.end not in tokens[:-1]
            found[library.decode(tokens[:-1].tolist())] = name
    assert set(found) == set(texts)

    part = Part(manifest, "held_out")
    for at in range(len(part)):
        count = len(part.document(at))
        size = len(library.decode(part.document(at)[:-1].tolist()).encode())
        assert part.text_bytes(at) == size
        cuts = [0, 1, count // 2, count - 1, count]
        assert sum(part.text_bytes(at, *cut) for cut in itertools.pairwise(cuts)) == size
        assert part.text_bytes(at, count - 1, count) == 0
    assert read_manifest(manifest).tokenizer == trained.sha256


def test_bytes_know_their_bytes_without_a_file(write: Write) -> None:
    """For tokens that are bytes an excerpt has as many bytes as tokens, but for the end."""
    manifest = write(["größe", "weite", "länge und breite"])
    part = Part(manifest, "held_out")

    assert part.text_bytes(0, 1) == len(part.document(0)) - 2
    assert part.text_bytes(0, 1, 3) == 2
    assert not (manifest.parent / "held_out.ends").exists()


def test_records_are_kept_as_they_are(write: Write) -> None:
    """A record is the bytes of its JSON, and counts as one example; near-duplicates are not looked for."""
    rows = [json.dumps({"x": [number] * 30, "y": number % 2}).encode() for number in range(50)]
    manifest = write([Document(text=row) for row in [*rows, rows[0]]], making=Making(tokenizer=None))
    told = read_manifest(manifest)
    parts = [Part(manifest, part) for part in ("train", "held_out")]

    assert sorted(bytes(part.document(at)) for part in parts for at in range(len(part))) == sorted(rows)
    assert parts[0].tokens.dtype == np.uint8
    assert not (manifest.parent / "bands.bin").exists()
    assert (told.train_tokens, told.duplicates, told.near_duplicates) == (told.train_documents, 1, None)
    assert parts[1].text_bytes(0) == len(parts[1].document(0))


def test_the_name_tells_the_content(write: Write, trained: Tokenizer, tmp_path: Path) -> None:
    """Another tokenizer, other settings, records, or another past make another folder; the same ones find it."""
    generator = random.Random(12)
    texts = [sentence(generator) for _ in range(20)]
    past = write(texts[:5], number=1)
    near = write([edited(text) for text in texts], number=2)
    ways = [
        ((), Making()),
        ((), Making(tokenizer=trained)),
        ((), Making(data=DataSettings(held_out=0.1))),
        ((), Making(tokenizer=None)),
        ((past,), Making()),
        ((near,), Making()),
        ((past, near), Making()),
    ]
    found = [write(texts, known, 3, making) for known, making in ways]

    assert len({manifest.parent.name for manifest in found}) == len(ways)
    assert found[0].parent.name == f"{3:064d}-prose"
    inodes = [manifest.stat().st_ino for manifest in found]
    assert [write(texts, known, 3, making).stat().st_ino for known, making in ways] == inodes
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_damaged_shard_is_made_again_to_the_same_bytes(write: Write) -> None:
    """Done again a shard is the same file by file."""
    generator = random.Random(13)
    documents = grouped([at % 9 for at in range(50)], generator)
    manifest = write(documents)
    before = digest(manifest)
    for name in read_manifest(manifest).files:
        (manifest.parent / name).write_bytes(b"damaged")
        assert digest(write(documents)) == before
        assert stamp(manifest.parent / name) == read_manifest(manifest).files[name]


def test_a_shard_of_the_first_release_is_read(tmp_path: Path, write: Write) -> None:
    """Format 1 has neither bands nor groups nor lengths: its documents are known, its near-duplicates are not."""
    texts = [b"one document", b"another document", b"the third document"]
    folder = tmp_path / "shards" / "00" / f"{0:064d}-prose"
    folder.mkdir(parents=True)
    held = texts[2:]
    for name, part in (("train", texts[:2]), ("held_out", held)):
        tokens = np.concatenate(
            [np.append(np.frombuffer(text, dtype=np.uint8), BYTES.end).astype("<u2") for text in part]
        )
        (folder / f"{name}.bin").write_bytes(tokens.tobytes())
        offsets = np.cumsum([0, *(len(text) + 1 for text in part)]).astype("<u8")
        (folder / f"{name}.offsets").write_bytes(offsets.tobytes())
    (folder / "hashes.bin").write_bytes(b"".join(map(fingerprint, texts)))
    told = {
        "format": 1,
        "source_sha256": f"{0:064d}",
        "domain": "prose",
        "train_documents": 2,
        "train_tokens": 30,
        "held_out_documents": 1,
        "held_out_tokens": 19,
        "text_bytes": sum(map(len, texts)),
        "duplicates": 0,
        "files": {path.name: msgspec.to_builtins(stamp(path)) for path in folder.iterdir()},
    }
    (folder / MANIFEST).write_bytes(msgspec.json.encode(told))

    manifest = read_manifest(folder / MANIFEST)
    assert (manifest.tokenizer, manifest.near_duplicates, manifest.lengths) == (BYTES.sha256, None, None)
    assert read(folder / MANIFEST, "held_out") == {"the third document"}
    assert write(["whatever"]) == folder / MANIFEST
    after = read_manifest(write(["one document", "The third document!", "a fourth"], [folder / MANIFEST], 1))
    assert (after.duplicates, after.near_duplicates) == (1, 0)


def test_a_shard_that_is_not_whole_is_refused(write: Write) -> None:
    """A file that is missing or cut is told of before anything is read."""
    manifest = write(["one", "two", "three"])
    (manifest.parent / "train.bin").write_bytes(b"")
    with pytest.raises(StageError, match="not whole"):
        Part(manifest, "held_out")


def test_what_documents_are_like_is_counted(write: Write) -> None:
    """Lengths are of the documents that are kept, in bytes."""
    lengths = read_manifest(write(["ab 1", "ab 1", "größer 22", "x" * 100])).lengths

    assert lengths is not None
    assert (lengths.documents, lengths.mean, lengths.median, lengths.longest) == (3, 38.333, 11.0, 100)
    shares = [lengths.ascii, lengths.whitespace, lengths.digits]
    assert shares == pytest.approx([111 / 115, 2 / 115, 3 / 115])


GROWTH = """
import hashlib, resource, sys
from pathlib import Path
from stages.training.reading import Document
from stages.training.data.seen import Seen
from stages.training.data.writing import Named, write_shard

def texts(megabytes):
    for number in range(megabytes * 250):
        yield Document(text=(hashlib.shake_128(b"%d" % number).digest(1600)).hex(" ", 3).encode())

def peak(megabytes):
    named = Named(source_sha256=f"{megabytes:064d}", domain="a")
    write_shard(Path(sys.argv[1]), named, documents=lambda: texts(megabytes), seen=Seen(Path(sys.argv[1]), ()))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

peak(1)  # the first one warms up
print(peak(2), peak(12))
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Ten times the text takes no more memory, but for a hundred bytes a document."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    small, large = map(int, done.stdout.split())

    assert large - small < 8_000  # KiB; the text is 10 MB more, its tokens 20
