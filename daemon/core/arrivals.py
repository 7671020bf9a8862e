"""The account of data: what is pending, taken, past or set aside, per domain."""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from daemon.core import shadows
from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    OperatorRequested,
    Record,
)
from daemon.core.ledger import Shadow
from daemon.core.plans import Amount, Amounts, Plan, Span, add, subtract, tokens
from daemon.core.state import Pipeline, Readmitted, Run, Wish, free_waited

MAX_READMITTED = 64


def amount_of(event: DataArrived) -> Amount:
    """Return what an arrival is counted as until it is ingested."""
    return Amount(arrivals=1, documents=event.documents or 0, bytes=event.bytes or 0, tokens=event.tokens or 0)


def is_pending(pipeline: Pipeline, arrival: int) -> bool:
    """Return whether the arrival at this position is still to be used."""
    return arrival > pipeline.used_upto or within(pipeline.readmitted, arrival)


def within(spans: tuple[Span, ...], position: int) -> bool:
    """Return whether a position lies in one of the spans."""
    for span in spans:  # noqa: SIM110 - asked for every arrival that is ingested: any() takes three times as long
        if span.after < position <= span.upto:
            return True
    return False


def spans(pipeline: Pipeline, position: int) -> tuple[Span, ...]:
    """Return the spans of what is pending at a position, in order, each arrival in one of them.

    What was readmitted may lie in what no run has used yet, or in what was readmitted with it.
    """
    found = [Span(after=pipeline.used_upto, upto=position)]
    for span in sorted(pipeline.readmitted, key=lambda each: (each.after - each.upto, each.after)):  # longest first
        if not _covers(found, span):
            found.append(Span(after=span.after, upto=span.upto))
    return tuple(sorted(found, key=lambda each: each.after))


def counts(pipeline: Pipeline, planned: tuple[Span, ...], arrival: int) -> bool:
    """Return whether the spans of a plan hold an arrival: one that was readmitted afterwards is not the plan's."""
    if not within(planned, arrival):
        return False
    again = pipeline.readmitted
    return not again or not any(span.after < arrival <= span.upto and _later(span, planned) for span in again)


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
        waiting_since=_waiting_since(pipeline, record),
        waited=free_waited(pipeline, record.recorded_at) if pipeline.pending else 0.0,
        waited_at=record.recorded_at,
        shadows=shadows.arrived(pipeline, record.recorded_at) if pipeline.shadows else pipeline.shadows,
    )


def withdrawn(pipeline: Pipeline, event: DataWithdrawn) -> Pipeline | str:
    """Take a withdrawn arrival out of whatever it is counted in."""
    if event.arrival is None or event.domain is None or event.amount is None:
        return "withdrawal_of_unknown_arrival"
    gone = {event.domain: event.amount}
    if event.account == "set_aside":
        return replace(pipeline, set_aside=subtract(pipeline.set_aside, gone))
    if event.account is None and is_pending(pipeline, event.arrival):
        return _recount(pipeline, event.arrival, gone, {})
    for place in ("active", "yielded", "held"):
        run: Run | None = getattr(pipeline, place)
        if run is None or (event.account is not None and not run.promoted):
            continue
        if counts(pipeline, run.plan.spans, event.arrival):
            plan = replace(run.plan, new=subtract(run.plan.new, gone))
            pipeline = _placed(pipeline, place, replace(run, plan=plan))
            if not run.promoted:
                return pipeline
    champion = pipeline.champion
    if champion is None or event.domain not in champion.past:
        return replace(pipeline, set_aside=subtract(pipeline.set_aside, gone))
    pipeline = replace(pipeline, champion=replace(champion, past=subtract(champion.past, gone)))
    if event.account == "past" and pipeline.previous is not None:
        before = replace(pipeline.previous, past=subtract(pipeline.previous.past, gone))
        pipeline = replace(pipeline, previous=before)
    for place in ("active", "yielded", "held"):
        run = getattr(pipeline, place)
        if run is not None and not run.promoted:
            plan = replace(run.plan, past=subtract(run.plan.past, gone))
            pipeline = _placed(pipeline, place, replace(run, plan=plan))
    return pipeline


def ingested(pipeline: Pipeline, event: DataIngested) -> Pipeline | str:
    """Replace what an arrival is counted as by its exact amount.

    Another attempt or run may ingest it again: its specification says what it was counted as by then. One that was
    withdrawn meanwhile is counted as nothing, and stays so.
    """
    if not is_pending(pipeline, event.arrival):
        return "ingested_arrival_not_pending"
    if not event.estimate.arrivals:
        return "ingested_arrival_withdrawn"
    return _recount(pipeline, event.arrival, {event.domain: event.estimate}, {event.domain: event.amount})


def rejected(pipeline: Pipeline, event: DataRejected) -> Pipeline | str:
    """Set an arrival aside that ingest could not use."""
    if not is_pending(pipeline, event.arrival):
        return "rejected_arrival_not_pending"
    if not event.estimate.arrivals:
        return "rejected_arrival_withdrawn"
    gone = {event.domain: event.estimate}
    pipeline = _recount(pipeline, event.arrival, gone, {})
    return replace(pipeline, set_aside=add(pipeline.set_aside, gone))


def accepted(pipeline: Pipeline, record: Record, event: OperatorRequested) -> Pipeline | str:
    """Make the arrivals of a rejected candidate pending again."""
    if not event.spans:
        return "nothing_to_accept"
    if is_pending(pipeline, max(span.upto for span in event.spans)):  # of the others one may have been retried alone
        return "already_pending"
    return readmitted(pipeline, record, event)


