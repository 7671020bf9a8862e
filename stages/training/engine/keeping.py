"""What a training leaves behind on its way: checkpoints to go on from, the trunk, the candidate."""

import contextlib
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from daemon.core.events import CheckpointSaved
from daemon.core.plans import Checkpoint, steps
from stages.base import Context
from stages.training.engine.average import Average
from stages.training.engine.checkpoint import ENGINE, OPTIMISER, Contents, prune
from stages.training.engine.guard import Guard
from stages.training.engine.optimiser import dump_moments
from stages.training.engine.saving import Writer
from stages.training.engine.spike import Spike
from stages.training.engine.team import Team
from stages.training.files import MODEL
from stages.training.models.base import Adapter

AVERAGE, GUARD, SPIKE = "average/", "guard/", "spike/"
"""What the names of the three begin with in a checkpoint's engine.safetensors."""
logger = logging.getLogger("rewarm.stage")


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, and all that changes with it."""

    adapter: Adapter
    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average | None
    guard: Guard
    spike: Spike

    def engine_state(self) -> dict[str, Tensor]:
        """Return what the loop itself goes on from."""
        averages = {} if self.average is None else self.average.dump()
        return _named(AVERAGE, averages) | _named(GUARD, self.guard.dump()) | _named(SPIKE, self.spike.dump())

    def load_engine_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `engine_state` gave; raises KeyError or RuntimeError when it is of another plan."""
        if self.average is not None:
            self.average.load(_unnamed(AVERAGE, tensors))
        self.guard.load(_unnamed(GUARD, tensors))
        self.spike.load(_unnamed(SPIKE, tensors))


class Keeper:
    """Saves, tells and prunes; every process of a team asks, the leader alone writes."""

    def __init__(self, context: Context, trained: Trained, team: Team, *, plan_sha256: str, step: int) -> None:
        self._context = context
        self._trained = trained
        self._team = team
        self._plan_sha256 = plan_sha256
        self._saved_step = step
        self._saved_at = time.monotonic()
        self._writer = Writer()

    @property
    def seconds(self) -> float:
        """How long the training has waited for what is kept."""
        return self._writer.seconds

    @property
    def due(self) -> bool:
        """Whether the next checkpoint is due, and the last one written: the training does not wait for it."""
        every = self._context.specification.plan.limits.checkpoint_every
        return time.monotonic() - self._saved_at >= every and not self._writer.busy

    def checkpoint(self, step: int) -> None:
        """Begin to write a checkpoint, unless there is one of this step; raises what hindered the one before."""
        if step == self._saved_step:
            return
        folder = self._context.folder / "checkpoints" / f"step-{step:09d}"
        tensors = {MODEL: self._weights(), OPTIMISER: self._moments()}
        if state := self._team.whole(self._trained.engine_state()):
            tensors[ENGINE] = state
        self._write(folder, step, tensors)
        self._saved_step, self._saved_at = step, time.monotonic()

    def trunk(self, step: int) -> None:
        """Begin to write where the next run may start from: as trained, with the optimiser's state, not averaged."""
        self._write(self._context.folder / "trunk", step, {MODEL: self._weights(), OPTIMISER: self._moments()})

    def candidate(self, step: int) -> None:
        """Begin to write the weights to be judged: their average, where one is kept."""
        average = self._trained.average
        with contextlib.nullcontext() if average is None else average.shown():
            self._write(self._context.folder / "candidate", step, {MODEL: self._weights()})

    def tell(self, *, wait: bool = False) -> None:
        """Tell of a checkpoint that has been written; raises what hindered it, OSError when the disk is full."""
        if wait:
            self._context.live()
        written = self._writer.collect(wait=wait)
        if written is None or written.folder.parent.name != "checkpoints":
            return
        saved = Checkpoint(path=self._context.state_path(written.folder), sha256=written.sha256)
        self._context.emit(CheckpointSaved(**self._context.names, step=written.step, checkpoint=saved))

    def stop(self, step: int) -> None:
        """Write a last checkpoint and wait for it. A full disk hinders nobody from stopping."""
        try:
            self.checkpoint(step)
            self.tell(wait=True)
        except OSError:
            # To stop is what was asked; the attempt after this one goes on from an older checkpoint.
            logger.exception("No checkpoint could be saved on stopping.", extra={"step": step})

    def close(self) -> None:
        """Wait for what is being written and let the memory go; what hindered it was told, or a worse thing was."""
        with contextlib.suppress(OSError):
            self.tell(wait=True)
        self._writer.close()

    def _weights(self) -> dict[str, Tensor]:
        return self._team.whole(self._trained.adapter.weights(self._trained.model))

    def _moments(self) -> dict[str, Tensor]:
        return self._team.whole(dump_moments(self._trained.model, self._trained.optimiser))

    def _write(self, folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        if self._team.rank:
            return
        self.tell(wait=True)
        training = self._context.specification.plan.training
        contents = Contents(
            small=self._trained.adapter.files(self._trained.model),
            tensors=tensors,
            step=step,
            steps=steps(training),
            seed=training.seed,
            plan=self._plan_sha256,
            remedy=msgspec.structs.replace(self._context.specification.remedy, accumulate=1),
        )
        self._writer.write(folder, contents, partial(prune, self._context.folder))


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _unnamed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
