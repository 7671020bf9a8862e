"""Getting a stage process started: by the warm worker's fifo, or as a fresh process."""

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from daemon.core.errors import WorkerError
from daemon.dispatch.fingerprint import Card, fingerprint, read_card
from daemon.dispatch.worker import FIFO, RETIRE
from daemon.files import lock

START_PATIENCE = 30.0
logger = logging.getLogger("rewarm.dispatch")


class Launcher:
    """Hands attempts to the worker of a state folder, and sees that there is one."""

    def __init__(self, state: Path, *, warm: bool) -> None:
        self._state = state
        self._warm = warm
        self._mine: subprocess.Popen[bytes] | None = None
        self._fresh: list[subprocess.Popen[bytes]] = []
        self._asked_at = -START_PATIENCE
        self._checked = 0.0
        self._outdated: Card | None = None

    def launch(self, folder: Path) -> bool:
        """Start the attempt; returns False when the worker is not ready yet (ask again)."""
        if not self._warm:
            self._start(folder)
            return True
        self.warm_up()
        return self._send(os.fsencode(folder.relative_to(self._state)))

    def warm_up(self) -> None:
        """See that a worker with today's code serves the state folder; starts one where there is none."""
        if not self._warm:
            return
        if worker_alive(self._state):
            self._replace_outdated()
            return
        recently = time.monotonic() - self._asked_at < START_PATIENCE
        if recently and self._mine is not None and self._mine.poll() is None:
            return
        self._asked_at = time.monotonic()
        self._mine = self._start(None)

    def retire(self) -> None:
        """Let the worker that this launcher started go, once its children are done."""
        if self._mine is not None and self._mine.poll() is None:
            self._send(RETIRE)
            self._mine.terminate()

    def reap(self) -> None:
        """Collect the processes of this launcher that have ended."""
        if self._mine is not None:
            self._mine.poll()
        self._fresh = [process for process in self._fresh if process.poll() is None]

    def _replace_outdated(self) -> None:
        """Let a worker go whose code is not today's; looked at once in a second, told once."""
        if time.monotonic() - self._checked < 1.0:
            return
        self._checked = time.monotonic()
        card = read_card(self._state)  # none: it is still warming up
        if card is None or card == self._outdated or card.fingerprint == fingerprint():
            return
        if self._send(RETIRE):
            logger.info("The worker is replaced: its code or environment changed.", extra={"pid": card.holder.pid})
            self._outdated = card

    def _send(self, line: bytes) -> bool:
        try:
            descriptor = os.open(self._state / FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENXIO}:
                return False
            raise WorkerError(f"The worker's fifo {self._state / FIFO} cannot be opened: {error}.") from error
        try:
            return os.write(descriptor, line + b"\n") > 0
        except (BlockingIOError, BrokenPipeError):
            return False
        finally:
            os.close(descriptor)

    def _start(self, folder: Path | None) -> subprocess.Popen[bytes]:
        """Start a worker in its own process session, its output in files: it outlives this process."""
        self._state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "daemon.dispatch.worker", str(self._state)]
        log = self._state / "worker.log"
        if folder is not None:
            command.append(str(folder))
            log = folder / "log.txt"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        if folder is not None:
            self._fresh.append(process)
        return process


def worker_alive(state: Path) -> bool:
    """Return whether a worker holds the state folder's lock."""
    try:
        descriptor = os.open(state / "worker.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
