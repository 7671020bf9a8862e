"""`rewarm retention`: what would be removed now, and by which rule; nothing is."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.cli.output import columns, count, show, show_json, size
from daemon.cli.session import configured, perhaps_reading
from daemon.config import Configuration
from daemon.journal.base import Reader
from daemon.restore import restore
from daemon.retention.history import History
from daemon.retention.sweep import find_due

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
    """Everything that would go now; `kept` are the settings, a period each, null for ever."""

    at: datetime
    state: str
    kept: dict[str, str | int | None]
    bytes: int
    goes: tuple[Goes, ...]


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
    found = []
    if reader is not None:
        state = restore(reader).state
        history = History(shards=settings.shards is not None)
        history.read(reader)
        found = find_due(configuration.state, state, history, now, settings)
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
    )


def render(outlook: Outlook) -> list[RenderableType]:
    """Return the outlook for a person."""
    kept = ", ".join(f"{name} {'for ever' if value is None else value}" for name, value in outlook.kept.items())
    out: list[RenderableType] = [f"Kept: {kept}.", ""]
    if not outlook.goes:
        return [*out, "Nothing would go."]
    rows = [(each.what, each.name, size(each.bytes), each.rule) for each in outlook.goes]
    total = (
        f"{count(len(outlook.goes), 'removal')}, {size(outlook.bytes)}. The daemon sweeps at its start and every hour."
    )
    return [*out, columns(("what", "name", "size", "rule"), rows, numbers=(2,)), "", total]


def _below(state: Path, path: Path) -> str:
    return str(path.relative_to(state))
