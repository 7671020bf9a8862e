"""Files of tensors: read against what a model has, joined, and an optimiser's state looked at."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from daemon.core.errors import StageError
from stages.training.models import legacy

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPTIMISER = "optimiser.safetensors"


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint's tensors into a model of just these; raises ValueError with what does not fit."""
    own = model.state_dict()
    if wrong := misfit(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()}, DTYPES):
        raise ValueError(wrong)
    model.load_state_dict(tensors)


def misfit(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dtypes: Sequence[torch.dtype]
) -> str | None:
    """Return why these are not tensors of these shapes and of one of the types; None when they are."""
    if odd := sorted(tensors.keys() ^ shapes.keys()):
        return f"it {'lacks' if odd[0] in shapes else 'has beyond the model'} {odd[0]}"
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[name]:
            return f"{name} has shape {tuple(tensor.shape)} instead of {shapes[name]}"
        if tensor.dtype not in dtypes:
            return f"{name} holds {tensor.dtype}, and {dtypes[0]} was expected"
    return None


def check_moments(folder: Path, model: nn.Module) -> None:
    """Raise StageError (bad_checkpoint) unless the optimiser's state in a checkpoint is of this model, and finite."""
    shapes = {
        f"{name}/{key}": () if key == "step" else tuple(weight.shape)
        for name, weight in model.named_parameters()
        for key in MOMENTS
    }
    try:
        tensors = load_file(folder / OPTIMISER)
    except (OSError, SafetensorError) as error:
        message = f"{folder / OPTIMISER} is no whole safetensors file ({error}): copy it again, or leave it out."
        raise StageError("bad_checkpoint", message) from error
    if legacy.is_old(folder):
        tensors = legacy.renamed(tensors)
    wrong = misfit(tensors, shapes, (torch.float32,))
    for name, tensor in tensors.items():
        if wrong is None and not torch.isfinite(tensor).all():
            wrong = f"{name} holds numbers that are not finite"
    if wrong is not None:
        message = f"{folder / OPTIMISER} does not belong to the model: {wrong}. Leave it out to begin with a new one."
        raise StageError("bad_checkpoint", message)


def merge(parts: Sequence[Path], target: Path, names: set[str]) -> None:
    """Write the tensors of several files into one, flushed; raises ValueError unless they are just these."""
    tensors: dict[str, Tensor] = {}
    for part in parts:
        with safe_open(part, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name in tensors:
                    raise ValueError(f"{name} is there twice")
                tensors[name] = file.get_tensor(name)
    if odd := sorted(tensors.keys() ^ names):
        raise ValueError(f"{odd[0]} is {'missing' if odd[0] in names else 'not named'}")
    save_file(tensors, target, metadata={"format": "pt"})
    with target.open("rb") as file:
        os.fsync(file.fileno())
