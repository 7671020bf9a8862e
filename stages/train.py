"""Train: from scratch or a champion's trunk to a candidate, on new text and replayed past.

Leaves `candidate/` (weights) and `trunk/` (weights and optimiser state before the anneal: where the next run
starts, should this candidate be promoted).
"""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec
import torch
from torch import nn

from daemon.core.errors import StageError
from daemon.core.events import Artefact
from daemon.core.plans import trunk_step
from stages.base import Context, Result
from stages.run_folder import Shard
from stages.training.checkpoint import (
    OPTIMISER,
    copy_checkpoint,
    find_newest,
    load_optimiser,
    verify,
)
from stages.training.device import prepare
from stages.training.files import MANIFEST, digest, new_folder
from stages.training.loop import Loop
from stages.training.mixture import Mixture, Stream
from stages.training.models import adapter_of
from stages.training.models.base import Adapter
from stages.training.optimiser import make_optimiser
from stages.training.shards import Part

logger = logging.getLogger("rewarm.stage")


class Train:
    """One candidate out of one plan: killed and resumed at any step it is the same, bit by bit (CPU)."""

    def run(self, context: Context) -> Result:
        """Train to the end of the budget.

        Raises Stopped after saving a checkpoint, StageError (bad_checkpoint, bad_sample, not_finite, time_limit,
        user_error) and OSError when the disk is full.
        """
        specification = context.specification
        device = prepare(specification.threads)
        adapter = adapter_of(context)
        mixture = make_mixture(context)
        plan = plan_sha256(context)
        resumed = _find_resumable(context, plan)
        step = 0
        if resumed:
            path, step = resumed
            model = adapter.load(path).to(device)
            optimiser = make_optimiser(model)
            load_optimiser(path, model, optimiser)
        else:
            model, optimiser = _start(context, adapter, device)
        loop = Loop(context, adapter, model, optimiser, mixture, plan_sha256=plan, step=step)
        summary = loop.run()
        loop.save(context.folder / "candidate", moments=False)
        context.flush_curve()
        return Result(
            metrics={
                "steps": float(loop.steps),
                "resumed_at": float(step),
                "tokens": float(loop.steps * mixture.batch * mixture.context),
                "loss": summary.loss,
                "replay_share": summary.replay_share,
                "optimiser_kept": float(_keeps_optimiser(context)),
                "tokens_per_second": round(summary.tokens_per_second, 1),
            },
            artefacts=_artefacts(context),
        )


def make_mixture(context: Context) -> Mixture:
    """Return what the plan trains on; raises StageError (bad_sample) when there is no text at all.

    Without past text everything is new, without new text (a retraining) everything is past.
    """
    specification = context.specification
    training = specification.plan.training
    new, past = _stream(context, specification.new), _stream(context, specification.past)
    if not len(new) and not len(past):
        raise StageError("bad_sample", "There is no text to train on: every arrival of the run is empty.")
    return Mixture(
        new=new,
        past=past,
        replay=training.replay if len(new) else 1.0,
        batch=training.batch,
        context=training.context,
        seed=training.seed,
    )


def _stream(context: Context, shards: Iterable[Shard]) -> Stream:
    return Stream([Part(context.resolve(shard.manifest), "train") for shard in shards])


def plan_sha256(context: Context) -> str:
    """Return what a checkpoint must be of to be gone on from: budget, schedule, start and data, by content."""
    specification = context.specification
    plan = specification.plan
    shards = [[digest(context.resolve(s.manifest)) for s in each] for each in (specification.new, specification.past)]
    return hashlib.sha256(msgspec.json.encode([plan.training, plan.model, plan.start, shards])).hexdigest()


def _start(context: Context, adapter: Adapter, device: torch.device) -> tuple[nn.Module, torch.optim.AdamW]:
    plan = context.specification.plan
    if plan.start.kind == "scratch":
        model = adapter.make(plan.training.seed).to(device)
        return model, make_optimiser(model)
    if plan.start.checkpoint is None:
        message = f"The plan starts from {plan.start.kind!r} and names no checkpoint."
        raise StageError("user_error", message)
    folder = context.resolve(plan.start.checkpoint.path)
    saved = verify(folder, plan.start.checkpoint.sha256)
    model = adapter.load(folder).to(device)
    optimiser = make_optimiser(model)
    if _keeps_optimiser(context) and OPTIMISER in saved.files:
        load_optimiser(folder, model, optimiser)
    elif plan.training.optimiser == "keep":
        logger.warning("The trunk has no optimiser state, so that begins anew.", extra={"trunk": str(folder)})
    return model, optimiser


def _keeps_optimiser(context: Context) -> bool:
    """Return whether the trunk's optimiser state is continued; an adopted trunk may have none."""
    plan = context.specification.plan
    start = plan.start.checkpoint
    return (
        start is not None and plan.training.optimiser == "keep" and (context.resolve(start.path) / OPTIMISER).exists()
    )


def _find_resumable(context: Context, plan: str) -> tuple[Path, int] | None:
    # Past the trunk's step the trunk itself must be at hand, for nothing could make it again from there.
    folders = [context.folder, *map(Path, context.specification.resume_from)]
    training = context.specification.plan.training
    at = trunk_step(training)
    found = find_newest(folders, plan)
    if found and found[1].step >= at:
        trunk = find_newest(folders, plan, pattern="trunk")
        if trunk is None or trunk[1].step != at:
            found = find_newest(folders, plan, below=at)
        elif trunk[0].parent != context.folder:
            with new_folder(context.folder / "trunk") as aside:
                copy_checkpoint(trunk[0], aside)
    return (found[0], found[1].step) if found else None


def _artefacts(context: Context) -> tuple[Artefact, ...]:
    names = {"candidate": f"candidate/{MANIFEST}", "trunk": f"trunk/{MANIFEST}", "metrics": "metrics.jsonl"}
    files = {name: context.folder / path for name, path in names.items()}
    return tuple(
        Artefact(name=name, path=context.state_path(path), sha256=digest(path), bytes=path.stat().st_size)
        for name, path in files.items()
    )
