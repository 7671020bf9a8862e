"""`rewarm replay`: does the journal still say what today's code would say?"""

import argparse
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from daemon.cli.output import NOTHING, columns, console, count, facts, heading, show, show_json
from daemon.cli.session import configured
from daemon.config import importable
from daemon.core.encoding import encode
from daemon.core.errors import RewarmError
from daemon.core.events import Record
from daemon.journal.base import scan
from daemon.journal.sqlite import SqliteReader, open_reader

if TYPE_CHECKING:
    from daemon.cli.session import Commands
    from daemon.replay import Difference, Replay


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A record, stored or recomputed, as a program reads it."""

    kind: str
    data: msgspec.Raw


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A difference as a program reads it."""

    verdict: str
    why: str
    position: int
    fact: str
    pipeline: str | None
    policy: str | None
    stored: Side | None
    recomputed: Side | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `--json`."""

    good: bool
    position: int
    hash: str
    facts: int
    decisions: int
    same: int
    differs: int
    changed: dict[str, int]
    snapshots: dict[int, bool]
    differences: tuple[Shown, ...]


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "fold the journal and decide everything again: does today's code say the same?"
    parser = commands.add_parser("replay", parents=[common], help=text, description=text[0].upper() + text[1:])
    parser.add_argument("--journal", type=Path, metavar="FILE", help="another journal than the configured one")
    parser.add_argument("--upto", type=int, metavar="N", help="only up to this position")
    parser.add_argument("--strict", action="store_true", help="fail also where a version explains what has changed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay; returns 1 for a bug or a wrong snapshot, with `--strict` for anything that is not the same."""
    configuration = configured(arguments)
    importable(configuration.base)  # the journal may name classes of policies that lie there
    path = arguments.journal or configuration.journal
    if arguments.upto is not None and arguments.upto < 1:
        raise RewarmError(f"--upto must be at least 1, it is {arguments.upto}.")
    with open_reader(path) as reader:
        found = replayed(reader, arguments.upto, silent=arguments.json)
    if arguments.json:
        show_json(report(found))
    else:
        show(*render(found))
    return 0 if found.good and not (arguments.strict and found.changed) else 1


def replayed(reader: SqliteReader, upto: int | None, *, silent: bool) -> "Replay":
    """Return what a replay of the journal, as it is now, finds; on a terminal it shows how far it is."""
    from daemon.core.transition import REDUCER_VERSION
    from daemon.replay import replay

    head = reader.head()
    if upto is not None and upto > head:
        raise RewarmError(f"The journal ends at position {head:,}, before {upto:,}: leave --upto out.")
    end = head if upto is None else upto
    records = scan(reader, upto=end) if end else ()
    snapshots = reader.snapshots(REDUCER_VERSION)
    out = console(stderr=True)
    shown = BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*shown, console=out, transient=True, disable=silent or not out.is_terminal) as bar:
        task = bar.add_task("records", total=end)
        return replay(records, snapshots, lambda at: bar.update(task, completed=at), whole=upto is None)


def report(found: "Replay") -> Report:
    """Return what was found for a program."""
    return Report(
        good=found.good,
        position=found.position,
        hash=found.hash,
        facts=found.facts,
        decisions=found.decisions,
        same=found.same,
        differs=found.differs,
        changed=found.changed,
        snapshots={check.position: check.good for check in found.snapshots},
        differences=tuple(_shown(difference) for difference in found.differences),
    )


def render(found: "Replay") -> Iterable[RenderableType]:
    """Yield what was found for a person."""
    told = f"{count(found.position, 'record')}, {count(found.facts, 'fact')} among them"
    yield f"{told}, with {count(found.decisions, 'decision')}."
    changed = sum(found.changed.values())
    rows = [("same", f"{count(found.same, 'fact')} would be answered by the same records")]
    rows += [("changed", f"{count(number, 'fact')}: {why}") for why, number in found.changed.items()]
    if found.differs:
        rows.append(("differs", f"{count(found.differs, 'fact')}, and no version explains it: a bug of rewarm"))
    rows += [
        ("snapshot", f"at {check.position:,}: " + ("its hash is right" if check.good else _wrong(check.kept)))
        for check in found.snapshots
    ]
    yield facts([*rows, ("state", f"{found.hash} at position {found.position:,}")])
    bugs = [difference for difference in found.differences if difference.verdict == "differs"]
    for difference in bugs or found.differences[:1]:
        yield ""
        yield from _beside(difference)
    if not found.good:
        yield ""
        yield "Please report this with the journal: what is stored stands, and the daemon goes on from it."
    elif changed:
        yield ""
        yield "What has changed concerns the future only: the state goes on from what is stored."


def _wrong(kept: str) -> str:
    if kept == "damaged":
        return "it is damaged; the daemon passes over it, and keeps a new one soon"
    return "its hash is not that of the records before it"


def _beside(difference: "Difference") -> Iterable[RenderableType]:
    """Yield a difference: what is stored beside what would be stored today, field by field."""
    who = f", policy {difference.policy}" if difference.policy else ""
    where = f" of {difference.pipeline}" if difference.pipeline else ""
    yield heading(f"Position {difference.position:,}{where}{who}, after {difference.fact}: {difference.verdict}")
    left, right = _fields(difference.stored), _fields(difference.recomputed)
    names = dict.fromkeys(itertools.chain(left, right))
    yield columns(
        ("", "stored", "today"),
        [
            (name, left.get(name, NOTHING), right.get(name, NOTHING))
            for name in names
            if left.get(name) != right.get(name)
        ],
    )


def _fields(record: Record | None) -> dict[str, str]:
    """Return what a record says, each field as JSON."""
    if record is None:
        return {"kind": "nothing"}
    data = msgspec.json.decode(encode(record.event), type=dict[str, msgspec.Raw])
    return {"kind": record.event.kind, **{name: bytes(value).decode() for name, value in data.items()}}


def _shown(difference: "Difference") -> Shown:
    return Shown(
        verdict=difference.verdict,
        why=difference.why,
        position=difference.position,
        fact=difference.fact,
        pipeline=difference.pipeline,
        policy=difference.policy,
        stored=_side(difference.stored),
        recomputed=_side(difference.recomputed),
    )


def _side(record: Record | None) -> Side | None:
    return None if record is None else Side(kind=record.event.kind, data=msgspec.Raw(encode(record.event)))
