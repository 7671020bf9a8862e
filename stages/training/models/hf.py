"""Any causal language model of Hugging Face's: continued from the weights in a folder, kept as such a folder.

transformers is imported in the process of the stage alone: it takes seconds, and 200 MB. Nothing is ever fetched, no
pickle is read, and no code that lies beside the weights is run.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import torch
from torch import Tensor, nn

from daemon.core.errors import FailureClass, StageError
from daemon.core.plans import ModelSettings
from stages.training.data.encoding import Tokenizer
from stages.training.engine.memory import is_shortage
from stages.training.files import MODEL
from stages.training.models.checks import check_finite, check_tokenizer, check_vocabulary
from stages.training.models.language import Language

if TYPE_CHECKING:
    from types import ModuleType

CONFIG = "config.json"
INDEX = f"{MODEL}.index.json"
BESIDE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
"""What else may lie in such a folder, and is handed on as it is."""
DTYPE = {"dtype": "float32", "torch_dtype": "float32"}
logger = logging.getLogger("rewarm.stage")


class Hf(Language):
    """Continues what lies in the folder `settings.path`, on windows of `context` tokens."""

    def __init__(self, settings: ModelSettings, tokenizer: Tokenizer, context: int) -> None:
        self._path = Path(settings.path or "")
        self._tokenizer = tokenizer
        self.vocabulary = tokenizer.vocabulary
        self._context = context

    def make(self, seed: int) -> nn.Module:
        """Return the folder's model, whatever the seed; raises StageError (user_error) when it cannot be continued."""
        return self._read(self._path, "user_error")

    def load(self, folder: Path) -> nn.Module:
        """Return the model of a verified checkpoint.

        Raises StageError (bad_checkpoint), and (user_error) when it has another tokenizer than the pipeline.
        """
        return self._read(folder, "bad_checkpoint")

    def files(self, model: nn.Module) -> Mapping[str, bytes]:
        """Return the files that lay beside the weights; config.json says that they have 32 bits now."""
        return cast("Mapping[str, bytes]", model.beside)

    def logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Return the logits of each position's next token: (B, T) integers → (B, T, V)."""
        return cast("Tensor", model(input_ids=tokens, use_cache=False).logits)

    def recompute(self, model: nn.Module) -> None:
        """Have activations computed again in the backward pass; raises StageError (user_error) where that cannot be."""
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            cast("Any", enable)({"use_reentrant": False})
        except ValueError as error:
            raise StageError("user_error", f"{error} Set `recompute: false`.") from error

    def _read(self, folder: Path, failure: FailureClass) -> nn.Module:
        told = check_folder(folder, failure)
        check_tokenizer(folder, self._tokenizer)
        model = _load(folder, failure)
        check_finite(model, folder, failure)
        check_vocabulary(model.get_input_embeddings().num_embeddings, self._tokenizer, folder, failure)  # type: ignore[operator]
        positions = getattr(model.config, "max_position_embeddings", None)
        if isinstance(positions, int) and self._context > positions:
            message = (
                f"The pipeline's windows have {self._context} tokens, the model at {folder} was made for {positions}: "
                f"set `training: {{context: {positions}}}` or less."
            )
            raise StageError("user_error", message)
        there = {name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()}
        config = msgspec.json.format(msgspec.json.encode({**told, **DTYPE}))
        model.beside = {CONFIG: config, **there}  # type: ignore[assignment]
        return model


def check_folder(folder: Path, failure: FailureClass) -> dict[str, object]:
    """Return what config.json tells; raises StageError (`failure`) where there is no model that can be continued."""
    try:
        there = {path.name for path in folder.iterdir()}
        told = msgspec.json.decode((folder / CONFIG).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{folder} is no folder of a Hugging Face model ({error}): save one there with save_pretrained."
        raise StageError(failure, message) from error
    if not there & {MODEL, INDEX}:
        message = (
            f"{folder} has no {MODEL}: save the weights as safetensors (save_pretrained does); pickles such as "
            "pytorch_model.bin are not read, since reading one may run any code."
        )
        raise StageError(failure, message)
    if "quantization_config" in told:
        raise StageError(failure, f"The weights in {folder} are quantised: take those of 16 or 32 bits.")
    if "adapter_config.json" in there:
        raise StageError(failure, f"{folder} holds an adapter beside a model: merge it into the model first.")
    return told


def _load(folder: Path, failure: FailureClass) -> nn.Module:
    transformers = _transformers()
    # The bar is for a person who waits; the log of a stage is read later.
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # told below, by name
            output_loading_info=True,
        )
    except Exception as error:
        if is_shortage(error):
            raise
        first = str(error).strip().partition("\n")[0]
        message = (
            f"{folder} holds no causal language model that transformers {transformers.__version__} can load: "
            f"{type(error).__name__}: {first}"
        )
        raise StageError(failure, message) from error
    wrong = [f"lack {name}" for name in sorted(found["missing_keys"])]
    wrong += [f"hold {each[0]} of another shape" for each in sorted(found["mismatched_keys"])]
    if wrong:
        message = f"The weights in {folder} {wrong[0]} ({len(wrong)} such in all): copy the folder again, whole."
        raise StageError(failure, message)
    if left := sorted(found["unexpected_keys"]):
        logger.warning("Weights were left out.", extra={"folder": str(folder), "first": left[0], "count": len(left)})
    with torch.no_grad():
        for weight in model.parameters():
            # Read from the file's pages it may lie anywhere, and where it lies decides how sums are split.
            weight.data = weight.detach().clone(memory_format=torch.contiguous_format)
    return cast("nn.Module", model)


def _transformers() -> "ModuleType":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when it is imported
    try:
        import transformers
    except ImportError as error:
        message = f"A model of kind hf needs Hugging Face's transformers ({error}): pip install 'rewarm[hf]'."
        raise StageError("user_error", message) from error
    return transformers
