"""The demo's last page: what arrived, what was decided and why, what it brought, and what to type next."""

from collections.abc import Collection
from pathlib import Path

import msgspec
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from daemon.cli.demo.steps import SOURCE
from daemon.cli.explain.numbers import compared
from daemon.cli.explain.render import interval
from daemon.cli.output import NOTHING, commands, count, program, seconds, short
from daemon.cli.status import Champion, describe, mlflow_behind
from daemon.config import Configuration
from daemon.core.events import RunStarted
from daemon.core.state import State
from daemon.journal.base import Reader
from daemon.story import Decided, Story, forgetting, gains, runs, tell

NARROW = 90


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that the demo has to show."""

    pipeline: str
    runs: tuple[Story, ...]
    champion: Champion | None
    records: int
    dead_letters: int
    journal: str
    tracking_uri: str | None
    behind: int
    seconds: float
    news: bool
    failures: tuple[str, ...]
    following: tuple[tuple[str, str], ...]


def collect(
    configuration: Configuration,
    reader: Reader,
    state: State,
    pipeline: str,
    *,
    seconds: float,
    news: bool,
    failures: tuple[str, ...] = (),
    sources: Collection[str] = (SOURCE,),
) -> Report:
    """Return the report over the runs that the demo's arrivals brought; `sources` is who told of them."""
    stories = [tell(reader, r.event.run) for r in runs(reader, pipeline) if isinstance(r.event, RunStarted)]
    ours = tuple(story for story in stories if any(arrived.source in sources for arrived in story.arrivals))
    found = state.pipelines.get(pipeline)
    last = next((story.run for story in reversed(ours) if story.plan.kind != "base"), ours[-1].run if ours else None)
    return Report(
        pipeline=pipeline,
        runs=ours,
        champion=describe(state, found, configured=True).champion if found else None,
        records=state.position,
        dead_letters=state.dead_letters,
        journal=str(configuration.journal),
        tracking_uri=configuration.tracking_uri,
        behind=mlflow_behind(configuration, state.position),
        seconds=round(seconds, 1),
        news=news,
        failures=failures,
        following=_commands(last),
    )


def _commands(last: str | None) -> tuple[tuple[str, str], ...]:
    """Return what to type next, with what it shows."""
    name, made = program(), Path("Makefile").is_file()
    found = [("make ui" if made else f"{name} ui", "curves, plans and transitions in MLflow")]
    found += [(f"{name} explain {last}", "the chain of causes behind the last run")] if last else []
    found.append((f"{name} status", "where everything stands"))
    found.append(("make serve" if made else f"{name} serve", "the same daemon, staying up"))
    return tuple(found)


def render(report: Report, state_folder: Path, *, width: int) -> list[RenderableType]:
    """Return the page as one table that fits `width` columns."""
    table = Table(box=box.ROUNDED, show_header=False, title=Text(f"rewarm: {report.pipeline}", style="bold"))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", ratio=1)
    for story in report.runs:
        for name, value in _run_rows(story, narrow=width < NARROW):
            table.add_row(name, value if not isinstance(value, str) else Text(value))
        table.add_section()
    for name, value in _end_rows(report, state_folder):
        table.add_row(name, Text(value))
    out: list[RenderableType] = [table]
    out.append(Text("Losses are nats per byte of held-out text: lower is better. [ ] is a 95 % interval.", style="dim"))
    return [*out, "", "Next:", *commands(report.following, width=width)]


def _run_rows(story: Story, *, narrow: bool) -> list[tuple[str, RenderableType | str]]:
    rows: list[tuple[str, RenderableType | str]] = [("run", Text(story.run, style="bold"))]
    for arrived in story.arrivals:
        amount = arrived.exact or arrived.estimate
        documents = f"{count(amount.documents, 'document')}, " if amount.documents else ""
        rows.append(("arrived", f"{arrived.domain}: {documents}{amount.tokens:,} tokens ({arrived.id})"))
    rows += [("decided", _because(story.decision))] if story.decision else []
    rows += [("planned", story.planned_by.reason)] if story.planned_by else []
    if story.evaluation:
        rows.append(("losses", _losses(story, narrow=narrow)))
    rows += [("judged", _because(story.judgement))] if story.judgement else []
    told = story.ending.outcome
    told += f" as version {story.promoted.model_version}" if story.promoted else ""
    told += f": {story.ending.reason}" if story.ending.reason else ""
    told += f" after {seconds(story.ending.seconds)}" if story.ending.seconds is not None else ""
    rows.append(("outcome", Text(told, style="green" if story.promoted else "yellow")))
    return rows


def _because(decision: Decided) -> str:
    """Return a decision with what it compared; a number that its sentence says already is not repeated."""
    numbers = [line for line in compared(decision.inputs, decision.thresholds) if "(" in line]
    told = f"{decision.policy}: {decision.reason}"
    return "\n".join([told, *numbers])


def _losses(story: Story, *, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("domain")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("change [95 % interval]", justify="right")
    table.add_column("")
    digits = 3 if narrow else 4
    older, newer = forgetting(story.plan, story.evaluation), gains(story.plan, story.evaluation)
    for domain, each in sorted(story.evaluation.items()):
        before = f"{each.champion.mean:.4f}" if each.champion else NOTHING
        change, meaning = interval(each.difference, signed=True, digits=digits), ""
        if each.difference is None:
            change = interval(each.candidate, digits=digits)
            meaning = "the first model"
        elif domain in newer:
            meaning = "gain" if narrow else f"gain {-newer[domain].mean:.4f}"
        elif domain in older:
            rise = older[domain].mean
            told = "forgotten" if narrow else f"forgotten {rise:.4f}"
            meaning = told if rise > 0 else "not forgotten"
        table.add_row(domain, before, f"{each.candidate.mean:.4f}", Text(change), Text(meaning))
    return table


def _end_rows(report: Report, state_folder: Path) -> list[tuple[str, str]]:
    champion = report.champion
    rows = [("champion", "none yet")]
    if champion is not None:
        path = short(state_folder / champion.path)
        rows = [("champion", f"version {champion.version} of {champion.run}, sha256 {champion.sha256[:12]}…\n{path}")]
    dead = f", {count(report.dead_letters, 'dead letter')}" if report.dead_letters else ""
    rows.append(("journal", f"{short(report.journal)} ({count(report.records, 'record')}{dead})"))
    if report.tracking_uri:
        where = report.tracking_uri
        if where.startswith("sqlite:///"):
            where = f"sqlite:///{short(where.removeprefix('sqlite:///'))}"
        rows.append(("mlflow", f"{where} ({count(report.behind, 'record')} behind)"))
    rows.append(("took", seconds(report.seconds)))
    rows += [("failed", failure) for failure in report.failures]
    return rows
