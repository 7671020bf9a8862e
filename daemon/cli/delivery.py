"""Events on their way into the journal: their envelope, and the way by the spool and back out of the journal."""

import getpass
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from daemon.config import Configuration
from daemon.core.encoding import encode, type_of
from daemon.core.errors import InputError, RewarmError
from daemon.core.events import AnyEvent, InputRejected, OperatorRequested
from daemon.door import Door, Letter
from daemon.files import write_atomically
from daemon.journal.base import Reader, scan

POLL_SECONDS = 0.1


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvents 1.0 envelope in structured mode."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str | None
    time: str
    datacontenttype: str = "application/json"
    data: msgspec.Raw


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was sent: its identity and its way, its file in the spool or its place in Kafka.

    It is read once the input cursor called `cursor` stands beyond `offset`; a dead letter of it names `where`.
    `after` is the journal's end before it was sent.
    """

    id: str
    source: str
    type: str
    way: Literal["http", "spool", "kafka"] = "spool"
    file: str = ""
    topic: str = ""
    partition: int | None = None
    offset: int = 0
    cursor: str = ""
    where: str = ""
    after: int = 0


Arrival = Literal["accepted", "duplicate", "dead_letter", "waiting"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivered event; `position` of its record or of its dead letter."""

    outcome: Arrival
    position: int | None = None
    reason: str = ""
    message: str = ""


def envelope(
    kind: str,
    pipeline: str | None,
    data: bytes,
    *,
    now: datetime,
    identity: str | None = None,
    source: str | None = None,
    version: int = 1,
) -> CloudEvent:
    """Return the envelope of an event; raises RewarmError when `data` is no JSON, or something is no UTF-8."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RewarmError(f"The data is no JSON object: {error}.") from error
    event = CloudEvent(
        id=identity or str(uuid.uuid4()),
        source=source or default_source(),
        type=type_of(kind, version),
        subject=pipeline,
        time=now.isoformat(),
        data=msgspec.Raw(msgspec.json.encode(raw)),
    )
    try:
        msgspec.json.encode(event)
    except UnicodeEncodeError as error:
        raise RewarmError(f"What is sent must be UTF-8: {error}.") from error
    return event


def enveloped(event: AnyEvent, pipeline: str, *, now: datetime, identity: str, source: str) -> CloudEvent:
    """Return the envelope of an event that is at hand as a value; what it leaves out is not sent."""
    given = msgspec.json.decode(encode(event), type=dict[str, msgspec.Raw])
    data = msgspec.json.encode({key: value for key, value in given.items() if bytes(value) != b"null"})
    return envelope(event.kind, pipeline, data, now=now, identity=identity, source=source, version=event.version)


def requested(
    data: Mapping[str, object], *, pipeline: str | None = None, now: datetime, identity: str | None = None
) -> CloudEvent:
    """Return the envelope of a person's request: its verb and what belongs to that, without what is empty."""
    given = msgspec.json.encode({key: value for key, value in data.items() if value not in (None, "")})
    kind, version = OperatorRequested.kind, OperatorRequested.version
    return envelope(kind, pipeline, given, now=now, identity=identity, version=version)


def default_source() -> str:
    """Return who sends when nothing else is said: this person on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"/cli/{user}@{socket.gethostname()}"


def inspect(configuration: Configuration, event: CloudEvent, *, operator: bool = True) -> list[str]:
    """Ask the daemon's own door about an event; returns warnings. `operator`: its way lets one operate.

    Raises RewarmError with the door's reason when it would not come in. What can change until the daemon reads
    it (files, roots) is a warning.
    """
    door = Door(pipelines=configuration.settings.pipelines, roots=configuration.all_roots)
    text, by = msgspec.json.encode(event), default_source() if operator else None
    offer = door.receive(Letter(text=text, where="command line", source="/cli", id=event.id, by=by))
    if offer.refusal is not None or offer.event is None:
        raise RewarmError((offer.refusal or ("", "The event cannot be read."))[1])
    try:
        door.complete(offer.event, (), most=1)
    except InputError as error:
        return [str(error)]
    return []


def deliver(configuration: Configuration, event: CloudEvent, head: int) -> Delivered:
    """Put an event into the first spool, whole or not at all; raises RewarmError when there is none to write.

    Files are read in the order of their names: the name begins with the time, so that of two requests that wait for
    a daemon the later one has the last word.
    """
    if not configuration.spools:
        raise RewarmError("No spool is configured: add `{kind: spool, path: var/spool}` to `sources`.")
    folder = configuration.spools[0]
    text = msgspec.json.encode(event)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", event.id).lstrip(".")[:100] or "event"
    sent = f"{datetime.fromisoformat(event.time).astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    sha256 = hashlib.sha256(text).hexdigest()
    target = folder / f"{sent}-{name}-{sha256[:8]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
    except OSError as error:
        raise RewarmError(f"The spool {folder} cannot be written: {error.strerror}.") from error
    return Delivered(
        id=event.id,
        source=event.source,
        type=event.type,
        file=str(target),
        cursor=f"spool:{sha256}",
        where=f"{target.name}:1",
        after=head,
    )


def find_answer(reader: Reader, delivered: Delivered) -> Answer:
    """Return what the journal says of a delivered event.

    An input cursor moves with the records of what was read, so once it has moved, an event without a record of its
    own and without a dead letter was known before.
    """
    if (reader.cursor(delivered.cursor) or 0) <= delivered.offset:
        return Answer(outcome="waiting")
    for record in scan(reader, delivered.after):
        if (record.source, record.id) == (delivered.source, delivered.id):
            return Answer(outcome="accepted", position=record.position)
        if isinstance(record.event, InputRejected) and record.event.where == delivered.where:
            event = record.event
            return Answer(outcome="dead_letter", position=record.position, reason=event.reason, message=event.message)
    return Answer(outcome="duplicate")


def await_answer(ask: Callable[[], Answer], timeout: float, *, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """Return the answer once there is one, or that the event still waits after `timeout` seconds."""
    waited = 0.0
    while (answer := ask()).outcome == "waiting" and waited < timeout:
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return answer
