"""`rewarm retention`: what would be removed now, and by which rule; nothing is."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.cli.output import columns, count, kept, show, show_json, size
from daemon.cli.session import configured, perhaps_reading
from daemon.config import Configuration
from daemon.journal.base import Reader
from daemon.restore import restore
from daemon.retention.history import History
from daemon.retention.sweep import find_due, recorded_upto

if TYPE_CHECKING:
    from daemon.cli.session import Commands


class Goes(msgspec.Struct, frozen=True, kw_only=True):
    """What would go: its paths below the state folder, and the rule."""

    what: str
    name: str
    paths: tuple[str, ...]
    bytes: int
    rule: str
    pipeline: str | None = None
    run: str | None = None


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that would go now; `kept` are the settings, a period each, null for ever.

    `waits` counts what would go as well if MLflow had recorded it.
    """

    at: datetime
    state: str
    kept: dict[str, str | int | None]
    bytes: int
    goes: tuple[Goes, ...]
    waits: int = 0


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "what retention would remove now, and by which rule; nothing is removed"
    parser = commands.add_parser("retention", parents=[common], help=text, description=f"Show {text}.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show what would go."""
    configuration = configured(arguments)
    with perhaps_reading(configuration) as reader:
        outlook = foresee(configuration, reader, datetime.now(UTC))
    if arguments.json:
        show_json(outlook)
    else:
        show(*render(outlook))
    return 0


def foresee(configuration: Configuration, reader: Reader | None, now: datetime) -> Outlook:
    """Return what the daemon's next sweep would remove at `now`. Raises JournalError."""
    settings = configuration.settings.retention
    found, waits = [], 0
    if reader is not None:
        state = restore(reader).state
        history = History(shards=settings.shards is not None)
        history.read(reader)
        told = recorded_upto(configuration.tracking_uri, configuration.state, state.position)
        found = find_due(configuration.state, state, history, now, settings, told)
        wanted = find_due(configuration.state, state, history, now, settings)
        waits = len({each.removal.identity for each in wanted} - {each.removal.identity for each in found})
    return Outlook(
        at=now,
        state=str(configuration.state),
        kept=settings.model_dump(mode="json"),
        bytes=sum(each.bytes for each in found),
        goes=tuple(
            Goes(
                what=each.removal.what,
                name=each.removal.name,
                paths=tuple(_below(configuration.state, path) for path in each.paths),
                bytes=each.bytes,
                rule=each.removal.rule,
                pipeline=each.removal.pipeline,
                run=each.removal.run,
            )
            for each in found
        ),
        waits=waits,
    )


def render(outlook: Outlook) -> list[RenderableType]:
    """Return the outlook for a person."""
    out: list[RenderableType] = [f"Kept: {kept(outlook.kept)}.", ""]
    if outlook.waits:
        out = [f"{count(outlook.waits, 'removal waits', 'removals wait')} until MLflow has recorded so far.", *out]
    if not outlook.goes:
        return [*out, "Nothing would go."]
    rows = [(each.what, each.name, size(each.bytes), each.rule) for each in outlook.goes]
    total = (
        f"{count(len(outlook.goes), 'removal')}, {size(outlook.bytes)}. The daemon sweeps at its start and every hour."
    )
    return [*out, columns(("what", "name", "size", "rule"), rows, numbers=(2,)), "", total]


def _below(state: Path, path: Path) -> str:
    return str(path.relative_to(state))
