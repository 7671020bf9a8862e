"""From records to what MLflow shall hold. Everything here comes from the journal and the run folders."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from daemon.core.events import (
    DataCurated,
    DataIngested,
    DecisionMade,
    FilesExpired,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageEvent,
    run_of,
)
from daemon.core.plans import Plan
from daemon.core.plans.planner import outcome
from ops.recording import plots, segments
from ops.recording.content import Batch, Content, DatasetUse, Metric, StatusChange, milliseconds
from ops.recording.curves import Curves
from ops.recording.history import MODELS, STORY, History, shadowed
from ops.recording.models import models
from ops.recording.notes import note
from ops.recording.parameters import parameters
from ops.recording.stages import Emit, stage_effects
from ops.recording.targets import Target, run_target, target_of

logger = logging.getLogger("rewarm.mlflow")
PASSING = frozenset({"advance", "watched"})
"""What is decided on the way, and is no reason of the run's."""


class Recording:
    """Turns records into batches of effects."""

    def __init__(self, history: History, state: Path) -> None:
        self._history = history
        self._curves = Curves(state)

    def forget(self) -> None:
        """Start from what the store says: nothing that was planned before may be taken as sent."""
        self._curves.forget()

    def batch(self, records: Sequence[Record], after: int) -> Batch:
        """Return the effects of the records beyond position `after`.

        `records` begin where the grid cell of position `after` + 1 begins: an open segment is written as a whole.
        """
        batch = Batch(upto=records[-1].position)
        cells: dict[tuple[Target, str], list[Record]] = {}
        fresh: set[tuple[Target, str]] = set()
        for record in records:
            target = target_of(record, self._history.started)
            key = (target, segments.name(record.position))
            cells.setdefault(key, []).append(record)
            if record.position > after:
                fresh.add(key)
                self._record(batch, target, record)
        for target, name in fresh:
            batch.contents[target].files[name] = segments.encode(cells[target, name])
        new = [record for record in records if record.position > after]
        self._notes(batch, new)
        self._models(batch, new)
        for content in batch.contents.values():
            content.files.update(_drawn(content))
        return batch

    def _record(self, batch: Batch, target: Target, record: Record) -> None:
        if target.parent is not None:
            batch.content(run_target(target.experiment, target.parent), record.recorded_at)
        content = batch.content(target, record.recorded_at)
        content.tags["rewarm.sequence"] = str(record.position)
        if target.standing:
            content.statuses[:] = [StatusChange(status="FINISHED", ended=milliseconds(record.recorded_at))]
            return
        emit = Emit(batch=batch, record=record, content=content)
        if isinstance(record.event, StageEvent):
            stage_effects(emit, record.event, self._history, self._curves)
        elif isinstance(record.event, FilesExpired):
            content.tags[f"rewarm.expired.{record.event.what}"] = record.event.rule
        self._run_effects(emit)

    def _run_effects(self, emit: Emit) -> None:  # noqa: C901 - one case an event
        status = run_status(emit.record)
        tags = emit.content.tags
        if status is not None:
            change, outcome = status
            emit.content.statuses.append(change)
            tags["rewarm.outcome"] = outcome
        match emit.record.event:
            case RunStarted() as event:
                self._begun(emit, event)
            case PlanFixed() as event:
                earlier = self._history.plans_before(emit.content.target.experiment, event.run, emit.record.position)
                emit.content.params.update(parameters(event.plan, f"plan{earlier + 1}." if earlier else ""))
                emit.content.pictures["plots/plan.png"] = partial(plots.plan_plot, event.plan, event.run)
                _expected(emit, event)
            case DecisionMade(shadow=True) as event:
                tags[f"rewarm.shadow.{event.policy}"] = f"{event.verdict}: {event.reason}"
            case DecisionMade() as event if event.verdict not in PASSING and (event.commands or event.wakes):
                tags["rewarm.reason"] = event.reason
                tags["rewarm.verdict"] = event.verdict
                tags["rewarm.decided_by"] = event.policy
            case RunHeld() | RunCancelled() | ModelRejected() as event:
                tags["rewarm.reason"] = event.reason
            case RunFailed() as event:
                tags["rewarm.reason"] = event.reason
                tags["rewarm.failure"] = event.failure
            case ModelRolledBack() as event:
                tags["rewarm.reason"] = event.reason
                tags["rewarm.outcome"] = "rolled back"
            case ModelPromoted() as event:
                _promoted(emit, event)
            case ProbeMeasured() as event:
                _probe(emit, event)
            case ModelEvaluated() as event:
                _evaluation(emit, event)
                plan = self._history.plan_of(emit.content.target.experiment, event.run, emit.record.position)
                _surprise(emit, event, plan)
            case DataIngested() as event:
                self._dataset(emit, event)
            case DataCurated() as event:
                _curation(emit, event)
            case _:
                pass

    def _begun(self, emit: Emit, event: RunStarted) -> None:
        tags = emit.content.tags
        decision = self._history.decision_behind(event.command)
        tags["rewarm.policy"] = event.policy
        tags["rewarm.reason"] = decision.reason if decision else ""
        tags["rewarm.verdict"] = decision.verdict if decision else ""
        tags["rewarm.command"] = event.command
        trace = self._history.trace_behind(event.command)
        if trace:
            tags["rewarm.traceparent"] = trace
        _wished(emit, event)

    def _dataset(self, emit: Emit, event: DataIngested) -> None:
        arrival = self._history.arrival(event.arrival)
        profile = {
            "arrival": event.arrival,
            "arrivals": event.amount.arrivals,
            "documents": event.amount.documents,
            "bytes": event.amount.bytes,
            "tokens": event.amount.tokens,
            "duplicates": event.duplicates,
            "sha256": event.sha256,
        }
        used = DatasetUse(
            name=f"{event.domain}-{event.arrival}",
            digest=event.sha256[:36],
            source=msgspec.json.encode({"uri": arrival.uri if arrival else event.manifest}).decode(),
            profile=msgspec.json.encode(profile).decode(),
            context="new",
        )
        emit.parent(event).datasets.append(used)
        emit.metric(emit.parent(event), f"ingested_tokens/{event.domain}", event.amount.tokens, event.arrival)

    def _notes(self, batch: Batch, new: Sequence[Record]) -> None:
        """Tell anew the story of every run that something happened to."""
        told = [record for record in new if record.event.kind in STORY or shadowed(record)]
        last = {(record.pipeline, run_of(record.event)): record for record in told}
        for (pipeline, run), record in last.items():
            if pipeline is None or run is None or not self._history.started(pipeline, run, batch.upto):
                continue
            story = self._history.story(pipeline, run, batch.upto)
            begun = next((r.event for r in story if isinstance(r.event, RunStarted)), None)
            decision = self._history.decision_behind(begun.command) if begun else None
            content = batch.content(run_target(pipeline, run), record.recorded_at)
            beside = self._history.shadows(pipeline, run, batch.upto)
            commands = [record.event.command for record in story if isinstance(record.event, RunResumed)]
            behind = {command: self._history.decision_behind(command) for command in commands}
            why = {command: found.reason for command, found in behind.items() if found is not None}
            content.tags["mlflow.note.content"] = note(sorted([*story, *beside], key=_position), decision, why)

    def _models(self, batch: Batch, new: Sequence[Record]) -> None:
        for pipeline in dict.fromkeys(record.pipeline for record in new if record.event.kind in MODELS):
            if pipeline is not None:
                found = models(pipeline, self._history.models(pipeline, batch.upto))
                if found.versions:
                    batch.models.append(found)


