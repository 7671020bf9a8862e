"""A checkpoint as tests want one: now, of a model as it is, without a training."""

from pathlib import Path

import torch
from torch import nn

from stages.training.engine.checkpoint import OPTIMISER, Contents, write_checkpoint
from stages.training.engine.optimiser import dump_moments
from stages.training.files import MODEL
from stages.training.models.base import Adapter


def save_checkpoint(
    folder: Path,
    adapter: Adapter,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    *,
    step: int = 1,
    steps: int = 1,
    seed: int = 0,
    plan: str = "",
) -> str:
    """Write a checkpoint and return its manifest's sha256; raises OSError when the disk is full."""
    moments = {} if optimiser is None else {OPTIMISER: dump_moments(model, optimiser)}
    tensors = {MODEL: adapter.weights(model), **moments}
    small = adapter.files(model)
    return write_checkpoint(
        folder, Contents(small=small, tensors=tensors, step=step, steps=steps, seed=seed, plan=plan)
    )
