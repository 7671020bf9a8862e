"""The training loop: from any checkpoint to the last step, always able to stop, never on a loss that is no number."""

import logging
import math
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from daemon.core.errors import StageError
from daemon.core.events import CheckpointSaved
from daemon.core.plans import Checkpoint, Plan, learning_rate, steps, trunk_step
from stages.base import Context, Stopped
from stages.training.checkpoint import prune, save_checkpoint
from stages.training.device import precision
from stages.training.mixture import Batch, Mixture, replayed
from stages.training.models.base import Adapter
from stages.training.optimiser import CLIP, set_rate

CURVE_POINTS = 400
logger = logging.getLogger("rewarm.stage")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How the steps of this attempt went; `loss` is the mean over the last point of the curve, per token."""

    loss: float
    replay_share: float
    tokens_per_second: float


class Loop:
    """Trains a model in place; `step` is the last step done."""

    def __init__(
        self,
        context: Context,
        adapter: Adapter,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        mixture: Mixture,
        *,
        plan_sha256: str,
        step: int,
    ) -> None:
        self.context = context
        self.adapter = adapter
        self.model = model
        self.optimiser = optimiser
        self.mixture = mixture
        self.plan: Plan = context.specification.plan
        self.plan_sha256 = plan_sha256
        self.step = step
        self.steps = steps(self.plan.training)
        self.device = next(model.parameters()).device
        self._every = max(1, self.steps // CURVE_POINTS)
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._loss = math.nan
        self._saved_step = step
        self._saved_at = time.monotonic()

    def run(self) -> Summary:
        """Train to the last step. Saves the trunk on its step, checkpoints on the way and when stopped.

        Raises Stopped or StageError (not_finite, time_limit), and OSError when the disk is full.
        """
        first, began = self.step, time.monotonic()
        trunk = trunk_step(self.plan.training)
        self.model.train()
        speed = 0.0
        while self.step < self.steps:
            self._advance(self.step + 1)
            speed = (self.step - first) * self.mixture.batch * self.mixture.context / (time.monotonic() - began)
            if self.step == trunk:
                # Before any checkpoint of this step or a later one: who finds such a one finds the trunk too.
                self.save(self.context.folder / "trunk")
            if time.monotonic() - self._saved_at >= self.plan.limits.checkpoint_every:
                self._save_checkpoint()
            self._beat(speed)
        return Summary(loss=self._loss, replay_share=self.replay_share, tokens_per_second=speed)

    def save(self, folder: Path, *, moments: bool = True) -> str:
        """Write the present weights, and with `moments` the optimiser's state; returns the manifest's sha256."""
        return save_checkpoint(
            folder,
            self.adapter,
            self.model,
            self.optimiser if moments else None,
            step=self.step,
            steps=self.steps,
            seed=self.plan.training.seed,
            plan=self.plan_sha256,
        )

    @property
    def replay_share(self) -> float:
        """The share of all rows so far that were past text."""
        if not len(self.mixture.past):
            return 0.0
        return replayed(self.mixture.replay, self.mixture.batch, self.step) / (self.step * self.mixture.batch)

    def _advance(self, step: int) -> None:
        batch = self.mixture.draw(step)
        rate = learning_rate(self.plan.training, step)
        inputs = self.adapter.collate(batch.rows, self.device)
        with precision(self.device):
            rows = self.adapter.row_losses(self.model, inputs)
        loss = rows.mean()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if not math.isfinite(norm.item()) or not math.isfinite(loss.item()):
            message = (
                f"Step {step}: the loss is {loss.item()}, the gradient's norm {norm.item()}; no weight was touched. "
                "Lower the peak learning rate, or look at the batch's data."
            )
            raise StageError("not_finite", message)
        set_rate(self.optimiser, rate)
        self.optimiser.step()
        self.step = step
        self._note(batch, rows.detach(), rate)

    def _note(self, batch: Batch, rows: Tensor, rate: float) -> None:
        for domain, value in zip(batch.domains, rows.tolist(), strict=True):
            self._losses[domain].append(value)
        if self.step % self._every and self.step != self.steps:
            return
        everything = [value for values in self._losses.values() for value in values]
        self._loss = sum(everything) / len(everything)
        values = {
            "loss": self._loss,
            "learning_rate": rate,
            "replay_share": self.replay_share,
            "tokens": float(self.step * self.mixture.batch * self.mixture.context),
        }
        values |= {f"loss_{domain}": sum(each) / len(each) for domain, each in sorted(self._losses.items())}
        self.context.curve(self.step, values)
        self._losses.clear()

    def _beat(self, speed: float) -> None:
        rate = learning_rate(self.plan.training, self.step)
        metrics = {"learning_rate": rate, "tokens_per_second": round(speed, 1)}
        if math.isfinite(self._loss):
            metrics["loss"] = self._loss
        try:
            self.context.beat(self.step, self.steps, metrics)
        except (Stopped, StageError):
            if self.step > self._saved_step:
                try:
                    self._save_checkpoint()
                except OSError:
                    # To stop is what was asked; the attempt after this one goes on from an older checkpoint.
                    logger.exception("No checkpoint could be saved on stopping.", extra={"step": self.step})
            raise

    def _save_checkpoint(self) -> None:
        folder = self.context.folder / "checkpoints" / f"step-{self.step:09d}"
        sha256 = self.save(folder)
        prune(self.context.folder)
        self._saved_step, self._saved_at = self.step, time.monotonic()
        saved = Checkpoint(path=self.context.state_path(folder), sha256=sha256)
        self.context.emit(CheckpointSaved(**self.context.names, step=self.step, checkpoint=saved))
