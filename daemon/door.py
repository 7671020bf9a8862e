"""The door: what may come in, from whom, and in which form. Everything else becomes a dead letter with a reason."""

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from daemon.core.encoding import decode, encode
from daemon.core.errors import EventError, InputError
from daemon.core.events import EVENTS, AnyEvent, Carrier, DataArrived, DataWithdrawn, OperatorRequested
from daemon.core.trace import traceparent
from daemon.journal.base import Cursor, digest
from daemon.places import Places
from stages.roots import Remote

MAX_BYTES = 1 << 20
MAX_NAME = 1024
"""Characters of an id or a source: both lie in the journal's index for ever."""
SPECVERSION = "1.0"
OWN_SOURCES = "/rewarm/"
REJECTED_SOURCE = "/rewarm/door"
REFUSED = "refused:"
"""Before an input cursor's name: the cursor that counts its dead letters."""
TYPE = re.compile(r"^(?:io\.rewarm\.)?(?P<kind>[a-z_]+\.[a-z_]+)(?:\.v(?P<version>[0-9]{1,6}))?$")
OUTSIDE_KINDS = sorted(kind for kind, cls in EVENTS.items() if cls.origin in {"outside", "operator"})


Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvents 1.0 envelope in structured mode; without `specversion` plain JSON of the same shape."""

    type: str
    specversion: str | None = None
    id: Name | None = None
    source: Name | None = None
    subject: str | None = None
    time: str | None = None
    traceparent: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Letter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A text as a source received it: where from, what to call it without an id, and who stands behind it.

    Without an `id` of the source's own the event must bring one; one without a subject is about `pipeline`.
    """

    text: bytes
    where: str
    source: str
    id: str | None = None
    by: str | None = None
    pipeline: str | None = None
    carrier: Carrier | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One input on its way into the journal: an event, or the reason why it is none."""

    source: str
    id: str
    where: str
    digest: bytes
    event: AnyEvent | None = None
    pipeline: str | None = None
    time: datetime | None = None
    text: bytes | None = None
    refusal: tuple[str, str] | None = None
    letter: Letter | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of an offer: the position of its record, of the one that it repeats, or of its dead letter."""

    outcome: Literal["accepted", "duplicate", "dead_letter"]
    position: int
    reason: str = ""
    message: str = ""


Reply = Callable[[Sequence[Answer] | None], None]
"""Told once what became of an input's offers, after the commit; None: it did not get in."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """Offers that enter in one transaction, the cursor step that goes with them, and who waits for an answer."""

    offers: tuple[Offer, ...]
    cursor: Cursor | None = None
    reply: Reply | None = None


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Parses and checks what comes from outside; knows the configured pipelines, roots and topics of each source."""

    pipelines: Mapping[str, object]
    roots: tuple[Path | Remote, ...]
    topics: Mapping[str, Collection[str]] = {}

    def receive(self, letter: Letter) -> Offer:
        """Return the offer that a received text makes; never raises for bad input."""
        try:
            return self._read(letter)
        except InputError as error:
            return refuse(letter, error)

    def complete(
        self,
        event: AnyEvent,
        domains: Sequence[str] | Mapping[str, object],
        most: int,
        places: Places | None = None,
    ) -> AnyEvent:
        """Return an arrival with its size and token estimate filled in from its file.

        Raises InputError when the file lies outside the roots or is not there, or the pipeline would get more
        than `most` domains. Done after duplicates are told, so that a repeated fact needs no file. `places` is what
        the transaction has seen of the roots already.
        """
        if not isinstance(event, DataArrived):
            return event
        if event.domain not in domains and len(domains) >= most:
            message = f"The pipeline has {most} domains already (max_domains); {event.domain!r} would be one more."
            raise InputError("too_many_domains", message)
        places = places or Places(self.roots)
        if places.remote(event.uri) is not None:
            return _announced(event)
        path, status = places.find(event.uri)
        try:
            status = status or os.stat(path)  # noqa: PTH116 - thousands a second, each to be looked at
        except OSError as error:
            raise InputError("file_missing", f"{path} cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not_a_file", f"{path} is not a regular file.")
        size = status.st_size if event.bytes is None else event.bytes
        return replace(event, bytes=size, tokens=event.tokens if event.tokens is not None else size)

    def _read(self, letter: Letter) -> Offer:
        if len(letter.text) > MAX_BYTES:
            raise InputError("too_large", f"An event has {len(letter.text):,} bytes; at most {MAX_BYTES:,} are taken.")
        envelope = _envelope(letter.text)
        event = self._event(envelope, letter)
        if envelope.specversion is not None:
            if envelope.specversion != SPECVERSION:
                raise InputError(
                    "wrong_envelope", f"CloudEvents has version {SPECVERSION}, not {envelope.specversion!r}."
                )
            missing = [name for name in ("id", "source") if not getattr(envelope, name)]
            if missing:
                raise InputError(f"missing_{missing[0]}", f"A CloudEvent needs {' and '.join(missing)}.")
        identity = envelope.id or letter.id
        if not identity:
            raise InputError(
                "missing_id", "The event has no id: without one it would count again when it is sent again."
            )
        if (envelope.source or "").startswith(OWN_SOURCES):
            raise InputError("forbidden_source", f"Sources under {OWN_SOURCES} are rewarm's own; use another one.")
        pipeline = envelope.subject
        if pipeline is None and not _is_global(event):
            pipeline = letter.pipeline
        if pipeline not in self.pipelines and not (pipeline is None and _is_global(event)):
            known = ", ".join(sorted(self.pipelines)) or "none"
            raise InputError(
                "unknown_pipeline", f"The subject must be a configured pipeline, it is {pipeline!r}; known: {known}."
            )
        if envelope.traceparent:
            letter = _traced(letter, envelope.traceparent)
        return Offer(
            source=(envelope.source if envelope.id else None) or letter.source,
            id=identity,
            where=letter.where,
            digest=digest(f"{pipeline} {event.kind} ".encode() + encode(event)),
            event=event,
            pipeline=pipeline,
            time=_time(envelope.time),
            text=letter.text,
            letter=letter,
        )

    def _event(self, envelope: Envelope, letter: Letter) -> AnyEvent:
        matched = TYPE.match(envelope.type)
        kind = matched["kind"] if matched else envelope.type
        if kind not in EVENTS:
            raise InputError("unknown_kind", f"Type {envelope.type!r} is not known; known: {', '.join(OUTSIDE_KINDS)}.")
        origin = EVENTS[kind].origin
        if origin not in {"outside", "operator"}:
            raise InputError(
                "forbidden_kind", f"{kind} is told by rewarm alone; from outside: {', '.join(OUTSIDE_KINDS)}."
            )
        if origin == "operator" and letter.by is None:
            message = f"{kind} needs somebody: send it by the spool, or by HTTP with a token of scope operate."
            raise InputError("not_an_operator", message)
        version = int(matched["version"] or EVENTS[kind].version) if matched else 1
        try:
            event = decode(kind, version, bytes(envelope.data))
        except EventError as error:
            raise InputError("wrong_data", str(error)) from error
        match event:
            case OperatorRequested():
                return replace(event, by=letter.by or "", spans=(), amounts={}, accounts={}, needs_restart=())
            case DataWithdrawn():
                return replace(event, arrival=None, domain=None, amount=None, account=None)
            case _:
                return event


