"""The training loop: from any checkpoint to the last step, always able to stop, never on a loss that is no number.

Nobody waits for the device in a step: what it has judged is read every few steps (on the processor after each), and
a number that is not finite has withheld every step since. Checkpoints are written beside the training.
"""

import logging
import math
import time
from functools import partial

import msgspec
import torch
from torch import Tensor, nn

from daemon.core.errors import StageError
from daemon.core.plans import Document, learning_rate, steps, trunk_step
from stages.base import Context, Stopped
from stages.training.engine.keeping import Keeper, Trained
from stages.training.engine.lineage import is_left_out, left_out
from stages.training.engine.optimiser import set_rate, withhold
from stages.training.engine.progress import Progress, Speed
from stages.training.engine.step import Stepper
from stages.training.engine.team import Team
from stages.training.engine.watching import Watching
from stages.training.mixing.feed import Feed
from stages.training.mixing.mixture import Batch, Mixture

LAGS = {"cpu": 1, "cuda": 8}
"""Steps after which what the device has judged is read, and processes agree whether to stop or to save."""
SILENT = 1.0
"""Seconds after which it is read in any case, where no other process must agree."""
MOST_NAMED = 32
"""Most documents that a failure names."""
logger = logging.getLogger("rewarm.stage")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How the steps of this attempt went; `losses` are the means over the last point of the curve, `loss` of all.

    `waiting` and `saving` are the shares of the time in which the loop waited for data and for checkpoints.
    """

    losses: dict[str, float]
    replay_share: float
    tokens_per_second: float
    skipped: int
    left_out: int
    compiled: bool
    waiting: float
    saving: float

    def metrics(self) -> dict[str, float]:
        """Return the numbers under the names that a stage tells them by."""
        return {
            **self.losses,
            "replay_share": self.replay_share,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "skipped": float(self.skipped),
            **({"left_out": float(self.left_out)} if self.left_out else {}),
            "compiled": float(self.compiled),
            "waiting_share": round(self.waiting, 6),
            "saving_share": round(self.saving, 6),
        }


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A step whose numbers still lie on the device: [loss, norm, withheld, halted], then each row's loss."""

    step: int
    values: Tensor
    batch: Batch


