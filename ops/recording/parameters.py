"""A plan as MLflow parameters: flat, short names, values as text."""

from msgspec.structs import asdict

from daemon.core.plans import Engine, Length, Optimiser, Plan, steps, tokens


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
        "model": f"{plan.model.kind}/{plan.model.path or plan.model.factory or plan.model.preset}",
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
        "warmup": _part(schedule.warmup),
        "cooldown": _part(schedule.cooldown),
        "anneal": _part(schedule.anneal),
        "replay_phases": ", ".join(f"{each.share:.3g} until {each.until:g}" for each in training.replaying.phases),
        "replay_weights": ", ".join(f"{domain} {w:.3g}" for domain, w in sorted(training.replaying.weights.items())),
        **_unusual(training.adamw, Optimiser()),
        **_unusual(training.engine, Engine()),
        "rule": plan.rule,
    }
    if plan.start.folder is not None:  # nothing is trained
        kept = {"kind", "start", "arrivals", "domains", "new_tokens", "stages", "context", "rule"}
        values = {key: value for key, value in values.items() if key in kept} | {"folder": plan.start.folder}
    return {f"{prefix}{key}": str(value) for key, value in values.items() if value not in {None, ""}}


def _part(part: float | Length) -> str:
    if not isinstance(part, Length):
        return str(part)
    return f"{part.tokens} tokens" if part.tokens else f"{part.steps} steps"


def _unusual(given: Optimiser | Engine, usual: Optimiser | Engine) -> dict[str, object]:
    """Return what is not as it is by default."""
    default = asdict(usual)
    return {name: str(value) for name, value in asdict(given).items() if value != default[name]}
