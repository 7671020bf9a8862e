"""Wait until something is renamed into a folder: by inotify on Linux, by the clock elsewhere."""

import contextlib
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inotify_simple import INotify


class Watch:
    """A folder's wake-up call. `wait` also returns after its timeout: a network share tells nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inotify: INotify | None = None
        self._inode = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def open(self) -> None:
        """Begin to watch (again, where the folder was replaced); does nothing where the system cannot."""
        if sys.platform != "linux" or not self._folder.is_dir():
            return
        inode = self._folder.stat().st_ino
        if inode == self._inode:
            return
        from inotify_simple import INotify, flags

        if self._inotify is not None:
            self._inotify.close()
        self._inotify = INotify()
        self._inotify.add_watch(str(self._folder), flags.MOVED_TO | flags.CLOSE_WRITE)
        self._inode = inode

    def wait(self, seconds: float) -> None:
        """Return when something came, `wake` was called, or `seconds` have passed."""
        watched: list[int] = [self._read]
        if self._inotify is not None:
            watched.append(self._inotify.fileno())
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._inotify is not None and self._inotify.fileno() in ready:
            self._inotify.read(timeout=0)
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._write, b"x")

    def close(self) -> None:
        """Let go of the system's resources."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._inode = 0
