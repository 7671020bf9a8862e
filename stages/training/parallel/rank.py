"""One of the processes that train together: it meets the others, trains, and tells the parent what there is to tell."""

import logging
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from msgspec.structs import replace

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent
from stages.base import PROGRESS_SECONDS, Context, Stopped
from stages.execute import classify
from stages.run_folder import Outcome, Specification, read_specification
from stages.train import train
from stages.training.engine.device import THREADS
from stages.training.parallel.group import Group, group
from stages.training.parallel.mortal import die_with
from stages.training.parallel.wire import Alive, Beat, Born, Done, Failed, Halted, Wire

BEAT_SECONDS = 1.0
STORE = "ranks.store"
LONGEST = 4000
PEER_WORDS = ("gloo", "NCCL", "onnection closed by peer", "onnection reset by peer")
WORDS = ("", "time_limit", "cancel", "preempt", "drain")
"""What the leader may say to all at a beat, as a number."""
logger = logging.getLogger("rewarm.stage")


class RankContext(Context):
    """A rank's hands: what the leader says goes to the parent, what the others say goes nowhere; all beat together.

    The alarm that ends a hanging attempt is the parent's: it is set anew by what the leader tells, and the leader can
    tell nothing while another rank hangs.
    """

    def __init__(self, specification: Specification, folder: Path, wire: Wire, team: Group) -> None:
        super().__init__(specification, folder, cast("Outcome", wire), time.monotonic)
        self._wire = wire
        self._team = team
        self._leads = team.rank == 0
        self._told = -BEAT_SECONDS
        self._flushed = time.monotonic()

    def emit(self, event: AnyEvent) -> None:
        """Have the parent append a fact, where this is the leader."""
        if self._leads:
            super().emit(event)

    def live(self) -> None:
        """Say that the stage lives, where this is the leader; the others need not be asked."""
        if self._leads:
            self._wire.send(Alive())

    def beat(self, step: int, steps: int, metrics: dict[str, float] | None = None) -> None:
        """Say that all live and how far they are; every rank has to, as often as any other.

        Raises Stopped or StageError (time_limit) in all ranks at the same beat, when the leader finds a reason to.
        """
        word = 0
        if self._leads:
            now = time.monotonic()
            if now - self._told >= BEAT_SECONDS:
                self._told = now
                self._wire.send(Beat(step=step, steps=steps, metrics=metrics or {}))
            if now - self._flushed >= PROGRESS_SECONDS:
                self._flushed = now
                self.flush_curve()
            word = self._word()
        said = WORDS[self._team.agree(word)]
        if said == "time_limit":
            limit = self.specification.plan.limits.time_limit
            message = f"The stage ran longer than its limit of {limit:g} s: raise `time_limit`."
            raise StageError("time_limit", message)
        if said:
            raise Stopped(said)

    def _word(self) -> int:
        try:
            self.obey()
        except Stopped as stop:
            return WORDS.index(stop.reason if stop.reason in WORDS else "cancel")
        except StageError as error:
            return WORDS.index(error.failure)
        return 0

    def curve(self, step: int, values: dict[str, float]) -> None:
        """Add a point to the training curves, where this is the leader."""
        if self._leads:
            super().curve(step, values)

    def flush_curve(self) -> None:
        """Write the pending points, where this is the leader: the parent has none."""
        if self._leads:
            super().flush_curve()


def rank_main(folder: str, descriptor: int, agent: int) -> None:
    """Train as the rank that torchrun's environment names; ends the process itself when anything goes wrong."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # the agent's handlers were inherited; a rank that is ended says nothing
    die_with(agent)
    wire = Wire(descriptor)
    rank = int(os.environ["RANK"])
    try:
        wire.send(Born(rank=rank, pid=os.getpid()))
        _name(rank)
        _train(Path(folder), wire, rank)
    except Stopped as stop:
        if rank == 0:
            wire.send(Halted(reason=stop.reason))
    except BaseException as error:
        logger.exception("A rank ended by an error.", extra={"peer": _is_of_a_peer(error)})
        known = isinstance(error, StageError)
        failed = Failed(
            rank=rank,
            failure=classify(error) if isinstance(error, Exception) else "transient",
            message=(str(error) if known else f"{type(error).__name__}: {error}")[:LONGEST],
            peer=_is_of_a_peer(error),
            step=error.step if isinstance(error, StageError) else None,
            documents=error.documents if isinstance(error, StageError) else (),
        )
        wire.send(failed)
        _end(1)  # at once: whoever waits for this rank in a collective is told by its sockets
    wire.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def _train(folder: Path, wire: Wire, rank: int) -> None:
    specification = read_specification(folder)
    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    backend = choose_backend(size, local)
    dist.init_process_group(
        backend,
        store=dist.FileStore(str(folder / STORE), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        # The parent's alarm is the judge of what hangs; this is for what even that cannot end.
        timeout=timedelta(seconds=2 * specification.plan.limits.heartbeat + 60),
    )
    team = group(specification.plan.training.engine)
    threads = max(1, (specification.threads or THREADS) // size)
    context = RankContext(replace(specification, threads=threads), folder, wire, team)
    result = train(context, team)
    if rank == 0:
        wire.send(Done(result=result))


def choose_backend(size: int, local: int) -> str:
    """Return by what `size` processes talk; on CUDA this one, `local`, gets its device.

    Raises StageError (user_error) when there are fewer devices than processes.
    """
    if not torch.cuda.is_available():
        return "gloo"
    devices = torch.cuda.device_count()
    if devices < size:
        message = (
            f"`processes` is {size}, but CUDA shows {devices} device(s) here and each process needs its own: lower "
            "`processes`, or show more devices (CUDA_VISIBLE_DEVICES)."
        )
        raise StageError("user_error", message)
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _is_of_a_peer(error: BaseException) -> bool:
    """Return whether the error only says that another rank is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in PEER_WORDS)
    )


def _name(rank: int) -> None:
    """Put the rank into every line of the log; of what is told in the ordinary course, the leader's is enough."""

    def mark(record: logging.LogRecord) -> bool:
        record.rank = rank
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(mark)
    if rank:
        logging.getLogger("rewarm").setLevel(logging.WARNING)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
