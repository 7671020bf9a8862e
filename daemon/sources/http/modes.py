"""The forms in which events come over HTTP: CloudEvents structured, binary and batched, or plain JSON.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import base64
from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote_to_bytes

import msgspec

from daemon.core.errors import InputError
from daemon.core.events import Carrier
from daemon.door import MAX_BYTES, Letter, Offer, refuse
from daemon.sources.cloudevents import BATCH, CHARSETS, CLOUDEVENTS, PLAIN, STRUCTURED, composed, media_type, trace_of

Mode = Literal["structured", "binary", "batch"]
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""
MAX_BATCH = 1000
MAX_BATCH_BYTES = 8 << 20
PREFIX = b"ce-"

# An array of at most so many items: what comes after them is read over. A list would be built before its length
# could be judged, at fifty bytes for every two that were sent.
_BATCH = msgspec.defstruct(
    "_BATCH", [(f"item{number}", msgspec.Raw, msgspec.Raw()) for number in range(MAX_BATCH + 1)], array_like=True
)


class TooMany(Exception):
    """A batch has more events than one transaction takes."""


def mode_of(headers: Headers) -> Mode | None:
    """Return the form that the headers announce, None for one that is not known."""
    kind, charset = _content_type(headers)
    if charset not in CHARSETS:
        return None
    if kind == BATCH:
        return "batch"
    if kind == STRUCTURED:
        return "structured"
    if kind.startswith(CLOUDEVENTS):
        return None  # another format than JSON
    if any(name.startswith(PREFIX) for name, _ in headers):
        return "binary"
    return "structured" if kind == PLAIN else None


def largest(mode: Mode) -> int:
    """Return how many bytes a body may have."""
    return MAX_BATCH_BYTES if mode == "batch" else MAX_BYTES


def carrier(headers: Headers) -> Carrier | None:
    """Return the trace that a request belongs to, and with it each of its events that names no other."""
    trace = trace_of([value for name, value in headers if name == b"traceparent"])
    return Carrier(traceparent=trace) if trace else None


def letters(mode: Mode, headers: Headers, body: bytes, letter: Letter) -> list[Letter | Offer]:
    """Return the texts that a request carries, in order, or the dead letter that it is as a whole.

    `letter` has everything but the text; in a batch its id gets the event's number. Raises TooMany.
    """
    match mode:
        case "batch":
            return list(_batch(body, letter))
        case "binary":
            return [_binary(headers, body, letter)]
        case _:
            return [msgspec.structs.replace(letter, text=body)]


def _batch(body: bytes, letter: Letter) -> list[Letter | Offer]:
    try:
        batch = msgspec.json.decode(body, type=_BATCH)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        whole = msgspec.structs.replace(letter, text=body)
        return [refuse(whole, InputError("malformed", f"The batch is no JSON array: {error}."))]
    items = [item for item in msgspec.structs.astuple(batch) if item]
    if len(items) > MAX_BATCH:
        raise TooMany
    return [
        msgspec.structs.replace(letter, text=bytes(item), id=f"{letter.id}:{number}" if letter.id else None)
        for number, item in enumerate(items)
    ]


def _binary(headers: Headers, body: bytes, letter: Letter) -> Letter | Offer:
    """Return the structured event that attributes in headers and data in the body make."""
    attributes: dict[str, str] = {}
    wrong = ""
    for name, value in headers:
        if not name.startswith(PREFIX):
            continue
        attribute = name[len(PREFIX) :].decode("latin-1")
        if attribute in attributes or attribute in {"", "data", "data_base64"}:
            wrong = f"The header ce-{attribute} is there twice." if attribute in attributes else f"ce-{attribute}?"
        try:
            attributes[attribute] = _decoded(value)
        except UnicodeDecodeError:
            attributes[attribute] = value.decode("latin-1")
            wrong = f"The header ce-{attribute} is no percent-encoded UTF-8."
    try:
        text = composed(attributes, body)
    except InputError as error:
        kind, _ = _content_type(headers)
        kept = {**attributes, "datacontenttype": kind, "data_base64": base64.b64encode(body).decode()}
        return refuse(msgspec.structs.replace(letter, text=msgspec.json.encode(kept)), error)
    made = msgspec.structs.replace(letter, text=text)
    return refuse(made, InputError("wrong_envelope", wrong)) if wrong else made


def _decoded(value: bytes) -> str:
    """Return a header's value as section 3.1.3.2 of the binding decodes it; raises UnicodeDecodeError."""
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        value = value[1:-1].replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    return unquote_to_bytes(value).decode()


def _content_type(headers: Headers) -> tuple[str, str]:
    """Return the media type and its charset, in lower case."""
    return media_type(next((value for name, value in headers if name == b"content-type"), b""))
