"""A run's story as a person reads it."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import RenderableType

from daemon.cli.explain.band import bands, kept
from daemon.cli.explain.numbers import compared
from daemon.cli.output import NOTHING, columns, commands, count, facts, heading, seconds, size, when
from daemon.cli.words import held_back, shift, unmeasured
from daemon.core.events import Comparison, Loss, ProbeMeasured
from daemon.core.plans import Amounts, Length, Plan, Prediction, Schedule, Training, learning_rate, steps, tokens
from daemon.core.plans.planner import outcome
from daemon.story import Arrived, Attempt, Decided, StageTold, Story

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 48
POLICY = 20
"""Columns for a policy's name: as many as the longest that rewarm brings needs."""
UNIT = "Losses are {unit}, held out (lower is better), with 95 % intervals over documents."
WORDS = (
    "A run goes through its stages one after the other (4). The champion is the model that is live; the trunk behind "
    "it is the checkpoint from which the next run goes on; replay mixes old data into the new, so that it is not "
    "forgotten. #12 is record 12 of the journal."
)
KINDS = {
    "base": "the first training",
    "increment": "an increment",
    "retrain": "a retraining",
    "adopt": "an adoption",
}


def story(told: Story, files: Mapping[str, str], following: Iterable[tuple[str, str]]) -> list[RenderableType]:
    """Return a run's story in sections."""
    out: list[RenderableType] = [heading(f"{told.run}: {KINDS[told.plan.kind]} that {_outcome(told)}"), WORDS, ""]
    sections: list[tuple[str, list[RenderableType]]] = [
        ("What arrived", list(_arrived(told))),
        ("Why it started", list(_started(told))),
        ("The plan", [facts(plan_rows(told.plan, told.planned_by))]),
        ("What happened", list(_happened(told))),
        ("What it brought", list(_brought(told))),
        ("The judgement", list(_judged(told))),
        ("What policies in shadow said", list(_shadowed(told))),
        ("Where it lies", [facts(files.items(), width=12)] if files else []),
    ]
    for number, (title, content) in enumerate(((t, c) for t, c in sections if c), start=1):
        out += [heading(f"{number}. {title}"), *content, ""]
    out += [heading("What you can do next"), *commands(following)]
    return out


def plan_rows(plan: Plan, planned_by: Decided | None) -> list[tuple[str, str]]:
    """Return a plan in words."""
    if plan.start.folder is not None:
        return [
            ("takes", f"the model in {plan.start.folder}"),
            ("its past", _amounts(plan.new)),
            ("positions", ", ".join(f"({span.after}, {span.upto}]" for span in plan.spans) or NOTHING),
            ("note", plan.rule),
        ]
    training = plan.training
    total = steps(training)
    model, start = plan.model, f"the trunk behind version {plan.start.version} ({plan.start.kind})"
    if plan.start.kind == "scratch":
        given = {"hf": f"the weights in {model.path}", "module": f"the weights that {model.factory} makes"}
        start = given.get(model.kind, f"random weights ({model.kind} {model.preset})")
    kept = "state kept from the trunk" if training.optimiser == "keep" else "state reset"
    rule = f": {plan.rule}" if plan.rule else ""
    shape = f"{training.batch} × {training.context} tokens"
    rows = [
        ("starts at", start),
        ("new data", _amounts(plan.new)),
        ("old data", _amounts(plan.past)),
        ("replay", f"{training.replay:.0%} of every batch is old data{rule}" if plan.past else "none: nothing is old"),
        ("budget", f"{training.tokens:,} tokens = {count(total, 'step')} of {shape}"),
        ("schedule", schedule_words(training.schedule)),
        ("rate", sparkline(training)),
        ("optimiser", "new" if plan.start.kind == "scratch" else kept),
        ("positions", ", ".join(f"({span.after}, {span.upto}]" for span in plan.spans) or NOTHING),
    ]
    if plan.prediction is not None:
        rows.append(("expected", expectation(plan.prediction, plan.model.unit)))
    if planned_by is not None:
        rows.append(("fixed by", sentence(planned_by)))
    return rows


