"""AdamW, its state by name, and where that is kept from numbers that are none."""

from typing import cast

import torch

# Every optimiser loads this on being made, in three seconds: a worker does it once, before it forks.
import torch._dynamo
from torch import Tensor, nn

from daemon.core.plans import Optimiser

KEYS = ("step", "exp_avg", "exp_avg_sq")


def make_optimiser(model: nn.Module, settings: Optimiser = Optimiser()) -> torch.optim.AdamW:  # noqa: B008 - frozen
    """Return the optimiser of a model: matrices decay, gains do not; the rate is set before each step.

    Fused: one pass over the weights, three to four times as fast as the loop over lists of tensors (one core, 1 to 14
    million parameters), and it knows how to leave a step out (`withhold`).
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def withhold(optimiser: torch.optim.Optimizer, bad: Tensor) -> None:
    """Make the next step change nothing, neither weights nor moments, where `bad` is 1 (a float, on the device).

    It is the switch that gradient scaling uses to leave out a step that overflowed; nobody waits for the device.
    """
    optimiser.found_inf = bad  # type: ignore[attr-defined]


def dump_moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state by parameter name: what `load_moments` takes."""
    tensors = {}
    for name, weight in model.named_parameters():
        for key, value in optimiser.state.get(weight, {}).items():
            tensors[f"{name}/{key}"] = value.detach()
    return tensors


def load_moments(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `dump_moments` gave; raises KeyError when state is missing, ValueError on another shape.

    A weight that never had a gradient has no state. Of one that lies in parts over processes it is parted alike.
    """
    found = 0
    for name, weight in model.named_parameters():
        if not weight.requires_grad or not any(f"{name}/{key}" in tensors for key in KEYS):
            continue
        state = {key: tensors[f"{name}/{key}"] for key in KEYS}
        if any(state[key].shape != weight.shape for key in KEYS[1:]):
            message = f"{name} has the shape {tuple(weight.shape)}, its state {tuple(state['exp_avg'].shape)}"
            raise ValueError(message)
        optimiser.state[weight] = {
            "step": state["step"].to(weight.device, copy=True),
            **{key: parted(state[key], weight) for key in KEYS[1:]},
        }
        found += 1
    if found * len(KEYS) != len(tensors) or not found:
        message = f"state of {len(tensors) // len(KEYS)} weights, of which {found} are in the model"
        raise KeyError(message)


def parted(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a whole tensor that lies as `like` does: on its device, and in its parts."""
    if not hasattr(like, "placements"):
        return value.to(like.device, copy=True)
    from torch.distributed.tensor import DTensor, distribute_tensor

    parts = cast("DTensor", like)
    return distribute_tensor(value.to(like.device), parts.device_mesh, parts.placements)
