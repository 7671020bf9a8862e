"""The account of data: pending, taken, past, set aside."""

from typing import TYPE_CHECKING, Literal

import pytest
from msgspec.structs import replace

from daemon.core.arrivals import MAX_READMITTED, spans
from daemon.core.events import DataIngested, DataRejected, DataWithdrawn, ModelRejected
from daemon.core.plans import Amount, Span
from daemon.core.state import free_arrivals, free_tokens

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World

SHA = "0" * 64


def ingest(world: "World", arrival: int, estimate: Amount, exact: Amount, domain: str = "prose") -> None:
    """Let the ingest stage count an arrival."""
    world.fact(
        DataIngested(
            **world.names(),
            arrival=arrival,
            domain=domain,
            estimate=estimate,
            amount=exact,
            duplicates=0,
            manifest="m",
            sha256=SHA,
        )
    )


def refuse(world: "World", arrival: int, estimate: Amount, domain: str = "prose") -> None:
    """Let the ingest stage refuse an arrival."""
    world.fact(
        DataRejected(
            **world.names(), arrival=arrival, domain=domain, estimate=estimate, reason="empty", message="It is empty."
        )
    )


def withdraw(world: "World", arrival: int, amount: Amount, domain: str = "prose") -> None:
    """Let an arrival be withdrawn, as the door completes it."""
    world.fact(DataWithdrawn(arrival_source="/test", arrival_id="1", arrival=arrival, domain=domain, amount=amount))


def test_arrivals_are_counted_per_domain(world: "World", parts: "type[Parts]") -> None:
    """What arrived is pending by its domain until a run uses it; none of it is taken."""
    world.arrive(40)
    world.arrive(20, "code")
    world.arrive(30)
    pipeline = world.of()
    assert pipeline.pending == {"prose": parts.amount(70, 2), "code": parts.amount(20)}
    assert (pipeline.waiting, pipeline.domains, pipeline.last_arrival) == (90, {"prose": 2, "code": 1}, 5)
    assert pipeline.waiting_since == world.records[1].recorded_at
    assert free_tokens(pipeline) == 90
    assert free_arrivals(pipeline) == 3


def test_a_run_takes_what_is_pending_until_it_is_promoted(world: "World", parts: "type[Parts]") -> None:
    """Arrivals of the active run stay pending but are not free; at promotion they become the champion's past."""
    world.arrive(100)
    world.arrive(50)
    pipeline = world.of()
    assert pipeline.pending == {"prose": parts.amount(150, 2)}
    assert free_arrivals(pipeline) == 1
    assert pipeline.waiting_since == world.now
    world.until("promote")
    world.fact(world.promotion())
    pipeline = world.of()
    assert pipeline.pending == {"prose": parts.amount(50)}
    assert free_tokens(pipeline) == 50, "the promoted run's arrivals were counted twice"
    assert free_arrivals(pipeline) == 1
    assert pipeline.champion is not None
    assert pipeline.champion.past == {"prose": parts.amount(100)}


def test_ingest_replaces_an_estimate_by_what_it_counted(world: "World", parts: "type[Parts]") -> None:
    """The exact amount stands in the pending data and in the run's plan."""
    world.arrive(100)
    ingest(world, 2, parts.amount(100), parts.amount(130))
    assert world.of().pending == {"prose": parts.amount(130)}
    assert world.of().waiting == 130
    assert world.run().plan.new == {"prose": parts.amount(130)}


def test_an_arrival_that_is_ingested_again_counts_as_the_last_time(world: "World", parts: "type[Parts]") -> None:
    """A second attempt is told what the first one counted: its own count takes the place of that."""
    world.arrive(60)
    world.arrive(60)
    ingest(world, 2, parts.amount(60), parts.amount(80))
    ingest(world, 3, parts.amount(60), parts.amount(50))
    world.fail()
    world.fire()
    ingest(world, 2, parts.amount(80), parts.amount(80))
    assert world.of().pending == world.run().plan.new == {"prose": parts.amount(130, 2)}
    ingest(world, 2, parts.amount(80), parts.amount(70))
    refuse(world, 3, parts.amount(50))
    assert world.of().pending == world.run().plan.new == {"prose": parts.amount(70)}
    assert world.of().set_aside == {"prose": parts.amount(50)}
    assert world.of().ignored == {}


