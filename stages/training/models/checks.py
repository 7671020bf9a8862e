"""What is asked of every language model that is loaded, whatever kind it is of."""

from pathlib import Path

import torch
from torch import nn

from daemon.core.errors import FailureClass, StageError
from stages.training.data.encoding import Tokenizer
from stages.training.data.tokenizers import read_tokenizer

TOKENIZER = "tokenizer.json"


def check_finite(model: nn.Module, folder: Path, failure: FailureClass) -> None:
    """Raise StageError (`failure`) when a weight is no finite number; reads each once, and makes no copy."""
    for name, weight in model.named_parameters():
        if weight.numel() and not all(map(torch.isfinite, torch.aminmax(weight.detach()))):
            message = f"The model at {folder} is spoiled, {name} holds numbers that are not finite: take an older one."
            raise StageError(failure, message)


def check_vocabulary(vocabulary: int, tokenizer: Tokenizer, folder: Path, failure: FailureClass) -> None:
    """Raise StageError (`failure`) when the tokenizer has tokens for which the model has no numbers."""
    if tokenizer.vocabulary > vocabulary:
        message = (
            f"The tokenizer has {tokenizer.vocabulary:,} tokens, the model at {folder} numbers for {vocabulary:,}: "
            "a model is continued with the tokenizer that it was trained with."
        )
        raise StageError(failure, message)


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise StageError (user_error) unless the tokenizer that lies beside a model is this one."""
    other = read_tokenizer(folder / TOKENIZER)
    if (other.sha256, other.end) != (tokenizer.sha256, tokenizer.end):
        message = (
            f"{folder / TOKENIZER} is another tokenizer than the pipeline's: its text would be other numbers than "
            "those that the model was trained on. Give the pipeline the model's own: a llama pipeline by "
            "`tokenizer: {kind: file, path: …/tokenizer.json}` below `model`, one of kind hf by the folder in `path`."
        )
        raise StageError("user_error", message)
