"""`rewarm emit`: one event to the daemon, by HTTP, the spool or Kafka, checked before it is sent."""

import argparse
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from daemon.cli.delivery import Answer, CloudEvent, Delivered, await_answer, deliver, envelope, find_answer, inspect
from daemon.cli.output import show_json, warn, write
from daemon.cli.post import VARIABLE, Target, Unanswered, find_target, post
from daemon.cli.session import configured, find_daemon, perhaps_reading
from daemon.cli.words import summary
from daemon.config import Configuration
from daemon.core.errors import RewarmError
from daemon.core.events import EVENTS, DecisionMade
from stages.roots import elsewhere, remote_of

if TYPE_CHECKING:
    from daemon.cli.session import Commands

DATA = "data"
CONCLUSIONS = 16
"""Most records that are read to tell what was decided on an event."""
FORMATS = {".txt": "text", ".md": "text", ".rst": "text", ".parquet": "parquet", ".pq": "parquet"}
COMPRESSED = frozenset({".gz", ".zst"})
EXAMPLES = """examples:
  rewarm emit data docs-lm var/inbox/manual.jsonl --domain manuals --wait
  rewarm emit data docs-lm s3://bucket/in/manual.jsonl.zst --domain manuals
  rewarm emit data.arrived docs-lm --data '{"uri": "manual.jsonl", "domain": "manuals"}'
  rewarm emit drift.detected docs-lm --data '{"metric": "psi", "value": 0.31}'
  rewarm emit data docs-lm var/inbox/manual.jsonl --domain manuals --kafka rewarm.events --wait
"""


class Sent(NamedTuple):
    """What is shown of an event that was sent; `url` where it went by HTTP."""

    delivered: Delivered
    answer: Answer | None
    url: str = ""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "send an event to the daemon"
    parser = commands.add_parser(
        "emit",
        parents=[common],
        help=text,
        description="Send an event: a kind with its data, or `data` with a file. By the spool while no daemon runs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", metavar="KIND", help="a kind such as data.arrived; `data` is short for it")
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="with `data`: the file that arrived, or its url below a root"
    )
    parser.add_argument("--data", metavar="JSON", help="what the event carries")
    parser.add_argument("--domain", help="with `data`: the kind of text in the file")
    parser.add_argument(
        "--format", choices=("jsonl", "text", "parquet"), help="with `data`; default: by the file's ending"
    )
    parser.add_argument("--tokens", type=int, metavar="N", help="with `data`: what it counts as until it is ingested")
    parser.add_argument("--id", help="sent twice under one id, an event counts once (default: a new one)")
    parser.add_argument("--source", help="who sends (default: you on this machine)")
    waiting(parser)
    parser.add_argument(
        "--kafka",
        nargs="?",
        const="",
        metavar="TOPIC",
        help="by Kafka: SOURCE/TOPIC or TOPIC (default: the first topic of the first Kafka source)",
    )
    parser.set_defaults(run=run)


def waiting(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that may wait for the journal."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until it is in the journal, and say what became of it (HTTP always does)",
    )
    sending(parser)


