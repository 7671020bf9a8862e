"""`rewarm plan`: what would be decided now; nothing is stored."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.cli.explain.present import opinion_rows
from daemon.cli.explain.render import plan_rows
from daemon.cli.explain.why import Opinion, hypothetical, opinions
from daemon.cli.output import facts, heading, show, show_json
from daemon.cli.session import configured, perhaps_reading, pipeline_named
from daemon.cli.status import timetable
from daemon.config import Configuration
from daemon.core.state import State
from daemon.restore import restore
from daemon.sources.schedule import Timetable, timetables

if TYPE_CHECKING:
    from daemon.cli.session import Commands


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What each policy would decide now, and how many slots are free."""

    at: datetime
    slots: int
    active: tuple[str, ...]
    pipelines: dict[str, tuple[Opinion, ...]]
    schedules: dict[str, tuple[Timetable, ...]] = {}


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "what would be decided now, without storing anything"
    parser = commands.add_parser("plan", parents=[common], help=text, description=f"Show {text}.")
    parser.add_argument("pipeline", metavar="PIPELINE", nargs="?", help="default: all")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show what would be decided; raises RewarmError for an unknown pipeline."""
    configuration = configured(arguments)
    if arguments.pipeline is not None:
        pipeline_named(configuration, arguments.pipeline)
    with perhaps_reading(configuration) as reader:
        state = restore(reader).state if reader is not None else State()
    outlook = foresee(configuration, state, datetime.now(UTC), arguments.pipeline)
    if arguments.json:
        show_json(outlook)
    else:
        show(*render(outlook))
    return 0


def foresee(configuration: Configuration, state: State, now: datetime, only: str | None = None) -> Outlook:
    """Return what the policies would decide at `now` with this configuration."""
    state = hypothetical(state, configuration, now)
    names = [name for name in configuration.settings.pipelines if only in (None, name)]
    return Outlook(
        at=now,
        slots=state.slots,
        active=tuple(sorted(p.active.run for p in state.pipelines.values() if p.active is not None)),
        pipelines={
            name: opinions(state, state.pipelines[name], configuration.settings.pipelines[name].policies, now)
            for name in names
        },
        schedules={name: found for name in names if (found := timetables(state, name, now))},
    )


def render(outlook: Outlook) -> list[RenderableType]:
    """Return the outlook for a person."""
    busy = f"taken by {', '.join(outlook.active)}" if outlook.active else "all free"
    out: list[RenderableType] = [f"{outlook.slots} slot{'s' * (outlook.slots != 1)}, {busy}.", ""]
    for name, each in outlook.pipelines.items():
        out.append(heading(name))
        for opinion in each:
            out.append(facts(opinion_rows(opinion), width=20))
            if opinion.plan is not None:
                out.append(facts(plan_rows(opinion.plan, None), indent=22))
        out += [facts([("schedule", timetable(each))], width=20) for each in outlook.schedules.get(name, ())]
        out.append("")
    if not any(opinion.due for each in outlook.pipelines.values() for opinion in each):
        out.append("Nothing would start.")
    return out
