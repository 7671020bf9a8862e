"""From an intent to a plan: what a run that starts now would train on, from where, for how long."""

from msgspec.structs import replace

from daemon.core import adoption, arrivals
from daemon.core.plans import Intent, Plan, Start, budget, tokens
from daemon.core.state import Pipeline


def draft(pipeline: Pipeline, intent: Intent, position: int) -> Plan | str:
    """Return the plan of a run that starts after `position`, or why none can start.

    The start is the trunk behind the champion or the base, never a rejected candidate's (rule 13).
    """
    settings = pipeline.settings
    if settings is None:
        return "the pipeline is no longer configured"
    if not settings.stages:
        return "the pipeline has no stages"
    if intent.kind == "adopt":
        return adoption.plan(pipeline, settings, intent)
    new = pipeline.pending
    past = pipeline.champion.past if pipeline.champion else {}
    spans = arrivals.spans(pipeline, position) if new else ()
    if not new and intent.kind != "retrain":
        return "nothing is pending"
    if not new and not past:
        return "there is no data to train on"
    model = {"base": pipeline.base, "champion": pipeline.champion}.get(intent.start)
    start = Start(kind=intent.start, version=model.version, checkpoint=model.trunk) if model else Start(kind="scratch")
    new_tokens, past_tokens = tokens(new), tokens(past)
    replay = intent.training.replay if past_tokens else 0.0
    seen = new_tokens
    if intent.kind == "retrain":
        seen = new_tokens + past_tokens
        replay = past_tokens / max(1, seen)
        total = budget(seen, 0.0, intent.epochs, intent.max_tokens)
    else:
        total = budget(seen, replay, intent.epochs, intent.max_tokens)
    training = replace(intent.training, tokens=total, replay=replay, seed=position)
    return Plan(
        kind=intent.kind,
        start=start,
        parent=pipeline.champion.version if pipeline.champion else None,
        spans=spans,
        new=new,
        past=past,
        model=settings.model,
        stages=_stages(settings.stages, intent),
        training=training,
        limits=intent.limits,
        data=settings.data,
        curation=intent.curation,
    )


def _stages(usual: tuple[str, ...], intent: Intent) -> tuple[str, ...]:
    """Return the stages of a run; what it trains on is chosen right before it does."""
    if intent.curation is None or "train" not in usual or "curate" in usual:
        return usual
    at = usual.index("train")
    return (*usual[:at], "curate", *usual[at:])