class Loop:
    """Trains a model in place; `step` is the last step done. Only the leader of the team writes, tells and saves.

    `wrapped` is the model as the team trains it. The keeper saves what `trained` holds.
    """

    def __init__(
        self,
        context: Context,
        trained: Trained,
        wrapped: nn.Module,
        mixture: Mixture,
        keeper: Keeper,
        team: Team,
        *,
        step: int,
    ) -> None:
        training = context.specification.plan.training
        self.step = step
        self.steps = steps(training)
        self._context = context
        self._trained = trained
        self._mixture = mixture
        self._keeper = keeper
        self._team = team
        self._training = training
        self._remedy = context.specification.remedy
        self._device = next(trained.model.parameters()).device
        self._stepper = Stepper(trained.adapter, wrapped, training, self._device, team)
        self._watching = Watching(context, trained.adapter)
        self._progress = Progress(self.steps)
        self._speed = Speed(step)
        self._lag = LAGS[self._device.type]
        self._judged: list[Judged] = []
        self._read_at = time.monotonic()
        self._rate = 0.0
        self._ending: Stopped | StageError | None = None

    def run(self) -> Summary:
        """Train to the last step. Saves the trunk on its step, checkpoints on the way and when stopped.

        Batches that the remedies in force leave out change nothing, and are not drawn. Raises Stopped or StageError
        (bad_sample, loss_spike, not_finite, time_limit), and OSError when the disk is full.
        """
        first, began = self.step, time.monotonic()
        trunk = trunk_step(self._training)
        self._trained.model.train()
        accumulate = self._training.engine.accumulate * self._remedy.accumulate
        parts = max(1, min(accumulate, self._mixture.batch // self._team.size))
        feed = Feed(
            self._mixture,
            self._trained.adapter,
            self._device,
            first + 1,
            self.steps,
            share=self._team.share,
            parts=parts,
            left_out=partial(is_left_out, self._remedy),
        )
        with feed:
            for step, batch, inputs in feed:
                if is_left_out(self._remedy, step):
                    self.step = step
                else:
                    self._advance(step, batch, inputs)
                self._read_if_due()
                if step == trunk:
                    # Before any checkpoint of this step or a later one: who finds such a one finds the trunk too.
                    self._read()
                    self._keeper.trunk(step)
                self._look()
        self._read()
        seconds = max(1e-9, time.monotonic() - began)
        return Summary(
            losses=self._progress.told(),
            replay_share=self.replay_share,
            tokens_per_second=(self.tokens(self.step) - self.tokens(first)) / seconds,
            skipped=self._trained.guard.skipped,
            left_out=left_out(self._remedy, self.steps),
            compiled=self._stepper.compiled,
            waiting=feed.waited / seconds,
            saving=self._keeper.seconds / seconds,
        )

    def tokens(self, step: int) -> int:
        """Return how many tokens the first `step` steps trained on."""
        return (step - left_out(self._remedy, step)) * self._mixture.batch * self._mixture.context

    @property
    def replay_share(self) -> float:
        """The share of all rows so far that were past."""
        return self._mixture.replayed(self.step) / (self.step * self._mixture.batch)

    def _advance(self, step: int, batch: Batch, inputs: list[object]) -> None:
        trained = self._trained
        trained.optimiser.zero_grad()
        rows = self._team.gather(self._stepper.backward(step, inputs, len(batch.rows)))
        norm = self._team.clip(trained.model, self._training.adamw.clip)
        judged = trained.guard.judge(rows.mean(), norm)
        self._rate = learning_rate(self._training, step)
        set_rate(trained.optimiser, self._rate)
        withhold(trained.optimiser, judged[2])
        trained.optimiser.step()
        if trained.average is not None:
            trained.average.update(step)
        self.step = step
        self._judged.append(Judged(step=step, values=torch.cat((judged, rows)), batch=batch))

    def _read_if_due(self) -> None:
        measured = self._watching.due(self.step)
        if measured or self._progress.due(self.step):
            self._read()
            self._point(measured=measured)
        elif len(self._judged) >= self._lag or (self._team.size == 1 and time.monotonic() - self._read_at >= SILENT):
            self._read()

    def _read(self) -> None:
        """Fetch what the device has judged, all of it at once; raises StageError (not_finite, loss_spike)."""
        self._read_at = time.monotonic()
        judged, self._judged = self._judged, []
        if not judged:
            return
        for each, values in zip(judged, torch.stack([each.values for each in judged]).tolist(), strict=True):
            loss, norm, withheld, halted, *rows = values
            if halted:
                documents = self._spoiled(each.batch, rows)
                message = (
                    f"Step {each.step}: the loss is {loss}, the gradient's norm {norm}{_naming(documents)}; no weight "
                    "was touched. Lower the peak learning rate, or look at the batch's data."
                )
                raise StageError("not_finite", message, step=each.step, documents=documents)
            if withheld:
                self._trained.guard.skipped += 1
                logger.warning("Step left out.", extra={"step": each.step, "loss": loss, "gradient_norm": norm})
            self._progress.note(each.batch.domains, rows, norm)
            lasting = self._trained.spike.note(each.step, loss)
            if lasting is not None:
                since, now, best = lasting
                message = (
                    f"Since step {since} the loss lies far above what it was: its median is {now:.6g} at step "
                    f"{each.step}, and was {best:.6g}. Lower the peak learning rate, or look at the data around it."
                )
                raise StageError("loss_spike", message, step=since)

    def _spoiled(self, batch: Batch, rows: list[float]) -> tuple[Document, ...]:
        """Return the documents of the rows whose loss is no number; none where that is all rows, or too many.

        Where every row is spoiled it is the model that is, and a window of text may hold many documents.
        """
        spoiled = [place for place, loss in zip(batch.places, rows, strict=True) if not math.isfinite(loss)]
        if len(spoiled) == len(rows):
            return ()
        found = dict.fromkeys(each for place in spoiled for each in self._mixture.documents(place))
        return tuple(found) if len(found) <= MOST_NAMED else ()

    def _point(self, *, measured: bool) -> None:
        values = {
            **self._progress.point(),
            "learning_rate": self._rate,
            "replay_share": self.replay_share,
            "tokens": float(self.tokens(self.step)),
        }
        if self._training.adamw.skip_sigma is not None:
            values["skipped"] = float(self._trained.guard.skipped)
        if measured:
            values |= self._measure()
        if self._team.rank == 0:
            self._context.curve(self.step, values)

    def _measure(self) -> dict[str, float]:
        """Measure what would be the candidate now; every process does, for their models may be in parts."""
        if self._trained.average is None:
            return self._watching.measure(self._trained.model, self._device, self._beat)
        with self._trained.average.shown():
            return self._watching.measure(self._trained.model, self._device, self._beat)

    def _look(self) -> None:
        """Tell how far it is; stop or save where it is time, which processes of a team agree about."""
        if self._team.size > 1 and self.step % self._lag and self.step != self.steps:
            return
        self._beat()
        if self._ending is not None:
            self._read()
            self._keeper.stop(self.step)
            raise self._ending
        if self._team.any(flag=self._team.rank == 0 and self._keeper.due):
            self._read()
            self._keeper.checkpoint(self.step)
        self._keeper.tell()

    def _beat(self) -> None:
        """Beat, as often in every process of a team: to stop is said in all of them at the same beat."""
        try:
            self._context.beat(self.step, self.steps, self._metrics())
        except (Stopped, StageError) as ending:
            self._ending = ending

    def _metrics(self) -> dict[str, float]:
        speed = self._speed.at(self.step)
        metrics = {
            "learning_rate": self._rate,
            "tokens_per_second": round(speed * self._mixture.batch * self._mixture.context, 1),
            "replay_share": round(self.replay_share, 4),
            **self._progress.told(),
        }
        if speed:
            metrics["seconds_left"] = round((self.steps - self.step) / speed)
        if self._trained.guard.skipped:
            metrics["skipped"] = float(self._trained.guard.skipped)
        return metrics


def _naming(documents: tuple[Document, ...]) -> str:
    named = ", ".join(f"document {each.number} of arrival {each.arrival}" for each in documents)
    return f", from {named}" if named else ""
