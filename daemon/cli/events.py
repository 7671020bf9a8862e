"""`rewarm events`: the journal, a line a record."""

import argparse
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.output import show, show_json_line, write
from daemon.cli.session import configured, find_daemon, perhaps_reading, reading
from daemon.cli.words import summary
from daemon.core.encoding import encode
from daemon.core.errors import RewarmError
from daemon.core.events import EVENTS, Carrier, InputRejected, Record
from daemon.journal.base import Reader

if TYPE_CHECKING:
    from daemon.cli.session import Commands

CHUNK = 1000
LAST = 50
POLL_SECONDS = 0.4


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are asked for."""

    kinds: tuple[str, ...] | None = None
    pipeline: str | None = None
    run: str | None = None

    @property
    def everything(self) -> bool:
        """Whether no condition is given."""
        return self.kinds is None and self.pipeline is None and self.run is None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A record as a program reads it; a text that was received stays in the journal, and so does a message's value."""

    position: int
    recorded_at: datetime
    kind: str
    version: int
    source: str
    id: str
    pipeline: str | None
    cause: int | None
    time: datetime | None
    carrier: Carrier | None
    data: msgspec.Raw


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "the journal, a line a record; --follow goes on as it grows"
    parser = commands.add_parser("events", parents=[common], help=text, description=f"Show {text}.")
    parser.add_argument("--after", type=int, metavar="N", help="begin behind this position (default: the last records)")
    parser.add_argument("--kind", action="append", metavar="K", help="only this kind, such as data.arrived; repeatable")
    parser.add_argument("--pipeline", metavar="P", help="only of this pipeline")
    parser.add_argument("--run", dest="about", metavar="R", help="only of this run")
    parser.add_argument("--limit", type=int, metavar="N", help=f"at most so many (default: {LAST}, with --after all)")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until Ctrl-C")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print records."""
    configuration = configured(arguments)
    wanted = Wanted(kinds=_kinds(arguments.kind), pipeline=arguments.pipeline, run=arguments.about)
    if arguments.limit is not None and arguments.limit < 1:
        raise RewarmError(f"--limit must be at least 1, it is {arguments.limit}.")
    tell = show_line_json if arguments.json else show_line
    with perhaps_reading(configuration) as reader:
        if reader is None and not arguments.follow:
            if not arguments.json:
                show(f"Nothing is recorded yet: there is no journal at {configuration.journal}.")
            return 0
    if arguments.follow:
        while not configuration.journal.exists():
            time.sleep(POLL_SECONDS)
    with reading(configuration) as reader:
        last = None
        for record in select(reader, wanted, arguments.after, arguments.limit):
            tell(record)
            last = record.position
        if arguments.follow:
            for record in follow(reader, wanted, reader.head() if last is None else last, time.sleep):
                tell(record)
        elif last is None and not arguments.json:
            running = "" if find_daemon(configuration.journal).running else " No daemon is running."
            show(f"No such record.{running}")
    return 0


def select(reader: Reader, wanted: Wanted, after: int | None, limit: int | None) -> Iterator[Record]:
    """Yield the first records after a position, or, without one, the last records."""
    if after is None:
        limit = limit or LAST
        begin = max(0, reader.head() - limit) if wanted.everything else 0
        yield from deque(every(reader, wanted, begin), maxlen=limit)
        return
    for number, record in enumerate(every(reader, wanted, after)):
        if limit is not None and number >= limit:
            return
        yield record


def every(reader: Reader, wanted: Wanted, after: int) -> Iterator[Record]:
    """Yield all records that fit, in order."""
    kinds: Collection[str] | None = wanted.kinds
    while records := reader.records(after, CHUNK, kinds=kinds, pipeline=wanted.pipeline, run=wanted.run):
        yield from records
        after = records[-1].position


def follow(reader: Reader, wanted: Wanted, after: int, sleep: Callable[[float], None]) -> Iterator[Record]:
    """Yield records as they are committed, without end."""
    while True:
        for record in every(reader, wanted, after):
            yield record
            after = record.position
        sleep(POLL_SECONDS)


def show_line(record: Record) -> None:
    """Print a record for a person."""
    at = f"{record.recorded_at:%Y-%m-%d %H:%M:%S}Z"
    told = " ".join(summary(record.event).split())
    if record.carrier is not None and record.carrier.place and record.event.kind != InputRejected.kind:
        told += f" [{record.carrier.place}]"  # a dead letter says where it came from itself
    write(f"{record.position:>6}  {at}  {record.event.kind:<21}  {record.pipeline or '':<12}  {told}".rstrip())


def show_line_json(record: Record) -> None:
    """Print a record for a program."""
    show_json_line(
        Line(
            position=record.position,
            recorded_at=record.recorded_at,
            kind=record.event.kind,
            version=record.event.version,
            source=record.source,
            id=record.id,
            pipeline=record.pipeline,
            cause=record.cause,
            time=record.time,
            carrier=msgspec.structs.replace(record.carrier, value=None) if record.carrier else None,
            data=msgspec.Raw(encode(record.event)),
        )
    )


def _kinds(given: list[str] | None) -> tuple[str, ...] | None:
    for kind in given or ():
        if kind not in EVENTS:
            raise RewarmError(f"There is no kind {kind!r}. Known: {', '.join(sorted(EVENTS))}.")
    return tuple(given) if given else None