def readmitted(pipeline: Pipeline, record: Record, event: OperatorRequested) -> Pipeline | str:
    """Make what was set aside pending again, whether or not a run that has it in its spans goes on meanwhile."""
    return _again(pipeline, record, event, event.amounts)


def backfilled(pipeline: Pipeline, record: Record, event: OperatorRequested) -> Pipeline | str:
    """Make what was used, or set aside, pending again: of a champion's past it is no part until it is promoted anew.

    A run that goes on meanwhile keeps the past that it began with.
    """
    if not event.spans:
        return "nothing_to_backfill"
    folded = _again(pipeline, record, event, event.accounts.get("set_aside", {}))
    if isinstance(folded, str):
        return folded
    champion, previous = folded.champion, folded.previous
    older, newest = event.accounts.get("past", {}), event.accounts.get("champion", {})
    if champion is not None:
        champion = replace(champion, past=subtract(subtract(champion.past, older), newest))
    if previous is not None:
        previous = replace(previous, past=subtract(previous.past, older))
    return replace(folded, champion=champion, previous=previous)


def _again(pipeline: Pipeline, record: Record, event: OperatorRequested, aside: Amounts) -> Pipeline | str:
    if len(pipeline.readmitted) + len(event.spans) > MAX_READMITTED:
        return "too_many_readmitted_spans"
    again = tuple(Readmitted(after=span.after, upto=span.upto, since=record.position) for span in event.spans)
    pending = add(pipeline.pending, event.amounts)
    return replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        set_aside=subtract(pipeline.set_aside, aside),
        readmitted=pipeline.readmitted + again,
        failed_upto=0,
        waiting_since=_waiting_since(pipeline, record),
        waited=free_waited(pipeline, record.recorded_at),
        waited_at=record.recorded_at,
        shadows=shadows.arrived(pipeline, record.recorded_at) if pipeline.shadows else pipeline.shadows,
    )


def consumed(pipeline: Pipeline, run: Run) -> Pipeline:
    """Count a run's arrivals as used, once: they are pending no more."""
    if run.consumed or not run.plan.spans:
        return pipeline
    pending = subtract(pipeline.pending, run.plan.new)
    upto = max(span.upto for span in run.plan.spans)
    return replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        looked={},
        looked_at=None,
        shadows=shadows.consumed(pipeline.shadows, upto, run.plan.new) if pipeline.shadows else pipeline.shadows,
        used_upto=max(pipeline.used_upto, upto),
        readmitted=tuple(
            span for span in pipeline.readmitted if _later(span, run.plan.spans) or not _covers(run.plan.spans, span)
        ),
    )


def _waiting_since(pipeline: Pipeline, record: Record) -> datetime:
    """Return since when data waits, with what has just come: from before only where anything waited."""
    before = pipeline.waiting_since if pipeline.pending else None
    return before or record.recorded_at


def _covers(spans: Sequence[Span], span: Span) -> bool:
    return any(each.after <= span.after and span.upto <= each.upto for each in spans)


def _later(span: Readmitted, planned: tuple[Span, ...]) -> bool:
    """Return whether arrivals were readmitted after a plan was made; its last span ends there."""
    return span.since > max((each.upto for each in planned), default=0)


def _recount(pipeline: Pipeline, arrival: int, before: Amounts, after: Amounts) -> Pipeline:
    pending = add(subtract(pipeline.pending, before), after)
    active, yielded, wishes = pipeline.active, pipeline.yielded, pipeline.wishes
    if active is not None and counts(pipeline, active.plan.spans, arrival):
        active = replace(active, plan=_replanned(active.plan, before, after))
    if yielded is not None and counts(pipeline, yielded.plan.spans, arrival):
        yielded = replace(yielded, plan=_replanned(yielded.plan, before, after))
    if wishes:
        wishes = {key: _rewished(pipeline, wish, arrival, before) for key, wish in wishes.items()}
    looked = pipeline.looked
    if looked and counts(pipeline, (Span(after=0, upto=pipeline.looked_upto),), arrival):
        looked = add(subtract(looked, before), after)
    return replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        looked=looked,
        active=active,
        yielded=yielded,
        wishes=wishes,
        shadows={policy: _retaken(pipeline, each, arrival, before, after) for policy, each in pipeline.shadows.items()}
        if pipeline.shadows
        else pipeline.shadows,
    )


def _replanned(plan: Plan, before: Amounts, after: Amounts) -> Plan:
    return replace(plan, new=add(subtract(plan.new, before), after))


def _rewished(pipeline: Pipeline, wish: Wish, arrival: int, gone: Amounts) -> Wish:
    """Take a withdrawn arrival out of what a model that waits to be adopted has seen."""
    adoption = wish.intent.adoption if wish.intent is not None else None
    if wish.intent is None or adoption is None or not counts(pipeline, adoption.spans, arrival):
        return wish
    adoption = replace(adoption, amounts=subtract(adoption.amounts, gone))
    return replace(wish, intent=replace(wish.intent, adoption=adoption))


def _retaken(pipeline: Pipeline, shadow: Shadow, arrival: int, before: Amounts, after: Amounts) -> Shadow:
    """Count an arrival anew in what a policy in shadow would have taken, if it is in there."""
    if not counts(pipeline, (Span(after=0, upto=shadow.position),), arrival) or not shadow.taken:
        return shadow
    return replace(shadow, taken=add(subtract(shadow.taken, before), after))


def _placed(pipeline: Pipeline, place: str, run: Run) -> Pipeline:
    match place:
        case "active":
            return replace(pipeline, active=run)
        case "yielded":
            return replace(pipeline, yielded=run)
        case _:
            return replace(pipeline, held=run)