def _position(record: Record) -> int:
    return record.position


def run_status(record: Record) -> tuple[StatusChange, str] | None:
    """Return the status that an event gives its run, and the word for the tag `rewarm.outcome`.

    A run that waits for a person or for its slot is SCHEDULED: MLflow has no word for it.
    """
    ended = milliseconds(record.recorded_at)
    match record.event:
        case RunStarted() | RunResumed():
            return StatusChange(status="RUNNING"), "running"
        case RunHeld():
            return StatusChange(status="SCHEDULED"), "held"
        case RunPreempted():
            return StatusChange(status="SCHEDULED"), "preempted"
        case RunSucceeded(outcome=outcome):
            return StatusChange(status="FINISHED", ended=ended), outcome
        case RunFailed():
            return StatusChange(status="FAILED", ended=ended), "failed"
        case RunPostponed():
            return StatusChange(status="FINISHED", ended=ended), "postponed"
        case RunCancelled():
            return StatusChange(status="KILLED", ended=ended), "cancelled"
        case _:
            return None


def _drawn(content: Content) -> Iterator[tuple[str, bytes]]:
    """Draw a content's pictures; one that cannot be drawn is left out, for numbers matter more."""
    for name, draw in content.pictures.items():
        try:
            picture = draw()
        except Exception as error:  # noqa: BLE001 - a library's trouble with fonts must not stop the recording
            names = {"run": content.target.key, "file": name, "error": f"{type(error).__name__}: {error}"[:500]}
            logger.warning("A picture could not be drawn.", extra=names)
            continue
        if picture is not None:
            yield name, picture


