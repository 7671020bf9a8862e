"""Teams of several processes: replicas of the whole model (DDP), or shards of it (FSDP2).

Zhao et al. 2023 (arXiv 2304.11277) for sharding, Li et al. 2020 (arXiv 2006.15704) for replicas. Each rank takes an
equal part of a batch, so that the mean of the ranks' mean gradients is the gradient of the whole batch's mean.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from daemon.core.errors import StageError
from daemon.core.plans import Engine

T = TypeVar("T")


class Group:
    """What both kinds share; the process group has to be there."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a batch; raises StageError (user_error) when there are no equal parts."""
        each, left = divmod(len(rows), self.size)
        if left:
            message = f"A batch of {len(rows)} rows has no {self.size} equal parts: make it a multiple of `processes`."
            raise StageError("user_error", message)
        return rows[self.rank * each : (self.rank + 1) * each]

    def gather(self, values: Tensor) -> Tensor:
        """Return every process's values, in order of rank: (n,) → (n x size,)."""
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def any(self, *, flag: bool) -> bool:
        """Return whether it is so in any process."""
        return bool(self.agree(int(flag)))

    def agree(self, word: int) -> int:
        """Return the largest of the processes' numbers; on the processor, so that no device has to wait."""
        words = torch.tensor([word], dtype=torch.int64)
        dist.all_reduce(words, dist.ReduceOp.MAX)
        return int(words.item())

    def clip(self, model: nn.Module, norm: float) -> Tensor:
        """Scale the gradients down to a total norm and return what it was, over all processes."""
        total = nn.utils.clip_grad_norm_(model.parameters(), norm)
        return total.full_tensor() if isinstance(total, DTensor) else total

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors whole; every process asks, the leader has them, on the processor."""
        found = {}
        for name, tensor in tensors.items():
            value = tensor.detach()
            if isinstance(value, DTensor):
                value = value.full_tensor()  # each process helps to make it whole, and lets go of it at once
                value = value.cpu() if self.rank == 0 else value
            if self.rank == 0:
                found[name] = value
        return found


class Replicas(Group):
    """Every process has the whole model."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over the processes while they are computed.

        A weight may go unused (an expert that no token chose). As long as that is looked for, buckets also stay as
        they were first made: otherwise their order after the first step, and with it the order in which three or more
        processes are summed, would depend on where a training was resumed.
        """
        return DistributedDataParallel(model, gradient_as_bucket_view=True, find_unused_parameters=True)

    @contextlib.contextmanager
    def part(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Compute a part of a batch in the block: only after the last one are gradients averaged."""
        with contextlib.nullcontext() if last else cast("DistributedDataParallel", model).no_sync():
            yield


class Shards(Group):
    """Every process has a part of each weight, and the whole of a block's only while it computes with it."""

    def __init__(self, *, half: bool) -> None:
        super().__init__()
        self._half = half

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the same model, its weights in parts: block by block, then what is left."""
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (self.size,))
        # Products in bfloat16, sums of gradients in float32. Inputs are not cast: rotary angles need their digits.
        policy = (
            MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
            if self._half
            else MixedPrecisionPolicy()
        )
        for block in blocks(model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        # What is left would stay whole after a forward pass: after a measurement of averaged weights, the next step
        # would be computed with the averages.
        return cast("nn.Module", fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True))

    @contextlib.contextmanager
    def part(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Compute a part of a batch in the block: only after the last one are gradients averaged."""
        cast("FSDPModule", model).set_requires_gradient_sync(last)
        yield


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return what a model repeats: the members of its outermost lists of modules, that have weights."""
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            found += [each for each in child if next(each.parameters(), None) is not None]
        else:
            found += blocks(child)
    return found


def group(engine: Engine) -> Replicas | Shards:
    """Return the team that the plan names; bfloat16 as the engine does it: where asked for, or by itself on CUDA."""
    if engine.sharding == "ddp":
        return Replicas()
    half = engine.precision == "bfloat16" or (engine.precision == "auto" and torch.cuda.is_available())
    return Shards(half=half)
