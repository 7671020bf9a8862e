"""What a target is sent: a record as a CloudEvent, under the headers of the Standard Webhooks specification.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from daemon.core.encoding import encode, type_of
from daemon.core.errors import RewarmError
from daemon.core.events import Record

SOURCE = "/rewarm"
PREFIX = "whsec_"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class DeliveryError(RewarmError):
    """A message could not be delivered; it is tried again. Its text holds no secret."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what: `on` are kinds of events, `timeout` the seconds that one delivery may take in all."""

    name: str
    url: str
    on: frozenset[str]
    secret_file: Path | None = None
    timeout: float = 10.0


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent in structured mode. `position` is an extension: the record's place in its journal.

    A dead letter's received text is left out: it may be anything, from anybody, and up to 1 MiB long. Whoever is
    to see it looks into the journal, where reading is a matter of permission.
    """

    id: str
    type: str
    time: datetime
    data: msgspec.Raw
    position: int
    subject: str | msgspec.UnsetType = msgspec.UNSET
    specversion: str = "1.0"
    source: str = SOURCE
    datacontenttype: str = "application/json"


def identity(journal: str, record: Record) -> str:
    """Return the id that a record's message has for ever: a receiver knows by it what came twice."""
    return f"{journal}/{record.position}"


def body(journal: str, record: Record) -> bytes:
    """Return a record's message; the same bytes each time."""
    message = Message(
        id=identity(journal, record),
        type=type_of(record.event.kind, record.event.version),
        time=record.recorded_at,
        data=msgspec.Raw(encode(record.event)),
        position=record.position,
        subject=record.pipeline or msgspec.UNSET,
    )
    return msgspec.json.encode(message, order="deterministic")


def headers(name: str, at: int, content: bytes, keys: tuple[bytes, ...]) -> dict[str, str]:
    """Return what is sent beside the body; `at` is in seconds since 1970. Each key adds a signature."""
    found = {"content-type": CONTENT_TYPE, "webhook-id": name, "webhook-timestamp": str(at)}
    if keys:
        found["webhook-signature"] = " ".join(sign(name, at, content, key) for key in keys)
    return found


def sign(name: str, at: int, content: bytes, key: bytes) -> str:
    """Return a signature: `v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, joined by full stops."""
    signed = b".".join((name.encode(), str(at).encode(), content))
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def read_keys(file: Path | None) -> tuple[bytes, ...]:
    """Return the keys in a file, one a line: while a secret is being replaced there are two.

    `whsec_` and base64 stands for the bytes that it encodes, any other line for itself. Raises DeliveryError.
    """
    if file is None:
        return ()
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DeliveryError(f"The secret in {file} cannot be read: {why}.") from error
    if not lines:
        raise DeliveryError(f"The secret file {file} is empty: write the secret into it.")
    return tuple(_key(line, file) for line in lines)


def _key(line: str, file: Path) -> bytes:
    if not line.startswith(PREFIX):
        return line.encode()
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise DeliveryError(f"The secret in {file} begins with {PREFIX} and is no base64 after it.") from None
    if not key:
        raise DeliveryError(f"The secret in {file} is {PREFIX} and nothing after it: anybody could sign with that.")
    return key


def authorization(url: str) -> dict[str, str]:
    """Return the header that a name and password in an address stand for."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def shown(url: str) -> str:
    """Return what may be told of an address: no name, password, path or query, for each may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
