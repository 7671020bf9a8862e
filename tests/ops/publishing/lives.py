"""Processes that tell a topic of a journal's dead letters, and die or stand still where they are told to.

`python -m tests.ops.publishing.lives` has everything imported and forks a follower for each `Life` that it reads.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

import kafka  # noqa: F401 - here, so that no life has to
import msgspec

from daemon.broker.access import Access
from daemon.core.state import State
from daemon.journal.sqlite_reader import open_reader
from ops.publishing import publisher, topic  # noqa: F401 - as above
from ops.publishing.build import publishers

ROOT = Path(__file__).parents[3]
SOURCE = "main"
REQUEST_TIMEOUT = 5.0
ENDED = "ended"
"""A file in the state folder: there will be no more dead letters."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How a follower lives: at the `count`-th passing of `boundary` it kills itself, or stops until it is woken."""

    address: str
    group: str
    journal: str
    state: str
    boundary: str | None = None
    count: int = 1
    does: Literal["kill", "freeze"] = "kill"
    page: int = 4


def at_boundary(life: Life) -> Callable[[str], None]:
    """Return what is done at write boundaries."""
    left = {life.boundary: life.count}

    def pass_by(name: str) -> None:
        if name in left:
            left[name] -= 1
            if left[name] == 0:
                os.kill(os.getpid(), signal.SIGKILL if life.does == "kill" else signal.SIGSTOP)

    return pass_by


def live(life: Life) -> None:
    """Follow the journal until all was told and no more will come, or until a newer daemon leads."""
    vars(publisher)["PAGE"] = life.page
    access = Access(bootstrap_servers=tuple(life.address.split(",")), request_timeout=REQUEST_TIMEOUT)
    journal = Path(life.journal)
    (follower,) = publishers(
        source=SOURCE,
        group=life.group,
        access=access,
        dead_letters=f"{life.group}.dlq",
        transitions=None,
        state=Path(life.state),
        reader=lambda: open_reader(journal),
        boundary=at_boundary(life),
    )
    reader = open_reader(journal)
    follower.begin()
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    head = 0
    while thread.is_alive():
        ended = (Path(life.state) / ENDED).exists()
        records = reader.records(head)
        if records:
            head = records[-1].position
            follower.observe(records, State(position=head))
        elif ended and follower.behind == 0:
            break
        time.sleep(0.01)
    follower.stop()
    thread.join(1)


def nursery() -> None:
    """Fork a follower for each line of standard input; tell its pid, then how it ended."""
    for line in iter(sys.stdin.buffer.readline, b""):
        life = msgspec.json.decode(line, type=Life)
        child = os.fork()
        if child == 0:
            try:
                live(life)
                os._exit(0)
            finally:
                os._exit(1)
        tell(child)
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def tell(number: int) -> None:
    """Write a number on standard output."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


class Nursery:
    """A nursery as its owner sees it: one life at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ops.publishing.lives"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = 0

    def begin(self, life: Life) -> int:
        """Begin a life and return its process."""
        into = self._pipe(self._process.stdin)
        into.write(msgspec.json.encode(life) + b"\n")
        into.flush()
        self.pid = self._number()
        return self.pid

    def end(self) -> int:
        """Wait until the life has ended and return its exit status; -9: it was killed."""
        ended = self._number()
        self.pid = 0
        return ended

    def close(self) -> None:
        """End the life and the nursery."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            self._pipe(pipe).close()
        self._process.wait(10)

    def _number(self) -> int:
        return int(self._pipe(self._process.stdout).readline())

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


if __name__ == "__main__":
    nursery()
