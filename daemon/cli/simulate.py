"""`rewarm simulate`: what the policies would make of a history, on a virtual clock; nothing is stored."""

import argparse
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.cli.output import columns, count, heading, show, show_json, warn
from daemon.cli.session import configured
from daemon.config import Configuration, importable, load
from daemon.core.errors import ConfigurationError, RewarmError
from daemon.files import write_atomically
from daemon.journal.base import Reader, scan_where
from daemon.journal.sqlite import SqliteReader, open_reader
from daemon.simulation.costs import DEFAULTS, Costs
from daemon.simulation.histories import HOUR, SHAPES, History, synthetic
from daemon.simulation.learning import KINDS, learn
from daemon.simulation.recorded import in_force, recorded
from daemon.simulation.report import PolicySet, Report, Simulated, simulate
from daemon.simulation.rows import cost_rows, rows
from daemon.simulation.rows import period as period_in_words
from policies.periods import parse

if TYPE_CHECKING:
    from daemon.cli.session import Commands

RECORDED = "journal"
IN_FORCE = "in force"
DAYS = 30.0
MOST_DAYS = 3650
MOST_EVENTS = 5_000_000
MOST_TOKENS = 1_000_000_000_000
FORMS = ("svg", "png")
STILL = (
    "What is in shadow does nothing here either ({names}): simulate a copy of the configuration without "
    "`mode: shadow` to see what it would do."
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as `--json` gives it: what was assumed, and a report for each set of policies."""

    history: str
    description: str
    begin: str
    end: str
    seed: int
    left_out: dict[str, int]
    learned_from: str | None
    costs: Costs
    reports: tuple[Report, ...]


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "what the policies would make of a history, on a virtual clock"
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help=text,
        description=f"Show {text}.\nNothing is stored, and no daemon is asked.",
        epilog="histories:\n"
        + "".join(f"  {name:14} {shape.description}\n" for name, shape in SHAPES.items())
        + f"  {RECORDED:14} what the journal was told from outside",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--history", default="steady", metavar="NAME", help="default: steady")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, another history; default: 1")
    parser.add_argument("--days", type=float, metavar="N", help=f"length of a made-up history; default: {DAYS:g}")
    parser.add_argument("--events", type=int, metavar="N", help="about how many arrivals each pipeline gets in all")
    parser.add_argument("--tokens", type=int, metavar="N", help="mean tokens of an arrival")
    parser.add_argument("--pipeline", metavar="NAME", help="only this one; default: all, sharing the slots")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="the journal to learn from and to replay; default: the configured"
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="another configuration over the same history")
    parser.add_argument(
        "--approve-after", metavar="PERIOD", help="somebody approves held candidates after so long: 30m, 4h, 2d"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture too: FILE.svg or FILE.png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate and show what comes of it; raises RewarmError for what cannot be simulated."""
    configuration = configured(arguments)
    importable(configuration.base)  # the journal may name classes of policies that lie there
    approve_after = None if arguments.approve_after is None else period(arguments.approve_after)
    form = None if arguments.plot is None else _form(arguments.plot)
    check(arguments)
    journal = arguments.journal or configuration.journal
    if journal.exists():
        with open_reader(journal) as reader:
            costs = learn(scan_where(reader, 0, kinds=KINDS))
            sets, history = _prepare(arguments, configuration, reader)
            simulated = _simulate(sets, history, costs, arguments.seed, approve_after)
    elif arguments.journal is not None or arguments.history == RECORDED:
        raise RewarmError(f"There is no journal {journal}: a daemon makes one; --journal names another.")
    else:
        costs = DEFAULTS
        sets, history = _prepare(arguments, configuration, None)
        simulated = _simulate(sets, history, costs, arguments.seed, approve_after)
    if form is not None:
        from daemon.simulation.plot import draw

        try:
            write_atomically(arguments.plot, draw(simulated, history, seed=arguments.seed, form=form))
        except OSError as error:
            raise RewarmError(f"The picture {arguments.plot} cannot be written: {error}.") from error
    learned_from = str(journal) if costs.attempts else None
    if arguments.json:
        show_json(answer(simulated, history, costs, arguments.seed, learned_from))
    else:
        show(*render(simulated, history, costs, arguments.seed, learned_from))
        if arguments.plot is not None:
            show("", f"The picture: {arguments.plot}")
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Raise RewarmError for options that do not fit each other, naming what does."""
    if arguments.history != RECORDED and arguments.history not in SHAPES:
        known = ", ".join((*SHAPES, RECORDED))
        raise RewarmError(f"There is no history {arguments.history!r}: --history is one of {known}.")
    shaped = [f"--{name}" for name in ("days", "events", "tokens") if getattr(arguments, name) is not None]
    if arguments.history == RECORDED and shaped:
        raise RewarmError(f"{' and '.join(shaped)} shape a made-up history; what a journal recorded is as it was.")
    days = DAYS if arguments.days is None else arguments.days
    if not 0 < days <= MOST_DAYS:
        raise RewarmError(f"--days {days:g} is not possible: more than 0, at most {MOST_DAYS:,}.")
    for name, most in (("events", MOST_EVENTS), ("tokens", MOST_TOKENS)):
        number = getattr(arguments, name)
        if number is not None and not 1 <= number <= most:
            raise RewarmError(f"--{name} {number} is not possible: from 1 to {most:,}.")
    if arguments.history != RECORDED and arguments.events is None:
        expected = SHAPES[arguments.history].a_day * days
        if expected > MOST_EVENTS:
            raise RewarmError(
                f"{days:g} days of {arguments.history} are about {expected:,.0f} arrivals for each pipeline, and at "
                f"most {MOST_EVENTS:,} are possible: give fewer --days, or --events."
            )


def period(text: str) -> timedelta:
    """Return a period like 30m, 4h or 2d; raises RewarmError for anything else."""
    found = parse(text)
    if found is None:
        raise RewarmError(f"--approve-after {text!r} is no period: write a number and a unit, like 90s, 30m, 4h or 2d.")
    return found


def _form(path: Path) -> str:
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise RewarmError(f"--plot {path} must end in .svg or .png: that says what is drawn.")
    if not path.parent.is_dir():
        raise RewarmError(f"The picture {path} cannot be written: there is no folder {path.parent}.")
    return form


def _prepare(
    arguments: argparse.Namespace, configuration: Configuration, reader: SqliteReader | None
) -> tuple[list[PolicySet], History]:
    """Return the sets of policies to try, and the history that each of them is given."""
    first = _base(arguments, configuration, reader)
    names = _chosen(arguments, first)
    sets = [_only(first, names)]
    if arguments.against is not None:
        other = load(arguments.against)
        missing = [name for name in names if name not in other.settings.pipelines]
        if missing:
            raise RewarmError(f"{arguments.against} has no pipeline {missing[0]!r}: both need it to be compared.")
        sets.append(_only(_of(other, arguments.against.name), names))
    if arguments.history == RECORDED and reader is not None:
        return sets, recorded(reader, names)
    history = synthetic(
        arguments.history,
        names,
        seed=arguments.seed,
        days=DAYS if arguments.days is None else arguments.days,
        events=arguments.events,
        tokens=arguments.tokens,
    )
    return sets, history


def _base(arguments: argparse.Namespace, configuration: Configuration, reader: Reader | None) -> PolicySet:
    """Return the policies in force: as the journal recorded them where it is replayed, else as configured."""
    if arguments.history == RECORDED and reader is not None:
        found = in_force(reader)
        if found is not None:
            if arguments.against is None and found.changed.hash != configuration.changed().hash:
                name = configuration.file or "what is configured"
                warn(f"{name} differs from what the journal has in force; compare with --against {name}")
            return PolicySet(name=IN_FORCE, changed=found.changed, policies=found.policies)
    return _of(configuration, IN_FORCE)


def _of(configuration: Configuration, name: str) -> PolicySet:
    policies = {each: pipeline.policies for each, pipeline in configuration.settings.pipelines.items()}
    return PolicySet(name=name, changed=configuration.changed(), policies=policies)


def _chosen(arguments: argparse.Namespace, first: PolicySet) -> list[str]:
    known = sorted(first.changed.pipelines)
    if arguments.pipeline is None:
        if not known:
            raise ConfigurationError("No pipeline is configured: add one to `pipelines` in rewarm.yaml.")
        return known
    if arguments.pipeline not in known:
        raise RewarmError(
            f"There is no pipeline {arguments.pipeline!r} {first.name}; there are: {', '.join(known) or 'none'}."
        )
    return [arguments.pipeline]


def _only(policies: PolicySet, names: Sequence[str]) -> PolicySet:
    """Return a set of policies with these pipelines alone."""
    if set(names) == set(policies.changed.pipelines):
        return policies
    pipelines = {name: policies.changed.pipelines[name] for name in names if name in policies.changed.pipelines}
    changed = msgspec.structs.replace(policies.changed, pipelines=pipelines)
    return msgspec.structs.replace(policies, changed=changed)


def _simulate(
    sets: Sequence[PolicySet], history: History, costs: Costs, seed: int, approve_after: timedelta | None
) -> list[Simulated]:
    return [simulate(each, history, costs, seed=seed, approve_after=approve_after) for each in sets]


def answer(
    simulated: Sequence[Simulated], history: History, costs: Costs, seed: int, learned_from: str | None
) -> Answer:
    """Return everything as `--json` shows it."""
    return Answer(
        history=history.name,
        description=history.description,
        begin=history.begin.isoformat(),
        end=history.end.isoformat(),
        seed=seed,
        left_out=history.left_out,
        learned_from=learned_from,
        costs=costs,
        reports=tuple(each.report for each in simulated),
    )


def render(
    simulated: Sequence[Simulated], history: History, costs: Costs, seed: int, learned_from: str | None
) -> list[RenderableType]:
    """Return it for a person."""
    reports = [each.report for each in simulated]
    hours = (history.end - history.begin).total_seconds() / HOUR
    facts = sum(reports[0].facts.values())
    length = f"{hours / 24:.4g} days" if hours >= 48 else period_in_words(3600 * hours)  # noqa: PLR2004 - two days
    begun = f"{history.begin:%Y-%m-%d %H:%M} UTC"
    out: list[RenderableType] = [
        heading(f"{history.name}: {history.description}"),
        f"{length} of virtual time from {begun}, seed {seed}, {count(reports[0].slots, 'slot')}; {facts:,} facts.",
    ]
    out += [f"Left out: {reason} ({number:,})." for reason, number in history.left_out.items()]
    for name in reports[0].pipelines:
        each = [report.pipelines[name] for report in reports]
        told = rows(each, [max(1e-9, hours * report.slots) for report in reports])
        names = [report.name for report in reports]
        head = [name, *names, "change"] if len(each) > 1 else [name, *names]
        cells = [[row.label, *(row.cells or [""] * len(each)), row.change][: len(head)] for row in told]
        out += ["", columns(head, cells, numbers=range(1, len(head)))]
    shadowed = [r.name for r in reports if any(pipeline.shadow for pipeline in r.pipelines.values())]
    out += ["", STILL.format(names=", ".join(shadowed))] if shadowed else []
    if len(reports) > 1 and reports[0].state == reports[1].state:
        out += ["", "Nothing would change."]
    stages = [stage for report in reports for each in report.pipelines.values() for stage in each.attempts]
    source = f"learned from {learned_from}" if learned_from else "there are no past runs to learn from"
    out += [
        "",
        columns(["cost or gain", "", "known from"], cost_rows(costs, stages)),
        "",
        f"Costs: {source}.",
    ]
    out.append("A default is an assumption: docs/how-to/simulate.md tells where it is from.")
    return out
