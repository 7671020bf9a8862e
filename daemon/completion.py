"""What the journal and the state add to an outside event before it is recorded."""

from collections.abc import Callable

from msgspec.structs import replace

from daemon.core.arrivals import amount_of
from daemon.core.errors import InputError
from daemon.core.events import (
    AnyEvent,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelRejected,
    OperatorRequested,
)
from daemon.core.plans import Amount
from daemon.core.state import State
from daemon.door import Door, Offer
from daemon.journal.base import Reader, Transaction, scan_where

Complete = Callable[[Transaction, State, Offer], AnyEvent]


def completer(door: Door, reader: Reader) -> Complete:
    """Return the function that completes events inside the transaction that records them.

    It raises InputError where an event refers to what is not there; `reader` must see the transaction's rows.
    """

    def complete(transaction: Transaction, state: State, offer: Offer) -> AnyEvent:
        event = offer.event
        if event is None or offer.pipeline is None:
            if event is None:
                raise InputError("malformed", "There is no event in this input.")
            return event
        match event:
            case DataArrived():
                pipeline = state.pipelines.get(offer.pipeline)
                domains = pipeline.domains if pipeline else {}
                most = pipeline.settings.max_domains if pipeline and pipeline.settings else 1
                return door.complete(event, domains, most)
            case DataWithdrawn():
                return _withdrawal(transaction, reader, offer.pipeline, event)
            case OperatorRequested(verb="accept" | "withdraw"):
                return _set_aside(reader, offer.pipeline, event)
            case _:
                return event

    return complete


def _withdrawal(transaction: Transaction, reader: Reader, pipeline: str, event: DataWithdrawn) -> DataWithdrawn:
    """Find the arrival that is withdrawn, and what it is counted as."""
    found = transaction.find(event.arrival_source, event.arrival_id)
    record = transaction.record(found.position) if found else None
    if record is None or not isinstance(record.event, DataArrived) or record.pipeline != pipeline:
        message = (
            f"No arrival of {pipeline} has source {event.arrival_source!r} and id {event.arrival_id!r}: "
            "see `rewarm events --kind data.arrived`."
        )
        raise InputError("unknown_arrival", message)
    for earlier in scan_where(reader, record.position, pipeline=pipeline, kinds=("data.withdrawn",)):
        if isinstance(earlier.event, DataWithdrawn) and earlier.event.arrival == record.position:
            message = f"The arrival at position {record.position} was withdrawn at {earlier.position} already."
            raise InputError("withdrawn_already", message)
    amount = amount_of(record.event)
    for told in scan_where(reader, record.position, pipeline=pipeline, kinds=("data.ingested", "data.rejected")):
        if isinstance(told.event, DataIngested) and told.event.arrival == record.position:
            amount = told.event.amount
        elif isinstance(told.event, DataRejected) and told.event.arrival == record.position:
            amount = Amount()  # set aside by ingest: it is in no account that it could be taken out of
    return replace(event, arrival=record.position, domain=record.event.domain, amount=amount)


def _set_aside(reader: Reader, pipeline: str, event: OperatorRequested) -> OperatorRequested:
    """Find the arrivals that a rejected candidate's run set aside."""
    if not event.run:
        raise InputError("missing_run", f"{event.verb} needs the run whose arrivals are meant: --run RUN.")
    rejected = None
    for record in scan_where(reader, 0, run=event.run, kinds=("model.rejected",)):
        if isinstance(record.event, ModelRejected) and record.pipeline == pipeline:
            rejected = record.event
    if rejected is None:
        message = f"Run {event.run!r} of {pipeline} has set nothing aside: only a rejected candidate's run does."
        raise InputError("nothing_set_aside", message)
    return replace(event, spans=rejected.spans, amounts=rejected.amounts)
