"""A pipeline's present as a person reads it: why does it train, or why not?"""

from rich.console import RenderableType

from daemon.cli.explain.numbers import compared
from daemon.cli.explain.render import POLICY, sentence
from daemon.cli.explain.why import Opinion, Why
from daemon.cli.output import facts, heading, seconds, when
from daemon.cli.shadow import would_have


def why(seen: Why) -> list[RenderableType]:
    """Return a pipeline's present in sections."""
    title = f"{seen.pipeline} at {when(seen.at)}, after record {seen.position:,}"
    out: list[RenderableType] = [heading(title), facts(_present(seen)), "", heading("What each policy says now")]
    for opinion in seen.opinions:
        out += [facts(opinion_rows(opinion), width=POLICY)]
    if not seen.opinions:
        out += ["  No policy is configured, so nothing starts by itself."]
    if seen.wishes:
        rows = [(w.policy, f"wants {w.wants} since {when(w.since)}; waits for {w.waits_for}") for w in seen.wishes]
        out += ["", heading("What waits"), facts(rows, width=POLICY)]
    if seen.shadows:
        rows = [(d.policy, f"{when(d.recorded_at)} {sentence(d)}") for d in seen.shadows]
        out += ["", heading("What would have been started last, in shadow"), facts(rows, width=POLICY)]
    if seen.decisions:
        rows = [(d.policy, sentence(d)) for d in seen.decisions]
        out += ["", heading("What was decided last"), facts(rows, width=POLICY)]
    return out


def opinion_rows(opinion: Opinion) -> list[tuple[str, str]]:
    """Return a policy's opinion as rows."""
    shadow = [("", f"in shadow: {would_have(opinion.shadow)}")] if opinion.shadow is not None else []
    if opinion.verdict is None:
        return [(opinion.policy, "has nothing to say now"), *shadow]
    rows = [(opinion.policy, f"{opinion.verdict}: {opinion.reason}")]
    rows += [("", line) for line in compared(opinion.inputs, opinion.thresholds)]
    rows += [("", f"asks again at {when(at)} ({key})") for key, at in sorted(opinion.wakes.items())]
    if opinion.due and opinion.shadow is None:
        rows.append(("", f"it would have to wait for {opinion.obstacle}" if opinion.obstacle else "it would start now"))
    if opinion.due and opinion.shadow is not None:
        rows.append(("", "it would wish to start now, and does not: it is in shadow"))
    return rows + shadow


def _present(seen: Why) -> list[tuple[str, str]]:
    pending, aside = _tokens(seen.pending), _tokens(seen.set_aside)
    rows = [
        ("champion", f"version {seen.champion}" if seen.champion else "none yet"),
        ("pending", pending or "no data waits"),
        *([("set aside", f"{aside}, which no run takes by itself")] if aside else []),
        ("active", seen.active or "no run"),
        ("computed", f"{seconds(seen.spent_day)} today, {seconds(seen.spent_month)} this month (UTC)"),
    ]
    rows += [("paused", f"by {seen.paused}; `rewarm request resume {seen.pipeline}` ends it")] if seen.paused else []
    if seen.frozen:
        rows.append(("frozen", f"by {seen.frozen}: nothing is promoted; `rewarm request thaw {seen.pipeline}` ends it"))
    rows += [("held", f"{seen.held} waits for `rewarm request approve {seen.pipeline}`")] if seen.held else []
    approve = f"rewarm request approve {seen.pipeline} --decision"
    rows += [("approval", f"{policy} waits for `{approve} {at}`") for policy, at in seen.approvals.items()]
    rows += [("claimed", f"{key} until {when(at)}") for key, at in seen.claims.items()]
    return rows


def _tokens(amounts: dict[str, int]) -> str:
    told = " · ".join(f"{domain} {amount:,}" for domain, amount in sorted(amounts.items()))
    return f"{told} tokens" if told else ""
