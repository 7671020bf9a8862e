"""Train: from scratch or a champion's trunk to a candidate, on new text and replayed past.

Leaves `candidate/` (weights) and `trunk/` (weights and optimiser state before the anneal: where the next run
starts, should this candidate be promoted).
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from daemon.core.errors import StageError
from daemon.core.events import Artefact
from daemon.core.plans import Engine, Remedy, Training, trunk_step
from stages.base import Context, Result
from stages.training.curating.kept import trained_on
from stages.training.engine.average import Average
from stages.training.engine.checkpoint import (
    OPTIMISER,
    copy_checkpoint,
    find_newest,
    load_engine,
    load_optimiser,
    verify,
)
from stages.training.engine.device import prepare
from stages.training.engine.guard import Guard
from stages.training.engine.keeping import Keeper, Trained
from stages.training.engine.lineage import is_ancestor
from stages.training.engine.loop import Loop
from stages.training.engine.memory import is_shortage, telling_sizes
from stages.training.engine.optimiser import make_optimiser
from stages.training.engine.spike import Spike
from stages.training.engine.team import Alone, Team
from stages.training.files import MANIFEST, digest, new_folder
from stages.training.mixing.mixture import make_mixture
from stages.training.models import adapter_of

logger = logging.getLogger("rewarm.stage")


class Train:
    """One candidate out of one plan: killed and resumed at any step it is the same, bit by bit (CPU)."""

    def run(self, context: Context) -> Result:
        """Train to the end of the budget, in this process or, where the plan wants several, in those that it starts.

        Raises Stopped after saving a checkpoint, StageError (bad_checkpoint, bad_sample, loss_spike, not_finite,
        out_of_memory, time_limit, user_error; worker_lost of several processes) and OSError when the disk is full.
        """
        if context.specification.plan.training.engine.processes > 1:
            from stages.training.parallel.launch import train_together

            return train_together(context)
        return train(context, Alone())


def train(context: Context, team: Team) -> Result:
    """Train as one process of a team; only the leader's result counts. Raises as `Train.run` does."""
    training, limits = context.specification.plan.training, context.specification.plan.limits
    device = prepare(context.specification.threads)
    with telling_sizes(_in_parts(training, context.specification.remedy), device):
        adapter = adapter_of(context)
        mixture = make_mixture(context, windows=adapter.windows)
        plan = plan_sha256(context)
        resumed = _find_resumable(context, plan, team)
        step = resumed[1] if resumed else 0
        start = resumed[0] if resumed else _start_folder(context)
        context.live()
        with _naming_step(step):
            model = (adapter.make(training.seed) if start is None else adapter.load(start)).to(device)
        if training.engine.recompute:
            adapter.recompute(model)
        context.live()
        wrapped = team.wrap(model)
        optimiser = make_optimiser(model, training.adamw)
        if start is not None and (resumed or _keeps_optimiser(context)):
            with _naming_step(step):
                load_optimiser(start, model, optimiser)
            context.live()
        trained = Trained(
            adapter=adapter,
            model=model,
            optimiser=optimiser,
            average=None if training.adamw.average is None else Average(model, training.adamw.average),
            guard=Guard(training.adamw.skip_sigma, device),
            spike=Spike(limits.spike_factor, limits.spike_steps),
        )
        if resumed:
            with _naming_step(step):
                _load_engine_state(trained, resumed[0])
        keeper = Keeper(context, trained, team, plan_sha256=plan, step=step)
        try:
            loop = Loop(context, trained, wrapped, mixture, keeper, team, step=step)
            summary = loop.run()
            keeper.candidate(loop.steps)
            keeper.tell(wait=True)
        finally:
            keeper.close()
    context.flush_curve()
    return Result(
        metrics={
            "steps": float(loop.steps),
            "resumed_at": float(step),
            "tokens": float(loop.tokens(loop.steps)),
            "optimiser_kept": float(_keeps_optimiser(context)),
            **summary.metrics(),
        },
        artefacts=_artefacts(context) if team.rank == 0 else (),
    )


def plan_sha256(context: Context) -> str:
    """Return what a checkpoint must be of to be gone on from: budget, schedule, start and data, by content.

    Not by how the arithmetic is done: what another number of processes has saved is gone on from.
    """
    specification = context.specification
    plan = specification.plan
    training = msgspec.structs.replace(plan.training, engine=Engine())
    shards = [[digest(context.resolve(s.manifest)) for s in each] for each in trained_on(context)]
    return hashlib.sha256(msgspec.json.encode([training, plan.model, plan.start, shards])).hexdigest()


def _in_parts(training: Training, remedy: Remedy) -> Training:
    engine = msgspec.structs.replace(training.engine, accumulate=training.engine.accumulate * remedy.accumulate)
    return msgspec.structs.replace(training, engine=engine)


@contextlib.contextmanager
def _naming_step(step: int) -> Iterator[None]:
    """Let an error in the block say which checkpoint is bad: that of this step, where it is not the plan's start."""
    try:
        yield
    except StageError as error:
        if error.failure == "bad_checkpoint" and step:
            error.step = step
        raise


def _load_engine_state(trained: Trained, folder: Path) -> None:
    try:
        trained.load_engine_state(load_engine(folder))
    except (KeyError, RuntimeError) as error:
        if is_shortage(error):
            raise
        message = f"The checkpoint at {folder} has no usable state of the loop ({error}): go back to an older one."
        raise StageError("bad_checkpoint", message) from error


def _start_folder(context: Context) -> Path | None:
    """Return the verified checkpoint that the plan starts from; None from scratch."""
    plan = context.specification.plan
    if plan.start.kind == "scratch":
        return None
    if plan.start.checkpoint is None:
        message = f"The plan starts from {plan.start.kind!r} and names no checkpoint."
        raise StageError("user_error", message)
    folder = context.resolve(plan.start.checkpoint.path)
    verify(folder, plan.start.checkpoint.sha256)
    if plan.training.optimiser == "keep" and not _keeps_optimiser(context):
        logger.warning("The trunk has no optimiser state, so that begins anew.", extra={"trunk": str(folder)})
    return folder


def _keeps_optimiser(context: Context) -> bool:
    """Return whether the trunk's optimiser state is continued; an adopted trunk may have none."""
    plan = context.specification.plan
    start = plan.start.checkpoint
    return (
        start is not None and plan.training.optimiser == "keep" and (context.resolve(start.path) / OPTIMISER).exists()
    )


def _find_resumable(context: Context, plan: str, team: Team) -> tuple[Path, int] | None:
    # Past the trunk's step the trunk itself must be at hand, for nothing could make it again from there.
    folders = [context.folder, *map(Path, context.specification.resume_from)]
    at = trunk_step(context.specification.plan.training)
    fits = partial(is_ancestor, remedy=context.specification.remedy)
    found = find_newest(folders, plan, fits=fits)
    if found and found[1].step >= at:
        trunk = find_newest(folders, plan, pattern="trunk", fits=fits)
        if trunk is None or trunk[1].step != at:
            found = find_newest(folders, plan, below=at, fits=fits)
        elif trunk[0].parent != context.folder and team.rank == 0:
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
