"""A record as a row of plain values and back; both adapters store these rows."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from daemon.core.encoding import decode, encode
from daemon.core.errors import EventError, JournalCorrupt, JournalError, JournalTooNew
from daemon.core.events import EVENTS, Carrier, Record, run_of
from daemon.journal.base import digest

Row = tuple[
    int, int, str, str, str, int, str | None, str | None, int | None, int | None, str, bytes, bytes | None, str | None
]
"""position, recorded_at, source, id, kind, version, pipeline, run, cause, time, data, digest, text, carrier."""

Selected = tuple[int, int, str, str, str, int, str | None, int | None, int | None, str, bytes | None, str | None]
"""A row as it is read back: without run (the event has it) and digest."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_carriers = msgspec.json.Encoder()
_carrier = msgspec.json.Decoder(Carrier)


def micros(instant: datetime) -> int:
    """Return microseconds since 1970, exactly; raises JournalError for an instant without a time zone."""
    if instant.tzinfo is None:
        raise JournalError(f"The instant {instant.isoformat()} has no time zone; the journal takes aware datetimes.")
    return (instant - EPOCH) // MICROSECOND


def instant(microseconds: int) -> datetime:
    """Return the UTC instant so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def selected(row: Row) -> Selected:
    """Return what is read back of a stored row."""
    return (*row[:7], *row[8:11], *row[12:])


def to_row(record: Record, recorded_at: int, content: bytes | None = None) -> Row:
    """Return a record's row; `recorded_at` is its instant in microseconds, `content` a digest of its own."""
    event = record.event
    data = encode(event)
    return (
        record.position,
        recorded_at,
        record.source,
        record.id,
        event.kind,
        event.version,
        record.pipeline,
        run_of(event),
        record.cause,
        None if record.time is None else micros(record.time),
        data.decode(),
        content or digest(data),
        record.text,
        None if record.carrier is None else _carriers.encode(record.carrier).decode(),
    )


def to_records(rows: Iterable[Selected]) -> list[Record]:
    """Return the records of rows.

    Raises JournalTooNew for an event of a newer rewarm, JournalCorrupt for one that cannot be read.
    """
    records = []
    position, last, stamp = 0, 0, EPOCH
    kind, version = "", 0
    try:
        for position, recorded_at, source, identity, kind, version, pipeline, cause, time, data, text, carrier in rows:
            if recorded_at != last:  # the records of a batch share one stamp: it is converted once
                stamp, last = EPOCH + timedelta(microseconds=recorded_at), recorded_at
            records.append(
                Record(
                    position=position,
                    recorded_at=stamp,
                    source=source,
                    id=identity,
                    event=decode(kind, version, data),
                    pipeline=pipeline,
                    cause=cause,
                    time=None if time is None else EPOCH + timedelta(microseconds=time),
                    text=text,
                    carrier=None if carrier is None else _carrier.decode(carrier),
                )
            )
    except EventError as error:
        known = EVENTS.get(kind)
        if known is None or version > known.version:
            raise JournalTooNew(f"Record {position} was written by a newer rewarm: {error}") from error
        raise JournalCorrupt(f"Record {position} cannot be read: {error}") from error
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise JournalCorrupt(f"Record {position} cannot be read: {error}.") from error
    return records


def to_rows(records: Sequence[Record], head: int, last: int, digests: Sequence[bytes | None] | None) -> list[Row]:
    """Return the rows of records that continue `head` and never go back behind `last` (microseconds).

    Raises JournalError when a position leaves a gap, or time goes backwards.
    """
    if digests is not None and len(digests) != len(records):
        raise JournalError(f"{len(records)} records came with {len(digests)} digests; give one (or None) each.")
    rows = []
    stamp: datetime | None = None
    for number, record in enumerate(records):
        if record.position != head + 1 + number:
            raise JournalError(
                f"Record {record.position} does not continue the journal: position {head + 1 + number} is next."
            )
        if record.recorded_at is not stamp:  # the records of a batch share one stamp: it is converted once
            stamp = record.recorded_at
            now = micros(stamp)
            if now < last:
                raise JournalError(
                    f"Record {record.position} is of {stamp.isoformat()}, before the record it follows: "
                    "take the instant from `stamp`."
                )
            last = now
        rows.append(to_row(record, last, None if digests is None else digests[number]))
    return rows