def sending(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which way an event goes, and how long its answer is waited for."""
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest wait (default: 60 s)")
    parser.add_argument("--spool", action="store_true", help="by the spool, also where a daemon could be asked by HTTP")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"a token for HTTP (default: ${VARIABLE}, else the daemon's own)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the event, and send it."""
    configuration = configured(arguments)
    kind = "data.arrived" if arguments.kind == DATA else arguments.kind
    event = envelope(
        kind,
        arguments.pipeline,
        _data(configuration, arguments),
        now=datetime.now(UTC),
        identity=arguments.id,
        source=arguments.source,
        version=EVENTS[kind].version if kind in EVENTS else 1,
    )
    if arguments.kafka is None:
        return send(configuration, event, arguments)
    if arguments.spool or arguments.token_file is not None:
        raise RewarmError("Either by Kafka or another way: --kafka goes with neither --spool nor --token-file.")
    return _tell(configuration, _by_kafka(configuration, event, arguments), arguments)


def send(configuration: Configuration, event: CloudEvent, arguments: argparse.Namespace) -> int:
    """Send an event by HTTP or the spool, and tell; 1 when it became a dead letter or did not arrive in time."""
    sent = dispatch(configuration, event, arguments, wait=arguments.timeout if arguments.wait else None)
    return _tell(configuration, sent, arguments)


def _tell(configuration: Configuration, sent: Sent, arguments: argparse.Namespace) -> int:
    answer = sent.answer
    if arguments.json:
        show_json({"event": sent.delivered, "answer": answer})
    else:
        for line in _sentences(configuration, sent):
            write(line)  # unfolded: ids and paths are there to be copied
    return 0 if answer is None or answer.outcome in {"accepted", "duplicate"} else 1


def dispatch(
    configuration: Configuration, event: CloudEvent, arguments: argparse.Namespace, *, wait: float | None
) -> Sent:
    """Send an event; by the spool, wait so many seconds for its answer, or not at all.

    By HTTP where a daemon runs that lets this user in, or where a token is given, else by the spool. Sent both
    ways it counts once, so where HTTP gives no answer the spool is as good.
    """
    for warning in inspect(configuration, event):
        warn(f"Sending it all the same, but as things are it would be refused: {warning}")
    target = None if arguments.spool else find_target(configuration, arguments.token_file)
    sent = _by_http(target, event) if target is not None else None
    return sent or _by_spool(configuration, event, wait)


def _data(configuration: Configuration, arguments: argparse.Namespace) -> bytes:
    if arguments.kind != DATA:
        if arguments.file is not None:
            raise RewarmError(f"A file goes with `rewarm emit data`, not with {arguments.kind!r}; use --data '{{…}}'.")
        return os.fsencode(arguments.data or "{}")
    if arguments.file is None or arguments.domain is None:
        raise RewarmError("`rewarm emit data PIPELINE FILE --domain NAME` needs the file and its domain.")
    if elsewhere(arguments.file):
        data = described_elsewhere(configuration, arguments.file, arguments.domain, arguments.format)
    else:
        data = described(Path(arguments.file), arguments.domain, arguments.format)
    if arguments.tokens is None:
        return data
    return msgspec.json.encode({**msgspec.json.decode(data), "tokens": arguments.tokens})


def format_of(name: str) -> str:
    """Return the format that a file's name tells, whether it is compressed or not; JSONL where it tells none."""
    path = PurePosixPath(name.lower())
    return FORMATS.get((path.with_suffix("") if path.suffix in COMPRESSED else path).suffix, "jsonl")


def described_elsewhere(configuration: Configuration, url: str, domain: str, given: str | None = None) -> bytes:
    """Return the data of an arrival elsewhere, with the size that its store tells; raises RewarmError."""
    from stages.training.reading.remote import size_of
    from stages.training.reading.unusable import Unusable

    root = remote_of(url, configuration.remotes)
    try:
        size = size_of(url, root) if root is not None else None
    except Unusable as error:
        raise RewarmError(str(error)) from error
    data = {"uri": url, "domain": domain, "format": given or format_of(url)}
    return msgspec.json.encode(data if size is None else {**data, "bytes": size})


def described(path: Path, domain: str, given: str | None = None) -> bytes:
    """Return the data of the arrival of a file, with its size and hash; raises RewarmError when it is not there."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as error:
        raise RewarmError(f"{path} cannot be read: {error.strerror}.") from error
    return msgspec.json.encode(
        {
            "uri": path.resolve().as_uri(),
            "domain": domain,
            "format": given or format_of(path.name),
            "bytes": size,
            "sha256": sha256,
        }
    )


def _by_http(target: Target, event: CloudEvent) -> Sent | None:
    """Return what the daemon answers, None when the spool has to do; raises RewarmError with a given token."""
    try:
        answer = post(target, event)
    except Unanswered as error:
        if target.given:
            raise
        warn(f"{error} It goes by the spool instead.")
        return None
    return Sent(Delivered(id=event.id, source=event.source, type=event.type, way="http"), answer, target.url)


def _by_kafka(configuration: Configuration, event: CloudEvent, arguments: argparse.Namespace) -> Sent:
    from daemon.cli.produce import destination, produce

    kafka, topic = destination(configuration, arguments.kafka)
    for warning in inspect(configuration, event, operator=kafka.settings.operators):
        warn(f"Sending it all the same, but as things are it would be refused: {warning}")
    delivered = produce(kafka, topic, event, _head(configuration))
    return Sent(delivered, _await(configuration, delivered, arguments.timeout) if arguments.wait else None)


def _head(configuration: Configuration) -> int:
    with perhaps_reading(configuration) as reader:
        return reader.head() if reader is not None else 0


def _by_spool(configuration: Configuration, event: CloudEvent, wait: float | None) -> Sent:
    delivered = deliver(configuration, event, _head(configuration))
    return Sent(delivered, None if wait is None else _await(configuration, delivered, wait))


def _await(configuration: Configuration, delivered: Delivered, timeout: float) -> Answer:
    def ask() -> Answer:
        with perhaps_reading(configuration) as reader:
            return Answer(outcome="waiting") if reader is None else find_answer(reader, delivered)

    return await_answer(ask, timeout)


def _concluded(configuration: Configuration, delivered: Delivered, answer: Answer) -> list[str]:
    """Return what was decided on an event in its own transaction: a request may be accepted, and not possible."""
    position = answer.position or 0
    with perhaps_reading(configuration) as reader:
        found = reader.records(position - 1, CONCLUSIONS) if reader is not None else []
    if not found or (found[0].position, found[0].id) != (position, delivered.id):
        return []
    decisions = [record for record in found if record.cause == position and isinstance(record.event, DecisionMade)]
    return [f"  {summary(record.event)}" for record in decisions]


def _sentences(configuration: Configuration, sent: Sent) -> list[str]:
    delivered, answer, url = sent
    place, name = _place(delivered)
    way = f"  by HTTP: {url}" if url else f"  by {name}: {place}"
    identity = f"{delivered.type} {delivered.id} from {delivered.source}"
    running = find_daemon(configuration.journal).running
    if answer is None or answer.outcome == "waiting":
        note = "" if running else " No daemon is running; the next one reads it (`rewarm serve`)."
        late = "" if answer is None else ", and not in the journal yet"
        troubles = _troubles(configuration, delivered) if answer is not None and running else []
        return [f"In {name}{late}: {identity}.{note}", f"  {place}", *troubles]
    if answer.outcome == "accepted":
        return [
            f"Accepted at position {answer.position}: {identity}.",
            way,
            *_concluded(configuration, delivered, answer),
        ]
    if answer.outcome == "duplicate":
        return [f"A duplicate, counted once: {identity}.", way]
    return [f"Refused ({answer.reason}), kept as dead letter at position {answer.position}: {answer.message}", way]


def _place(delivered: Delivered) -> tuple[str, str]:
    """Return where an event lies that did not go by HTTP: in a file, or in a topic."""
    if delivered.way == "kafka":
        return f"{delivered.topic}/{delivered.partition}@{delivered.offset}", "Kafka"
    return delivered.file, "the spool"


def _troubles(configuration: Configuration, delivered: Delivered) -> list[str]:
    """Return what the daemon says of a topic that it does not read."""
    if delivered.way != "kafka":
        return []
    from daemon.restore import restore

    with perhaps_reading(configuration) as reader:
        degraded = {} if reader is None else restore(reader).state.degraded
    source = delivered.where.partition("/")[0]  # "kafka:NAME"
    return [f"  {name}: {why}" for name, why in sorted(degraded.items()) if f"{name}/".startswith(f"{source}/")]
