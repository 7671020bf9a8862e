"""What the attempts of a stage bring: status, curves while they run and when they end, final numbers."""

from dataclasses import dataclass
from functools import partial

from daemon.core.events import (
    Record,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
from ops.recording import plots
from ops.recording.content import Batch, Content, Metric, StatusChange, milliseconds
from ops.recording.curves import Curves, number
from ops.recording.history import History
from ops.recording.targets import run_target


@dataclass(frozen=True)
class Emit:
    """One record's hands on the batch: its own content, and its run's."""

    batch: Batch
    record: Record
    content: Content

    def parent(self, event: StageEvent) -> Content:
        """Return the content of the run that a stage belongs to."""
        return self.batch.content(run_target(self.content.target.experiment, event.run), self.record.recorded_at)

    def metric(self, content: Content, key: str, value: object, step: int) -> None:
        """Add one point at the record's instant; what is no finite number is left out."""
        finite = number(value)
        if finite is not None:
            at = milliseconds(self.record.recorded_at)
            content.metrics.append(Metric(key=key, value=finite, timestamp=at, step=step))


def stage_effects(emit: Emit, event: StageEvent, history: History, curves: Curves) -> None:
    """Add the effects of a stage's event to its nested MLflow run, and its final numbers to the run itself."""
    content, ended = emit.content, milliseconds(emit.record.recorded_at)
    if isinstance(event, StageProgressed | StageSucceeded | StageFailed | StageInterrupted):
        content.metrics.extend(curves.new_points(event.run, event.stage, event.attempt))
    match event:
        case StageStarted():
            content.statuses.append(StatusChange(status="RUNNING"))
            content.tags.update({"rewarm.attempt": str(event.attempt), "rewarm.host": event.host})
            content.tags["rewarm.outcome"] = "running"
        case StageProgressed():
            emit.metric(content, "progress", event.step / event.steps if event.steps else None, event.step)
        case StageSucceeded():
            _ended(emit, event, history, StatusChange(status="FINISHED", ended=ended), "succeeded")
            _final(emit, event, curves)
        case StageFailed():
            _ended(emit, event, history, StatusChange(status="FAILED", ended=ended), "failed")
            content.tags["rewarm.failure"] = event.failure
            content.tags["rewarm.reason"] = event.message
        case StageInterrupted():
            _ended(emit, event, history, StatusChange(status="KILLED", ended=ended), f"interrupted: {event.reason}")
            content.tags["rewarm.reason"] = event.message
        case _:
            pass
    if isinstance(event, StageSucceeded | StageFailed | StageInterrupted):
        curves.done(event.run, event.stage, event.attempt)


def _ended(emit: Emit, event: StageEvent, history: History, change: StatusChange, outcome: str) -> None:
    """Take an attempt's end as the stage's, unless a newer attempt has begun meanwhile."""
    pipeline = emit.content.target.experiment
    if history.latest_attempt(pipeline, event.run, event.stage, emit.record.position) > event.attempt:
        return
    emit.content.statuses.append(change)
    emit.content.tags["rewarm.outcome"] = outcome


def _final(emit: Emit, event: StageSucceeded, curves: Curves) -> None:
    parent = emit.parent(event)
    for name, value in {"seconds": event.seconds, **event.metrics}.items():
        emit.metric(emit.content, f"final/{name}", value, event.attempt)
        emit.metric(parent, f"{event.stage}/{name}", value, event.attempt)
    for artefact in event.artefacts:
        parent.tags[f"rewarm.artefact.{event.stage}.{artefact.name}"] = f"{artefact.path} sha256:{artefact.sha256}"
    points = curves.whole(event.run, event.stage, event.attempt)
    if points:
        draw = partial(plots.loss_plot, points, f"{event.run}, {event.stage}")
        parent.pictures[f"plots/{event.stage}-losses.png"] = draw
