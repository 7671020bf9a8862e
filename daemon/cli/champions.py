"""`rewarm champions`: which version was live when, on what evidence, and why it went."""

import argparse
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace
from rich.console import RenderableType

from daemon.cli.backfill import instant
from daemon.cli.explain.numbers import compared
from daemon.cli.output import NOTHING, facts, heading, show, show_json, when
from daemon.cli.session import configured, perhaps_reading, pipeline_named
from daemon.core.commands import RollBack, policy_of
from daemon.core.decisions import OPERATOR
from daemon.core.events import (
    DecisionMade,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    Record,
    RunCancelled,
    RunFailed,
    RunResumed,
    RunStarted,
)
from daemon.core.plans import Amounts, Plan
from daemon.core.plans import add as together
from daemon.journal.base import Reader, scan_where
from daemon.story import Decided, decided

if TYPE_CHECKING:
    from daemon.cli.session import Commands

MODELS = (ModelPromoted.kind, ModelRolledBack.kind, RunCancelled.kind, RunFailed.kind)
TOLD = (RunStarted.kind, PlanFixed.kind, DecisionMade.kind, RunResumed.kind)
JUDGEMENTS = frozenset({"promote", "hold", "held"})


class Reign(msgspec.Struct, frozen=True, kw_only=True):
    """A version while it was the champion; `until` is None while it is.

    `past` is what it was trained on, in all, when it went live. `judgement` is the gate's, `rise` the sentences that
    led on from there to its promotion (by whom it was approved), or to its return; `fall` is why it ended, with the
    decision behind it where a policy made one.
    """

    version: int
    run: str
    since: datetime
    position: int
    until: datetime | None = None
    sha256: str
    path: str
    past: Amounts
    judgement: Decided | None = None
    rise: tuple[str, ...] = ()
    fall: str = ""
    fell_by: Decided | None = None


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "which version was the champion when, on what evidence, and why it went"
    parser = commands.add_parser("champions", parents=[common], help=text, description=f"Show {text}.")
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("--at", metavar="T", help="only the champion at this instant, such as 2026-03-01T12:00:00Z")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the champions; raises RewarmError for an unknown pipeline, and for what is no instant."""
    configuration = configured(arguments)
    name = pipeline_named(configuration, arguments.pipeline)
    at = instant(arguments.at) if arguments.at is not None else None
    with perhaps_reading(configuration) as reader:
        found = list(reigns(reader, name)) if reader is not None else []
    if at is not None:
        found = [each for each in found if each.since <= at and (each.until is None or at < each.until)]
    if arguments.json:
        show_json(found)
    else:
        show(*render(name, found, at))
    return 0


def reigns(reader: Reader, pipeline: str) -> Iterator[Reign]:
    """Yield the champions of a pipeline in the order in which they were live."""
    told: list[Reign] = []
    for record in scan_where(reader, 0, kinds=MODELS, pipeline=pipeline):
        match record.event:
            case ModelPromoted() as event:
                _end(told, record, f"version {event.model_version} of run {event.run} was promoted")
                told.append(_promoted(reader, record, event))
            case ModelRolledBack() as event:
                by = _rolled_back(reader, record)
                _end(told, record, event.reason, by)
                back = next((each for each in reversed(told) if each.version == event.model_version), None)
                if back is not None:
                    why = f"version {event.withdrawn_version} was rolled back"
                    fresh = {"until": None, "fall": "", "fell_by": None, "judgement": None, "rise": (why,)}
                    told.append(replace(back, since=record.recorded_at, position=record.position, **fresh))
            case RunCancelled(run=run) | RunFailed(run=run) if told and told[-1].run == run:
                told.pop()  # it was published too late, and never was the champion
                if told:
                    told[-1] = replace(told[-1], until=None, fall="", fell_by=None)
            case _:
                pass
    yield from told


def render(pipeline: str, found: list[Reign], at: datetime | None) -> list[RenderableType]:
    """Return the champions for a person, the latest first."""
    if not found:
        instant_told = f" at {when(at)}" if at is not None else " yet"
        return [f"{pipeline} had no champion{instant_told}."]
    out: list[RenderableType] = []
    for reign in reversed(found):
        end = "now" if reign.until is None else when(reign.until)
        out += [heading(f"version {reign.version}: {when(reign.since)} to {end}"), facts(_rows(reign)), ""]
    return out[:-1]


def _rows(reign: Reign) -> Iterator[tuple[str, str]]:
    yield "run", f"{reign.run} (#{reign.position}), sha256 {reign.sha256[:12]}, {reign.path}"
    yield "past", _amounts(reign.past)
    if reign.judgement is not None:
        yield from _decision("judged", reign.judgement)
    for number, sentence in enumerate(reign.rise):
        yield ("live" if number == 0 else ""), sentence
    if reign.until is not None:
        yield "ended", reign.fall
        if reign.fell_by is not None:
            yield from ((("", line)) for line in _numbers(reign.fell_by))


def _decision(name: str, decision: Decided) -> Iterator[tuple[str, str]]:
    yield name, f"{decision.policy}, {decision.verdict}: {decision.reason} (#{decision.position})"
    yield from ((("", line)) for line in _numbers(decision))


def _numbers(decision: Decided) -> Iterable[str]:
    return compared(decision.inputs, decision.thresholds)


def _amounts(past: Amounts) -> str:
    parts = [f"{domain} {amount.tokens:,}" for domain, amount in sorted(past.items())]
    return f"{' · '.join(parts)} tokens" if parts else NOTHING


def _end(told: list[Reign], record: Record, why: str, by: Decided | None = None) -> None:
    if told:
        told[-1] = replace(told[-1], until=record.recorded_at, fall=why, fell_by=by)


def _promoted(reader: Reader, record: Record, event: ModelPromoted) -> Reign:
    plan: Plan | None = None
    judgement: Decided | None = None
    rise: list[str] = []
    for each in scan_where(reader, 0, upto=record.position, run=event.run, kinds=TOLD):
        match each.event:
            case RunStarted() as started:
                plan = started.plan
                if policy_of(started.command) == OPERATOR:
                    rise.append(_behind(reader, started.command, "asked for"))
            case PlanFixed() as fixed:
                plan = fixed.plan
            case DecisionMade() as decision if decision.verdict in JUDGEMENTS and not decision.shadow:
                judgement = decided(each, decision)
            case RunResumed() as resumed if resumed.stage == "evaluate" or _judged(judgement):
                rise.append(_behind(reader, resumed.command, "promotion forced" if resumed.forced else "approved"))
            case _:
                pass
    return Reign(
        version=event.model_version,
        run=event.run,
        since=record.recorded_at,
        position=record.position,
        sha256=event.sha256,
        path=event.path,
        past=together(plan.past, plan.new) if plan is not None else {},
        judgement=judgement,
        rise=tuple(rise),
    )


def _judged(judgement: Decided | None) -> bool:
    return judgement is not None and judgement.verdict != "promote"


def _behind(reader: Reader, command: str, deed: str) -> str:
    """Return in a sentence what gave a command: a person's request, or a policy's decision."""
    cause, policy = command.partition("/")[0], policy_of(command)
    at = int(cause) if cause.isdecimal() else 0
    if policy == OPERATOR and at:
        (record,) = reader.records(at - 1, 1, upto=at)
        if isinstance(record.event, OperatorRequested):
            return _asked(record.event, deed, at)
    for each in _decisions(reader, at):
        if each.policy == policy:
            return f"{each.policy}, {each.verdict}: {each.reason} (#{each.position})"
    return f"{deed} by {policy or NOTHING}"


def _asked(event: OperatorRequested, deed: str, position: int) -> str:
    return f"{deed} by {event.by or 'unknown'}{f': {event.reason}' if event.reason else ''} (#{position})"


def _rolled_back(reader: Reader, record: Record) -> Decided | None:
    """Return the decision behind a rollback, where a policy made it."""
    found = (each for each in _decisions(reader, record.cause or 0, RollBack) if each.policy != OPERATOR)
    return next(found, None)


def _decisions(reader: Reader, cause: int, *kinds: type) -> Iterator[Decided]:
    """Yield the decisions that a record caused, of `kinds` those that carry such a command."""
    for record in reader.records(cause, 100, kinds={DecisionMade.kind}) if cause else ():
        if record.cause != cause or not isinstance(record.event, DecisionMade):
            break
        if record.event.commands and (not kinds or any(isinstance(c, kinds) for c in record.event.commands)):
            yield decided(record, record.event)
