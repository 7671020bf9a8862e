"""A plan as MLflow parameters: flat, short names, values as text."""

from daemon.core.plans import Plan, steps, tokens


def parameters(plan: Plan, prefix: str = "") -> dict[str, str]:
    """Return a plan's parameters under `prefix`."""
    training, schedule = plan.training, plan.training.schedule
    values: dict[str, object] = {
        "kind": plan.kind,
        "start": plan.start.kind,
        "start_version": plan.start.version,
        "parent": plan.parent,
        "arrivals": ", ".join(f"({span.after}, {span.upto}]" for span in plan.spans),
        "domains": ", ".join(sorted(plan.new)),
        "new_tokens": tokens(plan.new),
        "past_tokens": tokens(plan.past),
        "model": f"{plan.model.kind}/{plan.model.preset}",
        "stages": ", ".join(plan.stages),
        "tokens": training.tokens,
        "steps": steps(training),
        "batch": training.batch,
        "context": training.context,
        "replay": training.replay,
        "optimiser": training.optimiser,
        "seed": training.seed,
        "schedule": schedule.kind,
        "peak": schedule.peak,
        "floor": schedule.floor,
        "plateau": schedule.plateau,
        "warmup": schedule.warmup,
        "cooldown": schedule.cooldown,
        "anneal": schedule.anneal,
        "rule": plan.rule,
    }
    if plan.start.folder is not None:  # nothing is trained
        kept = {"kind", "start", "arrivals", "domains", "new_tokens", "stages", "context", "rule"}
        values = {key: value for key, value in values.items() if key in kept} | {"folder": plan.start.folder}
    return {f"{prefix}{key}": str(value) for key, value in values.items() if value not in {None, ""}}
