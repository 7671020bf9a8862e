"""Transitions as files on a fixed grid of journal positions: their bytes depend on the journal alone.

The segment of a grid cell holds all of one MLflow run's records with positions in the cell. While the cell
fills it is written again under the same name; once the journal has passed it, it never changes.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from daemon.core.encoding import decode
from daemon.core.events import Record

FOLDER = "transitions"
WIDTH = 100
"""Positions in a cell; part of the format: another width would give other names."""


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A record as a segment keeps it; a dead letter's received text stays in the journal."""

    position: int
    recorded_at: datetime
    pipeline: str | None
    kind: str
    version: int
    source: str
    id: str
    cause: int | None
    time: datetime | None
    event: msgspec.Raw


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(tuple[Transition, ...])


def cell(position: int) -> int:
    """Return the first position of the cell that `position` lies in."""
    return position - position % WIDTH


def name(position: int) -> str:
    """Return the artifact path of the segment that `position` lies in."""
    first = cell(position)
    return f"{FOLDER}/{first:09d}-{first + WIDTH - 1:09d}.json"


def encode(records: Iterable[Record]) -> bytes:
    """Return a segment: a JSON array with one record a line."""
    lines = [_encoder.encode(_transition(record)) for record in records]
    return b"[\n" + b",\n".join(lines) + b"\n]\n"


def read(data: bytes) -> tuple[Transition, ...]:
    """Return what a segment holds; raises msgspec.MsgspecError when it is torn or was changed."""
    return _decoder.decode(data)


def same(kept: Transition, record: Record) -> bool:
    """Return whether a segment says of a record what the journal says.

    Compared is what both mean today, not their bytes: an event of an older version is lifted first.
    """
    if decode(kept.kind, kept.version, bytes(kept.event)) != record.event:
        return False
    ours = _transition(record)
    return all(
        getattr(kept, field) == getattr(ours, field)
        for field in ("position", "recorded_at", "pipeline", "source", "id", "cause", "time")
    )


def _transition(record: Record) -> Transition:
    event = record.event
    return Transition(
        position=record.position,
        recorded_at=record.recorded_at,
        pipeline=record.pipeline,
        kind=event.kind,
        version=event.version,
        source=record.source,
        id=record.id,
        cause=record.cause,
        time=record.time,
        event=msgspec.Raw(_encoder.encode(event)),
    )
