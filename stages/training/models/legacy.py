"""Checkpoints of rewarm 0.1.0, whose config.json and names of tensors were its own."""

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from stages.training.models.decoder import ModelConfig

T = TypeVar("T")
NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
NAME = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<part>[a-z_.]+)\.weight(?P<moment>/\w+)?")


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    rope_base: float
    norm_epsilon: float


def config_of(data: bytes) -> ModelConfig | None:
    """Return the sizes that a config.json of 0.1.0 tells; None when it is none."""
    try:
        told = msgspec.json.decode(data, type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    sizes = msgspec.structs.asdict(told)
    return ModelConfig(**sizes) if sizes.pop("kind") == "llama" else None


def renamed(tensors: dict[str, T]) -> dict[str, T]:
    """Return the weights, or the optimiser's state, of 0.1.0 by today's names; today's own are left as they are."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    found = NAME.fullmatch(name)
    if found is None or found["part"] not in NAMES:
        return name
    layer = f"model.layers.{found['layer']}." if found["layer"] else ""
    return f"{layer}{NAMES[found['part']]}.weight{found['moment'] or ''}"


def is_old(folder: Path) -> bool:
    """Return whether a checkpoint is of 0.1.0."""
    try:
        return config_of((folder / "config.json").read_bytes()) is not None
    except OSError:
        return False
