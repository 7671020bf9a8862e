"""Outcome files as a source: each complete line is a fact, its number the id, its file the cursor."""

from datetime import datetime
from pathlib import Path

import msgspec

from daemon.core.encoding import decode
from daemon.core.errors import EventError
from daemon.core.events import AnyEvent, StageEvent, StageFailed
from daemon.core.state import Order
from daemon.door import REJECTED_SOURCE, Input, Offer
from daemon.files import sync
from daemon.journal.base import Cursor, digest
from stages.run_folder import OUTCOME, is_terminal, known_kind, lines

BATCH = 200


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    version: int
    time: datetime
    data: msgspec.Raw


def source_of(order: Order) -> str:
    """Return the event source of an attempt."""
    return f"/rewarm/runs/{order.run}/{order.stage}/{order.attempt}"


def cursor_of(order: Order) -> str:
    """Return the name of an attempt's input cursor."""
    return f"outcome:{order.run}/{order.stage}/{order.attempt}"


def read(folder: Path, order: Order, pipeline: str, after: int) -> Input | None:
    """Return the lines after the first `after` ones as one input, or None when there is nothing new."""
    found = lines(folder)[after : after + BATCH]
    if not found:
        return None
    # What the journal has read must not vanish from the file with the machine's power: numbers would shift.
    sync(folder / OUTCOME)
    offers = tuple(_offer(line, order, pipeline, after + 1 + n) for n, line in enumerate(found))
    return Input(offers=offers, cursor=Cursor(name=cursor_of(order), expected=after or None, next=after + len(found)))


def _offer(line: bytes, order: Order, pipeline: str, number: int) -> Offer:
    source = source_of(order)
    try:
        time, event = _parse(line, order)
    except (EventError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        if is_terminal(line):
            return _unreadable_end(line, order, pipeline, number, str(error))
        return Offer(
            source=REJECTED_SOURCE,
            id=f"{source}#{number}",
            where=f"{source}:{number}",
            digest=digest(line),
            pipeline=pipeline,
            text=line,
            refusal=("bad_outcome_line", str(error)),
        )
    return Offer(
        source=source,
        id=str(number),
        where=f"{source}:{number}",
        digest=digest(line),
        event=event,
        pipeline=pipeline,
        time=time,
    )


def _unreadable_end(line: bytes, order: Order, pipeline: str, number: int, why: str) -> Offer:
    """Return the failure that a last line stands for which cannot be read: without it the run would wait for ever."""
    message = f"The attempt has ended, but its last line cannot be read: {why}"[:4000]
    failed = StageFailed(run=order.run, stage=order.stage, attempt=order.attempt, failure="user_error", message=message)
    return Offer(
        source=source_of(order),
        id=str(number),
        where=f"{source_of(order)}:{number}",
        digest=digest(line),
        event=failed,
        pipeline=pipeline,
        text=line,
    )


def _parse(line: bytes, order: Order) -> tuple[datetime, AnyEvent]:
    parsed = msgspec.json.decode(line, type=_Line)
    if not known_kind(parsed.kind):
        raise EventError(f"A stage may not tell {parsed.kind!r}.")
    event = decode(parsed.kind, parsed.version, bytes(parsed.data))
    told = (event.run, event.stage, event.attempt) if isinstance(event, StageEvent) else None
    if told != (order.run, order.stage, order.attempt):
        raise EventError(f"The line speaks of another attempt: {told}.")
    return parsed.time, event
