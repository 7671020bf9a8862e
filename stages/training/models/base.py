"""How the engine sees a model, whatever kind it is of: how one is made, kept, fed and measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Row = npt.NDArray[np.integer]
"""What a shard gives: a window of tokens with the one before the first, or (`windows` False) a whole example."""


class Adapter(Protocol):
    """A kind of model. Its modules have random or given weights after `make`, those of a folder after `load`."""

    windows: bool
    """Whether rows are windows of `context` + 1 tokens; else each is one whole document, an example."""

    def make(self, seed: int) -> nn.Module:
        """Return the model that a training from scratch begins with; the same for the same seed.

        Raises StageError (user_error) when the configuration does not give one.
        """

    def load(self, folder: Path) -> nn.Module:
        """Return the model of a verified checkpoint, on the processor; raises StageError (bad_checkpoint)."""

    def files(self, model: nn.Module) -> Mapping[str, bytes]:
        """Return what lies beside the weights in a checkpoint: config.json, tokenizer.json, whatever reads them."""

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what model.safetensors holds, by name; shared tensors once."""

    def recompute(self, model: nn.Module) -> None:
        """Have activations computed again in the backward pass instead of kept; before the model is wrapped.

        Raises StageError (user_error) for a model that has no way to.
        """

    def collate(self, rows: Sequence[Row], device: torch.device) -> object:
        """Return the rows as `row_losses` takes them."""

    def row_losses(self, model: nn.Module, inputs: object) -> Tensor:
        """Return each row's mean loss, in nats per token or the model's own, (rows,); gradients flow through it."""

    def document_nats(
        self, model: nn.Module, documents: Sequence[Row], *, context: int, beat: Callable[[], None]
    ) -> npt.NDArray[np.float64]:
        """Return each document's whole loss; calls `beat` after every batch. Raises StageError (not_finite)."""
