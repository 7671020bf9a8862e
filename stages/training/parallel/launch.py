"""The parent of the ranks: holds the attempt's lock, writes what they tell, and says why they ended.

It computes nothing itself, so it may fork. The kernel ends its children with it: by SIGALRM when nothing is told for
`limits.heartbeat` seconds, by SIGKILL from whoever ends the attempt, or by whatever else.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from daemon.core.encoding import decode
from daemon.core.errors import StageError
from stages.base import Context, Result, Stopped
from stages.training.parallel.wire import Alive, AnyMessage, Beat, Born, Done, Fact, Failed, Halted, pair, receive

FAREWELL_SECONDS = 10.0
"""How long the ranks may take to end after the last word was said."""
logger = logging.getLogger("rewarm.stage")


def train_together(context: Context) -> Result:
    """Train on the plan's processes and return what the leader returned.

    Raises Stopped, or StageError with the class and message of the rank that failed first: `worker_lost` where it
    was killed.
    """
    own, theirs = pair()
    try:
        agent = _start(context.folder, theirs)
    finally:
        os.close(theirs)
    ranks = Ranks(context)
    watched = os.pidfd_open(agent)
    try:
        _watch(ranks, own, watched)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)  # and the ranks with it
        os.waitpid(agent, 0)
        os.close(watched)
        own.close()
        ranks.close()
    return ranks.verdict()


def _start(folder: Path, descriptor: int) -> int:
    """Start the agent and return its pid: by a fork where that is safe, else as a program of its own."""
    parent = os.getpid()
    if len(list(Path("/proc/self/task").iterdir())) == 1 and not _has_used_a_device():
        child = os.fork()
        if child == 0:
            _become_agent(folder, descriptor, parent)
        return child
    command = [sys.executable, "-m", "stages.training.parallel.agent", str(folder), str(descriptor), str(parent)]
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=[nothing])


def _has_used_a_device() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def _become_agent(folder: Path, descriptor: int, parent: int) -> None:
    """Be the agent; never returns."""
    code = 1
    try:
        from stages.training.parallel.agent import run_agent

        code = run_agent(folder, descriptor, parent)
    except BaseException:
        logger.exception("The ranks could not be started.")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(ranks: "Ranks", own: socket.socket, agent: int) -> None:
    """Take what is told until the agent has ended, which waits for the ranks, or has had its time."""
    poll = select.poll()
    poll.register(own, select.POLLIN)
    poll.register(agent, select.POLLIN)
    while True:
        for descriptor in ranks.new():
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(1000)}
        for message in receive(own):
            ranks.take(message)
        for descriptor in ready - {own.fileno(), agent}:
            poll.unregister(descriptor)
            ranks.ended(descriptor)
        if agent in ready:
            for message in receive(own):
                ranks.take(message)
            return
        if ranks.over():
            logger.warning("The ranks did not end by themselves.", extra=dict(ranks.context.names))
            return


class Ranks:
    """What is known of the ranks, and what follows from it in the end."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._pids: dict[int, int] = {}
        self._descriptors: dict[int, int] = {}
        self._fresh: list[int] = []
        self._silent: list[int] = []
        self._failed: list[Failed] = []
        self._word: Done | Halted | None = None
        self._deadline: float | None = None

    def take(self, message: AnyMessage) -> None:
        """Do what a message asks for."""
        match message:
            case Born(rank=rank, pid=pid):
                self._pids[rank] = pid
                with contextlib.suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    self._descriptors[descriptor] = rank
                    self._fresh.append(descriptor)
            case Beat(step=step, steps=steps, metrics=metrics):
                # Whether to stop is the leader's to say, to all ranks at once.
                with contextlib.suppress(Stopped, StageError):
                    self.context.beat(step, steps, metrics)
            case Alive():
                self.context.live()
            case Fact(kind=kind, version=version, data=data):
                self.context.emit(decode(kind, version, data))
            case Failed():
                self._failed.append(message)
            case Done() | Halted():
                self._word = message
                self._deadline = time.monotonic() + FAREWELL_SECONDS

    def new(self) -> list[int]:
        """Return the descriptors of processes that are to be watched from now on."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def ended(self, descriptor: int) -> None:
        """Note that a rank's process is gone; whether without a word is seen in the end, in the order of going."""
        self._silent.append(self._descriptors.pop(descriptor))
        os.close(descriptor)

    def over(self) -> bool:
        """Return whether the ranks have had their time since the last word."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def verdict(self) -> Result:
        """Return the result; raises Stopped or StageError as the ranks did.

        What a rank says of itself goes before one that is gone without a word, and that before what others say of it.
        """
        size = self.context.specification.plan.training.engine.processes
        match self._word:
            case Done(result=result):
                return result
            case Halted(reason=reason):
                raise Stopped(reason)
        own = [failed for failed in self._failed if not failed.peer]
        if own:
            message = f"Rank {own[0].rank} of {size}: {own[0].message}"
            raise StageError(own[0].failure, message, step=own[0].step, documents=own[0].documents)
        told = {failed.rank for failed in self._failed}
        lost = [rank for rank in self._silent if rank not in told]
        if lost:
            message = (
                f"Rank {lost[0]} of {size} (process {self._pids[lost[0]]}) was killed, and the others with it; where "
                "nobody did so, the kernel may have, for want of memory: see its log."
            )
            raise StageError("worker_lost", message)
        if self._failed:
            message = f"The ranks lost each other. Rank {self._failed[0].rank} of {size}: {self._failed[0].message}"
            raise StageError("transient", message)
        raise StageError("worker_lost", "The ranks ended without a word; the attempt's log.txt may say why.")
