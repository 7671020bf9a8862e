"""A backup as it lies on the disk: `backup.json` names every other file; without it a folder is no backup."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from daemon.core.errors import JournalError, JournalTooNew
from daemon.files import sync
from stages.training.files import Stamp, stamp

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
JOURNAL: Final = "journal.db"
STATE: Final = "state"
"""Below it lie files as they lie below the state folder."""
CHUNK: Final = 1 << 20
"""Bytes between two flushes: the journal's own would wait for all that is not on the disk yet."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: the journal `identity` up to `position`, where the reducer's fold has `state_hash`."""

    format: int = FORMAT
    release: str
    taken_at: datetime
    identity: str
    position: int
    reducer: int
    state_hash: str
    files: dict[str, Stamp]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(each.bytes for each in self.files.values())


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup says of itself.

    Raises JournalError when the folder is no backup, JournalTooNew when a newer rewarm made it.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
        version = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("format")
        if version is not None and int(bytes(version)) > FORMAT:
            raise JournalTooNew(f"{folder} is a backup of format {int(bytes(version))}: upgrade rewarm.")
        manifest = msgspec.json.decode(data, type=Manifest)
    except OSError as error:
        message = f"{folder} is no backup, or was never finished: {MANIFEST} cannot be read ({error.strerror})."
        raise JournalError(message) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise JournalError(f"{folder / MANIFEST} is damaged ({error}): take another backup.") from error
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        below = len(parts) > 1 and parts[0] == STATE and ".." not in parts
        if name != JOURNAL and not below:
            raise JournalError(f"{folder / MANIFEST} names {name!r}, which has no place in a backup.")
    return manifest


def faults(folder: Path, manifest: Manifest) -> list[str]:
    """Return which files are not what the backup says they are."""
    found = []
    for name, wanted in manifest.files.items():
        path = folder / name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                found.append(f"{name} is no file.")
            elif path.stat().st_size != wanted.bytes or stamp(path) != wanted:
                found.append(f"{name} has another content than it was saved with.")
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}.")
    if JOURNAL not in manifest.files:
        found.append(f"{JOURNAL} is missing.")
    return found


def copy(source: Path, target: Path, *, most: int | None = None) -> Stamp:
    """Copy a file (its first `most` bytes), flushed to the disk; return what was copied. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(CHUNK if most is None else min(CHUNK, most - size)):
            writing.write(chunk)
            content.update(chunk)
            size += len(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    return Stamp(sha256=content.hexdigest(), bytes=size)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below it, by path; no links, no sockets, nothing hidden, nothing just gone."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(base, name)
            with contextlib.suppress(FileNotFoundError):  # a living stage removes its own files
                if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                    yield path


def sync_tree(folder: Path) -> None:
    """Make every name in a folder and below it durable."""
    for base, _, _ in os.walk(folder):
        sync(Path(base))
