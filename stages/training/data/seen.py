"""What was seen before: the documents, near-duplicates and groups of past shards, and in which part each lies.

One sorted, mapped file per kind, made when a stage begins: for each million of past documents that takes half a second
of computing and 120 MB of the disk, which are free again when the stage ends. Memory does not grow with the past.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from stages.training.data.columns import Column, chunks, mapped
from stages.training.data.identity import HASH_BYTES, Keys
from stages.training.data.manifests import Manifest, check_whole, read_manifest
from stages.training.data.sketches import BANDS, sketch_name

NOWHERE, TRAIN, HELD_OUT = -1, 0, 1
Places = npt.NDArray[np.int8]


class Index:
    """Even keys with the part in which they lie; the last bit of what is stored says whether it is held out.

    They lie in sorted runs, each at least twice as long as the next: what is added often is sorted again seldom.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[Keys] = []

    def add(self, packed: Iterable[Keys]) -> None:
        """Add keys with their last bits."""
        self._runs.append(self._sorted(packed))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            self._runs[-2:] = [self._sorted(self._runs[-2:])]

    def find(self, keys: Keys) -> Places:
        """Return the part in which each key lies: HELD_OUT where it lies in both, NOWHERE in none; 0 is no key."""
        places = np.full(len(keys), NOWHERE, dtype=np.int8)
        for piece in chunks(len(keys)):
            order = np.argsort(keys[piece])  # in their order they are found ten times as fast
            found = np.full(len(order), NOWHERE, dtype=np.int8)
            wanted = keys[piece][order] & ~np.uint64(1)
            for run in self._runs:
                np.maximum(found, _places(run, wanted), out=found)
            places[piece][order] = np.where(wanted == 0, NOWHERE, found)
        return places

    def _sorted(self, packed: Iterable[Keys]) -> Keys:
        column = Column(self._folder, np.uint64)
        for keys in packed:
            column.append(keys)
        rows = column.rows()
        rows.sort()
        return cast("Keys", rows)


def _places(run: Keys, wanted: Keys) -> Places:
    if not len(run):
        return np.full(len(wanted), NOWHERE, dtype=np.int8)
    at = np.searchsorted(run, wanted | np.uint64(1))
    held = run[np.minimum(at, len(run) - 1)] == wanted | np.uint64(1)
    trained = (at > 0) & (run[at - 1] == wanted)
    return np.where(held, HELD_OUT, np.where(trained, TRAIN, NOWHERE)).astype(np.int8)


class Seen:
    """All that shards hold, to be asked about; their temporary files lie in `folder`."""

    def __init__(self, folder: Path, manifests: Iterable[Path], beat: Callable[[], None] = lambda: None) -> None:
        self.documents = Index(folder)
        self.near = Index(folder)
        self.groups = Index(folder)
        self._add(list(manifests), beat)

    def add(self, manifest: Path) -> None:
        """Add a shard's."""
        self._add([manifest], lambda: None)

    def _add(self, paths: list[Path], beat: Callable[[], None]) -> None:
        shards = [(path.parent, read_manifest(path)) for path in paths]
        for folder, manifest in shards:
            check_whole(folder, manifest)
        for index, read in ((self.documents, _documents), (self.near, _near), (self.groups, _groups)):
            index.add(keys for folder, manifest in shards for keys in _beating(read(folder, manifest), beat))


def _beating(found: Iterator[Keys], beat: Callable[[], None]) -> Iterator[Keys]:
    for keys in found:
        beat()
        yield keys


def document_keys(hashes: npt.NDArray[np.uint8]) -> Keys:
    """Return the even keys of documents' hashes: (n, HASH_BYTES) → (n,)."""
    return np.ascontiguousarray(hashes).view("<u8")[:, 0] & ~np.uint64(1)


def _documents(folder: Path, manifest: Manifest) -> Iterator[Keys]:
    hashes = mapped(folder / "hashes.bin", np.uint8).reshape(-1, HASH_BYTES)
    for piece in chunks(len(hashes)):
        yield document_keys(cast("npt.NDArray[np.uint8]", hashes[piece])) | _held(piece, manifest)


def _near(folder: Path, manifest: Manifest) -> Iterator[Keys]:
    if manifest.sketch != sketch_name():
        return  # none were made, or in another way: they cannot be compared
    bands = cast("Keys", mapped(folder / "bands.bin", "<u8")).reshape(-1, BANDS)
    for piece in chunks(len(bands)):
        yield (bands[piece] | _held(piece, manifest)[:, None]).reshape(-1)


def _groups(folder: Path, manifest: Manifest) -> Iterator[Keys]:
    if manifest.groups:
        yield cast("Keys", mapped(folder / "groups.bin", "<u8"))


def _held(piece: slice, manifest: Manifest) -> Keys:
    """Return 1 for the rows that are held out: they come after those that are trained on."""
    return (np.arange(piece.start, piece.stop) >= manifest.train_documents).astype(np.uint64)
