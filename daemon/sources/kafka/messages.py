"""What a Kafka message says: a CloudEvent in structured or binary mode, or a JSON of the producer's own.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md

What is accepted keeps the text that the door read. Where that was composed (binary mode, a mapping), the carrier
keeps the message's own value: a dead letter that is retried is read anew from it, by the settings of that day.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from daemon.core.errors import InputError
from daemon.core.events import Carrier
from daemon.door import MAX_BYTES, Letter, Offer, refuse
from daemon.settings.kafka import KafkaSettings, TopicSettings
from daemon.sources.cloudevents import BATCH, CHARSETS, CLOUDEVENTS, PLAIN, STRUCTURED, composed, media_type, trace_of
from daemon.sources.kafka.mapping import mapped

PREFIX = "ce_"
NO_ATTRIBUTES = frozenset({"", "data", "data_base64"})
MAX_BESIDE = 64 << 10
"""Bytes of key and headers that are kept."""
FRAMED = b"\0"
"""How a value begins that a schema registry's serialiser wrote."""
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"

Headers = Sequence[tuple[str, bytes | None]]


class Message(Protocol):
    """A message as kafka-python's consumer returns it without deserialisers; `timestamp` in ms, -1: none."""

    @property
    def topic(self) -> str:
        """The topic's name."""

    @property
    def partition(self) -> int:
        """The partition's number."""

    @property
    def offset(self) -> int:
        """The place in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """The key."""

    @property
    def value(self) -> bytes | None:
        """The value; None: a tombstone."""

    @property
    def headers(self) -> Headers:
        """The headers in their order."""


def letter(
    record: Message, *, settings: KafkaSettings, topic: TopicSettings, cluster: str, topic_id: str
) -> Letter | Offer:
    """Return the text that a message carries, or the dead letter that it is; never raises for what it holds."""
    name, headers, key = settings.name, record.headers, record.key
    made = Letter(
        text=record.value or b"",
        where=f"kafka:{name}/{record.topic}/{record.partition}@{record.offset}",
        source=f"/kafka/{cluster}/{topic_id}",
        id=f"{record.partition}/{record.offset}",
        by=f"kafka:{name}" if settings.operators else None,
        carrier=Carrier(
            source=name,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp if record.timestamp >= 0 else None,
            key=key,
            headers=tuple(headers),
            traceparent=trace_of([value or b"" for header, value in headers if header == TRACEPARENT]),
        ),
    )
    beside = len(key or b"") + sum(len(header) + len(value or b"") for header, value in headers)
    if beside > MAX_BESIDE:
        message = f"Key and headers have {beside:,} bytes; at most {MAX_BESIDE:,} are taken. They are not kept."
        bare = replace(made.carrier or Carrier(), key=None, headers=())
        return refuse(replace(made, carrier=bare), InputError("too_large", message))
    if record.value is None and not _is_binary(headers):
        message = "The message has no value (a tombstone): there is nothing to take from it."
        return replace(refuse(made, InputError("empty", message)), text=None)
    return read(made, topic)


def read(made: Letter, topic: TopicSettings) -> Letter | Offer:
    """Return the text for the door that a message's value makes by the settings of its topic."""
    carrier = made.carrier or Carrier()
    made = replace(made, pipeline=topic.pipeline)
    try:
        text = _text(made.text, carrier.headers, topic)
    except InputError as error:
        return refuse(made, error)
    return made if text is None else replace(made, text=text, carrier=replace(carrier, value=made.text))


def again(sent: Letter, topics: Mapping[str, Mapping[str, TopicSettings]]) -> Letter | Offer:
    """Return a dead letter's text as it is read today: by what is configured now of the topic that it came from.

    `topics` has the settings of each source's topics by their names. What came another way, or from a topic that
    is read no more, is returned as it is.
    """
    carrier = sent.carrier
    topic = None if carrier is None else topics.get(carrier.source, {}).get(carrier.topic)
    if carrier is None or topic is None:
        return sent
    if carrier.value is not None:
        sent = replace(sent, text=carrier.value, carrier=replace(carrier, value=None))
    return read(sent, topic)


def receiver(receive: Callable[[Letter], Offer], sources: Sequence[KafkaSettings]) -> Callable[[Letter], Offer]:
    """Return a door for dead letters that are retried, in front of `receive`."""
    topics = {source.name: {topic.name: topic for topic in source.topics} for source in sources}

    def received(sent: Letter) -> Offer:
        found = again(sent, topics)
        return found if isinstance(found, Offer) else receive(found)

    return received


def _text(value: bytes, headers: Headers, topic: TopicSettings) -> bytes | None:
    """Return the text that a value makes, None for one that is the text itself; raises InputError."""
    if len(value) > MAX_BYTES:
        return None  # the door says so
    kind = ""
    if headers:
        kind = _content_type(headers)
        if kind.startswith(CLOUDEVENTS):
            if kind != STRUCTURED:
                why = "Kafka has no batch mode: one event a message" if kind == BATCH else f"known: {STRUCTURED}"
                raise InputError("unknown_form", f"The content type is {kind}; {why}.")
            return None
        if kind not in {"", PLAIN} and not kind.endswith("+json"):
            raise InputError("unknown_form", f"The content type is {kind}; known: {PLAIN}, {STRUCTURED}.")
        if _is_binary(headers):
            return composed(_attributes(headers), value)
    if value.startswith(FRAMED):
        message = "The value begins with a zero byte, as what a schema registry's serialiser writes; send plain JSON."
        raise InputError("unknown_form", message)
    return None if topic.mapping is None else mapped(value, topic.mapping, topic)


def _is_binary(headers: Headers) -> bool:
    return any(name.startswith(PREFIX) for name, _ in headers)


def _content_type(headers: Headers) -> str:
    """Return the media type in lower case, "" where none is told; raises InputError."""
    told = [value or b"" for name, value in headers if name.lower() == CONTENT_TYPE]
    if not told:
        return ""
    if len(told) > 1:
        raise InputError("wrong_envelope", f"The header {CONTENT_TYPE} is there twice.")
    kind, charset = media_type(told[0])
    if charset not in CHARSETS:
        raise InputError("unknown_form", f"The text is in charset {charset}; known: utf-8.")
    return kind


def _attributes(headers: Headers) -> dict[str, str]:
    """Return the attributes of an event in binary mode; raises InputError (wrong_envelope)."""
    attributes: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith(PREFIX):
            continue
        attribute = name[len(PREFIX) :]
        if attribute in NO_ATTRIBUTES:
            raise InputError("wrong_envelope", f"The header {name} names no attribute.")
        if attribute in attributes:
            raise InputError("wrong_envelope", f"The header {name} is there twice.")
        try:
            attributes[attribute] = (value or b"").decode()
        except UnicodeDecodeError as error:
            raise InputError("wrong_envelope", f"The header {name} is no UTF-8: {error}.") from error
    return attributes
