"""`rewarm align`: where the journal stands in the topics of Kafka, and a request to read on from somewhere else."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from rich.console import RenderableType

from daemon.cli.cluster import asking, look
from daemon.cli.delivery import Answer, Delivered, requested
from daemon.cli.emit import Sent, dispatch, sending
from daemon.cli.output import NOTHING, columns, count, facts, heading, show, show_json, write
from daemon.cli.positions import Change, PartitionView, TopicView, Wanted, changes, cursors, survey, wanted
from daemon.cli.session import configured, find_daemon, perhaps_reading
from daemon.config import Configuration, Kafka, topics_of
from daemon.core.errors import BrokerError, RewarmError
from daemon.core.state import State
from daemon.journal.base import Reader
from daemon.restore import restore
from daemon.sources.kafka.judge import name_of

if TYPE_CHECKING:
    from daemon.cli.session import Commands

WORDS = {
    "reading": "reading",
    "waiting": "new: not read yet",
    "another_topic": "created again",
    "another_cluster": "another cluster",
}
EXAMPLES = """examples:
  rewarm align                                             where every partition stands
  rewarm align --set rewarm.events=beginning               a topic that was created again: read all of it
  rewarm align --set kafka/rewarm.events/2=end             one partition of one source: skip what is there
  rewarm align --set rewarm.events=2026-03-01T12:00:00Z    from the first records since an instant
  rewarm align --set rewarm.events/0=1204 --set rewarm.events/1=1310
"""


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A source: `cluster` is None where nobody answers; `troubles` say by their names what is wrong."""

    name: str
    servers: tuple[str, ...]
    cluster: str | None = None
    topics: tuple[TopicView, ...] = ()
    troubles: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `--json` where something is to be set; nothing is sent where all stands there already."""

    changes: tuple[Change, ...]
    event: Delivered | None = None
    answer: Answer | None = None


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "align",
        parents=[common],
        help="where the journal stands in Kafka's topics, and set it",
        description="Show how far each partition was read, or ask the daemon to read on from somewhere else.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--set",
        dest="wanted",
        action="append",
        default=[],
        metavar="TOPIC[/PARTITION]=WHERE",
        help="beginning, end, an offset or an instant; SOURCE/ before it where several sources have the topic",
    )
    parser.add_argument("--reason", default="", help="why, for whoever reads it later")
    parser.add_argument("--yes", action="store_true", help="do not ask, also at a terminal")
    sending(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the positions, or ask for others; 1 when something is not read, or was not set."""
    configuration = configured(arguments)
    if not configuration.kafka:
        raise RewarmError("No Kafka source is configured: there is nothing to align.")
    asked = [wanted(text, topics_of(configuration)) for text in arguments.wanted]
    with perhaps_reading(configuration) as reader:
        state = State() if reader is None else restore(reader).state
        if asked:
            found = [change for each in configuration.kafka for change in _changes(each, asked, state, reader)]
        else:
            views = [view(each, state, reader) for each in configuration.kafka]
    return _set(configuration, found, arguments) if asked else _show(views, arguments)


def view(each: Kafka, state: State, reader: Reader | None) -> SourceView:
    """Return how a source stands, or that its cluster does not answer."""
    name, addresses = each.settings.name, each.access.bootstrap_servers
    topics = [topic.name for topic in each.settings.topics]
    try:
        sight = look(each.access, topics)
    except BrokerError as error:
        return SourceView(name=name, servers=addresses, troubles={name_of(name): str(error)})
    found = survey(name, topics, sight, state.topics, cursors(reader))
    return SourceView(name=name, servers=addresses, cluster=sight.cluster, topics=found.topics, troubles=found.troubles)


def _changes(each: Kafka, asked: Sequence[Wanted], state: State, reader: Reader | None) -> list[Change]:
    """Return what is to be set in a source's cluster; raises BrokerError when it does not answer."""
    name = each.settings.name
    mine = [item for item in asked if item.source == name]
    if not mine:
        return []
    topics = [topic.name for topic in each.settings.topics]
    surveyed = survey(name, topics, look(each.access, topics), state.topics, cursors(reader))

    def times(instants: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int | None]:
        with asking(each.access) as desk:
            return desk.times(instants)

    return changes(mine, surveyed, times)