def test_a_refused_arrival_is_set_aside(world: "World", parts: "type[Parts]") -> None:
    """What ingest cannot use is neither pending nor part of the run."""
    world.arrive(50, "code")
    world.arrive(100)
    refuse(world, 2, parts.amount(50), "code")
    assert world.of().pending == world.run().plan.new == {"prose": parts.amount(100)}
    assert world.of().set_aside == {"code": parts.amount(50)}
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(100)}


def test_an_arrival_that_was_used_cannot_be_ingested_or_refused(promoted: "World", parts: "type[Parts]") -> None:
    """Outcomes about arrivals of the past are counted as ignored."""
    promoted.arrive(100)
    before = promoted.of()
    ingest(promoted, 2, parts.amount(100), parts.amount(1))
    refuse(promoted, 2, parts.amount(100))
    assert promoted.of().ignored == {"ingested_arrival_not_pending": 1, "rejected_arrival_not_pending": 1}
    assert promoted.of().pending == before.pending


def test_a_pending_arrival_can_be_withdrawn(world: "World", parts: "type[Parts]") -> None:
    """A withdrawn arrival waits no longer."""
    world.arrive(40)
    world.arrive(30)
    withdraw(world, 2, parts.amount(40))
    assert world.of().pending == {"prose": parts.amount(30)}
    assert world.of().waiting == 30


def test_waiting_begins_anew_when_nothing_waited(world: "World", parts: "type[Parts]") -> None:
    """What was withdrawn, or refused by a run that was cancelled, makes nothing older that comes later."""
    world.arrive(40)
    withdraw(world, 2, parts.amount(40))
    world.arrive(50)
    begun = world.of().waiting_since
    assert begun == world.of().last_arrival_at
    world.arrive(50)
    assert world.run().waiting_since == begun
    for arrival in (world.of().last_arrival - 1, world.of().last_arrival):
        refuse(world, arrival, parts.amount(50))
    world.request("cancel")
    world.stopped()
    assert world.of().pending == {}
    retry(world, world.of().last_arrival, parts.amount(50))
    assert world.of().waiting_since == world.now


def test_a_taken_arrival_can_be_withdrawn(world: "World", parts: "type[Parts]") -> None:
    """What the active run took leaves its plan too, and never becomes past."""
    world.arrive(40)
    world.arrive(60)
    withdraw(world, 2, parts.amount(40))
    assert world.run().plan.new == {"prose": parts.amount(60)}
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(60)}


