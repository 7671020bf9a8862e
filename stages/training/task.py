"""What a model of kind `module` is to rewarm: the value that its factory returns.

A factory is a function of no arguments in a package of the user's own; this module is all that it imports of rewarm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

Inputs = TypeVar("Inputs")
Record = Mapping[str, Any]
"""One example: an object of JSONL, or a row of Parquet, as it arrived."""


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Inputs]):
    """A model and how it learns.

    `model` has the weights that a training from scratch begins with; torch, numpy and random are seeded around the
    factory. What is kept of it is its `state_dict`.

    `collate` turns some records into tensors on the processor: a tensor, or a tuple, list or dict of them, which
    are moved to the model's device. It is called in a thread of its own, ahead of the step, and draws no random
    numbers. What is random (dropout, noise on the inputs) belongs into the model or into `losses` and is drawn by
    torch, whose generator is set for every step: a run that was killed and goes on draws what it would have drawn.

    `losses` returns each record's loss, (records,), through which gradients flow. It calls the module that it is
    given: in a training of several processes that is a wrapper of `model`. Measured in evaluation mode, it is what
    probe and evaluate compare.
    """

    model: nn.Module
    collate: Callable[[Sequence[Record]], Inputs]
    losses: Callable[[nn.Module, Inputs], Tensor]
