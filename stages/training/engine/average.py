"""An exponential moving average of the weights: what the candidate is made of, where the plan asks for it."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stages.training.engine.optimiser import parted


class Average:
    """The average, one tensor beside every weight that is trained: it costs as much memory as they do.

    average ← decay x average + (1 - decay) x weight after every step; at step t of a run the decay is at most
    (1 + t) / (10 + t), so that a short run's average is not one of its first weights (as in TensorFlow's
    ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        self._means = {name: weight.clone() for name, weight in self._weights.items()}

    def update(self, step: int) -> None:
        """Take the weights after `step` (1, 2, …) in."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(map(_local, self._means.values())), list(map(_local, self._weights.values())), share)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average in the weights' place for the block; afterwards they are as before, bit by bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, weight in self._weights.items():
            mean = self._means[name]
            before = weight.clone()
            weight.copy_(mean)
            mean.copy_(before)

    def dump(self) -> dict[str, Tensor]:
        """Return the average by parameter name."""
        return dict(self._means)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `dump` gave; raises KeyError when one is missing, RuntimeError on another shape."""
        for name, mean in self._means.items():
            mean.copy_(parted(tensors[name], mean))


def _local(tensor: Tensor) -> Tensor:
    """Return what of a tensor lies in this process: an average of parts is a part of the average."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local