def _wished(emit: Emit, event: RunStarted) -> None:
    emit.content.params.update(parameters(event.plan, "draft."))
    if event.plan.kind != "adopt":  # that one trains nothing
        draw = partial(plots.plan_plot, event.plan, f"{event.run}, as wished")
        emit.content.pictures["plots/plan.png"] = draw


def _promoted(emit: Emit, event: ModelPromoted) -> None:
    tags = emit.parent(event).tags
    tags["rewarm.champion"] = str(event.model_version)
    tags["rewarm.sha256"] = event.sha256
    if event.adopted_from is not None:
        tags["rewarm.adopted_from"] = event.adopted_from


def _probe(emit: Emit, event: ProbeMeasured) -> None:
    parent = emit.parent(event)
    for side, losses in (("new", event.new), ("past", event.past)):
        for domain, loss in losses.items():
            emit.metric(parent, f"probe_{side}/{domain}", loss.mean, event.attempt)
    for name, value in (("", event.shift), ("_low", event.shift_low), ("_high", event.shift_high)):
        if value is not None:
            emit.metric(parent, f"probe_shift{name}", value, event.attempt)
    for how, distance in event.drift.items():
        emit.metric(parent, f"probe_drift/{how}", distance, event.attempt)
    if event.expected_gain is not None:
        emit.metric(parent, "probe_expected_gain", event.expected_gain, event.attempt)
    for domain, share in event.near_duplicates.items():
        emit.metric(parent, f"near_duplicates/{domain}", share, event.attempt)
    for domain, lengths in event.lengths.items():
        for name, number in msgspec.structs.asdict(lengths).items():
            emit.metric(parent, f"lengths_{name}/{domain}", float(number), event.attempt)


def _curation(emit: Emit, event: DataCurated) -> None:
    parent = emit.parent(event)
    numbers = {"documents": event.documents, "kept": event.kept, "kept_tokens": event.kept_tokens}
    for name, value in numbers.items():
        emit.metric(parent, f"curate_{name}", float(value), event.attempt)
    for trial in event.trials:
        emit.metric(parent, f"curate_loss/low_{trial.cut.low:g}_high_{trial.cut.high:g}", trial.loss, event.attempt)
    parent.pictures["plots/curation.png"] = partial(plots.curation_plot, event, f"{event.run}, curated")
    parent.files["curation.json"] = msgspec.json.format(msgspec.json.encode(event, order="deterministic"))


def _evaluation(emit: Emit, event: ModelEvaluated) -> None:
    parent = emit.parent(event)
    for domain, comparison in event.domains.items():
        kinds = {
            "loss": comparison.candidate,
            "champion_loss": comparison.champion,
            "difference": comparison.difference,
        }
        for name, loss in kinds.items():
            for metric in _bounds(f"{name}/{domain}", loss, emit, event.attempt):
                parent.metrics.append(metric)
    parent.files["evaluation.json"] = msgspec.json.format(msgspec.json.encode(event.domains, order="deterministic"))
    draw = partial(plots.evaluation_plot, event.domains, f"{event.run}, judged")
    parent.pictures["plots/evaluation.png"] = draw


def _expected(emit: Emit, event: PlanFixed) -> None:
    """Tell what the planner's law expects of the run."""
    prediction = event.plan.prediction
    if prediction is None:
        return
    numbers = {"gain": prediction.gain, "forgetting": prediction.forgetting, "law_error": prediction.law.error}
    for name, value in numbers.items():
        if value is not None:
            emit.metric(emit.content, f"expected_{name}" if name != "law_error" else name, value, 1)


def _surprise(emit: Emit, event: ModelEvaluated, plan: Plan | None) -> None:
    """Tell what came of what was expected: mean changes over the old and over the new domains."""
    if plan is None:
        return
    parent = emit.parent(event)
    lost, won = outcome(plan, event.domains)
    prediction = plan.prediction
    for name, came, expected in (
        ("forgetting", lost, prediction.forgetting if prediction else None),
        ("gain", won, prediction.gain if prediction else None),
    ):
        if came is not None:
            emit.metric(parent, name, came, event.attempt)
            if expected is not None:
                emit.metric(parent, f"{name}_error", abs(came - expected), event.attempt)


def _bounds(key: str, loss: Loss | None, emit: Emit, step: int) -> Iterator[Metric]:
    if loss is None:
        return
    at = milliseconds(emit.record.recorded_at)
    for name, value in ((key, loss.mean), (f"{key}_low", loss.low), (f"{key}_high", loss.high)):
        yield Metric(key=name, value=value, timestamp=at, step=step)
