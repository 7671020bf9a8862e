"""A run told in Markdown: what MLflow shows on top of the run's page."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from daemon.core.events import (
    DataCurated,
    DecisionMade,
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
)
from daemon.core.plans import ModelSettings, Plan, Prediction, steps, tokens
from daemon.core.plans.planner import outcome

LIMIT = 7900
"""Characters of a note; MLflow takes 8,000."""


def note(
    story: Sequence[Record], decision: DecisionMade | None, resumed: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return the text for a run whose `story` is told so far and that `decision` began.

    `resumed` are the reasons behind the commands by which it was taken up again.
    """
    parts: list[str] = []
    plan, evaluation = None, None
    unit = ModelSettings().unit
    endings: list[str] = []
    for record in story:
        match record.event:
            case RunStarted() as event:
                parts.append(_why(event, decision))
                plan = event.plan
                unit = plan.model.unit
            case PlanFixed() as event:
                plan = event.plan
            case ProbeMeasured() as event:
                parts += _probe(event, unit)
            case DataCurated() as event:
                parts.append(_curation(event, unit))
            case ModelEvaluated() as event:
                evaluation = event
            case _:
                ending = _ending(record, resumed)
                if ending:
                    endings.append(f"- {record.recorded_at:%Y-%m-%d %H:%M:%S} UTC: {ending}")
    if plan is not None:
        parts.append(_plan(plan))
    if evaluation is not None:
        parts.append(_losses(evaluation, unit))
    if plan is not None and plan.prediction is not None:
        parts.append(_prediction(plan, plan.prediction, evaluation))
    if endings:
        parts.append("\n".join(endings))
    text = "\n\n".join(parts)
    return text if len(text) <= LIMIT else text[:LIMIT] + "…"


def _probe(event: ProbeMeasured, unit: str) -> Iterator[str]:
    if event.shift is not None:
        known = event.shift_low is not None and event.shift_high is not None
        within = f" [{event.shift_low:+.4f}, {event.shift_high:+.4f}]" if known else ""
        yield f"**Shift** of the new data against the past: {event.shift:+.4f}{within} {unit}."
    shares = ", ".join(f"{share:.1%} of {domain}" for domain, share in sorted(event.near_duplicates.items()) if share)
    if shares:
        yield f"**Near-duplicates** of documents seen before: {shares}."


