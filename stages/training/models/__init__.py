"""The kinds of models; each is one adapter, and a line here."""

from daemon.core.errors import StageError
from stages.base import Context
from stages.training.models.base import Adapter

KINDS = ("llama",)


def adapter_of(context: Context) -> Adapter:
    """Return the adapter of the run's model; raises StageError (user_error) for a kind that is not known."""
    kind = context.specification.plan.model.kind
    if kind == "llama":
        from stages.training.models.llama import Llama

        return Llama(context.specification.plan.model)
    raise StageError("user_error", f"Model kind {kind!r} is not known; known kinds: {', '.join(KINDS)}.")
