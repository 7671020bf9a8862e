"""Dead letters: which are open, what can be done about them, and what became of them.

A dead letter is an input that could not be accepted (`input.rejected`), or an arrival that ingest could not use
(`data.rejected`). It is named by its position. A person's `retry` or `drop` settles it, once: a cursor under its
name says which request that was, and moves in the transaction that records the request.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec.structs import replace

from daemon import whereabouts
from daemon.core.arbitration import SOURCE
from daemon.core.arrivals import MAX_READMITTED
from daemon.core.errors import InputError
from daemon.core.events import (
    TERMINAL,
    DataArrived,
    DataRejected,
    InputRejected,
    OperatorRequested,
    Record,
)
from daemon.core.plans import Span
from daemon.core.state import Pipeline
from daemon.door import OWN_SOURCES, Letter
from daemon.journal.base import Reader, scan, scan_where

KINDS = ("input.rejected", "data.rejected")
TERMINAL_KINDS = tuple(event.kind for event in TERMINAL)
MAX_POSITION = 2**53

Outcome = Literal["accepted", "refused", "duplicate", "pending", "dropped", "withdrawn"]


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dead letter: by which record, by whom, and the position that a retry led to."""

    outcome: Outcome
    position: int
    by: str = ""
    led_to: int | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it was recorded, and what became of it; an open one is not `settled`."""

    record: Record
    reason: str
    message: str
    origin: str
    arrival: Record | None = None
    settled: Settled | None = None

    @property
    def text(self) -> bytes | None:
        """The bytes as they were received: of the input, or of the event that told of the arrival."""
        return self.record.text if self.arrival is None else self.arrival.text


def name(position: int) -> str:
    """Return the name of the cursor that says by which request a dead letter was settled."""
    return f"dead_letter:{position}"


def letters(reader: Reader, *, after: int = 0, upto: int | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters at (after, upto] in order, settled ones too."""
    for record in scan_where(reader, after, upto=upto, kinds=KINDS):
        letter = _letter(reader, record)
        if letter is not None:
            yield letter


def find(reader: Reader, position: int) -> DeadLetter:
    """Return the dead letter at a position; raises InputError (unknown_dead_letter) when there is none."""
    records = reader.records(position - 1, 1, upto=position) if 0 < position <= MAX_POSITION else []
    letter = _letter(reader, records[0]) if records else None
    if letter is None:
        message = f"There is no dead letter at position {position}: see `rewarm dead-letters list`."
        raise InputError("unknown_dead_letter", message)
    return letter


def settle(
    reader: Reader, event: OperatorRequested, subject: str | None, pipeline: Pipeline | None
) -> OperatorRequested:
    """Return a `retry` or `drop` with the arrival, and its amount, that it readmits or lets go of, if it does.

    Raises InputError: missing_dead_letter, unknown_dead_letter, resolved_already, not_retryable, wrong_pipeline,
    too_many_readmitted.
    """
    if event.dead_letter is None:
        raise InputError("missing_dead_letter", "drop needs the position of a dead letter: rewarm dead-letters drop N.")
    position = event.dead_letter
    letter = find(reader, position)
    settled = letter.settled
    if settled is not None:
        did = {"dropped": "dropped", "withdrawn": "withdrawn"}.get(settled.outcome, "retried")
        message = f"The dead letter at position {position} was {did} at position {settled.position} already."
        raise InputError("resolved_already", message)
    rejected = letter.record.event
    if not isinstance(rejected, DataRejected):
        why = hopeless(letter.record) if event.verb == "retry" else None
        if why is not None:
            raise InputError("not_retryable", f"The dead letter at position {position} cannot be retried: {why}")
        return event
    if subject != letter.record.pipeline:
        message = f"The arrival is one of {letter.record.pipeline}: name that pipeline as the subject."
        raise InputError("wrong_pipeline", message)
    if event.verb == "retry" and pipeline is not None and len(pipeline.readmitted) >= MAX_READMITTED:
        message = f"{MAX_READMITTED} retried or accepted spans wait for their next run already: retry it after that."
        raise InputError("too_many_readmitted", message)
    span = Span(after=rejected.arrival - 1, upto=rejected.arrival)
    return replace(event, spans=(span,), amounts={rejected.domain: rejected.estimate})


