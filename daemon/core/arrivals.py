"""The account of data: what is pending, taken, past or set aside, per domain."""

from msgspec.structs import replace

from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    OperatorRequested,
    Record,
)
from daemon.core.plans import Amount, Amounts, Span, add, subtract, tokens
from daemon.core.state import Pipeline, Run

MAX_READMITTED = 16


def amount_of(event: DataArrived) -> Amount:
    """Return what an arrival is counted as until it is ingested."""
    return Amount(arrivals=1, documents=event.documents or 0, bytes=event.bytes or 0, tokens=event.tokens or 0)


def is_pending(pipeline: Pipeline, arrival: int) -> bool:
    """Return whether the arrival at this position is still to be used."""
    return arrival > pipeline.used_upto or within(pipeline.readmitted, arrival)


def within(spans: tuple[Span, ...], position: int) -> bool:
    """Return whether a position lies in one of the spans."""
    return any(span.after < position <= span.upto for span in spans)


def arrived(pipeline: Pipeline, record: Record, event: DataArrived) -> Pipeline:
    """Count a new arrival as pending."""
    amount = amount_of(event)
    domain = event.domain
    pending = pipeline.pending.copy()
    before = pending.get(domain)
    pending[domain] = amount if before is None else before + amount
    domains = pipeline.domains.copy()
    domains[domain] = domains.get(domain, 0) + 1
    return replace(
        pipeline,
        pending=pending,
        waiting=pipeline.waiting + amount.tokens,
        domains=domains,
        last_arrival=record.position,
        last_arrival_at=record.recorded_at,
        waiting_since=pipeline.waiting_since or record.recorded_at,
    )


def withdrawn(pipeline: Pipeline, event: DataWithdrawn) -> Pipeline | str:
    """Take a withdrawn arrival out of whatever it is counted in."""
    if event.arrival is None or event.domain is None or event.amount is None:
        return "withdrawal_of_unknown_arrival"
    gone = {event.domain: event.amount}
    if is_pending(pipeline, event.arrival):
        return _recount(pipeline, event.arrival, gone, {})
    for place in ("active", "yielded", "held"):
        run: Run | None = getattr(pipeline, place)
        if run is not None and within(run.plan.spans, event.arrival):
            plan = replace(run.plan, new=subtract(run.plan.new, gone))
            pipeline = _placed(pipeline, place, replace(run, plan=plan))
            if not run.promoted:
                return pipeline
    champion = pipeline.champion
    if champion is None or event.domain not in champion.past:
        return replace(pipeline, set_aside=subtract(pipeline.set_aside, gone))
    pipeline = replace(pipeline, champion=replace(champion, past=subtract(champion.past, gone)))
    for place in ("active", "yielded", "held"):
        run = getattr(pipeline, place)
        if run is not None and not run.promoted:
            plan = replace(run.plan, past=subtract(run.plan.past, gone))
            pipeline = _placed(pipeline, place, replace(run, plan=plan))
    return pipeline


def ingested(pipeline: Pipeline, event: DataIngested) -> Pipeline | str:
    """Replace an arrival's estimate by its exact amount."""
    if not is_pending(pipeline, event.arrival):
        return "ingested_arrival_not_pending"
    if event.arrival <= pipeline.counted_upto:
        return "already_counted"  # another attempt or run ingests it again
    pipeline = replace(pipeline, counted_upto=event.arrival)
    return _recount(pipeline, event.arrival, {event.domain: event.estimate}, {event.domain: event.amount})


def rejected(pipeline: Pipeline, event: DataRejected) -> Pipeline | str:
    """Set an arrival aside that ingest could not use."""
    if not is_pending(pipeline, event.arrival):
        return "rejected_arrival_not_pending"
    if event.arrival <= pipeline.counted_upto:
        return "already_counted"
    pipeline = replace(pipeline, counted_upto=event.arrival)
    gone = {event.domain: event.estimate}
    pipeline = _recount(pipeline, event.arrival, gone, {})
    return replace(pipeline, set_aside=add(pipeline.set_aside, gone))


def accepted(pipeline: Pipeline, event: OperatorRequested) -> Pipeline | str:
    """Make the arrivals of a rejected candidate pending again."""
    if not event.spans:
        return "nothing_to_accept"
    if len(pipeline.readmitted) + len(event.spans) > MAX_READMITTED:
        return "too_many_readmitted_spans"
    if any(is_pending(pipeline, span.upto) for span in event.spans):
        return "already_pending"
    pending = add(pipeline.pending, event.amounts)
    return replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        set_aside=subtract(pipeline.set_aside, event.amounts),
        readmitted=pipeline.readmitted + event.spans,
        failed_upto=0,
    )


def consumed(pipeline: Pipeline, run: Run) -> Pipeline:
    """Count a run's arrivals as used, once: they are pending no more."""
    if run.consumed or not run.plan.spans:
        return pipeline
    pending = subtract(pipeline.pending, run.plan.new)
    return replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        used_upto=max(pipeline.used_upto, *(span.upto for span in run.plan.spans)),
        readmitted=tuple(span for span in pipeline.readmitted if span not in run.plan.spans),
    )


def _recount(pipeline: Pipeline, arrival: int, before: Amounts, after: Amounts) -> Pipeline:
    pending = add(subtract(pipeline.pending, before), after)
    pipeline = replace(pipeline, pending=pending, waiting=tokens(pending))
    for place in ("active", "yielded"):
        run: Run | None = getattr(pipeline, place)
        if run is not None and within(run.plan.spans, arrival):
            plan = replace(run.plan, new=add(subtract(run.plan.new, before), after))
            pipeline = _placed(pipeline, place, replace(run, plan=plan))
    return pipeline


def _placed(pipeline: Pipeline, place: str, run: Run) -> Pipeline:
    match place:
        case "active":
            return replace(pipeline, active=run)
        case "yielded":
            return replace(pipeline, yielded=run)
        case _:
            return replace(pipeline, held=run)
