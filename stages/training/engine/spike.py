"""A loss that rose and stays there: found among the numbers that are read anyway, so that no device is waited for."""

from collections import deque
from statistics import median

import torch
from torch import Tensor


class Spike:
    """Compares the median loss of the last `window` steps with the lowest such median so far.

    A median: a few steps far out are no lasting spike, and what they do is the guard's to judge. `factor` None: off.
    A loss of zero or less has no such ratio, and is never one.
    """

    def __init__(self, factor: float | None, window: int) -> None:
        self._factor = factor
        self._losses: deque[float] = deque(maxlen=window)
        self._best = float("inf")

    def note(self, step: int, loss: float) -> tuple[int, float, float] | None:
        """Take in a step's loss; where it is a lasting spike return since when, its median and the lowest."""
        if self._factor is None:
            return None
        self._losses.append(loss)
        if len(self._losses) < (self._losses.maxlen or 0):
            return None
        now = median(self._losses)
        bound = self._factor * self._best
        if 0 < self._best < float("inf") and now > bound:
            first = next(place for place, each in enumerate(self._losses) if each > bound)
            return step - len(self._losses) + 1 + first, now, self._best
        self._best = min(self._best, now)
        return None

    def dump(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps: the lowest median, and the last losses."""
        if self._factor is None:
            return {}
        return {"losses": torch.tensor([self._best, *self._losses], dtype=torch.float64)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `dump` gave; raises KeyError when it is missing."""
        if self._factor is not None:
            self._best, *losses = tensors["losses"].tolist()
            self._losses.extend(losses)
