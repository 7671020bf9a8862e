"""Signals: named series of numbers that triggers look at, of which the state keeps as many as a policy needs.

`shift`, `expected_gain` and `drift.<how>` come from a probe, `gain` and `forgetting` from an evaluation,
`evaluation.<metric>`, `label.<metric>` and `detected.<metric>` from monitors outside. What no policy looks at is not
kept.
"""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from daemon.core.events import (
    Comparison,
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    ModelEvaluated,
    ProbeMeasured,
    Record,
)
from daemon.core.ledger import Reading
from daemon.core.plans import Plan
from daemon.core.state import Pipeline

LONGEST = 100
"""Most values of a signal that can be asked for."""
REPORTED = {EvaluationReported.kind: "evaluation", LabelArrived.kind: "label", DriftDetected.kind: "detected"}
Told = ProbeMeasured | ModelEvaluated | EvaluationReported | LabelArrived | DriftDetected


def read(pipeline: Pipeline, record: Record, event: Told) -> Pipeline:
    """Return the pipeline with what a fact says of the signals that its policies look at."""
    wanted = pipeline.settings.signals if pipeline.settings is not None else {}
    if not wanted:
        return pipeline
    found = {name: value for name, value in _values(pipeline, event) if name in wanted}
    if not found:
        return pipeline
    version = pipeline.champion.version if pipeline.champion is not None else None
    if isinstance(event, EvaluationReported | LabelArrived | DriftDetected) and event.model_version is not None:
        version = event.model_version
    signals = dict(pipeline.signals)
    for name, value in found.items():
        reading = Reading(value=value, at=record.recorded_at, position=record.position, version=version)
        signals[name] = (*signals.get(name, ()), reading)[-min(wanted[name], LONGEST) :]
    return replace(pipeline, signals=signals)


def kept(signals: Mapping[str, tuple[Reading, ...]], wanted: Mapping[str, int]) -> dict[str, tuple[Reading, ...]]:
    """Return what stays of the signals under a configuration."""
    return {name: signals[name][-min(most, LONGEST) :] for name, most in sorted(wanted.items()) if name in signals}


def gain(plan: Plan, evaluation: Mapping[str, Comparison]) -> float | None:
    """Return by how much the mean loss of the domains with new data fell; None where nothing was compared."""
    found = [-each.on_new.mean for name, each in sorted(evaluation.items()) if name in plan.new and each.on_new]
    return sum(found) / len(found) if found else None


def forgetting(plan: Plan, evaluation: Mapping[str, Comparison]) -> dict[str, float]:
    """Return by how much the loss of each older domain rose."""
    return {
        name: each.on_old.mean
        for name, each in sorted(evaluation.items())
        if name in plan.past and each.on_old is not None
    }


def _values(pipeline: Pipeline, event: Told) -> Iterator[tuple[str, float]]:
    match event:
        case ProbeMeasured():
            if event.shift is not None:
                yield "shift", event.shift
            if event.expected_gain is not None:
                yield "expected_gain", event.expected_gain
            yield from ((f"drift.{how}", value) for how, value in sorted(event.drift.items()))
        case ModelEvaluated():
            if pipeline.active is not None:
                plan = pipeline.active.plan
                won, lost = gain(plan, event.domains), forgetting(plan, event.domains)
                if won is not None:
                    yield "gain", won
                if lost:
                    yield "forgetting", max(lost.values())
        case _:
            yield f"{REPORTED[event.kind]}.{event.metric}", event.value
