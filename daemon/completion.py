"""What the journal and the state add to an outside event before it is recorded."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from daemon import backfill, dead_letters, whereabouts
from daemon.core.arrivals import MAX_READMITTED, spans
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
from daemon.core.state import Pipeline, State
from daemon.door import Door, Offer
from daemon.journal.base import Reader, Transaction, scan_where
from daemon.places import Places, local_path
from stages.roots import Remote

Complete = Callable[[Transaction, State, Offer], AnyEvent]


def completer(door: Door, reader: Reader) -> Complete:
    """Return the function that completes events inside the transaction that records them.

    It raises InputError where an event refers to what is not there; `reader` must see the transaction's rows.
    """
    places = _Latest(door.roots)

    def complete(transaction: Transaction, state: State, offer: Offer) -> AnyEvent:
        event = offer.event
        if event is None:
            raise InputError("malformed", "There is no event in this input.")
        pipeline = state.pipelines.get(offer.pipeline) if offer.pipeline is not None else None
        match event:
            case DataArrived():
                domains = pipeline.domains if pipeline else {}
                most = pipeline.settings.max_domains if pipeline and pipeline.settings else 1
                return door.complete(event, domains, most, places.of(transaction))
            case OperatorRequested(verb="drop") | OperatorRequested(verb="retry", dead_letter=int()):
                return dead_letters.settle(reader, event, offer.pipeline, pipeline)
            case OperatorRequested(verb="align"):
                return _aligned(door, event)
            case _ if offer.pipeline is None:
                return event
            case DataIngested() | DataRejected():
                # Withdrawn while ingest was at work, it is counted nowhere any more.
                gone = whereabouts.withdrawal(reader, offer.pipeline, event.arrival) is not None
                return replace(event, estimate=Amount()) if gone else event
            case DataWithdrawn():
                return _withdrawal(transaction, reader, offer.pipeline, pipeline, event)
            case OperatorRequested(verb="accept" | "withdraw"):
                return _set_aside(reader, offer.pipeline, pipeline, event)
            case OperatorRequested(verb="backfill"):
                return backfill.complete(reader, offer.pipeline, pipeline, event)
            case OperatorRequested(verb="adopt"):
                return _adoption(door, state, offer.pipeline, event)
            case _:
                return event

    return complete


class _Latest:
    """What the transaction in the making has seen of the roots: the next one looks anew."""

    def __init__(self, roots: Sequence[Path | Remote]) -> None:
        self._roots = roots
        self._transaction: Transaction | None = None
        self._places = Places(roots)

    def of(self, transaction: Transaction) -> Places:
        """Return what was seen in this transaction."""
        if transaction is not self._transaction:
            self._transaction, self._places = transaction, Places(self._roots)
        return self._places


def _aligned(door: Door, event: OperatorRequested) -> OperatorRequested:
    """Refuse positions that are nobody's, or that contradict each other."""
    if not event.positions:
        raise InputError("missing_positions", "align needs the positions to be set: rewarm align --set TOPIC=OFFSET.")
    places = [(at.cluster, at.topic_id or at.topic, at.partition) for at in event.positions]
    if len(set(places)) < len(places):
        raise InputError("position_twice", "A partition has one position: name each of them once.")
    meant: dict[tuple[str, str], tuple[str, str]] = {}
    for at in event.positions:
        if at.topic not in door.topics.get(at.source, ()):
            known = ", ".join(f"{name}/{topic}" for name, topics in door.topics.items() for topic in sorted(topics))
            message = f"No source {at.source!r} with a topic {at.topic!r} is configured; known: {known or 'none'}."
            raise InputError("unknown_topic", message)
        topic = (at.cluster, at.topic_id)
        if meant.setdefault((at.source, at.topic), topic) != topic:
            message = f"{at.source}/{at.topic} is one topic of one cluster: name it by the same ids in each position."
            raise InputError("position_twice", message)
    return event


def _withdrawal(
    transaction: Transaction, reader: Reader, pipeline: str, before: Pipeline | None, event: DataWithdrawn
) -> DataWithdrawn:
    """Find the arrival that is withdrawn, what it is counted as, and where."""
    found = transaction.find(event.arrival_source, event.arrival_id)
    record = transaction.record(found.position) if found else None
    if record is None or not isinstance(record.event, DataArrived) or record.pipeline != pipeline:
        message = (
            f"No arrival of {pipeline} has source {event.arrival_source!r} and id {event.arrival_id!r}: "
            "see `rewarm events --kind data.arrived`."
        )
        raise InputError("unknown_arrival", message)
    earlier = whereabouts.withdrawal(reader, pipeline, record.position)
    if earlier is not None:
        message = f"The arrival at position {record.position} was withdrawn at {earlier.position} already."
        raise InputError("withdrawn_already", message)
    account, amount = whereabouts.find(reader, record, before)
    return replace(event, arrival=record.position, domain=record.event.domain, amount=amount, account=account)


def _adoption(door: Door, state: State, pipeline: str, event: OperatorRequested) -> OperatorRequested:
    """Find the folder of the model, and what it has seen: the arrivals that are pending at this very position."""
    if not event.model:
        raise InputError("missing_model", "adopt needs the folder of the model: rewarm adopt PIPELINE FOLDER.")
    folder = local_path(event.model, door.roots)
    if not folder.exists():
        raise InputError("file_missing", f"{folder} cannot be read: there is no such folder.")
    if not folder.is_dir():
        raise InputError("not_a_folder", f"{folder} is not a folder: name the one that holds model.safetensors.")
    event = replace(event, model=str(folder))
    before = state.pipelines.get(pipeline)
    if event.trained_on == "nothing" or before is None or not before.pending:
        return event
    return replace(event, spans=spans(before, state.position), amounts=before.pending)


def _set_aside(reader: Reader, pipeline: str, before: Pipeline | None, event: OperatorRequested) -> OperatorRequested:
    """Find the arrivals that a rejected candidate's run set aside, once."""
    if not event.run:
        raise InputError("missing_run", f"{event.verb} needs the run whose arrivals are meant: --run RUN.")
    rejected, at = None, 0
    for record in scan_where(reader, 0, run=event.run, kinds=("model.rejected", "operator.requested")):
        match record.event:
            case ModelRejected() if record.pipeline == pipeline:
                rejected, at = record.event, record.position
            case OperatorRequested(verb="accept" | "withdraw" as verb) if rejected is not None:
                was = {"accept": "accepted", "withdraw": "withdrawn"}[verb]
                message = f"What run {event.run} set aside was {was} at position {record.position} already."
                raise InputError("resolved_already", message)
            case _:
                pass
    if rejected is None:
        message = (
            f"Run {event.run!r} of {pipeline} has set nothing aside: only a rejected candidate's run does. What a "
            "version that was rolled back had is used again by `rewarm backfill`."
        )
        raise InputError("nothing_set_aside", message)
    if (again := backfill.later(reader, pipeline, at, rejected.spans)) is not None:
        message = (
            f"A backfill at position {again} has made arrivals of run {event.run} pending again: backfill the rest."
        )
        raise InputError("resolved_already", message)
    if event.verb == "accept" and before and len(before.readmitted) + len(rejected.spans) > MAX_READMITTED:
        message = f"{len(before.readmitted)} spans wait for their next run already: accept it after that."
        raise InputError("too_many_readmitted", message)
    return replace(event, spans=rejected.spans, amounts=rejected.amounts)