def test_an_arrival_of_a_yielded_run_can_be_withdrawn(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A run that yielded its slot loses what is withdrawn meanwhile, and later arrivals keep their amounts."""
    world = make_world(parts.Starter("low"), parts.Starter("high", after=1000, priority=1))
    world.arrive(100)
    world.arrive(1000)
    world.stopped()
    withdraw(world, 2, parts.amount(100))
    yielded = world.of().yielded
    assert yielded is not None
    assert yielded.plan.new == {}
    assert world.of().pending == {"prose": parts.amount(1000)}


def test_a_past_arrival_can_be_withdrawn(promoted: "World", parts: "type[Parts]") -> None:
    """What the champion was trained on is replayed no more, by a run under way and its candidate neither."""
    promoted.arrive(60)
    promoted.arrive(60)
    promoted.finish()
    promoted.arrive(100)
    withdraw(promoted, 2, parts.amount(100))
    champion = promoted.of().champion
    assert champion is not None
    assert champion.past == promoted.run().plan.past == {"prose": parts.amount(120, 2)}
    promoted.finish()
    champion = promoted.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(220, 3)}


def test_an_arrival_set_aside_can_be_withdrawn(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What a rejected candidate was trained on can be withdrawn by its producer or by a person."""
    world = make_world(parts.Starter(), parts.Gate("reject"))
    world.arrive(70)
    world.arrive(30, "code")
    world.finish()
    assert world.of().set_aside == {"prose": parts.amount(70), "code": parts.amount(30)}
    withdraw(world, 2, parts.amount(70))
    assert world.of().set_aside == {"code": parts.amount(30)}
    world.request("withdraw", spans=(Span(after=0, upto=3),), amounts={"code": parts.amount(30)})
    assert world.of().set_aside == {}


def test_an_arrival_of_a_held_run_can_be_withdrawn(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A held candidate's withdrawn arrival does not come back when the candidate is promoted or given up."""
    world = make_world(parts.Starter(), parts.Gate("hold"))
    world.arrive(70)
    world.arrive(30)
    world.finish()
    withdraw(world, 2, parts.amount(70))
    world.request("approve")
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(30)}


def test_a_withdrawal_of_something_unknown_changes_nothing(world: "World") -> None:
    """A withdrawal that the door could not complete is counted as ignored."""
    world.fact(DataWithdrawn(arrival_source="/test", arrival_id="1"))
    assert world.of().ignored == {"withdrawal_of_unknown_arrival": 1}


def test_accepted_arrivals_are_pending_again_and_used_once(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """An operator's accept makes a rejected candidate's arrivals pending; a later promotion makes them past."""
    world = make_world(parts.Starter(), parts.Gate("reject"))
    world.arrive(100)
    world.finish()
    assert world.of().pending == {}
    span, amounts = Span(after=0, upto=2), {"prose": parts.amount(100)}
    world.configure({"p": (parts.Starter(after=150), parts.Gate())})
    world.request("accept", spans=(span,), amounts=amounts)
    world.request("accept", spans=(span,), amounts=amounts)
    assert world.of().ignored == {"already_pending": 1}
    assert (world.of().pending, world.of().set_aside) == (amounts, {})
    (again,) = world.of().readmitted
    assert (again.after, again.upto) == (0, 2)
    assert world.of().waiting_since is not None
    world.arrive(50)
    assert world.run().plan.spans[0] == span
    world.finish()
    pipeline = world.of()
    assert pipeline.champion is not None
    assert pipeline.champion.past == {"prose": parts.amount(150, 2)}
    assert (pipeline.pending, pipeline.readmitted, pipeline.waiting) == ({}, (), 0)


def test_accepting_nothing_or_too_much_changes_nothing(promoted: "World") -> None:
    """An accept without spans, or beyond the bound on readmitted spans, is counted as ignored."""
    promoted.request("accept")
    many = tuple(Span(after=0, upto=1) for _ in range(MAX_READMITTED + 1))
    promoted.request("accept", spans=many)
    assert promoted.of().ignored == {"nothing_to_accept": 1, "too_many_readmitted_spans": 1}


def retry(world: "World", arrival: int, amount: Amount, domain: str = "prose") -> None:
    """Let a person retry the arrival that ingest refused, as the door completes it."""
    span = Span(after=arrival - 1, upto=arrival)
    world.request("retry", dead_letter=99, spans=(span,), amounts={domain: amount})


def test_a_retried_arrival_is_for_the_next_run(world: "World", parts: "type[Parts]") -> None:
    """It is pending again at once; the run that refused it goes on, and ends, without it."""
    world.arrive(50)
    world.arrive(100)
    refuse(world, 2, parts.amount(50))
    refuser = world.run()
    retry(world, 2, parts.amount(50))
    assert world.of().pending == {"prose": parts.amount(150, 2)}
    assert world.run().plan.new == {"prose": parts.amount(100)}
    assert (world.of().set_aside, free_tokens(world.of())) == ({}, 50)
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert (champion.run, champion.past) == (refuser.run, {"prose": parts.amount(100)})
    assert world.of().pending == {"prose": parts.amount(50)}
    world.arrive(60)
    assert world.run().plan.new == {"prose": parts.amount(110, 2)}
    assert world.run().plan.spans[0] == Span(after=1, upto=2)
    ingest(world, 2, parts.amount(50), parts.amount(45))
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert champion.past["prose"].tokens == 205
    assert (world.of().pending, world.of().readmitted, world.of().ignored) == ({}, (), {})


def test_a_retried_arrival_of_a_failed_run_is_taken_once(world: "World", parts: "type[Parts]") -> None:
    """No run has used it, and it was readmitted: the next plan has it in one span, refused again it is set aside."""
    world.configure({"p": (parts.Starter(), parts.Gate())})
    world.arrive(50)
    world.arrive(100)
    refuse(world, 2, parts.amount(50))
    world.fail()
    assert world.of().failed_upto > 0
    retry(world, 2, parts.amount(50))
    assert world.of().failed_upto == 0
    run = world.run()
    assert (len(run.plan.spans), run.plan.new) == (1, {"prose": parts.amount(150, 2)})
    refuse(world, 2, parts.amount(50))
    assert world.run().plan.new == world.of().pending == {"prose": parts.amount(100)}
    retry(world, 2, parts.amount(50))
    assert world.run().plan.new == {"prose": parts.amount(100)}
    world.finish()
    assert world.of().pending == {"prose": parts.amount(50)}
    assert spans(world.of(), 40)[0] == Span(after=1, upto=2)
    assert len(spans(world.of(), 40)) == 2


def test_what_is_accepted_may_hold_an_arrival_that_was_retried_alone(
    make_world: "MakeWorld", parts: "type[Parts]"
) -> None:
    """An arrival that two runs refused, and that is pending again, keeps no rejected candidate's data from coming."""
    world = make_world(parts.Starter(), parts.Gate("reject"))
    world.arrive(50)
    world.arrive(100)
    refuse(world, 2, parts.amount(50))
    world.finish()
    world.request("pause")
    retry(world, 2, parts.amount(50))
    world.arrive(60)
    world.request("resume")
    refuse(world, 2, parts.amount(50))
    retry(world, 2, parts.amount(50))
    world.finish()
    rejected = world.all(ModelRejected)[-1]
    assert rejected.spans[0].upto == 2
    before = world.of().pending["prose"].tokens
    world.request("pause")
    world.request("accept", run=rejected.run, spans=rejected.spans, amounts=rejected.amounts)
    assert (world.of().pending["prose"].tokens, world.of().ignored) == (before + 60, {})


def test_a_retried_arrival_can_be_withdrawn(world: "World", parts: "type[Parts]") -> None:
    """The run that refused it keeps its amounts."""
    world.arrive(50)
    world.arrive(100)
    refuse(world, 2, parts.amount(50))
    retry(world, 2, parts.amount(50))
    withdraw(world, 2, parts.amount(50))
    assert world.of().pending == world.run().plan.new == {"prose": parts.amount(100)}


def test_a_dropped_arrival_leaves_what_is_set_aside(world: "World", parts: "type[Parts]") -> None:
    """It is neither pending nor waiting for a person."""
    world.arrive(100)
    refuse(world, 2, parts.amount(100))
    amounts = {"prose": parts.amount(100)}
    world.request("drop", spans=(Span(after=1, upto=2),), amounts=amounts)
    assert world.of().set_aside == amounts, "it named no dead letter"
    world.request("drop", dead_letter=99, spans=(Span(after=1, upto=2),), amounts=amounts)
    assert (world.of().set_aside, world.of().pending) == ({}, {})


@pytest.mark.parametrize("account", ["past", "set_aside"])
def test_a_withdrawal_says_which_account_it_is_about(
    promoted: "World", parts: "type[Parts]", account: Literal["past", "set_aside"]
) -> None:
    """What was set aside is not taken from the past of its domain, though both have some."""
    promoted.arrive(100)
    promoted.arrive(30)
    refuse(promoted, promoted.of().last_arrival, parts.amount(30))
    arrival, tokens = (2, 100) if account == "past" else (promoted.of().last_arrival, 30)
    gone = DataWithdrawn(arrival_source="/test", arrival_id="1", arrival=arrival, domain="prose", account=account)
    promoted.fact(replace(gone, amount=parts.amount(tokens)))
    champion = promoted.of().champion
    assert champion is not None
    past = {} if account == "past" else {"prose": parts.amount(100)}
    assert champion.past == promoted.run().plan.past == past
    assert promoted.of().set_aside == ({} if account == "set_aside" else {"prose": parts.amount(30)})
    assert promoted.run().plan.new == {"prose": parts.amount(100)}


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_arrivals_of_a_run_without_a_model_stay_pending(world: "World", parts: "type[Parts]", end: str) -> None:
    """A failed or cancelled run gives its arrivals back, with the instant since when they wait."""
    world.configure({"p": (parts.Starter(), parts.Gate())})
    world.arrive(100)
    arrived_at = world.now
    if end == "fail":
        world.fail()
    else:
        world.request("cancel")
        world.stopped()
    pipeline = world.of()
    assert pipeline.active is None
    assert pipeline.pending == {"prose": parts.amount(100)}
    assert pipeline.waiting_since == arrived_at
    assert pipeline.failed_upto >= pipeline.last_arrival
    world.request("retry")
    assert world.of().failed_upto == 0
