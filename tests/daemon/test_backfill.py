"""A period is made pending again: what of it can be used, where it is counted then, and which runs take it."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.arrivals import MAX_READMITTED
from daemon.core.events import DataWithdrawn, DecisionMade, OperatorRequested, RunStarted
from daemon.core.plans import Span, tokens
from daemon.core.transition import evolve
from daemon.door import Answer
from daemon.journal.base import scan
from daemon.story import tell
from tests.daemon.ledger import NOON, Ledger

REJECT = 2
"""What makes the ledger's trainer refuse a candidate."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Make a ledger without arrivals."""
    (tmp_path / "file").write_text("data")
    return Ledger(tmp_path)


def train(ledger: Ledger, verdict: int = 0) -> str:
    """Carry out the run that is active; return its name."""
    run = ledger.pipeline.active
    assert run is not None
    for number in (0, verdict, 0):
        if ledger.pipeline.active is not None and ledger.pipeline.active.run == run.run:
            ledger.work(number)
    return run.run


def backfill(ledger: Ledger, *, since: datetime = NOON, until: datetime = NOON + timedelta(days=1)) -> Answer:
    """Ask for a period, all of it if nothing else is said; the book is corrected by hand."""
    return ledger.tell(OperatorRequested(verb="backfill", since=since, until=until, reason="again"))


def request(ledger: Ledger, answer: Answer) -> OperatorRequested:
    """Return the request as it was recorded."""
    (record,) = ledger.journal.records(answer.position - 1, 1)
    assert isinstance(record.event, OperatorRequested)
    return record.event


def test_what_was_trained_on_is_pending_and_a_run_that_cites_the_backfill_takes_it(ledger: Ledger) -> None:
    """The champion's past loses it, the new run replays none of it, and its promotion brings it back."""
    for number in range(3):
        ledger.arrive(number)
    first, second = train(ledger), train(ledger)
    ledger.check()
    before = ledger.pipeline.champion
    assert before is not None
    answer = backfill(ledger)
    asked = request(ledger, answer)
    assert asked.spans == (Span(after=min(ledger.place) - 1, upto=max(ledger.place)),)
    assert asked.amounts == before.past
    assert sorted(asked.accounts) == ["champion", "past"]
    ledger.place.update(dict.fromkeys(ledger.place, "pending"))
    ledger.check()
    assert (ledger.pipeline.previous or before).past == {}
    decided = [r for r in scan(ledger.journal, answer.position) if isinstance(r.event, DecisionMade)]
    assert decided[0].cause == answer.position
    third = train(ledger)
    ledger.check()
    assert set(ledger.place.values()) == {"past"}
    (again,) = tell(ledger.journal, third).again
    assert (again.position, again.arrivals, again.by, again.reason) == (answer.position, 3, "ann", "again")
    assert [tell(ledger.journal, run).again for run in (first, second)] == [(), ()]


def test_the_run_that_goes_on_keeps_its_past_and_its_arrivals(ledger: Ledger) -> None:
    """What it replays may be made pending meanwhile; what it is for, and what came since, is left alone."""
    ledger.arrive(0)
    train(ledger)
    (old,) = ledger.place
    ledger.arrive(1)
    ledger.work(0)
    ledger.arrive(2)
    told = ledger.specification()
    assert told is not None
    assert request(ledger, backfill(ledger)).spans == (Span(after=old - 1, upto=old),)
    assert ledger.specification() == told
    ledger.place[old], ledger.kept = "pending", {old}
    ledger.check()
    train(ledger)
    ledger.check()
    run = ledger.pipeline.active
    assert run is not None
    assert tokens(run.plan.new) == sum(
        ledger.amount[each].tokens for each in ledger.place if each != told.new[0].position
    )


def test_what_a_rejected_candidate_left_is_taken_once(ledger: Ledger) -> None:
    """Set aside, it is pending after a backfill; then its run can be neither accepted nor withdrawn any more."""
    ledger.arrive(0)
    run = train(ledger, REJECT)
    assert request(ledger, backfill(ledger)).accounts.keys() == {"set_aside"}
    ledger.place.update(dict.fromkeys(ledger.place, "pending"))
    ledger.check()
    for verb in ("accept", "withdraw"):
        answer = ledger.tell(OperatorRequested(verb="accept" if verb == "accept" else "withdraw", run=run))
        assert answer.reason == "resolved_already"
    train(ledger)
    ledger.check()


def test_what_counts_is_where_it_is_since_the_last_backfill(ledger: Ledger) -> None:
    """Trained on, pending again, and then rejected or rolled back, an arrival is set aside and in no past."""
    for number in range(2):
        ledger.arrive(number)
        train(ledger)
    for verdict in (REJECT, 0):
        backfill(ledger)
        ledger.place.update(dict.fromkeys(ledger.place, "pending"))
        ledger.check()
        train(ledger, verdict)
        if verdict != REJECT:
            ledger.roll_back()
        assert set(ledger.place.values()) == {"aside"}
        ledger.check()
        again = backfill(ledger)
        assert request(ledger, again).accounts.keys() == {"set_aside"}
        ledger.place.update(dict.fromkeys(ledger.place, "pending"))
        ledger.check()
        train(ledger)
        ledger.check()


