"""The built-in decoder as the engine sees it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.files import MODEL
from stages.training.models.decoder import Decoder, ModelConfig, initialise, preset
from stages.training.models.language import Language
from stages.training.shards import END, VOCABULARY

TOKENIZER = msgspec.json.format(
    msgspec.json.encode({"kind": "bytes", "encoding": "utf-8", "vocabulary": VOCABULARY, "end_of_document": END})
)


class Llama(Language):
    """Makes decoders of a preset's sizes."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings

    def make(self, seed: int) -> nn.Module:
        """Return a decoder with random weights; raises StageError (user_error) for a preset that is not known."""
        model = Decoder(preset(self._settings.kind, self._settings.preset))
        initialise(model, seed)
        return model

    def load(self, folder: Path) -> nn.Module:
        """Return the decoder of a verified checkpoint; raises StageError (bad_checkpoint)."""
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=ModelConfig)
            model = Decoder(config)
            model.load_state_dict(load_file(folder / MODEL))
        except (OSError, msgspec.MsgspecError, SafetensorError, RuntimeError) as error:
            message = f"The model at {folder} cannot be loaded ({error})."
            raise StageError("bad_checkpoint", message) from error
        return model

    def files(self, model: nn.Module) -> Mapping[str, bytes]:
        """Return the configuration and the tokenizer."""
        if not isinstance(model, Decoder):
            raise TypeError(f"a {type(model).__name__} is no decoder")
        return {"config.json": msgspec.json.format(msgspec.json.encode(model.config)), "tokenizer.json": TOKENIZER}
