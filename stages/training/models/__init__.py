"""The kinds of models; each is one adapter, and a line here."""

from daemon.core.errors import StageError
from stages.base import Context
from stages.training.data.tokenizers import tokenizer_of
from stages.training.models.base import Adapter

KINDS = ("llama", "hf", "module")


def adapter_of(context: Context) -> Adapter:
    """Return the adapter of the run's model; raises StageError (user_error) for a kind that is not known."""
    settings, training = context.specification.plan.model, context.specification.plan.training
    kind = settings.kind
    if kind == "llama":
        from stages.training.models.llama import Llama

        return Llama(settings, tokenizer_of(context), training.context)
    if kind == "hf":
        from stages.training.models.hf import Hf

        return Hf(settings, tokenizer_of(context), training.context)
    if kind == "module":
        from stages.training.models.module import Module

        return Module(settings)
    raise StageError("user_error", f"Model kind {kind!r} is not known; known kinds: {', '.join(KINDS)}.")
