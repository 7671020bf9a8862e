"""What the CloudEvents bindings of HTTP and Kafka have in common: media types, and an event out of its parts."""

from collections.abc import Mapping, Sequence
from email.message import Message
from functools import lru_cache

import msgspec

from daemon.core.errors import InputError
from daemon.core.trace import traceparent

CLOUDEVENTS = "application/cloudevents"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PLAIN = "application/json"
CHARSETS = frozenset({"", "utf-8", "us-ascii"})
LONGEST = 200
"""Characters of a media type: who sends more means nothing that is known."""


@lru_cache(maxsize=64)
def _parsed(value: str) -> tuple[str, str]:
    kind, _, parameters = value.partition(";")
    message = Message()
    message["content-type"] = f"text/plain;{parameters}"
    charset = message.get_param("charset", "")
    return kind.strip().lower(), charset.lower() if isinstance(charset, str) else "?"


def media_type(value: bytes) -> tuple[str, str]:
    """Return a content type's media type and its charset, in lower case."""
    return _parsed(value[:LONGEST].decode("latin-1"))


def trace_of(told: Sequence[bytes]) -> str:
    """Return the trace that headers tell of, "" for none, and for several."""
    return traceparent(told[0].decode("latin-1")) if len(told) == 1 else ""


def composed(attributes: Mapping[str, str], data: bytes) -> bytes:
    """Return the structured event that attributes and data make; no data is an empty object.

    Raises InputError (wrong_data) for data that is no JSON.
    """
    try:
        raw = msgspec.json.decode(data, type=msgspec.Raw) if data else msgspec.Raw(b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("wrong_data", f"The body is no JSON: {error}.") from error
    return msgspec.json.encode({**attributes, "data": raw})
