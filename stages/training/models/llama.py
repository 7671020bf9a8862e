"""The built-in decoder as the engine sees it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.data.encoding import Tokenizer
from stages.training.files import MODEL
from stages.training.models import legacy
from stages.training.models.checks import check_finite, check_tokenizer, check_vocabulary
from stages.training.models.decoder import Decoder, ModelConfig, initialise
from stages.training.models.language import Language
from stages.training.models.layout import CONFIG, read_config, write_files
from stages.training.models.parts import fill
from stages.training.models.sizes import choose

HEAD = "lm_head.weight"
TABLE = "rotary_emb.inv_freq"


class Llama(Language):
    """Makes decoders of a preset's sizes for a tokenizer, to be trained on windows of `context` tokens."""

    def __init__(self, settings: ModelSettings, tokenizer: Tokenizer, context: int) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self.vocabulary = tokenizer.vocabulary
        self._context = context

    @property
    def config(self) -> ModelConfig:
        """The sizes of a model that is made from scratch; raises StageError (user_error)."""
        return choose(self._settings, vocabulary=self._tokenizer.vocabulary, positions=self._context)

    def make(self, seed: int) -> nn.Module:
        """Return a decoder with random weights; raises StageError (user_error) for sizes that there cannot be."""
        model = empty(self.config)
        initialise(model, seed)
        return model

    def load(self, folder: Path) -> nn.Module:
        """Return the decoder of a verified checkpoint.

        Raises StageError (bad_checkpoint), and (user_error) when it has another tokenizer than the pipeline.
        """
        config = _config(folder)
        model = empty(config)
        try:
            fill(model, own_names(load_file(folder / MODEL), config, folder))
        except (OSError, SafetensorError) as error:
            message = f"{folder / MODEL} is no whole safetensors file ({error}): restore it, or copy it again."
            raise StageError("bad_checkpoint", message) from error
        except ValueError as error:
            message = f"{folder / MODEL} is not the model that its {CONFIG} tells of: {error}."
            raise StageError("bad_checkpoint", message) from error
        check_finite(model, folder, "bad_checkpoint")
        check_tokenizer(folder, self._tokenizer)
        check_vocabulary(config.vocabulary, self._tokenizer, folder, "bad_checkpoint")
        return model

    def files(self, model: nn.Module) -> Mapping[str, bytes]:
        """Return the configuration and the tokenizer, with what transformers needs to find its way."""
        if not isinstance(model, Decoder):
            raise TypeError(f"a {type(model).__name__} is no decoder")
        positions = max(model.config.positions, self._context)
        return write_files(msgspec.structs.replace(model.config, positions=positions), self._tokenizer)


def empty(config: ModelConfig) -> Decoder:
    """Return a decoder whose weights are still to be written; drawing them twice would take seconds per billion."""
    with torch.device("meta"):
        model = Decoder(config)
    return model.to_empty(device="cpu")


def _config(folder: Path) -> ModelConfig:
    try:
        return read_config((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise StageError("bad_checkpoint", f"{folder / CONFIG} cannot be used: {error}.") from error


def own_names(tensors: dict[str, Tensor], config: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by the decoder's names, without those that only say again what is known.

    These are the head of a tied model, where it is the embedding, and tables of rotary positions, which transformers
    kept before version 4.32.
    """
    if legacy.is_old(folder):
        tensors = legacy.renamed(tensors)
    head, embedding = tensors.get(HEAD), tensors.get("model.embed_tokens.weight")
    if config.tied and head is not None and embedding is not None and torch.equal(head, embedding):
        tensors = {name: tensor for name, tensor in tensors.items() if name != HEAD}
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(TABLE)}
