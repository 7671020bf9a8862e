"""The processes that train one model together: what the loop asks of them, and the usual case of one alone."""

import contextlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Team(Protocol):
    """Processes that share every batch. Rank 0 is the leader: it alone writes, tells and saves."""

    rank: int
    size: int

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model as it is trained: its gradients become those of the whole batch."""

    def part(self, model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Compute a part of a batch in the block, with the wrapped model: only the last part's gradients are shared."""

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a batch: as many rows as every other's, in order of rank."""

    def gather(self, values: Tensor) -> Tensor:
        """Return every process's values, in order of rank: (n,) → (n x size,)."""

    def any(self, *, flag: bool) -> bool:
        """Return whether it is so in any process: all stop together."""

    def clip(self, model: nn.Module, norm: float) -> Tensor:
        """Scale the gradients down to a total norm and return what it was, over all processes."""

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors whole, wherever their parts lie; every process asks, the leader gets them."""


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model itself."""
        return model

    def part(self, model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Compute a part of a batch in the block: there is nobody to share gradients with."""
        return contextlib.nullcontext()

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return all rows."""
        return rows

    def gather(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def any(self, *, flag: bool) -> bool:
        """Return the flag."""
        return flag

    def clip(self, model: nn.Module, norm: float) -> Tensor:
        """Scale the gradients down to a total norm and return what it was."""
        return torch.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors."""
        return tensors
