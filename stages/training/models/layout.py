"""The built-in decoder's files beside its weights, as Hugging Face lays them out for a LlamaForCausalLM."""

from collections.abc import Mapping

import msgspec

from stages.training.data.encoding import Tokenizer
from stages.training.models import legacy
from stages.training.models.decoder import ModelConfig
from stages.training.models.sizes import fault

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
OTHERS = "Models of other kinds are continued by a pipeline with `model: {kind: hf, path: …}`"


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how a LlamaForCausalLM computes; the defaults are those of transformers."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    model_type: str = ""
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_parameters: dict[str, object] | None = None
    rope_scaling: dict[str, object] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    quantization_config: object = None


def read_config(data: bytes) -> ModelConfig:
    """Return the sizes that a config.json tells, of rewarm 0.1.0 too; raises ValueError with what is wrong with it."""
    if (old := legacy.config_of(data)) is not None:
        config = old
    else:
        try:
            told = msgspec.json.decode(data, type=_Told)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"it is no {CONFIG} of a LlamaForCausalLM ({error}). {OTHERS}") from error
        config = _expressed(told)
    if wrong := fault(config):
        raise ValueError(f"it tells of a model that there cannot be: {wrong}")
    return config


def _expressed(told: _Told) -> ModelConfig:
    rope = {**(told.rope_scaling or {}), **(told.rope_parameters or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = rope.get("rope_theta", told.rope_theta or 10_000.0)
    unlike = {
        f"its model_type is {told.model_type!r}, not 'llama'": told.model_type != "llama",
        f"its rotary positions are scaled ({kind})": kind != "default",
        "its rotary positions turn a part of each head": rope.get("partial_rotary_factor", 1.0) != 1.0,
        f"its activation is {told.hidden_act!r}, not 'silu'": told.hidden_act not in {"silu", "swish"},
        "its projections have biases": told.attention_bias or told.mlp_bias,
        "its weights are quantised": told.quantization_config is not None,
        f"its rope_theta is {base!r}": not isinstance(base, int | float),
        f"its head_dim is {told.head_dim}, not hidden_size over num_attention_heads": (
            told.head_dim not in {None, told.hidden_size / max(1, told.num_attention_heads)}
        ),
    }
    if reasons := [reason for reason, holds in unlike.items() if holds]:
        raise ValueError(f"the built-in decoder cannot be it: {', '.join(reasons)}. {OTHERS}")
    return ModelConfig(
        vocabulary=told.vocab_size,
        width=told.hidden_size,
        layers=told.num_hidden_layers,
        heads=told.num_attention_heads,
        key_value_heads=told.num_key_value_heads or told.num_attention_heads,
        hidden=told.intermediate_size,
        tied=told.tie_word_embeddings,
        positions=told.max_position_embeddings,
        rope_base=float(base) if isinstance(base, int | float) else 0.0,
        norm_epsilon=told.rms_norm_eps,
    )


def write_files(config: ModelConfig, tokenizer: Tokenizer) -> Mapping[str, bytes]:
    """Return what lies beside the weights: all that transformers' Auto classes need, and nothing more."""
    end = {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end}
    contents = {
        CONFIG: {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": config.vocabulary,
            "hidden_size": config.width,
            "intermediate_size": config.hidden,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.key_value_heads,
            "head_dim": config.width // config.heads,
            "hidden_act": "silu",
            "max_position_embeddings": config.positions,
            "rms_norm_eps": config.norm_epsilon,
            # Versions of transformers before 5 read the first of these, later ones the second.
            "rope_theta": config.rope_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
            "tie_word_embeddings": config.tied,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            **end,
            "pad_token_id": None,
            "torch_dtype": "float32",
            "dtype": "float32",
        },
        "generation_config.json": {**end, "pad_token_id": tokenizer.end},
        # Without it transformers takes the tokenizer class of Llama's models, which cuts text in its own way.
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _content(tokenizer),
            "eos_token": _content(tokenizer),
            "pad_token": _content(tokenizer),
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.positions,
        },
    }
    files = {name: msgspec.json.format(msgspec.json.encode(content)) for name, content in contents.items()}
    return {**files, TOKENIZER: tokenizer.json}


def _content(tokenizer: Tokenizer) -> str | None:
    """Return how the end token is written."""
    described = msgspec.json.decode(tokenizer.json)
    for added in described.get("added_tokens") or ():
        if added["id"] == tokenizer.end:
            return str(added["content"])
    words = described["model"].get("vocab") or {}
    if isinstance(words, dict):
        return next((word for word, number in words.items() if number == tokenizer.end), None)
    return str(words[tokenizer.end][0])  # a unigram model's words are a list of word and score