def expectation(prediction: Prediction, unit: str) -> str:
    """Return in words what the planner's law expected of a run, and how far it is to be trusted."""
    law = prediction.law
    error = "too few to tell its error" if law.error is None else f"error {law.error:.3f}"
    old = ""
    if prediction.old is not None and prediction.forgetting is not None:
        old = f"old domains {prediction.old:.3f} ({prediction.forgetting:+.3f}), "
    new = f"new ones {prediction.new:.3f} ({-prediction.gain:+.3f})"
    return f"{old}{new} {unit}, by the law of {count(law.runs, 'run')}, {error}"


def surprises(plan: Plan, evaluation: Mapping[str, Comparison]) -> Iterator[str]:
    """Yield how far the change of the mean losses was from what the law expected."""
    if plan.prediction is None:
        return
    lost, won = outcome(plan, evaluation)
    for part, sign, before, after in (
        ("old", 1, plan.prediction.forgetting, lost),
        ("new", -1, plan.prediction.gain, won),
    ):
        if before is not None and after is not None:
            told = f"expected {sign * before:+.4f}, came {sign * after:+.4f}"
            yield f"  {part} domains: {told}, off by {abs(after - before):.4f}"


def schedule_words(schedule: Schedule) -> str:
    """Return a schedule in words."""
    warm = f"warm-up over {_part(schedule.warmup)}" if schedule.warmup else "no warm-up"
    anneal = schedule.anneal
    begins = f"in the last {_part(anneal)}" if isinstance(anneal, Length) else f"from {anneal:.0%} on"
    match schedule.kind:
        case "rewarm":
            return f"re-warm and re-decay: {warm} to {schedule.peak:g}, cosine down to {schedule.floor:g}"
        case "infinite":
            return f"infinite: {warm}, plateau {schedule.plateau:g}, anneal {begins} to {schedule.floor:g}"
        case "linear":
            return f"linear: {warm} to {schedule.peak:g}, a line down to {schedule.floor:g}"
        case "wsd" | "wsd_s":
            return f"{schedule.kind}: {warm}, stable at {schedule.peak:g}, decay {begins} to {schedule.floor:g}"
        case "constant":
            return f"constant: {warm}, then {schedule.peak:g}"


def _part(part: float | Length) -> str:
    if not isinstance(part, Length):
        return f"{part:.0%} of the steps"
    return f"{part.tokens:,} tokens" if part.tokens else count(part.steps, "step")


def sparkline(training: Training, width: int = CURVE_WIDTH) -> str:
    """Return the learning rate over the steps as a row of bars, highest = the peak."""
    total = steps(training)
    points = [max(1, round(1 + (total - 1) * at / (width - 1))) for at in range(width)]
    rates = [learning_rate(training, step) for step in points]
    top = max(rates) or 1.0
    return "".join(BARS[min(len(BARS) - 1, round(rate / top * (len(BARS) - 1)))] for rate in rates)


def interval(loss: Loss | None, *, signed: bool = False, digits: int = 4) -> str:
    """Return a mean with its interval."""
    if loss is None:
        return NOTHING
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{loss.mean:{form}} [{loss.low:{form}}, {loss.high:{form}}]"


def comparison_rows(plan: Plan, evaluation: Mapping[str, Comparison]) -> list[tuple[str, str, str, str, str]]:
    """Return per domain: its part in the run, loss before, loss after, difference with interval."""
    rows = []
    for domain, each in sorted(evaluation.items()):
        part = "new" if domain in plan.new else "old"
        part = "old, more came" if domain in plan.new and domain in plan.past else part
        before = f"{each.champion.mean:.4f}" if each.champion else NOTHING
        rows.append((domain, part, before, f"{each.candidate.mean:.4f}", interval(each.difference, signed=True)))
        sides = (("on its older documents", each.old), ("on those that came", each.new))
        rows += [("", name, "", "", interval(side, signed=True)) for name, side in sides if side is not None]
    return rows


