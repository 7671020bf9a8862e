"""A dead letter in words, in bytes and in JSON; nothing in it reaches a terminal that the terminal would obey."""

from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec.structs import asdict

from daemon.cli.output import NOTHING, when
from daemon.core.events import DataRejected, InputRejected
from daemon.dead_letters import DeadLetter, Settled

SHOWN = 4096
WIDTH = 16


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as a program reads it."""

    position: int
    recorded_at: datetime
    kind: str
    reason: str
    message: str
    origin: str
    pipeline: str | None
    settled: Settled | None


class Whole(Line, frozen=True):
    """A dead letter with its bytes (in JSON as base64), and as text where they are text; `run` refused `arrival`."""

    source: str
    id: str
    run: str | None
    arrival: int | None
    bytes: bytes | None
    text: str | None


def fate(settled: Settled) -> str:
    """Return what became of a dead letter."""
    by = f" by {settled.by}" if settled.by else ""
    retry = f"(retry at {settled.position}{by})"
    match settled.outcome:
        case "accepted":
            return f"accepted at {settled.led_to} {retry}"
        case "refused":
            return f"refused again: dead letter {settled.led_to} {retry}"
        case "duplicate":
            return f"was recorded already {retry}"
        case "pending":
            return f"its arrival {settled.led_to} is pending again {retry}"
        case "dropped":
            return f"dropped at {settled.position}{by}"
        case "withdrawn":
            return f"its arrival was withdrawn at {settled.position}"


def line(letter: DeadLetter) -> Line:
    """Return a dead letter without its bytes."""
    record = letter.record
    return Line(
        position=record.position,
        recorded_at=record.recorded_at,
        kind=record.event.kind,
        reason=letter.reason,
        message=letter.message,
        origin=letter.origin,
        pipeline=record.pipeline,
        settled=letter.settled,
    )


def whole(letter: DeadLetter) -> Whole:
    """Return a dead letter with its bytes."""
    named = letter.arrival or letter.record
    source, identity = named.source, named.id
    event = letter.record.event
    if isinstance(event, InputRejected) and event.source:
        source, identity = event.source, event.id or ""
    rejected = event if isinstance(event, DataRejected) else None
    return Whole(
        **asdict(line(letter)),
        source=source,
        id=identity,
        run=rejected.run if rejected else None,
        arrival=rejected.arrival if rejected else None,
        bytes=letter.text,
        text=_decoded(letter.text or b""),
    )


def row(letter: DeadLetter, *, settled: bool) -> list[str]:
    """Return a dead letter as a line of a list, with what became of it or without."""
    record = letter.record
    cells = [
        str(record.position),
        when(record.recorded_at),
        letter.reason,
        record.pipeline or NOTHING,
        printable(letter.origin),
    ]
    became = NOTHING if letter.settled is None else fate(letter.settled)
    return [*cells, *([became] if settled else []), printable(letter.message.partition("\n")[0])]


def described(letter: DeadLetter) -> list[tuple[str, str]]:
    """Return what a person wants to know of a dead letter, by name."""
    told = whole(letter)
    rows = [
        ("position", f"{told.position}, {told.kind}, {when(told.recorded_at)}"),
        ("reason", f"{told.reason}: {printable(told.message)}"),
        ("from", printable(f"{told.origin} ({told.source}{', id ' + told.id if told.id else ''})")),
        ("pipeline", told.pipeline or NOTHING),
    ]
    if told.arrival is not None:
        rows.append(("arrival", f"{told.arrival}, refused by run {told.run}"))
    settled = "open: rewarm dead-letters retry, or drop" if letter.settled is None else fate(letter.settled)
    return [*rows, ("settled", settled), ("bytes", f"{len(letter.text or b''):,}")]


def readable(text: bytes) -> list[str]:
    """Return the beginning of bytes as lines for a terminal: as text where that is safe, else in hexadecimal."""
    decoded = _decoded(text)
    plain = decoded is not None and printable(decoded, "\n\t\r") == decoded
    shown = (decoded or "")[:SHOWN].splitlines() if plain else list(hexdump(text[:SHOWN]))
    cut = len(decoded or "") > SHOWN if plain else len(text) > SHOWN
    return [*shown, *([f"… all of it: --raw ({len(text):,} bytes)"] if cut else [])]


def hexdump(text: bytes) -> Iterator[str]:
    """Yield lines of sixteen bytes: offset, hexadecimal, and what of it is ASCII."""
    for offset in range(0, len(text), WIDTH):
        part = text[offset : offset + WIDTH]
        letters = "".join(c if c.isascii() and c.isprintable() else "." for c in part.decode("latin-1"))
        yield f"{offset:08x}  {part.hex(' '):<{WIDTH * 3 - 1}}  {letters}"


def printable(text: str, besides: str = "") -> str:
    """Return a text without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in besides else "�" for c in text)


def _decoded(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None
