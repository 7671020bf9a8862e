"""Held-out documents measured on the way: little of them, often, and without a trace in what is learned."""

from collections.abc import Callable

import torch
from torch import nn

from daemon.core.plans import Training, steps
from stages.base import Context
from stages.training.engine.device import precision
from stages.training.judging.evaluation import Budget
from stages.training.judging.measuring import held_out
from stages.training.models.base import Adapter

BUDGET = Budget(documents=32, bytes=32 * 1024, examples=256)


class Watching:
    """Measures the model at even distances, the last time after the last step."""

    def __init__(self, context: Context, adapter: Adapter) -> None:
        specification = context.specification
        training = specification.plan.training
        self._adapter = adapter
        self._context = training.context
        self._precision = training.engine.precision
        self._steps = evaluation_steps(training)
        shards = (*specification.new, *specification.past)
        self._domains = held_out(context, shards, BUDGET) if self._steps else {}

    def due(self, step: int) -> bool:
        """Return whether the model is measured after this step."""
        return step in self._steps

    def measure(self, model: nn.Module, device: torch.device, beat: Callable[[], None]) -> dict[str, float]:
        """Return eval_<domain> → nats per byte (or a model's own loss per example); leaves the model in training.

        In the precision of the training: a model in shards has its weights in no other while it computes.

        Raises StageError (not_finite).
        """
        try:
            found = {}
            for domain, excerpts in self._domains.items():
                with precision(device, self._precision):
                    nats = self._adapter.document_nats(model, excerpts.tokens, context=self._context, beat=beat)
                found[f"eval_{domain}"] = float(nats.sum() / excerpts.bytes.sum())
            return found
        finally:
            model.train()


def evaluation_steps(training: Training) -> frozenset[int]:
    """Return the steps after which held-out documents are measured."""
    total, count = steps(training), training.engine.evaluations
    return frozenset(max(1, round(total * number / count)) for number in range(1, count + 1))
