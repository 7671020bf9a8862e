"""One step's gradients: the batch in parts, in the wanted precision, compiled where that can be."""

import logging
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from daemon.core.plans import Training
from stages.training.engine.device import precision, seed_step
from stages.training.engine.memory import is_shortage
from stages.training.engine.team import Team
from stages.training.models.base import Adapter

Losses = Callable[[nn.Module, object], Tensor]
logger = logging.getLogger("rewarm.stage")


class Stepper:
    """Computes the gradients of a batch; `compiled` tells whether a compiled function does it.

    What a process of a team draws at random (dropout) is its own.
    """

    def __init__(
        self, adapter: Adapter, model: nn.Module, training: Training, device: torch.device, team: Team
    ) -> None:
        self.compiled = training.engine.compile
        self._adapter = adapter
        self._model = model
        self._training = training
        self._device = device
        self._team = team
        self._proven = not self.compiled
        self._losses = self._compile() if self.compiled else adapter.row_losses

    def backward(self, step: int, parts: Sequence[object], rows: int) -> Tensor:
        """Add the gradients of the mean loss over `rows` rows, given in parts; returns each row's loss, (rows,).

        In parts it is the same mean, to rounding: each adds its rows' sum over the number of all rows.
        """
        if self._proven:
            return self._backward(step, parts, rows)
        try:
            losses = self._backward(step, parts, rows)
        except Exception as error:
            if is_shortage(error):
                raise
            # No compiler, or a model that it cannot take: it shows in the first step, before anything was changed.
            logger.warning(
                "The model cannot be compiled; the training goes on without.",
                extra={"error": f"{type(error).__name__}: {error}"[:1000]},
            )
            self.compiled, self._losses = False, self._adapter.row_losses
            self._model.zero_grad()
            losses = self._backward(step, parts, rows)
        self._proven = True
        return losses

    def _backward(self, step: int, parts: Sequence[object], rows: int) -> Tensor:
        seed_step(self._device, self._training.seed, step, self._team.rank)
        losses = []
        for number, part in enumerate(parts, start=1):
            with self._team.part(self._model, last=number == len(parts)):
                with precision(self._device, self._training.engine.precision):
                    each = self._losses(self._model, part)
                (each.sum() / rows).backward()  # type: ignore[no-untyped-call]
            losses.append(each.detach())
        return torch.cat(losses) if len(losses) > 1 else losses[0]

    def _compile(self) -> Losses:
        try:
            return cast("Losses", torch.compile(self._adapter.row_losses))
        except RuntimeError as error:
            logger.warning("Nothing can be compiled here; the training goes on without.", extra={"error": str(error)})
            self.compiled, self._proven = False, True
            return self._adapter.row_losses
