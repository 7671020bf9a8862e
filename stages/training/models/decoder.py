"""A Llama-style decoder: RMSNorm, rotary positions, SwiGLU, grouped queries, embeddings tied or not.

Architecture as in Touvron et al. 2023 (arXiv 2302.13971); grouped queries as in arXiv 2305.13245. Modules are named
as in Hugging Face's LlamaForCausalLM, so that a checkpoint's names are theirs.
Shapes: B rows, T positions, D width, H heads of size K, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Self, cast

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a model; `positions` is the longest window that it is told to have been trained on."""

    vocabulary: int = 264
    width: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    tied: bool = True
    positions: int = 2048
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5


PRESETS: dict[str, ModelConfig] = {
    "micro": ModelConfig(width=32, layers=2, heads=2, key_value_heads=1, hidden=96),
    "nano": ModelConfig(width=128, layers=4, heads=4, key_value_heads=4, hidden=384),
    "small": ModelConfig(width=384, layers=8, heads=6, key_value_heads=6, hidden=1024),
    "medium": ModelConfig(width=768, layers=12, heads=12, key_value_heads=12, hidden=2048),
    "large": ModelConfig(width=1024, layers=28, heads=16, key_value_heads=8, hidden=3072),
    "xl": ModelConfig(width=2048, layers=16, heads=32, key_value_heads=8, hidden=8192),
}
"""Parameters, of bytes: micro 33 thousand (for tests); nano 0.9, small 14, medium 85, large 353 and xl 974 million."""

FORESEEN = 8192
"""Most positions whose rotary angles are kept before a longer window is met; a model may claim 131,072."""


class Attention(nn.Module):
    """Causal self-attention with rotary positions (arXiv 2104.09864)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.key_value_heads = config.key_value_heads
        self.size = config.width // config.heads
        grouped = self.size * config.key_value_heads
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, grouped, bias=False)
        self.v_proj = nn.Linear(config.width, grouped, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return what the positions gather: (B, T, D) → (B, T, D)."""
        B, T, D = x.shape
        query = rotate(self.q_proj(x).view(B, T, self.heads, self.size).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(x).view(B, T, self.key_value_heads, self.size).transpose(1, 2), cos, sin)
        value = self.v_proj(x).view(B, T, self.key_value_heads, self.size).transpose(1, 2)
        grouped = self.key_value_heads != self.heads
        if grouped and query.is_cuda and query.dtype == torch.float32:
            # Of CUDA's kernels only those for 16 bits know groups. On a processor they spare 8 to 15 % of attention.
            key = key.repeat_interleave(self.heads // self.key_value_heads, dim=1)
            value = value.repeat_interleave(self.heads // self.key_value_heads, dim=1)
            grouped = False
        gathered = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        return cast("Tensor", self.o_proj(gathered.transpose(1, 2).reshape(B, T, D)))


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.width, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position: (B, T, D) → (B, T, D)."""
        return cast("Tensor", self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class Block(nn.Module):
    """One layer: attention, then the feed-forward part, each normalised first and added to its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer: (B, T, D) → (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return cast("Tensor", x + self.mlp(self.post_attention_layernorm(x)))


class Body(nn.Module):
    """All but the head; it only holds the parts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)


class Decoder(nn.Module):
    """The whole model; its weights are undefined until `initialise` or `load_state_dict`.

    With `recompute`, a block keeps its input alone for the backward pass, and computes the rest again.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.model = Body(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        # Neither parameters nor buffers: they follow from the configuration, and keep 32 bits whatever the weights do.
        self._foreseen = min(config.positions, FORESEEN)
        self._tables = rotation(config, self._foreseen, self.model.embed_tokens.weight.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each position's next token: (B, T) integers → (B, T, V)."""
        x = self.model.embed_tokens(tokens)
        cos, sin = self._rotation(tokens.shape[1], x.device)
        again = self.recompute and self.training and torch.is_grad_enabled()
        for block in self.model.layers:
            if again:
                x = checkpoint(block, x, cos, sin, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, cos, sin)
        x = self.model.norm(x)
        return F.linear(x, self.model.embed_tokens.weight) if self.config.tied else cast("Tensor", self.lm_head(x))

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        cos, sin = self._tables
        if length > len(cos) or device != cos.device:
            with torch.inference_mode(mode=False):  # what is made in that mode cannot be used in training later
                self._tables = cos, sin = rotation(self.config, max(length, self._foreseen), device)
        return cos[:length], sin[:length]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own
        # What `to` and `to_empty` go through: tables made here spare a compiled forward pass from making them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._rotation(1, self.model.embed_tokens.weight.device)
        return self


def rotation(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the rotary angles, each (T, K/2)."""
    size = config.width // config.heads
    # In transformers' order of operations: the same last bits.
    exponents = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    frequencies = 1.0 / config.rope_base**exponents
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
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= depth
            if name.endswith(("embed_tokens.weight", "lm_head.weight")):
                deviation = EMBEDDING_DEVIATION
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


EMBEDDING_DEVIATION = 0.02
"""Small, so that the head begins with almost even odds."""
