"""What may go, and by which rule: a pure function of the state, the journal's facts, the time and the settings.

What stays in any case: whatever a champion, its predecessor or the base is made of, whatever a run that is not
over may read, the past that champions were trained on, and what pending or rejected arrivals were made into.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec
from pydantic import TypeAdapter

from daemon.core.arrivals import is_pending
from daemon.core.plans import Checkpoint
from daemon.core.state import Pipeline, Run, State
from daemon.retention.history import History, Use
from daemon.settings import RetentionSettings

What = Literal["run", "checkpoints", "shard", "model"]
AFTER_INGEST: Final = frozenset({"probe", "train", "evaluate", "promote"})
"""The stages that make no shard: any other one, of the user's own too, might find a shard on the disk and use it."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What goes, and why. `paths` count from the state folder; a `*` stands for any one name."""

    what: What
    name: str
    identity: str
    paths: tuple[str, ...]
    rule: str
    pipeline: str | None = None
    run: str | None = None


def removals(
    state: State, history: History, now: datetime, settings: RetentionSettings, recorded: int | None = None
) -> list[Removal]:
    """Return all that may go at `now`; `history` must be as new as `state`, or newer.

    What MLflow takes curves and weights from waits until it has recorded that far; None: it records nothing.
    """
    kept = protected(state)
    upto = max(state.position, history.position) if recorded is None else recorded
    found = [*_runs(history, now, settings, upto), *_models(state, history, settings, upto)]
    if settings.shards is not None:
        found += _shards(state, history, now, settings.shards)
    return [each for each in found if not any(touches(path, other) for path in each.paths for other in kept)]


def protected(state: State) -> set[str]:
    """Return the folders that must stay whole, whatever a rule says."""
    kept = set()
    for pipeline in state.pipelines.values():
        kept |= {each.path for each in checkpoints(pipeline)}
        kept |= {f"runs/{run.run}" for run in living(pipeline)}
    return kept


def checkpoints(pipeline: Pipeline) -> Iterator[Checkpoint]:
    """Yield the weights that a pipeline stands on: of its models, their trunks, and what living runs started from."""
    for model in (pipeline.champion, pipeline.previous, pipeline.base):
        if model is not None:
            yield Checkpoint(path=model.path, sha256=model.sha256)
            yield model.trunk
    for run in living(pipeline):
        if run.plan.start.checkpoint is not None:
            yield run.plan.start.checkpoint


def living(pipeline: Pipeline) -> list[Run]:
    """Return a pipeline's runs that are not over."""
    return [run for run in (pipeline.active, pipeline.yielded, pipeline.held) if run is not None]


def touches(path: str, other: str) -> bool:
    """Return whether one path is, or lies within, the other."""
    pairs = zip(PurePosixPath(path).parts, PurePosixPath(other).parts, strict=False)
    return all(a in ("*", b) for a, b in pairs)


def _runs(history: History, now: datetime, settings: RetentionSettings, recorded: int) -> Iterator[Removal]:
    for run, ending in history.endings.items():
        if run not in history.runs:
            continue
        of = {"name": run, "run": run, "pipeline": history.runs[run]}
        age = now - ending.at
        told = f"the run ended ({ending.outcome}) at {ending.at.isoformat(timespec='seconds')}"
        if settings.runs is not None and age >= settings.runs and ending.position <= recorded:
            rule = f"runs {_period(settings.runs)}: {told}"
            yield Removal(what="run", identity=f"expired:run:{run}", paths=(f"runs/{run}",), rule=rule, **of)
        elif settings.checkpoints is not None and age >= settings.checkpoints:
            # A promoted run's trunk is copied into the version; a rejected one's is kept to be looked at.
            names = ("checkpoints", "trunk") if ending.outcome == "promoted" else ("checkpoints",)
            paths = tuple(f"runs/{run}/*/*/{each}" for each in names)
            rule = f"checkpoints {_period(settings.checkpoints)}: {told}"
            yield Removal(what="checkpoints", identity=f"expired:checkpoints:{run}", paths=paths, rule=rule, **of)


def _models(state: State, history: History, settings: RetentionSettings, recorded: int) -> Iterator[Removal]:
    if settings.models is None:
        return
    for name, versions in history.versions.items():
        pipeline = state.pipelines.get(name)
        if pipeline is None:
            continue
        named = {model.path for model in (pipeline.champion, pipeline.previous, pipeline.base) if model is not None}
        # A number beyond the last promotion's may be given again, and its folder be in the making now.
        further = [v for v in versions.values() if v.number <= pipeline.versions and v.path not in named]
        for version in sorted(further, key=lambda v: v.number, reverse=True)[settings.models :]:
            if not version.path.startswith("models/") or version.position > recorded:
                continue  # it is not ours, or not in MLflow yet
            rule = f"models {settings.models}: neither champion, previous nor base, nor one of the newest others"
            label = f"{name}/v{version.number}"
            yield Removal(
                what="model",
                name=label,
                identity=f"expired:model:{label}",
                paths=(version.path,),
                rule=rule,
                pipeline=name,
                run=version.run,
            )


def _shards(state: State, history: History, now: datetime, keep: timedelta) -> Iterator[Removal]:
    active = {name: p.active for name, p in state.pipelines.items() if p.active is not None}
    if any(run.stage not in AFTER_INGEST for run in active.values()):
        return
    for folder, uses in history.uses.items():
        freed = [_freed(state, history, use) for use in uses]
        since = max((at for at in freed if at is not None), default=None)
        if since is None or None in freed or now - since < keep or not folder.startswith("shards/"):
            continue
        # A run that began before may have been told to read it.
        if any(use.pipeline in active and active[use.pipeline].started_at <= since for use in uses):
            continue
        name = folder.removeprefix("shards/")
        yield Removal(
            what="shard",
            name=name,
            identity=f"expired:shard:{name}:{uses[-1].position}",  # ingested again it may expire again
            paths=(folder,),
            rule=f"shards {_period(keep)}: nothing needs it since {since.isoformat(timespec='seconds')}",
        )


def _freed(state: State, history: History, use: Use) -> datetime | None:
    """Return since when an ingested arrival is neither past, pending nor a living or rejected run's; None: it is."""
    pipeline, ending = state.pipelines.get(use.pipeline), history.endings.get(use.run)
    if pipeline is None or ending is None or any(run.run == use.run for run in living(pipeline)):
        return None
    withdrawn = history.withdrawn.get((use.pipeline, use.arrival))
    if withdrawn is not None:
        return max(withdrawn, ending.at)
    rolled_back = history.rolled_back.get(use.run)
    is_past = ending.outcome == "promoted" and rolled_back is None
    if is_past or use.run in history.rejected or is_pending(pipeline, use.arrival):
        return None
    return max(rolled_back or ending.at, ending.at)


def _period(value: timedelta) -> str:
    """Return a period as the configuration writes it: P1D."""
    return str(TypeAdapter(timedelta).dump_python(value, mode="json"))
