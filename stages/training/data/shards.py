"""Tokenised arrivals on the disk: memory-mapped, written once, found again by the content of their file.

A shard's folder holds, for each part (`train`, `held_out`), PART.bin (tokens as the manifest's `dtype`, each document's
followed by its tokenizer's end token) and PART.offsets (uint64, one more than documents); held_out.ends (uint32, each
token's end in bytes of its document; not where tokens are bytes). About its documents, those of `train` first, it holds
hashes.bin (16 bytes of each one's BLAKE2b) and bands.bin (uint64, what near-duplicates have in common), and groups.bin
(uint64, sorted; the last bit says that the group is held out).

Of a model that takes records a document is the bytes of its JSON, and no token follows.
"""

from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from daemon.core.errors import StageError
from stages.training.data.columns import mapped
from stages.training.data.encoding import BYTES
from stages.training.data.identity import HASH_BYTES
from stages.training.data.manifests import Manifest, check_whole, read_manifest
from stages.training.files import MANIFEST, fits

__all__ = ["Manifest", "Part", "Tokens", "is_whole", "read_manifest"]

TRAIN, HELD_OUT = "train", "held_out"
Tokens = npt.NDArray[np.unsignedinteger]


def is_whole(folder: Path) -> bool:
    """Return whether a shard is there with every file as its manifest says."""
    try:
        return fits(folder, read_manifest(folder / MANIFEST).files)
    except StageError:
        return False


class Part:
    """The documents of one part of a shard, memory-mapped; nothing is read before it is asked for.

    `arrival` is whose they are, for whoever names one. Raises StageError (bad_sample) when the shard is not whole.
    """

    def __init__(self, manifest_path: Path, part: str, arrival: int = 0) -> None:
        self.arrival = arrival
        self.manifest = read_manifest(manifest_path)
        self._folder = manifest_path.parent
        check_whole(self._folder, self.manifest)
        self._part = part
        self.domain = self.manifest.domain
        self.tokens = cast("Tokens", mapped(self._folder / f"{part}.bin", self.manifest.dtype))
        self.offsets = cast("npt.NDArray[np.int64]", mapped(self._folder / f"{part}.offsets", "<i8"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint8]:
        """The 16 bytes by which each document is known: (documents, HASH_BYTES), mapped."""
        rows = cast("npt.NDArray[np.uint8]", mapped(self._folder / "hashes.bin", np.uint8)).reshape(-1, HASH_BYTES)
        first = self.manifest.train_documents if self._part == HELD_OUT else 0
        return rows[first : first + len(self)]

    @cached_property
    def _ends(self) -> npt.NDArray[np.uint32] | None:
        """The byte offset after each token, where it is not the number of tokens."""
        if self.manifest.tokenizer in {None, BYTES.sha256}:
            return None
        if self._part != HELD_OUT:
            raise ValueError(f"what tokens are in bytes is not kept of {self._part}")
        return cast("npt.NDArray[np.uint32]", mapped(self._folder / f"{HELD_OUT}.ends", "<u4"))

    def document(self, index: int) -> Tokens:
        """Return a document's tokens, its end among them."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def text_bytes(self, index: int, start: int = 0, stop: int | None = None) -> int:
        """Return how many bytes of text the tokens [start, stop) of a held-out document are; its end is none."""
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        stop = end - begin if stop is None else min(stop, end - begin)
        if stop <= start:
            return 0
        if self._ends is not None:
            return int(self._ends[begin + stop - 1]) - (int(self._ends[begin + start - 1]) if start else 0)
        text = end - begin - (self.manifest.tokenizer is not None)
        return min(stop, text) - min(start, text)
