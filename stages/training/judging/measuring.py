"""What probe and evaluate share: held-out documents by domain, and models as the journal names them."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from daemon.core.errors import StageError
from daemon.core.plans import Checkpoint
from stages.base import Context
from stages.run_folder import Shard
from stages.training.data.shards import Part
from stages.training.engine.checkpoint import verify
from stages.training.files import MODEL
from stages.training.judging.evaluation import Budget, Excerpts, choose, choose_examples
from stages.training.models.base import Adapter


def held_out(context: Context, shards: Iterable[Shard], budget: Budget) -> dict[str, Excerpts]:
    """Return what to measure of each domain; one whose arrivals held a single document has nothing held out.

    Nor has one of whose held-out documents the tokenizer knows nothing: no token is a byte of theirs.
    """
    parts: dict[str, list[Part]] = {}
    for shard in shards:
        part = Part(context.resolve(shard.manifest), "held_out")
        if len(part):
            parts.setdefault(shard.domain, []).append(part)
    pick = choose_examples if context.specification.plan.model.kind == "module" else choose
    found = {domain: pick(each, budget) for domain, each in sorted(parts.items())}
    return {domain: excerpts for domain, excerpts in found.items() if excerpts.tokens}


def load_recorded(
    context: Context, adapter: Adapter, checkpoint: Checkpoint, device: torch.device, *, candidate: bool = False
) -> nn.Module:
    """Return the model that the journal names; raises StageError (bad_checkpoint) when it is another one.

    A `candidate` is refused as what it is, one whose training went wrong (not_finite), when a weight is no finite
    number: whether or not the text that is measured meets it.
    """
    folder = context.resolve(checkpoint.path)
    verify(folder, checkpoint.sha256)
    if candidate:
        check_finite(folder / MODEL)
    return adapter.load(folder).to(device)


def check_finite(weights: Path) -> None:
    """Raise StageError (not_finite) when a number in a safetensors file is not finite; one tensor is read at a time."""
    with safe_open(weights, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            tensor = file.get_tensor(name)
            broken = int((~torch.isfinite(tensor)).sum())
            if broken:
                message = (
                    f"{broken:,} of the {tensor.numel():,} numbers of {name} in {weights} are not finite, so this "
                    "candidate cannot become the champion: lower the peak learning rate, and look at the run's curves."
                )
                raise StageError("not_finite", message)
