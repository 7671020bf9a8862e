"""Evaluate: the candidate against the champion, per domain, on documents that neither was trained on."""

import msgspec
import numpy as np
from msgspec.structs import replace
from torch import nn

from daemon.core.errors import StageError
from daemon.core.events import Artefact, Comparison, ModelEvaluated
from daemon.core.plans import Checkpoint
from daemon.files import write_atomically
from stages.base import Context, Result
from stages.training.engine.device import prepare
from stages.training.files import MANIFEST, digest
from stages.training.judging.evaluation import Budget, Excerpts, Floats, compare, summarise, together
from stages.training.judging.measuring import held_out, load_recorded
from stages.training.models import adapter_of

BUDGET = Budget(documents=128, bytes=128 * 1024, examples=2048)
EVALUATION = "evaluation.json"
Measured = dict[bytes, float]
"""The nats of documents by their names."""


class Evaluate:
    """Losses in nats per byte (a `module` model: its own per example) with 95 % intervals over documents.

    The difference to the champion is paired: both read the same documents. Of a domain that is old and of which more
    came it is told on its older documents and on the new ones too, each from a sample of its own.
    """

    def run(self, context: Context) -> Result:
        """Measure both models, write evaluation.json and tell `model.evaluated`.

        An adopted model may have seen too little for anything to be held out: then its losses are not known.
        Raises StageError (bad_checkpoint, bad_sample, not_finite).
        """
        specification = context.specification
        training = specification.plan.training
        device = prepare(specification.threads)
        recorded = find_candidate(context)
        adapter = adapter_of(context)
        candidate = load_recorded(context, adapter, recorded, device, candidate=True)
        champion = None
        if specification.champion is not None:
            champion = load_recorded(context, adapter, specification.champion.model, device)
        domains = held_out(context, (*specification.new, *specification.past), BUDGET)
        old, new = _sides(context)
        if not domains and specification.plan.kind != "adopt":
            message = (
                "No document of any domain is held out, so nothing can be said of the candidate: "
                "send arrivals of two documents or more."
            )
            raise StageError("bad_sample", message)
        comparisons: dict[str, Comparison] = {}

        def measure(model: nn.Module, excerpts: Excerpts) -> Measured:
            nats = adapter.document_nats(
                model,
                excerpts.tokens,
                context=training.context,
                beat=lambda: context.beat(len(comparisons), len(domains)),
            )
            return dict(zip(excerpts.names, nats.tolist(), strict=True))

        for domain, excerpts in domains.items():
            whole = together([excerpts, *(side[domain] for side in (old, new) if domain in side)])
            ours = measure(candidate, whole)
            theirs = None if champion is None else measure(champion, whole)
            found = compare(
                _of(ours, excerpts),
                None if theirs is None else _of(theirs, excerpts),
                excerpts.bytes,
                seed=training.seed,
            )
            if theirs is not None:
                differ = {name: nats - theirs[name] for name, nats in ours.items()}
                parts = {
                    name: summarise(_of(differ, side[domain]), side[domain].bytes, seed=training.seed)
                    for name, side in (("old", old), ("new", new))
                    if domain in side
                }
                found = replace(found, **parts)
            comparisons[domain] = found
        event = ModelEvaluated(**context.names, domains=comparisons, candidate=recorded)
        path = context.folder / EVALUATION
        write_atomically(path, msgspec.json.format(msgspec.json.encode(event)))
        context.emit(event)
        artefact = Artefact(
            name="evaluation", path=context.state_path(path), sha256=digest(path), bytes=path.stat().st_size
        )
        metrics = {f"loss_{domain}": each.candidate.mean for domain, each in comparisons.items()}
        return Result(metrics=metrics, artefacts=(artefact,))


def _sides(context: Context) -> tuple[dict[str, Excerpts], dict[str, Excerpts]]:
    """Return what is held out of the older and of the new arrivals, of each domain that has both."""
    specification = context.specification
    both = {shard.domain for shard in specification.past} & {shard.domain for shard in specification.new}
    old = held_out(context, [shard for shard in specification.past if shard.domain in both], BUDGET)
    new = held_out(context, [shard for shard in specification.new if shard.domain in both], BUDGET)
    return old, new


def _of(measured: Measured, excerpts: Excerpts) -> Floats:
    return np.array([measured[name] for name in excerpts.names], dtype=np.float64)


def find_candidate(context: Context) -> Checkpoint:
    """Return the candidate of the run's train or adopt stage; raises StageError when there is none."""
    done = context.specification.done
    attempt = done.get("train") or done.get("adopt")
    if attempt is None:
        message = "The run has no finished train stage: put `train` before this stage in the pipeline's `stages`."
        raise StageError("user_error", message)
    folder = context.resolve(attempt) / "candidate"
    try:
        return Checkpoint(path=context.state_path(folder), sha256=digest(folder / MANIFEST))
    except FileNotFoundError:
        message = f"The candidate at {folder} is gone: the run has to be started again."
        raise StageError("bad_checkpoint", message) from None
