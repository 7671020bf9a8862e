"""Some documents of a shard as a shard of their own: the same format, so that whoever reads one reads the other."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from stages.training.curating.bands import Bools
from stages.training.curating.rewriting import Rewriting
from stages.training.curating.scoring import groups
from stages.training.curating.texts import Content, Texts
from stages.training.data.encoding import Encoded
from stages.training.data.identity import fingerprint
from stages.training.data.manifests import Manifest
from stages.training.data.output import Output, PartOutput
from stages.training.data.shards import Part, Tokens
from stages.training.files import MANIFEST, Stamp, new_folder, write_file


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A shard of what is kept: its manifest, and how many documents the callable changed and left out."""

    manifest: Path
    documents: int
    tokens: int
    rewritten: int = 0
    left_out: int = 0


class _Row(msgspec.Struct, frozen=True):
    """A document that is kept: by what it is known, its tokens without the end, and the bytes of its text."""

    name: bytes
    encoded: Encoded
    size: int


class Writer:
    """Writes parts of shards; `rewrite` is asked of each document once."""

    def __init__(self, texts: Texts, rewrite: Rewriting | None = None) -> None:
        self._texts = texts
        self._rewrite = rewrite
        self._rewritten = self._left_out = 0

    def write(
        self, folder: Path, part: Part, kept: Bools, *, arrival: int, name: str, beat: Callable[[int], None]
    ) -> Written:
        """Write the documents where `kept` is true; `name`, a sha256, says what the shard is made of."""
        self._rewritten = self._left_out = 0
        old = part.manifest
        end = None if old.tokenizer is None else old.end
        size = 0
        with new_folder(folder) as aside, contextlib.ExitStack() as stack:
            outputs: list[Output] = []

            def open_(file: str) -> Output:
                outputs.append(stack.enter_context(Output(aside / file)))
                return outputs[-1]

            train = PartOutput(open_, "train", old.dtype, ends=False)
            PartOutput(open_, "held_out", old.dtype, ends=False)
            hashes, _ = open_("hashes.bin"), open_("groups.bin")
            for first, last in groups(part):
                beat(first)
                rows = self._rows(part, (first + np.flatnonzero(kept[first:last])).tolist(), arrival, beat)
                if rows:
                    train.add([row.encoded for row in rows], end)
                    hashes.write(memoryview(b"".join(row.name for row in rows)))
                    size += sum(row.size for row in rows)
            files = {output.name: output.finish() for output in outputs}
            manifest = _manifest(old, train, name, size, files)
            write_file(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        return Written(
            manifest=folder / MANIFEST,
            documents=manifest.train_documents,
            tokens=manifest.train_tokens,
            rewritten=self._rewritten,
            left_out=self._left_out,
        )

    def _rows(self, part: Part, indices: list[int], arrival: int, beat: Callable[[int], None]) -> list[_Row]:
        more = int(part.manifest.tokenizer is not None)
        documents = [part.document(index) for index in indices]
        sizes = self._texts.text_bytes(documents).astype(np.int64).tolist()
        nothing = np.zeros(0, dtype=np.uint32)
        rows = [
            _Row(part.hashes[index].tobytes(), Encoded(each[: len(each) - more], nothing), size)
            for index, each, size in zip(indices, documents, sizes, strict=True)
        ]
        if self._rewrite is None:
            return rows
        return self._rewritten_rows(self._rewrite, rows, indices, documents, arrival, beat)

    def _rewritten_rows(
        self,
        rewrite: Rewriting,
        rows: list[_Row],
        indices: Sequence[int],
        documents: Sequence[Tokens],
        arrival: int,
        beat: Callable[[int], None],
    ) -> list[_Row]:
        found: list[_Row] = []
        for row, index, document in zip(rows, indices, documents, strict=True):
            beat(index)
            content = self._texts.read(document)
            before = msgspec.json.encode(content)  # an example may be changed in place
            answer = rewrite(content, arrival=arrival, number=index)
            if answer is None:
                self._left_out += 1
                continue
            try:
                same = msgspec.json.encode(answer) == before
                found.append(row if same else self._new(answer))
            except (TypeError, ValueError, msgspec.MsgspecError) as error:
                raise rewrite.unusable(error, content, arrival=arrival, number=index) from error
            self._rewritten += not same
        return found

    def _new(self, content: Content) -> _Row:
        raw, encoded = self._texts.write(content)
        return _Row(fingerprint(raw), encoded, len(raw))


def name_of(key: str, manifest: Manifest, kept: Bools) -> str:
    """Return the sha256 by which a shard of kept documents is known: of the curation, the arrival and the choice."""
    parts = (key.encode(), manifest.source_sha256.encode(), np.packbits(kept).tobytes())
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def _manifest(old: Manifest, train: PartOutput, name: str, size: int, files: dict[str, Stamp]) -> Manifest:
    return msgspec.structs.replace(
        old,
        format=2,
        source_sha256=name,
        train_documents=train.documents,
        train_tokens=train.tokens if old.tokenizer is not None else train.documents,
        held_out_documents=0,
        held_out_tokens=0,
        text_bytes=size,
        duplicates=0,
        files=files,
        near_duplicates=None,
        near_leaks=0,
        groups=0,
        sketch=None,
        lengths=None,
    )