def _outcome(told: Story) -> str:
    words = {
        "promoted": f"was promoted: version {told.promoted.model_version}" if told.promoted else "was promoted",
        "rejected": "was rejected",
        "finished": "finished",
        "failed": "failed",
        "cancelled": "was cancelled",
        "held": "waits for a person",
        "active": "is going on",
    }
    back = ", and was rolled back" if told.rolled_back is not None else ""
    return words.get(told.ending.outcome, told.ending.outcome) + back


def _amounts(amounts: Amounts) -> str:
    if not amounts:
        return "none"
    parts = [
        f"{domain}: {amount.tokens:,} tokens in {count(amount.documents, 'document')}"
        if amount.documents
        else f"{domain}: {amount.tokens:,} tokens"
        for domain, amount in sorted(amounts.items())
    ]
    return "; ".join(parts) + (f" ({tokens(amounts):,} tokens)" if len(parts) > 1 else "")


def _arrived(told: Story) -> Iterator[RenderableType]:
    for arrived in told.arrivals:
        yield facts([(arrived.domain, line) for line in _arrival(arrived)][:1], width=12)
        yield facts([("", line) for line in _arrival(arrived)[1:]], width=12)
    if told.further_arrivals:
        yield f"  … and {count(told.further_arrivals, 'further arrival')}."
    for again in told.again:
        who = f"{again.by or 'unknown'}{': ' + again.reason if again.reason else ''}"
        made = f"made pending again by {who}, {when(again.recorded_at)} (#{again.position})"
        yield facts([("backfill", f"{count(again.arrivals, 'arrival')} {made}")], width=12)
    if not told.arrivals:
        yield "  Nothing new: the run uses what earlier runs were trained on."


def _arrival(arrived: Arrived) -> list[str]:
    amount = arrived.exact or arrived.estimate
    documents = f"{count(amount.documents, 'document')}, " if amount.documents else ""
    counted = "counted by ingest" if arrived.exact else "as estimated at the door"
    lines = [f"{documents}{amount.tokens:,} tokens, {size(amount.bytes)} ({counted})"]
    if arrived.duplicates:
        lines.append(f"{count(arrived.duplicates, 'document')} dropped: known already")
    if arrived.refused:
        lines.append(f"could not be used: {arrived.refused}")
    place = f" in {arrived.place}" if arrived.place else ""
    lines.append(
        f"told by {arrived.source} as {arrived.id}{place}, recorded {when(arrived.recorded_at)} (#{arrived.position})"
    )
    return lines


def _started(told: Story) -> Iterator[RenderableType]:
    decision = told.decision
    if decision is None:
        yield "  The decision behind it is not in the journal."
        return
    rows = [(decision.policy, f"{decision.verdict}: {decision.reason}")]
    rows += [("", line) for line in compared(decision.inputs, decision.thresholds)]
    if told.asked:
        rows.append(("", f"It was decided on a request: {told.asked}."))
    if decision.suppressed_by:
        rows.append(("", f"It could not start at once ({decision.suppressed_by}) and waited {seconds(told.waited)}."))
    else:
        rows.append(("", f"It started at once, at {when(told.started_at)} (decision #{decision.position})."))
    if told.traceparent:
        rows.append(("", f"What led to it belongs to the trace {told.traceparent}."))
    yield facts(rows, width=POLICY)


def _happened(told: Story) -> Iterator[RenderableType]:
    rows = []
    for stage in told.stages:
        rows += _stage_rows(told, stage)
    rows += [("recovery", sentence(decision)) for decision in told.recoveries]
    rows += [("meanwhile", sentence) for sentence in told.interludes]
    if told.ending.outcome in {"failed", "cancelled"}:
        rows.append((told.ending.outcome, told.ending.reason))
    if told.ending.seconds is not None:
        rows.append(("in all", seconds(told.ending.seconds)))
    yield facts(rows, width=12)