def _curation(event: DataCurated, unit: str) -> str:
    rows = [
        f"| {trial.cut.low:g} | {trial.cut.high:g} | {trial.documents:,} | {trial.loss:.4f} |" for trial in event.trials
    ]
    kept = f"**Curation**: {event.kept:,} of {event.documents:,} documents are kept"
    if event.cut is None or event.mean is None or event.sigma is None:
        return f"{kept}: there is no champion yet to score them."
    head = [
        (
            f"{kept} (cut low {event.cut.low:g}, high {event.cut.high:g}); all losses under the champion: "
            f"mean {event.mean:.4f}, sigma {event.sigma:.4f}."
        ),
        "",
        f"| low | high | documents | loss of the trial, {unit} |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _why(event: RunStarted, decision: DecisionMade | None) -> str:
    if decision is None:
        return f"**Why**: policy `{event.policy}` wished it."
    text = f"**Why**: policy `{event.policy}` decided *{decision.verdict}*: {decision.reason}"
    names = list(decision.inputs) + [name for name in decision.thresholds if name not in decision.inputs]
    if not names:
        return text
    rows = [
        f"| {name} | {_cell(decision.inputs.get(name))} | {_cell(decision.thresholds.get(name))} |" for name in names
    ]
    return "\n".join([text, "", "| number | value | threshold |", "|---|---|---|", *rows])


def _plan(plan: Plan) -> str:
    if plan.start.folder is not None:
        seen = f"{tokens(plan.new):,} tokens of {', '.join(sorted(plan.new)) or 'no domain'}"
        return f"**Plan**: adopt the model in `{plan.start.folder}`; its past is {seen}; {plan.rule}."
    training = plan.training
    origin = "scratch" if plan.start.kind == "scratch" else f"{plan.start.kind} (version {plan.start.version})"
    return (
        f"**Plan**: {plan.kind} from {origin}; {training.tokens:,} tokens in {steps(training):,} steps, "
        f"{training.replay:.1%} of them replayed from {tokens(plan.past):,} past tokens; "
        f"{tokens(plan.new):,} new tokens of {', '.join(sorted(plan.new)) or 'no domain'}; "
        f"schedule {training.schedule.kind}, peak {training.schedule.peak:g}."
        f"{_predicted(plan)}"
    )


def _predicted(plan: Plan) -> str:
    told = plan.prediction
    if told is None:
        return ""
    old = "" if told.old is None else f"{told.old:.4f} on old domains and "
    error = "" if told.law.error is None else f", error on them {told.law.error:.4f}"
    return f" A law of {told.law.runs} past runs{error} predicts {old}{told.new:.4f} {plan.model.unit} on new ones."


def _losses(event: ModelEvaluated, unit: str) -> str:
    rows = []
    for domain, c in sorted(event.domains.items()):
        rows.append(f"| {domain} | {c.candidate.mean:.4f} | {_mean(c.champion)} | {_interval(c.difference)} |")
        sides = (("older documents", c.old), ("those that came", c.new))
        rows += [f"| {domain}, {name} | | | {_interval(side)} |" for name, side in sides if side is not None]
    head = [
        f"**Losses** on held-out documents, {unit}:",
        "",
        "| domain | candidate | champion | difference (95 %) |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _prediction(plan: Plan, prediction: Prediction, evaluation: ModelEvaluated | None) -> str:
    """Return what the planner's law expected beside what came."""
    lost, won = outcome(plan, evaluation.domains) if evaluation is not None else (None, None)
    error = "" if prediction.law.error is None else f", error {prediction.law.error:.3f}"
    rows = [
        f"| {name} | {_change(expected)} | {_change(came)} |"
        for name, expected, came in (("forgetting", prediction.forgetting, lost), ("gain", prediction.gain, won))
    ]
    head = [
        f"**Prediction** by the planner's law of {prediction.law.runs} runs{error}, {plan.model.unit}:",
        "",
        "| mean over domains | expected | came |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _ending(record: Record, resumed: Mapping[str, str]) -> str:  # noqa: PLR0911 - one return a case
    match record.event:
        case ModelPromoted(model_version=version):
            return f"promoted: champion version {version}."
        case ModelRejected(reason=reason):
            return f"candidate rejected: {reason}"
        case ModelRolledBack(reason=reason, model_version=version):
            return f"rolled back to version {version}: {reason}"
        case RunHeld(reason=reason):
            return f"held: {reason}"
        case RunPreempted(stage=stage):
            return f"preempted in {stage}."
        case RunResumed(stage=stage, command=command):
            return f"taken up again at {stage}{f': {resumed[command]}' if command in resumed else '.'}"
        case RunSucceeded(outcome=outcome):
            return f"run ended: {outcome}."
        case RunFailed(stage=stage, failure=failure, reason=reason):
            return f"run failed in {stage} ({failure}): {reason}"
        case RunPostponed(reason=reason):
            return f"looked, and did not train: {reason}"
        case RunCancelled(reason=reason):
            return f"run cancelled: {reason}"
        case DecisionMade(shadow=True, policy=policy, verdict=verdict, reason=reason):
            return f"in shadow, not carried out, `{policy}` decided *{verdict}*: {reason}"
        case _:
            return ""


def _mean(loss: Loss | None) -> str:
    return "none" if loss is None else f"{loss.mean:.4f}"


def _change(value: float | None) -> str:
    return "none" if value is None else f"{value:+.4f}"


def _interval(loss: Loss | None) -> str:
    return "none" if loss is None else f"{loss.mean:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).replace("|", "\\|")
