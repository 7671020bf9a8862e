"""Adopt: a model that was trained elsewhere becomes the first champion, by a person's word."""

from typing import Final

import msgspec

from daemon.core.commands import StartRun
from daemon.core.decisions import OPERATOR, Decision
from daemon.core.events import OperatorRequested, PipelineSettings
from daemon.core.plans import Adoption, Amount, Intent, Plan, Schedule, Start, Training
from daemon.core.state import Pipeline, Wish

STAGES: Final = ("adopt", "ingest", "evaluate", "promote")
"""What such a run goes through; the folder is looked at first, before anything that costs more."""
WITH_DATA: Final = frozenset({"ingest", "evaluate"})
"""Of these stages the ones that have something to do only where the model has seen arrivals."""
RULE: Final = "a later retraining from scratch has the size that is configured, whatever the adopted model's is"


class _Shape(msgspec.Struct, frozen=True):
    batch: int = 16
    context: int = 256


class _Trains(msgspec.Struct, frozen=True):
    """The part of a policy's configuration that says in which windows a model reads."""

    training: _Shape | None = None


def adopt(pipeline: Pipeline, event: OperatorRequested) -> Decision:
    """Return the wish to start a run that takes the model in, or why that is not possible."""
    obstacle = _obstacle(pipeline, event)
    if obstacle is not None or pipeline.settings is None or event.model is None:
        return Decision(verdict="not_possible", reason=f"{event.model or 'Nothing'} is not adopted: {obstacle}.")
    adoption = Adoption(folder=event.model, spans=event.spans, amounts=event.amounts)
    total = sum(event.amounts.values(), Amount())
    seen = (
        f"its past is what is pending now, about {total.tokens:,} tokens"
        if event.spans
        else "its past is empty, so nothing of it can be replayed, and forgetting counts from here"
    )
    return Decision(
        verdict="adopt",
        reason=f"{event.model} shall be the first champion; {seen}.",
        inputs={"model": event.model, "arrivals": total.arrivals, "tokens": total.tokens},
        commands=(StartRun(intent=_intent(pipeline.settings, adoption)),),
    )


def waiting(pipeline: Pipeline) -> Wish | None:
    """Return the wish to adopt a model that stands, if one does."""
    wish = pipeline.wishes.get(OPERATOR)
    return wish if wish is not None and wish.intent is not None and wish.intent.kind == "adopt" else None


def plan(pipeline: Pipeline, settings: PipelineSettings, intent: Intent) -> Plan | str:
    """Return the plan of a run that adopts a model, or why none can start."""
    adoption = intent.adoption
    if pipeline.champion is not None:
        return f"version {pipeline.champion.version} is champion already"
    if adoption is None:
        return "it names no model"
    if "promote" not in settings.stages:
        return "the pipeline has no stage promote"
    return Plan(
        kind="adopt",
        start=Start(kind="folder", folder=adoption.folder),
        parent=None,
        spans=adoption.spans,
        new=adoption.amounts,
        past={},
        model=settings.model,
        stages=tuple(stage for stage in STAGES if adoption.spans or stage not in WITH_DATA),
        training=intent.training,
        limits=intent.limits,
        rule=RULE,
        data=settings.data,
    )


def _obstacle(pipeline: Pipeline, event: OperatorRequested) -> str | None:
    settings, champion = pipeline.settings, pipeline.champion
    if settings is None:
        return "the pipeline is no longer configured"
    if event.model is None:
        return "the request names no model"
    if champion is not None:
        return f"version {champion.version} is champion already, and only a pipeline without one adopts"
    if "promote" not in settings.stages:
        return "the pipeline has no stage promote, so it never has a champion"
    run = pipeline.active or pipeline.yielded
    if run is not None:
        what = "is adopting a model" if run.plan.kind == "adopt" else "is to become the first champion"
        return f"run {run.run} {what} (rewarm request cancel ends it)"
    wish = waiting(pipeline)
    if wish is not None and wish.intent is not None and wish.intent.adoption is not None:
        return f"the adoption of {wish.intent.adoption.folder} waits already (rewarm request cancel takes it back)"
    return None


def _intent(settings: PipelineSettings, adoption: Adoption) -> Intent:
    """Return the intent; the windows in which the model is evaluated are those in which it will be trained."""
    shape = next((found for policy in settings.policies if (found := _shape(policy.configuration))), _Shape())
    nothing = Schedule(kind="constant", peak=0.0, floor=0.0, plateau=0.0)
    training = Training(
        tokens=0,
        batch=shape.batch,
        context=shape.context,
        replay=0.0,
        schedule=nothing,
        optimiser="keep",
        seed=0,
    )
    return Intent(kind="adopt", start="folder", training=training, adoption=adoption)


def _shape(configuration: str) -> _Shape | None:
    try:
        return msgspec.json.decode(configuration, type=_Trains).training
    except msgspec.MsgspecError:
        return None  # a policy of somebody's own may call anything `training`