def _stage_rows(told: Story, stage: StageTold) -> list[tuple[str, str]]:
    rows = []
    for attempt in stage.attempts:
        name = stage.stage if attempt.number == 1 else f"{stage.stage} #{attempt.number}"
        rows.append((name, _attempt(told, stage.stage, attempt)))
    if stage.stage == "probe" and told.probe is not None:
        rows += [("", line) for line in documents(told.probe)]
    if stage.stage == "curate" and told.curated is not None:
        rows += [("", line) for line in bands(told.curated, told.plan.model.unit)]
    return rows


def _attempt(told: Story, stage: str, attempt: Attempt) -> str:
    took = f" {seconds(attempt.seconds)}" if attempt.seconds is not None else ""
    words = {"succeeded": f"done in{took}", "going on": f"going on since {when(attempt.started_at)}"}
    text = words.get(attempt.outcome, f"{attempt.outcome} after{took}: {attempt.message}")
    metrics = attempt.metrics
    if stage == "probe" and told.probe is not None and attempt.outcome == "succeeded":
        measured = f"there was {unmeasured(told.probe)}"
        if told.probe.shift is not None:
            far = f"{shift(told.probe)} {told.plan.model.unit}"
            measured = f"the champion's loss on the new data is {far} against the old's"
            measured += " (the shift, with its 95 % interval)" if told.probe.shift_low is not None else " (the shift)"
        text += f": {measured}"
    if stage == "curate" and told.curated is not None and attempt.outcome == "succeeded":
        text += f": {kept(told.curated)}"
    if stage == "train" and "tokens" in metrics:
        text += f": {metrics['tokens']:,.0f} tokens, {metrics.get('tokens_per_second', 0):,.0f} a second"
        if metrics.get("resumed_at"):
            text += f", resumed after step {metrics['resumed_at']:,.0f}"
        if metrics.get("skipped"):
            text += f", {metrics['skipped']:,.0f} steps left out"
    return text


def documents(probe: ProbeMeasured) -> Iterator[str]:
    """Yield what the new documents of each domain are like, and how many of them nearly are known ones."""
    for domain in sorted({*probe.lengths, *probe.near_duplicates}):
        told = []
        if domain in probe.lengths:
            each = probe.lengths[domain]
            shares = f"{each.ascii:.1%} ASCII, {each.whitespace:.1%} white space, {each.digits:.1%} digits"
            lengths = f"median {size(each.median)}, mean {size(each.mean)}, longest {size(each.longest)}"
            told.append(f"{count(each.documents, 'document')}, {lengths}; {shares}")
        if domain in probe.near_duplicates:
            told.append(f"near-duplicates {probe.near_duplicates[domain]:.1%}")
        yield f"{domain}: {'; '.join(told)}"


def _brought(told: Story) -> Iterator[RenderableType]:
    if not told.evaluation:
        return
    rows = comparison_rows(told.plan, told.evaluation)
    headings = ("domain", "part", "before", "after", "difference [95 % interval]")
    yield columns(headings, rows, numbers=(2, 3, 4))
    yield from surprises(told.plan, told.evaluation)
    yield UNIT.format(unit=told.plan.model.unit)


def _judged(told: Story) -> Iterator[RenderableType]:
    decision = told.judgement
    if decision is None:
        return
    rows = [(decision.policy, f"{decision.verdict}: {decision.reason}")]
    rows += [("", line) for line in compared(decision.inputs, decision.thresholds)]
    if told.rolled_back is not None:
        rows.append(("rolled back", told.rolled_back.reason))
    yield facts(rows, width=POLICY)


def _shadowed(told: Story) -> Iterator[RenderableType]:
    if told.shadows:
        yield facts([(each.policy, sentence(each)) for each in told.shadows], width=POLICY)


def sentence(decided: Decided) -> str:
    """Return a decision in one line."""
    return f"{decided.verdict}: {decided.reason}{held_back(decided)} (#{decided.position})"
