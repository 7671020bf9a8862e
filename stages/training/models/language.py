"""What language models share: windows of tokens in, the loss of each next token out."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daemon.core.errors import StageError
from stages.training.engine.device import precision
from stages.training.models.base import Row

ROWS = 16
LOGITS = 1 << 28
"""Most logits that are made at once where more than one window is measured: a GiB of them."""
IGNORED = -100


class Language:
    """Base of the adapters whose modules turn (B, T) tokens into (B, T, V) logits."""

    windows = True
    vocabulary = 1
    """How many tokens there are, for each of which a position has a logit."""

    def logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Return the logits of each position's next token: (B, T) integers → (B, T, V)."""
        return cast("Tensor", model(tokens))

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the weights by name; one that is shared, by the first of its names."""
        names = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
        return {name: tensor for name, tensor in model.state_dict().items() if name in names}

    def recompute(self, model: nn.Module) -> None:
        """Have activations computed again in the backward pass instead of kept."""
        model.recompute = True  # type: ignore[assignment]

    def collate(self, rows: Sequence[Row], device: torch.device) -> object:
        """Return (B, T + 1) tokens."""
        return torch.from_numpy(np.stack(rows).astype(np.int64)).to(device)

    def row_losses(self, model: nn.Module, inputs: object) -> Tensor:
        """Return each row's mean loss in nats per token: (B, T + 1) → (B,)."""
        tokens = cast("Tensor", inputs)
        logits = self.logits(model, tokens[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        return losses.view(tokens.shape[0], -1).mean(dim=1)

    def document_nats(
        self, model: nn.Module, documents: Sequence[Row], *, context: int, beat: Callable[[], None]
    ) -> npt.NDArray[np.float64]:
        """Return each document's loss in nats, read in windows of `context` tokens that do not overlap."""
        device = next(model.parameters()).device
        windows = [
            (owner, tokens[at : at + context + 1])
            for owner, tokens in enumerate(documents)
            for at in range(0, len(tokens) - 1, context)
        ]
        windows.sort(key=lambda window: len(window[1]))  # rows of like length waste little padding
        nats = np.zeros(len(documents))
        longest = len(windows[-1][1]) - 1 if windows else 1
        rows = max(1, min(ROWS, LOGITS // (longest * self.vocabulary)))
        model.eval()
        with torch.inference_mode():
            for first in range(0, len(windows), rows):
                group = windows[first : first + rows]
                inputs = np.zeros((len(group), len(group[-1][1]) - 1), dtype=np.int64)
                targets = np.full(inputs.shape, IGNORED, dtype=np.int64)
                for row, (_, tokens) in enumerate(group):
                    inputs[row, : len(tokens) - 1] = tokens[:-1]
                    targets[row, : len(tokens) - 1] = tokens[1:]
                with precision(device):
                    logits = self.logits(model, torch.from_numpy(inputs).to(device))
                goal = torch.from_numpy(targets).to(device).flatten()
                losses = F.cross_entropy(logits.flatten(0, 1).float(), goal, reduction="none", ignore_index=IGNORED)
                sums = losses.view(inputs.shape).double().sum(dim=1).cpu().numpy()
                np.add.at(nats, [owner for owner, _ in group], sums)
                beat()
        if not np.isfinite(nats).all():
            raise StageError("not_finite", "The model's loss on held-out documents is no finite number.")
        return nats
