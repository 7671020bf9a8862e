"""What probe and evaluate share: held-out documents by domain, and models as the journal names them."""

from collections.abc import Iterable

import torch
from torch import nn

from daemon.core.plans import Checkpoint
from stages.base import Context
from stages.run_folder import Shard
from stages.training.checkpoint import verify
from stages.training.evaluation import Budget, Excerpts, choose
from stages.training.models.base import Adapter
from stages.training.shards import Part


def held_out(context: Context, shards: Iterable[Shard], budget: Budget) -> dict[str, Excerpts]:
    """Return what to measure of each domain; one whose arrivals held a single document has nothing held out."""
    parts: dict[str, list[Part]] = {}
    for shard in shards:
        part = Part(context.resolve(shard.manifest), "held_out")
        if len(part):
            parts.setdefault(shard.domain, []).append(part)
    return {domain: choose(each, budget) for domain, each in sorted(parts.items())}


def load_recorded(context: Context, adapter: Adapter, checkpoint: Checkpoint, device: torch.device) -> nn.Module:
    """Return the model that the journal names; raises StageError (bad_checkpoint) when it is another one."""
    folder = context.resolve(checkpoint.path)
    verify(folder, checkpoint.sha256)
    return adapter.load(folder).to(device)
