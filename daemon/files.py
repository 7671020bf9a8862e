"""What files need of the system: written whole or not at all, flushed to the disk, locked by one process."""

import fcntl
import os
import stat
import time
from pathlib import Path

LOOK_SECONDS = 0.01


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, also after a power loss."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def open_to_all(path: Path) -> str | None:
    """Return what is wrong where everybody on this machine can read or write a file; raises OSError."""
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return f"everybody on this machine can read or write {path}: run `chmod o= {path}`."
    return None


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False, patience: float = 0.0) -> bool:
    """Lock an open file; returns False when another process has still not let go of it after `patience` seconds.

    The kernel frees it when the descriptor is closed, or its holder dies. Raises OSError where nothing can be locked.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_SECONDS)
        else:
            return True
