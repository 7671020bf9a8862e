"""Files that are written whole or not at all, and locks that one process has."""

import errno
import os
from pathlib import Path

import pytest

from daemon.files import lock, write_atomically


def test_an_atomic_write_leaves_the_old_content_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves what was there, and nothing beside it."""
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_one_has_the_lock_until_it_lets_go(tmp_path: Path) -> None:
    """Many share it, or one has it alone; who closes the file has let go."""
    first, second, third = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(3))
    assert lock(first, shared=True)
    assert lock(second, shared=True)
    assert not lock(third)
    os.close(first)
    os.close(second)
    assert lock(third, patience=10.0)
    os.close(third)
