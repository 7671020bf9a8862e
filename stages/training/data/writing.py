"""An arrival becomes a shard: read twice, first to know its documents, then to make those that are kept into tokens.

At any time some megabytes of text are in memory, and about a hundred bytes for each document of the arrival.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.plans import DataSettings
from stages.training.data.columns import Column, chunks
from stages.training.data.cutting import DROPPED, Cut, Documents, cut
from stages.training.data.encoding import BYTES, Encoded, Tokenizer
from stages.training.data.identity import HASH_BYTES, fingerprint, group_key
from stages.training.data.manifests import Manifest
from stages.training.data.output import Output, PartOutput
from stages.training.data.seen import HELD_OUT, TRAIN, Seen
from stages.training.data.shards import is_whole
from stages.training.data.sketches import BANDS, band_keys, sketch_name
from stages.training.data.statistics import Statistics
from stages.training.files import MANIFEST, Stamp, new_folder, write_file

BATCH_BYTES = 1 << 20
BATCH_DOCUMENTS = 4096
PARTS = {TRAIN: "train", HELD_OUT: "held_out"}
Beat = Callable[[], None]


class Read(Protocol):
    """A document as it is read."""

    @property
    def text(self) -> bytes:
        """Its text in UTF-8; of a record its JSON."""

    @property
    def group(self) -> str | None:
        """What it belongs to."""


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """How documents become shards; without a tokenizer they are records."""

    tokenizer: Tokenizer | None = BYTES
    data: DataSettings = DataSettings()


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The file, how it is read, and the domain that a shard is made of."""

    source_sha256: str
    domain: str
    format: str = "text"


DEFAULT = Making()


def write_shard(
    shards: Path,
    named: Named,
    *,
    documents: Callable[[], Iterable[Read]],
    seen: Seen,
    making: Making = DEFAULT,
    beat: Beat = lambda: None,
) -> Path | None:
    """Tokenise an arrival, or find it done; returns its folder, None when every document is a duplicate.

    `documents` is called twice and must yield the same. Dropped are repetitions within the arrival and documents that
    were seen. The folder's name tells the file, its domain, its format where that is not text, what was taken from what
    was seen, and what of `making` is not the default: the same name always means the same content.
    """
    known = _look(shards, documents(), beat, near=making.tokenizer is not None)
    found = cut(known, seen, making.data.held_out)
    if (found.parts == DROPPED).all():
        return None
    folder = shards / named.source_sha256[:2] / f"{named.source_sha256}-{named.domain}{_suffix(named, found, making)}"
    beat()
    if is_whole(folder):
        return folder
    with new_folder(folder) as aside:
        _Shard(aside, making, beat).write(documents(), known, found, named)
    return folder


def _suffix(named: Named, found: Cut, making: Making) -> str:
    known, near = found.learned
    said = [] if named.format == "text" else [named.format]
    if known or near:
        said.append(hashlib.sha256(known + (b"|near|" + near if near else b"")).hexdigest()[:12])
    if making.data != DataSettings():
        said.append("data" + hashlib.sha256(msgspec.json.encode(making.data)).hexdigest()[:12])
    if making.tokenizer is None:
        said.append("records")
    elif not making.tokenizer.is_bytes:
        said.append(f"words{making.tokenizer.sha256[:12]}e{making.tokenizer.end}")  # files of one are told two ends
    return "".join(f"-{each}" for each in said)


def _batches(documents: Iterable[Read], beat: Beat) -> Iterator[list[Read]]:
    batch: list[Read] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            beat()
            yield batch
            batch, size = [], 0
    if batch:
        beat()
        yield batch


def _look(folder: Path, documents: Iterable[Read], beat: Beat, *, near: bool) -> Documents:
    """Return by what the documents are known."""
    hashes = Column(folder, np.uint8, HASH_BYTES)
    groups = Column(folder, np.uint64)
    bands = Column(folder, np.uint64, BANDS) if near else None
    for batch in _batches(documents, beat):
        hashes.append(np.frombuffer(b"".join(fingerprint(each.text) for each in batch), dtype=np.uint8))
        groups.append(np.array([group_key(each.group) for each in batch], dtype=np.uint64))
        if bands is not None:
            bands.append(band_keys([each.text for each in batch]))
    names = hashes.rows()
    return Documents(names, groups.rows(), np.zeros((len(names), 0), np.uint64) if bands is None else bands.rows())


