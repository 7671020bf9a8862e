"""Where a record belongs in MLflow: a run, one of its stages, or a pipeline's standing run of the month."""

from collections.abc import Callable

import msgspec

from daemon.core.events import AnyEvent, Record, StageEvent, run_of

HOME = "rewarm"
"""The experiment of what belongs to no pipeline; its tags hold the recorder's cursor."""

Started = Callable[[str, str, int], bool]
"""(pipeline, run, position) → whether the journal started that run at or before the position."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One MLflow run, found by the tag `rewarm.run_id` = `key` in its experiment."""

    experiment: str
    key: str
    name: str
    parent: str | None = None
    standing: bool = False


def run_target(pipeline: str, run: str) -> Target:
    """Return the MLflow run of a rewarm run."""
    return Target(experiment=pipeline, key=run, name=run)


def stage_target(pipeline: str, run: str, stage: str) -> Target:
    """Return the nested MLflow run of one stage; all its attempts share it."""
    return Target(experiment=pipeline, key=f"{run}/{stage}", name=stage, parent=run)


def target_of(record: Record, started: Started) -> Target:
    """Return the one MLflow run that keeps a record.

    A run's name counts only when the journal started that run before: what outsiders may write into a `run`
    field, and a decision that answers them, must not bring an MLflow run to life.
    """
    pipeline, event = record.pipeline, record.event
    run = run_of(event)
    if pipeline is not None and run is not None and started(pipeline, run, record.position):
        stage = _stage_of(event)
        return run_target(pipeline, run) if stage is None else stage_target(pipeline, run, stage)
    month = f"{record.recorded_at:%Y-%m}"
    return Target(
        experiment=pipeline or HOME,
        key=f"{pipeline or 'daemon'}/{month}",
        name=f"{month} outside of runs",
        standing=True,
    )


def _stage_of(event: AnyEvent) -> str | None:
    return event.stage if isinstance(event, StageEvent) else None