def hopeless(record: Record) -> str | None:
    """Return why an input cannot be sent again, or None when it can."""
    event = record.event
    if not isinstance(event, InputRejected):
        return None
    if event.where.startswith(OWN_SOURCES):
        return "a stage wrote it, and an outcome counts only where it was written."
    if event.reason == "too_large":
        return "it was too large to be kept whole; send it again in parts."
    if not (record.text or b"").strip():
        return "there is no text to send again."
    return None


def reopen(record: Record, by: str) -> Letter:
    """Return an input as its source received it, in the name of the person who retries it."""
    event = record.event
    if not isinstance(event, InputRejected):
        raise TypeError(f"the record at {record.position} is no input")
    source, identity = event.source, event.id
    if not source:  # recorded before they were kept: the record's own id begins with both
        source, _, identity = record.id.partition("#")
    return Letter(text=record.text or b"", where=event.where, source=source, id=identity, by=by, carrier=record.carrier)


def _letter(reader: Reader, record: Record) -> DeadLetter | None:
    event = record.event
    if isinstance(event, InputRejected):
        return DeadLetter(
            record=record,
            reason=event.reason,
            message=event.message,
            origin=event.where,
            settled=_settled(reader, record),
        )
    if not isinstance(event, DataRejected) or _stale(reader, record, event):
        return None
    (arrival,) = reader.records(event.arrival - 1, 1, upto=event.arrival) or (None,)
    uri = arrival.event.uri if arrival is not None and isinstance(arrival.event, DataArrived) else ""
    return DeadLetter(
        record=record,
        reason=event.reason,
        message=event.message,
        origin=uri,
        arrival=arrival,
        settled=_settled(reader, record) or _withdrawn(reader, record, event),
    )


def _stale(reader: Reader, record: Record, event: DataRejected) -> bool:
    """Return whether an attempt told it that had ended before: such words change nothing."""
    ended = scan_where(reader, event.arrival, upto=record.position, run=event.run, kinds=TERMINAL_KINDS)
    return any(
        isinstance(end.event, TERMINAL) and end.event.stage == event.stage and end.event.attempt >= event.attempt
        for end in ended
    )


def _settled(reader: Reader, record: Record) -> Settled | None:
    position = reader.cursor(name(record.position))
    if position is None:
        return None
    (request,) = reader.records(position - 1, 1, upto=position)
    event = request.event
    by = event.by if isinstance(event, OperatorRequested) else ""
    if isinstance(event, OperatorRequested) and event.verb == "drop":
        return Settled(outcome="dropped", position=position, by=by)
    if isinstance(record.event, DataRejected):
        return Settled(outcome="pending", position=position, by=by, led_to=record.event.arrival)
    again = _led_to(reader, position)
    if again is None:
        return Settled(outcome="duplicate", position=position, by=by)
    refused = isinstance(again.event, InputRejected)
    return Settled(outcome="refused" if refused else "accepted", position=position, by=by, led_to=again.position)


def _led_to(reader: Reader, position: int) -> Record | None:
    """Return what a retry brought in: of the records that it caused, the one that is no decision of ours."""
    for record in scan(reader, position, chunk=20):
        if record.cause != position:
            return None
        if record.source != SOURCE:
            return record
    return None


def _withdrawn(reader: Reader, record: Record, event: DataRejected) -> Settled | None:
    gone = whereabouts.withdrawal(reader, record.pipeline, event.arrival)
    return None if gone is None else Settled(outcome="withdrawn", position=gone.position)