def test_what_was_forgotten_or_withdrawn_stays_so(ledger: Ledger) -> None:
    """What a person let go of with a candidate parts the spans around it: no run is told of it."""
    for number, verdict in ((0, 0), (1, REJECT), (2, 0), (3, 0)):
        ledger.arrive(number)
        run = train(ledger, verdict)
        if verdict == REJECT:
            ledger.tell(OperatorRequested(verb="withdraw", run=run))
    one, two, three, four = ledger.place
    (record,) = ledger.journal.records(three - 1, 1)
    ledger.tell(DataWithdrawn(arrival_source=record.source, arrival_id=record.id))
    ledger.place.update({two: "gone", three: "gone"})
    asked = request(ledger, backfill(ledger))
    assert asked.spans == (Span(after=one - 1, upto=one), Span(after=four - 1, upto=four))
    ledger.place.update({one: "pending", four: "pending"})
    ledger.check()
    told = ledger.specification()
    assert told is not None
    assert [arrival.position for arrival in told.arrivals] == [one, four]
    train(ledger)
    ledger.check()


def test_only_the_period_counts(ledger: Ledger) -> None:
    """Its end is left out; a period without a used arrival is refused, and so is one that is none."""
    for number in range(2):
        ledger.arrive(number)
        train(ledger)
    times = [record.recorded_at for record in scan(ledger.journal) if record.position in ledger.place]
    (first, second), moment = ledger.place, timedelta(microseconds=1)
    assert request(ledger, backfill(ledger, since=times[1])).spans == (Span(after=second - 1, upto=second),)
    refusals = [
        backfill(ledger, since=times[1]).reason,
        backfill(ledger, since=times[0] + moment, until=times[1]).reason,
        backfill(ledger, since=times[0], until=times[0]).reason,
        ledger.tell(OperatorRequested(verb="backfill", since=NOON)).reason,
    ]
    assert refusals == ["nothing_to_backfill", "nothing_to_backfill", "missing_period", "missing_period"]
    far = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert backfill(ledger, since=far).reason == "missing_period"
    assert request(ledger, backfill(ledger, until=times[0] + moment)).spans == (Span(after=first - 1, upto=first),)
    assert ledger.pipeline.champion is not None
    assert ledger.pipeline.champion.past == {}
    started = [record.event for record in scan(ledger.journal) if isinstance(record.event, RunStarted)]
    assert len(started) == 3


def test_a_refusal_says_what_the_period_holds(ledger: Ledger) -> None:
    """A period without an arrival is told apart from one whose arrivals all wait or are gone."""
    assert "No arrival of p was recorded from 2026-" in backfill(ledger).message
    ledger.arrive(0)
    assert "can be used again: each of the 1 is pending already, of a run" in backfill(ledger).message


def test_the_spans_that_wait_are_bounded(ledger: Ledger) -> None:
    """One more than the state holds is refused at the door; a period of neighbours is one span."""
    for number in range(MAX_READMITTED + 3):
        ledger.arrive(number)
    train(ledger)
    used = list(ledger.place)[1:]
    train(ledger)
    ledger.arrive(0)
    for arrival in used[1:]:
        (record,) = ledger.journal.records(arrival - 1, 1)
        answer = backfill(ledger, since=record.recorded_at, until=record.recorded_at + timedelta(microseconds=1))
        if answer.outcome == "accepted":
            ledger.place[arrival] = "pending"
            ledger.kept.add(arrival)
    assert answer.reason == "too_many_readmitted"
    assert len(ledger.pipeline.readmitted) == MAX_READMITTED
    ledger.check()
    train(ledger)
    assert ledger.pipeline.active is not None
    assert len(ledger.pipeline.active.plan.spans) == MAX_READMITTED + 1
    train(ledger)
    ledger.check()
    assert request(ledger, backfill(ledger)).spans == (Span(after=min(ledger.place) - 1, upto=max(ledger.place)),)


def test_a_request_that_names_nothing_folds_to_nothing(ledger: Ledger) -> None:
    """One that no door completed is counted, and changes nothing else."""
    ledger.arrive(0)
    before = ledger.loop.state
    (last,) = ledger.journal.records(before.position - 1, 1)
    event = OperatorRequested(verb="backfill", by="ann")
    after = evolve(before, replace(last, position=last.position + 1, id="x", event=event, cause=None))
    pipeline = after.pipelines["p"]
    assert pipeline.ignored == {"nothing_to_backfill": 1}
    assert replace(pipeline, ignored={}) == before.pipelines["p"]
