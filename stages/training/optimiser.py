"""AdamW with the settings of Ibrahim et al. 2024 (arXiv 2403.08763): betas 0.9/0.95, decay 0.1, clip 1.0."""

import torch

# Every optimiser loads this on being made, in three seconds: a worker does it once, before it forks.
import torch._dynamo
from torch import Tensor, nn

BETAS = (0.9, 0.95)
DECAY = 0.1
CLIP = 1.0
STEP = "step"


def make_optimiser(model: nn.Module) -> torch.optim.AdamW:
    """Return the optimiser of a model: matrices decay, gains do not; the rate is set before each step."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    gains = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def dump_moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state by parameter name: what `load_moments` takes."""
    tensors = {}
    for name, weight in model.named_parameters():
        for key, value in optimiser.state.get(weight, {}).items():
            tensors[f"{name}/{key}"] = value.detach()
    return tensors


def load_moments(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `dump_moments` gave; raises KeyError when a parameter's state is missing."""
    for name, weight in model.named_parameters():
        optimiser.state[weight] = {
            key: tensors[f"{name}/{key}"].to(weight.device, copy=True) for key in ("step", "exp_avg", "exp_avg_sq")
        }