def _announced(event: DataArrived) -> DataArrived:
    """Return an arrival elsewhere by what was announced of it: the door asks no store."""
    if event.bytes is None and event.tokens is None:
        message = f"{event.uri} lies elsewhere, where the door does not look: announce its `bytes`, or its `tokens`."
        raise InputError("missing_size", message)
    return event if event.tokens is not None else replace(event, tokens=event.bytes)


def own(event: AnyEvent, *, source: str, id: str, where: str, pipeline: str | None = None) -> Offer:  # noqa: A002 - as CloudEvents
    """Return the offer of a fact that the daemon itself tells."""
    return Offer(source=source, id=id, where=where, digest=digest(encode(event)), event=event, pipeline=pipeline)


def _is_global(event: AnyEvent) -> bool:
    """Return whether an event may concern no pipeline: a dead letter need not have one, a partition has none."""
    if not isinstance(event, OperatorRequested):
        return False
    return event.verb in {"align", "reload"} or (event.verb in {"retry", "drop"} and event.dead_letter is not None)


def _traced(letter: Letter, told: msgspec.Raw) -> Letter:
    """Return a letter that carries the trace which the event itself names: it comes before that of its way."""
    trace = traceparent(bytes(told)[1:-1].decode("utf-8", "replace"))
    return replace(letter, carrier=replace(letter.carrier or Carrier(), traceparent=trace)) if trace else letter


def refuse(letter: Letter, error: InputError) -> Offer:
    """Return the dead letter that a text becomes."""
    return Offer(
        source=REJECTED_SOURCE,
        id=f"{letter.source}#{letter.id or digest(letter.text).hex()}",
        where=letter.where,
        digest=digest(letter.text),
        text=letter.text[:MAX_BYTES],
        refusal=(error.reason, str(error)),
        letter=letter,
    )


def _envelope(text: bytes) -> Envelope:
    try:
        return msgspec.json.decode(text, type=Envelope)
    except msgspec.ValidationError as error:
        raise InputError("wrong_envelope", f"The envelope does not fit CloudEvents 1.0: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("malformed", f"The text is no JSON object: {error}.") from error


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError("wrong_time", f"The time {text!r} is not RFC 3339.") from error
    if time.tzinfo is None:
        raise InputError("wrong_time", f"The time {text!r} has no zone; add Z or an offset.")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise InputError("wrong_time", f"The time {text!r} lies outside the years 1 to 9999 in UTC.") from error
