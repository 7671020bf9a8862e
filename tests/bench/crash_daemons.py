"""Daemons that are born to be killed: forked by a nursery, or started by themselves."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from daemon.journal.lock import locked_by
from daemon.testing import Life
from tests.bench.targets import ROOT


class DaemonEndedError(Exception):
    """A daemon ended by itself, though nobody killed it."""


@dataclass
class Nursery:
    """A process that forks daemons: see `daemon.testing`."""

    process: "subprocess.Popen[str]" = field(init=False)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "daemon.testing"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()

    def bear(self, life: Life) -> int:
        """Start a daemon and return its pid."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(life).decode() + "\n")
        self.process.stdin.flush()
        return self._read()

    def bury(self) -> int:
        """Return how the last daemon ended, as Popen tells it; waits for its end."""
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


class Daemon:
    """One life of a daemon: forked by the nursery, or from the interpreter's start on."""

    def __init__(self, nursery: Nursery, life: Life, *, exec_: bool = False) -> None:
        self.by_us = False
        self._status: int | None = None
        self._nursery = nursery
        self._process: subprocess.Popen[bytes] | None = None
        if exec_ and life.log:
            command = [sys.executable, "-m", "daemon.testing", msgspec.json.encode(life).decode()]
            with Path(life.log).open("ab") as log:
                self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
            self.pid = self._process.pid
        else:
            self.pid = nursery.bear(life)

    def alive(self) -> bool:
        """Return whether it has not ended."""
        if self._status is not None:
            return False
        if self._process is not None:
            return self._process.poll() is None
        try:
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def holds(self, path: Path) -> bool:
        """Return whether it holds a lock's file."""
        who = locked_by(path)
        return who is not None and who.pid == self.pid

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.alive():
            self.by_us = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to drain."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit status, -9 when it was killed."""
        if self._status is None:
            self._status = self._process.wait() if self._process is not None else self._nursery.bury()
        return self._status
