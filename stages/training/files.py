"""Folders that are there wholly or not at all: written aside, flushed, renamed, and told by their manifest."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from daemon.files import sync

MANIFEST = "manifest.json"
MODEL = "model.safetensors"


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What a file must be."""

    sha256: str
    bytes: int


def digest(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> Stamp:
    """Return what a file is now."""
    return Stamp(sha256=digest(path), bytes=path.stat().st_size)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fits(folder: Path, files: dict[str, Stamp], *, thorough: bool = True) -> bool:
    """Return whether every file is in the folder as stamped; without `thorough` only sizes are compared."""
    try:
        return all(
            (folder / name).stat().st_size == wanted.bytes and (not thorough or digest(folder / name) == wanted.sha256)
            for name, wanted in files.items()
        )
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends well, and vanishes when it does not.

    What already lies at `target` gives way: callers keep it when it is whole. A power loss leaves the old
    content, the new, or nothing under that name, never a part.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        sync(aside)
        if target.exists():
            gone = target.with_name(f".{target.name}.{os.getpid()}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            target.rename(gone)
            aside.rename(target)
            shutil.rmtree(gone, ignore_errors=True)
        else:
            aside.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
