"""Tokenised arrivals on the disk: memory-mapped, written once, found again by the content of their file.

Tokens are bytes: a document is its UTF-8 bytes 0..255 and then END (256), stored as little-endian uint16.
A shard's folder holds, for each part (`train`, `held_out`), PART.bin (tokens) and PART.offsets (uint64, one
more than documents), and hashes.bin: 16 bytes of each document's BLAKE2b, those of `train` first.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.errors import StageError
from stages.training.files import MANIFEST, Stamp, fits, new_folder, stamp, write_file

END = 256
VOCABULARY = 257
HASH_BYTES = 16
HELD_OUT_ONE_IN = 20
Tokens = npt.NDArray[np.uint16]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard holds; `text_bytes` counts the kept documents' text, `files` are sha256 and size."""

    format: int = 1
    source_sha256: str
    domain: str
    train_documents: int
    train_tokens: int
    held_out_documents: int
    held_out_tokens: int
    text_bytes: int
    duplicates: int
    files: dict[str, Stamp]


def fingerprint(document: bytes) -> bytes:
    """Return the 16 bytes by which a document is known again."""
    return hashlib.blake2b(document, digest_size=HASH_BYTES).digest()


def is_held_out(hashes: Sequence[bytes]) -> list[bool]:
    """Return which documents are never trained on: about one in twenty, by their hash alone.

    A document is thus cut the same way wherever it appears. Of two documents or more at least one falls in
    each part: the one with the least hash is held out, or the one with the greatest is trained on.
    """
    held = [int.from_bytes(each[:8], "little") % HELD_OUT_ONE_IN == 0 for each in hashes]
    if len(hashes) > 1 and not any(held):
        held[hashes.index(min(hashes))] = True
    if all(held) and hashes:
        held[hashes.index(max(hashes))] = False
    return held


def write_shard(
    shards: Path, *, source_sha256: str, domain: str, documents: Sequence[bytes], seen: set[bytes]
) -> Path | None:
    """Tokenise an arrival, or find it done; returns its folder, None when every document is a duplicate.

    Dropped are repetitions within the arrival and documents whose hash is in `seen`; the folder's name tells
    the file, its domain and, where some were in `seen`, which: the same name always means the same content.
    """
    kept: dict[bytes, bytes] = {}
    known: set[bytes] = set()
    for document in documents:
        name = fingerprint(document)
        if name in seen:
            known.add(name)
        else:
            kept.setdefault(name, document)
    if not kept:
        return None
    suffix = f"-{hashlib.sha256(b''.join(sorted(known))).hexdigest()[:12]}" if known else ""
    folder = shards / source_sha256[:2] / f"{source_sha256}-{domain}{suffix}"
    if is_whole(folder):
        return folder
    with new_folder(folder) as aside:
        _fill(aside, source_sha256, domain, kept, duplicates=len(documents) - len(kept))
    return folder


def _fill(folder: Path, source_sha256: str, domain: str, kept: dict[bytes, bytes], *, duplicates: int) -> None:
    hashes = list(kept)
    held = is_held_out(hashes)
    parts = {
        "train": [name for name, out in zip(hashes, held, strict=True) if not out],
        "held_out": [name for name, out in zip(hashes, held, strict=True) if out],
    }
    files = {}
    for part, names in parts.items():
        offsets = np.zeros(len(names) + 1, dtype="<u8")
        np.cumsum([len(kept[name]) + 1 for name in names], out=offsets[1:])
        tokens = np.full(int(offsets[-1]), END, dtype="<u2")
        for start, name in zip(offsets[:-1], names, strict=True):
            document = np.frombuffer(kept[name], dtype=np.uint8)
            tokens[int(start) : int(start) + len(document)] = document
        files[f"{part}.bin"] = tokens.tobytes()
        files[f"{part}.offsets"] = offsets.tobytes()
    files["hashes.bin"] = b"".join(parts["train"] + parts["held_out"])
    for file, data in files.items():
        write_file(folder / file, data)
    manifest = Manifest(
        source_sha256=source_sha256,
        domain=domain,
        train_documents=len(parts["train"]),
        train_tokens=len(files["train.bin"]) // 2,
        held_out_documents=len(parts["held_out"]),
        held_out_tokens=len(files["held_out.bin"]) // 2,
        text_bytes=sum(map(len, kept.values())),
        duplicates=duplicates,
        files={file: stamp(folder / file) for file in files},
    )
    write_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


def read_manifest(path: Path) -> Manifest:
    """Return a shard's manifest; raises StageError (bad_sample) when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"The shard at {path} cannot be read ({error}): let its arrival be ingested again."
        raise StageError("bad_sample", message) from error


def is_whole(folder: Path) -> bool:
    """Return whether a shard is there with every file as its manifest says."""
    try:
        return fits(folder, read_manifest(folder / MANIFEST).files)
    except StageError:
        return False


def read_hashes(manifests: Iterable[Path]) -> set[bytes]:
    """Return the hashes of all documents in these shards, trained on and held out."""
    seen: set[bytes] = set()
    for path in manifests:
        read_manifest(path)
        data = (path.parent / "hashes.bin").read_bytes()
        seen.update(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))
    return seen


class Part:
    """The documents of one part of a shard, memory-mapped; `hashes` holds their 16 bytes each."""

    def __init__(self, manifest_path: Path, part: str) -> None:
        manifest = read_manifest(manifest_path)
        folder = manifest_path.parent
        if not fits(folder, manifest.files, thorough=False):
            message = f"The shard at {folder} is not whole: let its arrival be ingested again."
            raise StageError("bad_sample", message)
        self.domain = manifest.domain
        self.tokens: Tokens = _map(folder / f"{part}.bin", "<u2")
        self.offsets = np.fromfile(folder / f"{part}.offsets", dtype="<u8").astype(np.int64)
        hashes = (folder / "hashes.bin").read_bytes()
        first = manifest.train_documents if part == "held_out" else 0
        self.hashes = [hashes[HASH_BYTES * at : HASH_BYTES * (at + 1)] for at in range(first, first + len(self))]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> Tokens:
        """Return a document's tokens, END among them."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def _map(path: Path, dtype: str) -> Tokens:
    # An empty file cannot be mapped.
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint16)
    return np.memmap(path, dtype=dtype, mode="r")