class _Shard:
    """The files of a shard while they are written."""

    def __init__(self, folder: Path, making: Making, beat: Beat) -> None:
        self._folder = folder
        self._tokenizer = making.tokenizer
        self._beat = beat

    def write(self, documents: Iterable[Read], known: Documents, found: Cut, named: Named) -> None:
        with contextlib.ExitStack() as stack:
            outputs: list[Output] = []

            def open_(name: str) -> Output:
                outputs.append(stack.enter_context(Output(self._folder / name)))
                return outputs[-1]

            parts, statistics = self._tokens(open_, documents, found)
            self._rows(open_("hashes.bin"), known.hashes, found)
            if known.bands.size:
                self._rows(open_("bands.bin"), known.bands, found)
            open_("groups.bin").write(found.groups.astype("<u8").data)
            files = {output.name: output.finish() for output in outputs}
        manifest = self._manifest(parts, statistics, found, named, files)
        write_file(self._folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))

    def _tokens(
        self, open_: Callable[[str], Output], documents: Iterable[Read], found: Cut
    ) -> tuple[dict[int, PartOutput], Statistics]:
        ends = self._tokenizer is not None and not self._tokenizer.is_bytes
        parts = {
            number: PartOutput(open_, name, self._dtype, ends=ends and number == HELD_OUT)
            for number, name in PARTS.items()
        }
        statistics = Statistics(self._folder)
        end = None if self._tokenizer is None else self._tokenizer.end
        at = 0
        for batch in _batches(documents, self._beat):
            where = found.parts[at : at + len(batch)].tolist()
            at += len(batch)
            for number, part in parts.items():
                texts = [document.text for document, place in zip(batch, where, strict=True) if place == number]
                if texts:
                    statistics.add(texts)
                    part.add(_encode(self._tokenizer, texts), end)
        return parts, statistics

    def _rows(self, output: Output, rows: npt.NDArray[np.unsignedinteger], found: Cut) -> None:
        for number in PARTS:
            for piece in chunks(len(rows)):
                output.write(np.ascontiguousarray(rows[piece][found.parts[piece] == number]).data)
                self._beat()

    @property
    def _dtype(self) -> np.dtype[np.unsignedinteger]:
        return np.dtype(np.uint8) if self._tokenizer is None else self._tokenizer.dtype

    def _manifest(
        self, parts: dict[int, PartOutput], statistics: Statistics, found: Cut, named: Named, files: dict[str, Stamp]
    ) -> Manifest:
        train, held_out = parts[TRAIN], parts[HELD_OUT]
        manifest = Manifest(
            format=2,
            source_sha256=named.source_sha256,
            domain=named.domain,
            train_documents=train.documents,
            train_tokens=train.tokens,
            held_out_documents=held_out.documents,
            held_out_tokens=held_out.tokens,
            text_bytes=statistics.bytes,
            duplicates=found.duplicates,
            groups=len(found.groups),
            dtype=self._dtype.str,
            lengths=statistics.lengths(),
            files=files,
        )
        if self._tokenizer is None:
            examples = {"train_tokens": train.documents, "held_out_tokens": held_out.documents}
            return msgspec.structs.replace(manifest, tokenizer=None, vocabulary=256, end=-1, **examples)
        return msgspec.structs.replace(
            manifest,
            near_duplicates=found.near_duplicates,
            near_leaks=found.near_leaks,
            tokenizer=self._tokenizer.sha256,
            vocabulary=self._tokenizer.vocabulary,
            end=self._tokenizer.end,
            sketch=sketch_name(),
        )


def _encode(tokenizer: Tokenizer | None, texts: list[bytes]) -> list[Encoded]:
    if tokenizer is not None:
        return tokenizer.encode(texts)
    nothing = np.zeros(0, dtype=np.uint32)
    return [Encoded(np.frombuffer(text, dtype=np.uint8), nothing) for text in texts]
