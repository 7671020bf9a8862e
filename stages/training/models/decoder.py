"""A small Llama-style decoder on byte tokens: RMSNorm, RoPE, SwiGLU, grouped queries, tied embeddings.

Architecture as in Touvron et al. 2023 (arXiv 2302.13971); grouped queries as in arXiv 2305.13245.
Shapes: B rows, T positions, D width, H heads of size K, V vocabulary.
"""

import math
from typing import cast

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daemon.core.errors import StageError
from stages.training.shards import VOCABULARY


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a model; stored beside its weights as config.json."""

    kind: str = "llama"
    vocabulary: int = 8 * math.ceil(VOCABULARY / 8)
    width: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5


PRESETS: dict[str, ModelConfig] = {
    "micro": ModelConfig(width=32, layers=2, heads=2, key_value_heads=1, hidden=96),
    "nano": ModelConfig(width=128, layers=4, heads=4, key_value_heads=4, hidden=384),
    "small": ModelConfig(width=384, layers=8, heads=6, key_value_heads=6, hidden=1024),
    "medium": ModelConfig(width=768, layers=12, heads=12, key_value_heads=12, hidden=2048),
}
"""Parameters: micro 30 thousand, nano 0.9, small 14 and medium 85 million."""


def preset(kind: str, name: str) -> ModelConfig:
    """Return a preset's shape; raises StageError (user_error) when kind or name is not known."""
    if kind != "llama":
        message = f"Model kind {kind!r} is not known; known kinds: llama."
        raise StageError("user_error", message)
    if name not in PRESETS:
        message = f"Model preset {name!r} is not known; known presets: {', '.join(PRESETS)}."
        raise StageError("user_error", message)
    return PRESETS[name]


class Attention(nn.Module):
    """Causal self-attention with rotary positions (arXiv 2104.09864)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.key_value_heads = config.key_value_heads
        self.size = config.width // config.heads
        grouped = self.size * config.key_value_heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, grouped, bias=False)
        self.value = nn.Linear(config.width, grouped, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return what the positions gather: (B, T, D) → (B, T, D)."""
        B, T, D = x.shape
        query = rotate(self.query(x).view(B, T, self.heads, self.size).transpose(1, 2), cos, sin)
        key = rotate(self.key(x).view(B, T, self.key_value_heads, self.size).transpose(1, 2), cos, sin)
        value = self.value(x).view(B, T, self.key_value_heads, self.size).transpose(1, 2)
        if self.key_value_heads != self.heads:
            key = key.repeat_interleave(self.heads // self.key_value_heads, dim=1)
            value = value.repeat_interleave(self.heads // self.key_value_heads, dim=1)
        gathered = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return cast("Tensor", self.output(gathered.transpose(1, 2).reshape(B, T, D)))


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position: (B, T, D) → (B, T, D)."""
        return cast("Tensor", self.down(F.silu(self.gate(x)) * self.up(x)))


class Block(nn.Module):
    """One layer: attention, then the feed-forward part, each normalised first and added to its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer: (B, T, D) → (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return cast("Tensor", x + self.feed_forward(self.feed_forward_norm(x)))


class Decoder(nn.Module):
    """The whole model; its weights are undefined until `initialise` or `load_state_dict`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each position's next token: (B, T) integers → (B, T, V)."""
        x = self.embedding(tokens)
        cos, sin = rotation(self.config, tokens.shape[1], x.device)
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.embedding.weight)


def rotation(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the rotary angles, each (T, K/2)."""
    half = config.width // config.heads // 2
    frequencies = config.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head against each other: (B, H, T, K) → (B, H, T, K)."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)


def initialise(model: Decoder, seed: int) -> None:
    """Draw all weights, in a fixed order from one seed.

    Normal with deviation 1/sqrt(fan-in); what writes into the residual stream is scaled down by
    sqrt(2 layers), so that its variance does not grow with depth (GPT-2, Radford et al. 2019, section 2.3).
    """
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * model.config.layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
                continue
            deviation = 1 / math.sqrt(weight.shape[1])
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                deviation /= depth
            if name.startswith("embedding."):
                deviation = EMBEDDING_DEVIATION
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


EMBEDDING_DEVIATION = 0.02
"""Small, so that the tied head begins with almost even odds."""
