"""What a request to backfill is about: the arrivals of a period that can be used again, found once, at the door.

And, the other way round, which request is behind the arrivals of a run.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from daemon import whereabouts
from daemon.core.arrivals import MAX_READMITTED
from daemon.core.errors import InputError
from daemon.core.events import DataArrived, OperatorRequested, Record
from daemon.core.plans import Amounts, Span, add
from daemon.core.state import Pipeline
from daemon.journal.base import Reader, scan_where
from daemon.whereabouts import Place

if TYPE_CHECKING:
    from daemon.core.events.outside import Account


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill by which so many arrivals of the run were pending once more."""

    position: int
    recorded_at: datetime
    arrivals: int
    by: str
    reason: str


def complete(reader: Reader, pipeline: str, before: Pipeline | None, event: OperatorRequested) -> OperatorRequested:
    """Return the request with the spans and amounts of the period's arrivals that are neither pending nor gone.

    A span ends where an arrival is pending already, or of a run that lives: the spans of what is pending never
    overlap. Usually there is one. Raises InputError where there is no period, or nothing in it.
    """
    since, until = _instant(event.since), _instant(event.until)
    if since is None or until is None or since >= until:
        message = "backfill needs the period in which the arrivals were recorded: `since`, and `until` after it."
        raise InputError("missing_period", message)
    found = _arrived(reader, pipeline, since, until)
    places = whereabouts.places(reader, found, before)
    accounts: dict[Account, Amounts] = {}
    amounts: Amounts = {}
    for record in found:
        place = places[record.position]
        if place.account is None or place.gone or not isinstance(record.event, DataArrived):
            continue
        amount = {record.event.domain: place.amount}
        amounts = add(amounts, amount)
        if place.account != "used":
            accounts[place.account] = add(accounts.get(place.account, {}), amount)
    spans = _spans([(record.position, places[record.position]) for record in found])
    if not spans:
        raise InputError("nothing_to_backfill", _nothing(len(found), pipeline, since, until))
    if before and len(before.readmitted) + len(spans) > MAX_READMITTED:
        message = f"{len(before.readmitted)} spans wait for their next run already, and these are {len(spans)} more."
        raise InputError("too_many_readmitted", message)
    return replace(event, since=since, until=until, spans=spans, amounts=amounts, accounts=accounts)


def later(reader: Reader, pipeline: str, position: int, spans: Sequence[Span]) -> int | None:
    """Return where, after a position, a backfill took arrivals out of one of these spans, if one did."""
    for record in scan_where(reader, position, pipeline=pipeline, kinds=("operator.requested",)):
        if isinstance(record.event, OperatorRequested) and record.event.verb == "backfill":
            pairs = ((mine, theirs) for mine in spans for theirs in record.event.spans)
            for mine, theirs in pairs:
                after, upto = max(mine.after, theirs.after), min(mine.upto, theirs.upto)
                if after < upto and reader.records(after, 1, upto=upto, kinds={"data.arrived"}, pipeline=pipeline):
                    return record.position
    return None


def behind(reader: Reader, pipeline: str, upto: int, spans: Sequence[Span]) -> Iterator[Again]:
    """Yield the backfills behind the spans of a run: of one span the last before the run began."""
    found: dict[Span, Record] = {}
    for record in scan_where(reader, 0, upto=upto, kinds=(OperatorRequested.kind,), pipeline=pipeline):
        if isinstance(record.event, OperatorRequested) and record.event.verb == "backfill":
            found.update(dict.fromkeys(record.event.spans, record))
    for record in {each.position: each for span, each in found.items() if span in spans}.values():
        if isinstance(record.event, OperatorRequested):
            yield Again(
                position=record.position,
                recorded_at=record.recorded_at,
                arrivals=sum(amount.arrivals for amount in record.event.amounts.values()),
                by=record.event.by,
                reason=record.event.reason,
            )


def _instant(at: datetime | None) -> datetime | None:
    try:
        return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except OverflowError as error:
        raise InputError("missing_period", f"{at} lies outside the years that a calendar has in UTC.") from error


def _nothing(arrivals: int, pipeline: str, since: datetime, until: datetime) -> str:
    """Return why nothing of a period can be used again."""
    period = f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
    if not arrivals:
        return f"No arrival of {pipeline} was recorded {period}."
    why = "pending already, of a run that is active, preempted or held, withdrawn, or refused"
    return f"No arrival of {pipeline} {period} can be used again: each of the {arrivals:,} is {why}."


def _arrived(reader: Reader, pipeline: str, since: datetime, until: datetime) -> list[Record]:
    """Return the arrivals that were recorded in a period; `recorded_at` never decreases in a journal."""
    low, high = 0, reader.head()
    while low < high:
        middle = (low + high) // 2
        page = reader.records(middle, 1)
        if page and page[0].recorded_at < since:
            low = page[0].position
        else:
            high = middle
    found = []
    for record in scan_where(reader, low, pipeline=pipeline, kinds=("data.arrived",)):
        if record.recorded_at >= until:
            break
        if record.recorded_at >= since:
            found.append(record)
    return found


def _spans(found: Sequence[tuple[int, Place]]) -> tuple[Span, ...]:
    """Return the spans of what can be used again; what is unusable may lie in one, for no run takes it."""
    spans: list[Span] = []
    going_on = False
    for position, place in found:
        if place.gone == "unusable":
            continue
        if place.account is None or place.gone:
            going_on = False
        elif going_on:
            spans[-1] = Span(after=spans[-1].after, upto=position)
        else:
            spans.append(Span(after=position - 1, upto=position))
            going_on = True
    return tuple(spans)
