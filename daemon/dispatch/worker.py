"""The warm worker: a process of its own that has torch imported, never used, and forks one child per stage.

It belongs to a state folder, not to a daemon: it listens on `worker.fifo`, survives the daemon, and a lock
keeps it alone. A process that has used torch must not be forked, so the parent only waits, forks and reaps.
"""

import contextlib
import importlib
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path

import msgspec

from daemon import logs
from daemon.dispatch.attempts import Exit
from daemon.dispatch.fingerprint import Card, fingerprint, read_card
from daemon.files import lock, write_atomically
from stages import STAGES
from stages.execute import execute
from stages.run_folder import holder, myself

FIFO = "worker.fifo"
RETIRE = b"retire"
LOOK_SECONDS = 2.0
NOT_MINE = 75
logger = logging.getLogger("rewarm.worker")


def main(state: Path, once: Path | None = None) -> int:
    """Serve the orders of a state folder until told to retire, or carry out one attempt (`once`) and end."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a pool of threads when imported
    logs.configure(sys.stderr)
    with contextlib.suppress(PermissionError):
        os.setsid()
    worker = Worker(state.resolve())
    if once is not None:
        worker.fork(once.resolve(), keep=())
        return worker.wait()
    return worker.serve()


class Worker:
    """The parent of stage processes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._children: dict[int, Path] = {}
        self._retired = False

    def serve(self) -> int:
        """Listen until retired or replaced; returns the exit status."""
        self._state.mkdir(parents=True, exist_ok=True)
        held = os.open(self._state / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not lock(held, patience=10.0):
            logger.info("Another worker serves this state folder.", extra={"state": str(self._state)})
            return 0
        (self._state / "worker.json").unlink(missing_ok=True)
        card = Card(holder=myself(), fingerprint=fingerprint())
        _preload()
        wakeup, signalled = os.pipe()
        os.set_blocking(signalled, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, self._retire)
        path = self._state / FIFO
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        # Opened for writing too, so that it never reads as closed when a daemon goes away.
        fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        write_atomically(self._state / "worker.json", msgspec.json.encode(card))
        logger.info("The worker is warm.", extra={"pid": os.getpid(), "threads": threading.active_count()})
        keep = (held, fifo, wakeup, signalled)
        while not self._retired and self._is_mine(card):
            ready, _, _ = select.select([fifo, wakeup], [], [], LOOK_SECONDS)
            if wakeup in ready:
                os.read(wakeup, 4096)
                self._reap(os.WNOHANG)
            if fifo in ready:
                for line in os.read(fifo, 65536).splitlines():
                    self._take(line, keep)
        path.unlink(missing_ok=True)
        os.close(fifo)
        os.close(held)
        self.wait()
        return 0

    def fork(self, folder: Path, keep: tuple[int, ...]) -> None:
        """Start a child for one attempt; `keep` are the parent's own descriptors, which the child lets go."""
        child = os.fork()
        if child == 0:
            _child(folder, keep)
        self._children[child] = folder

    def wait(self) -> int:
        """Reap all children; returns the last one's exit code."""
        code = 0
        while self._children:
            code = self._reap(0)
        return code

    def _take(self, line: bytes, keep: tuple[int, ...]) -> None:
        if line == RETIRE:
            self._retired = True
            return
        folder = (self._state / os.fsdecode(line)).resolve()
        if folder.is_relative_to(self._state) and (folder / "spec.json").exists():
            self.fork(folder, keep)

    def _reap(self, flags: int) -> int:
        code = 0
        while self._children:
            try:
                pid, status = os.waitpid(-1, flags)
            except ChildProcessError:
                self._children.clear()
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            folder = self._children.pop(pid, None)
            if folder is not None:
                _tell_exit(folder, pid, code)
            if flags == 0:
                break
        return abs(code)

    def _retire(self, *_: object) -> None:
        self._retired = True

    def _is_mine(self, card: Card) -> bool:
        """Return whether the state folder still is this worker's: not removed, not taken over."""
        return read_card(self._state) == card


def _preload() -> None:
    """Import what stages import, without using it."""
    for target in STAGES.values():
        importlib.import_module(target.partition(":")[0])


def _child(folder: Path, keep: tuple[int, ...]) -> None:
    """Become the stage; never returns."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in keep:
            os.close(descriptor)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 0 if execute(folder) else NOT_MINE
    except BaseException:
        logging.getLogger("rewarm.stage").exception("The attempt could not be carried out.")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell_exit(folder: Path, pid: int, code: int) -> None:
    """Write exit.json, if it was this child that held the lock: a loser leaves no trace."""
    who = holder(folder)
    if who is None or who.pid != pid:
        return
    seen = Exit(pid=pid, code=code if code >= 0 else None, signal=-code if code < 0 else None)
    with contextlib.suppress(OSError):
        write_atomically(folder / "exit.json", msgspec.json.encode(seen))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(Path(arguments[0]), Path(arguments[1]) if len(arguments) > 1 else None))