def _show(views: Sequence[SourceView], arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json({"sources": views})
    else:
        for each in views:
            show(*_rendered(each), "")
    return 1 if any(each.troubles for each in views) else 0


def _rendered(each: SourceView) -> list[RenderableType]:
    told = [("servers", ", ".join(each.servers)), ("cluster", each.cluster or NOTHING)]
    out: list[RenderableType] = [heading(each.name), facts(told)]
    if each.topics:
        headings = ["topic", "partition", "position", "first", "end", "lag", "state"]
        rows = [row for topic in each.topics for row in _rows(topic)]
        out += ["", columns(headings, rows, numbers=range(1, 6))]
    for name, trouble in each.troubles.items():
        out += ["", f"{name}: {trouble}"]
    return out


def _rows(topic: TopicView) -> list[list[str]]:
    if not topic.partitions:
        return [[topic.topic, *[NOTHING] * 5, "not to be seen"]]
    return [
        [topic.topic, str(each.partition), *map(_number, (each.position, each.begin, each.end, each.lag)), _state(each)]
        for each in topic.partitions
    ]


def _number(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _state(each: PartitionView) -> str:
    if each.condition != "out_of_range":
        return WORDS.get(each.condition, each.condition)
    return f"out of range: {each.lost:,} gone" if each.lost else "out of range: beyond the end"


def _set(configuration: Configuration, found: Sequence[Change], arguments: argparse.Namespace) -> int:
    """Ask for the changes, and tell what came of it."""
    if not found:
        show_json(Result(changes=())) if arguments.json else show("All of it stands there already: nothing is set.")
        return 0
    if not arguments.json:
        show(*_announced(found), "")
    if not arguments.yes:
        _confirm(found)
    positions = [change.position() for change in found]
    data = {"verb": "align", "positions": positions, "reason": arguments.reason}
    running = find_daemon(configuration.journal).running
    event = requested(data, now=datetime.now(UTC))
    sent = dispatch(configuration, event, arguments, wait=arguments.timeout if running else None)
    if arguments.json:
        show_json(Result(changes=tuple(found), event=sent.delivered, answer=sent.answer))
    else:
        for line in _outcome(found, sent, running=running):
            write(line)
    return 0 if (sent.answer is None or sent.answer.outcome == "accepted") else 1


def _announced(found: Sequence[Change]) -> list[RenderableType]:
    rows = [
        [
            f"{change.source}/{change.topic}",
            str(change.partition),
            _number(change.before),
            _number(change.after),
            _follows(change),
        ]
        for change in found
    ]
    return [columns(["topic", "partition", "from", "to", "what follows"], rows, numbers=range(1, 4))]


def _follows(change: Change) -> str:
    parts = [
        f"{change.lost:,} are gone" if change.lost else "",
        f"{change.skipped:,} skipped" if change.skipped else "",
        f"{change.again:,} read again" if change.again else "",
    ]
    return ", ".join(part for part in parts if part) or "read from there"


def _confirm(found: Sequence[Change]) -> None:
    """Raise RewarmError when a person at a terminal does not say yes; where there is none, nobody is asked."""
    if not sys.stdin.isatty():
        return
    sys.stderr.write(f"Set {count(len(found), 'position')}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RewarmError("Nothing was set.")


def _outcome(found: Sequence[Change], sent: Sent, *, running: bool) -> list[str]:
    answer = sent.answer
    way = f"  by HTTP: {sent.url}" if sent.url else f"  {sent.delivered.file}"
    positions = count(len(found), "position")
    if answer is None or answer.outcome == "waiting":
        note = "" if running else " No daemon is running; the next one sets them (`rewarm serve`)."
        return [f"In the spool: a request to set {positions}.{note}", way]
    if answer.outcome == "accepted":
        return [f"Accepted at position {answer.position}: {positions} set, and read on from there.", way]
    return [f"Refused ({answer.reason}), kept as dead letter at position {answer.position}: {answer.message}", way]
