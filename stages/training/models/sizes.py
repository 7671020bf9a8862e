"""Which sizes a configuration asks of the built-in decoder."""

import math

import msgspec

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.models.decoder import PRESETS, ModelConfig

PADDING = 8
"""Matrices whose sides are multiples of 8 are what a GPU's 16-bit units take without padding them each time."""
MOST = 1 << 24
MOST_LAYERS = 10_000


def choose(settings: ModelSettings, *, vocabulary: int, positions: int) -> ModelConfig:
    """Return the preset's shape with what the settings change, for a tokenizer of `vocabulary` tokens.

    The vocabulary is rounded up to a multiple of PADDING; nothing ever is one of the tokens beyond it. Raises
    StageError (user_error) for a preset that is not known and for sizes that do not fit each other.
    """
    if settings.preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise StageError("user_error", f"Model preset {settings.preset!r} is not known; known presets: {known}.")
    changes = msgspec.structs.asdict(settings.sizes)
    config = msgspec.structs.replace(
        PRESETS[settings.preset],
        vocabulary=PADDING * math.ceil(vocabulary / PADDING),
        positions=positions,
        **{name: value for name, value in changes.items() if value is not None},
    )
    if wrong := fault(config):
        raise StageError("user_error", f"The model's sizes do not fit: {wrong}. Change them below `model`.")
    return config


def fault(config: ModelConfig) -> str | None:
    """Return why there can be no such model, or None."""
    counts = {
        name: value
        for name, value in msgspec.structs.asdict(config).items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    for name, count in counts.items():
        most = MOST_LAYERS if name == "layers" else MOST
        if not 0 < count <= most:
            return f"{name} is {count}, not within 1 and {most:,}"
    for name, real in (("rope_base", config.rope_base), ("norm_epsilon", config.norm_epsilon)):
        if not (math.isfinite(real) and real > 0):
            return f"{name} is {real}, not a positive number"
    if config.width % config.heads:
        return f"width {config.width} is not a multiple of heads {config.heads}"
    if config.width // config.heads % 2:
        return f"width {config.width} over heads {config.heads} is odd, and rotary positions turn pairs of numbers"
    if config.heads % config.key_value_heads:
        return f"heads {config.heads} is not a multiple of key_value_heads {config.key_value_heads}"
    return None
