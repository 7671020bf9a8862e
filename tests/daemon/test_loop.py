"""The one thread that writes: what is stored when, and what never stops it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.core.commands import StartRun
from daemon.core.decisions import Decision
from daemon.core.errors import InputError, JournalFenced, JournalFull
from daemon.core.events import (
    AnyEvent,
    DataArrived,
    DataWithdrawn,
    DecisionMade,
    InputRejected,
    Record,
)
from daemon.core.plans import Intent, Schedule, Training
from daemon.core.state import Pipeline, State, dump
from daemon.door import REFUSED, REJECTED_SOURCE, Answer, Input, Offer
from daemon.journal.base import Cursor, Transaction, digest
from daemon.journal.memory import MemoryJournal, MemoryTransaction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Bench = Any
MakeBench = Callable[..., Any]


def arrival(id_: str = "1", uri: str = "a", **fields: Any) -> Offer:  # noqa: ANN401 - an offer's fields
    """Offer an arrival for pipeline p."""
    event = DataArrived(uri=uri, domain="prose", tokens=5, bytes=5)
    offered = {
        "source": "/s",
        "id": id_,
        "where": "f:1",
        "digest": digest(uri.encode()),
        "event": event,
        "pipeline": "p",
        "text": uri.encode(),
        **fields,
    }
    return Offer(**offered)


def one(*offers: Offer, cursor: Cursor | None = None) -> Input:
    """Make an input."""
    return Input(offers=offers, cursor=cursor)


def test_a_fact_and_its_consequences_are_one_transaction(bench: Bench) -> None:
    """The record, the decision that it brought and the cursor are there together, and observers are told once."""
    bench.loop.handle([one(arrival(), cursor=Cursor(name="file", expected=None, next=1))])
    fact, decision = bench.records()[-2:]
    assert isinstance(fact.event, DataArrived)
    assert isinstance(decision.event, DecisionMade)
    assert decision.cause == fact.position
    assert fact.text == b"a"
    assert bench.journal.cursor("file") == 1
    assert bench.published == [(fact.position, decision.position)]


def test_the_same_fact_again_is_counted(bench: Bench) -> None:
    """In another transaction or in the same one: no record, one more duplicate, and the cursor goes on."""
    bench.loop.handle([one(arrival(), arrival(), cursor=Cursor(name="f", expected=None, next=2))])
    bench.loop.handle([one(arrival(), cursor=Cursor(name="f", expected=2, next=3))])
    assert len(bench.records("data.arrived")) == 1
    assert bench.loop.duplicates == bench.journal.duplicates() == 2
    assert bench.journal.cursor("f") == 3
    assert bench.journal.cursor(f"{REFUSED}f") is None


@pytest.mark.parametrize("together", [True, False])
def test_an_id_with_other_content_becomes_a_dead_letter(bench: Bench, together: bool) -> None:
    """Its text is kept; it comes once, however often it is sent; what was accepted first stands, also if repeated."""
    offers = [arrival("1", "a"), arrival("1", "b"), arrival("1", "a"), arrival("1", "b"), arrival("1", "c")]
    for batch in [offers] if together else [[offer] for offer in offers]:
        bench.loop.handle([one(*batch)])
    (accepted,) = bench.records("data.arrived")
    letters = bench.records("input.rejected")
    assert accepted.text == b"a"
    assert [letter.text for letter in letters] == [b"b", b"c"]
    for letter in letters:
        assert isinstance(letter.event, InputRejected)
        assert letter.event.reason == "id_reused"
        assert letter.source == REJECTED_SOURCE
        assert letter.pipeline == "p"
    assert bench.loop.duplicates == 2
    assert bench.loop.state.dead_letters == 2


def refused(id_: str, text: bytes) -> Offer:
    """Offer a dead letter that a source made."""
    return Offer(
        source=REJECTED_SOURCE, id=id_, where="f:1", digest=digest(text), text=text, refusal=("malformed", "It is bad.")
    )


@pytest.mark.parametrize("together", [True, False])
def test_dead_letters_of_one_identity_and_other_content_are_all_kept(bench: Bench, together: bool) -> None:
    """Two bad texts under one identity are two dead letters, each with its own reason; again, each is a duplicate."""
    offers = [refused("x", b"1"), refused("x", b"2"), refused("x", b"1"), refused("x", b"2")]
    for batch in [offers] if together else [[offer] for offer in offers]:
        bench.loop.handle([one(*batch)])
    letters = bench.records("input.rejected")
    assert [(record.text, getattr(record.event, "reason", "")) for record in letters] == [
        (b"1", "malformed"),
        (b"2", "malformed"),
    ]
    assert bench.loop.duplicates == 2


def completing(missing: set[str]) -> Callable[[Transaction, State, Offer], AnyEvent]:
    """Make a completion that refuses arrivals whose uri is among the missing."""

    def complete(transaction: Transaction, state: State, offer: Offer) -> AnyEvent:
        event = offer.event
        assert event is not None
        if isinstance(event, DataArrived) and event.uri in missing:
            raise InputError("file_missing", f"{event.uri} is not there.")
        return event

    return complete


def test_a_refused_event_may_come_again(make_bench: MakeBench) -> None:
    """Corrected, or unchanged once its file is there, it is accepted under its own identity."""
    missing = {"a"}
    bench = make_bench(completing(missing))
    bench.loop.handle([one(arrival("1", "a"), arrival("1", "a"))])
    bench.loop.handle([one(arrival("1", "a"))])
    assert len(bench.records("input.rejected")) == 1
    assert bench.loop.duplicates == 2
    bench.loop.handle([one(arrival("1", "b"))])
    assert [record.text for record in bench.records("data.arrived")] == [b"b"]
    missing.clear()
    bench.loop.handle([one(arrival("2", "a"))])
    assert len(bench.records("data.arrived")) == 2


@pytest.mark.parametrize("error", [ValueError("odd"), OSError(5, "io"), KeyError("k"), OverflowError(), TypeError("t")])
def test_no_input_stops_the_loop(make_bench: MakeBench, error: Exception) -> None:
    """An error that nobody thought of becomes a dead letter with its name; what came beside it is stored."""

    def complete(transaction: Transaction, state: State, offer: Offer) -> AnyEvent:
        event = offer.event
        assert event is not None
        if offer.id == "bad":
            raise error
        return event

    bench = make_bench(complete)
    cursor = Cursor(name="f", expected=None, next=3)
    bench.loop.handle([one(arrival("1"), arrival("bad"), arrival("2"), cursor=cursor)])
    (letter,) = bench.records("input.rejected")
    assert isinstance(letter.event, InputRejected)
    assert letter.event.reason == "not_completable"
    assert type(error).__name__ in letter.event.message
    assert len(bench.records("data.arrived")) == 2
    assert bench.journal.cursor(f"{REFUSED}f") == 1


def test_refused_inputs_of_a_cursor_are_counted_beside_it(bench: Bench) -> None:
    """The cursor `refused:` counts dead letters, over several steps; duplicates are none."""
    bench.loop.handle([one(arrival("1"), refused("x", b"1"), cursor=Cursor(name="f", expected=None, next=2))])
    assert bench.journal.cursor(f"{REFUSED}f") == 1
    again = (refused("y", b"2"), refused("z", b"3"), refused("x", b"1"))
    bench.loop.handle([one(*again, cursor=Cursor(name="f", expected=2, next=5))])
    assert bench.journal.cursor(f"{REFUSED}f") == 3
    bench.loop.handle([one(arrival("2"), cursor=Cursor(name="g", expected=None, next=1))])
    assert bench.journal.cursor(f"{REFUSED}g") is None


def test_a_stale_cursor_stores_nothing_and_forgets(bench: Bench) -> None:
    """An input whose cursor moved meanwhile is dropped whole; its source reads again, and nobody is told."""
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    before = bench.journal.head()
    bench.published.clear()
    bench.loop.handle([one(arrival("2"), cursor=Cursor(name="f", expected=None, next=1))])
    assert bench.journal.head() == before
    assert bench.forgotten == 1
    assert not bench.published


def test_a_stale_cursor_drops_its_own_input_alone(bench: Bench) -> None:
    """What came in the same batch is stored nevertheless."""
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    stale = one(arrival("2"), cursor=Cursor(name="f", expected=None, next=1))
    bench.loop.handle([one(arrival("3")), stale, one(arrival("4"), cursor=Cursor(name="g", expected=None, next=1))])
    assert [record.id for record in bench.records("data.arrived")] == ["1", "3", "4"]
    assert bench.forgotten == 1
    assert bench.journal.cursor("g") == 1


def test_a_batch_that_is_taken_apart_shows_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its transactions waits for the disk: together they may take longer than a standby waits."""
    heads: list[int] = []
    monkeypatch.setattr(bench.loop, "show_life", lambda: heads.append(bench.journal.head()))
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    head, stale = bench.journal.head(), one(arrival("2"), cursor=Cursor(name="f", expected=None, next=1))
    bench.loop.handle([one(arrival("3")), stale, one(arrival("4"))])
    assert heads == [head, head + 1, head + 1]


def test_whoever_waits_is_told_once_when_a_batch_is_taken_apart(bench: Bench) -> None:
    """Beside an input that was read already each gets its own answer; that one is told that it did not get in."""
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    told: dict[str, list[Sequence[Answer] | None]] = {"a": [], "stale": [], "b": []}
    batch = [
        Input(offers=(arrival("2"),), reply=told["a"].append),
        Input(offers=(arrival("3"),), cursor=Cursor(name="f", expected=None, next=1), reply=told["stale"].append),
        Input(offers=(arrival("2"), arrival("4")), reply=told["b"].append),
    ]
    bench.loop.handle(batch)
    outcomes = {
        name: [None if answers is None else [a.outcome for a in answers] for answers in each]
        for name, each in told.items()
    }
    assert outcomes == {"a": [["accepted"]], "stale": [None], "b": [["duplicate", "accepted"]]}


def test_a_disk_with_room_again_is_noticed_by_a_dropped_input_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources go on, though what was tried again had been read already."""
    monkeypatch.setattr("daemon.loop.RETRY_SECONDS", 0.0)
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    bench.journal.full = 1
    bench.loop.handle([one(arrival("2"), cursor=Cursor(name="f", expected=None, next=1))])
    assert bench.loop.trouble is None
    assert not bench.inbox.paused


def test_a_full_disk_pauses_and_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the journal takes nothing, sources wait and readiness tells; then the same batch goes in, once."""
    monkeypatch.setattr("daemon.loop.RETRY_SECONDS", 0.0)
    seen: list[tuple[str | None, bool]] = []
    real = bench.loop._full  # noqa: SLF001 - to look at the loop between two attempts

    def full(error: JournalFull) -> None:
        real(error)
        seen.append((bench.loop.trouble, not bench.inbox.paused))

    monkeypatch.setattr(bench.loop, "_full", full)
    bench.journal.full = 3
    bench.loop.handle([one(arrival("1"), cursor=Cursor(name="f", expected=None, next=1))])
    assert seen == [("no room", False)] * 3
    assert len(bench.records("data.arrived")) == 1
    assert bench.loop.trouble is None
    assert bench.inbox.put(one(arrival("2")))


def test_a_stop_while_the_disk_is_full_drops_the_batch_unread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon ends; the batch was never acknowledged and comes again."""
    monkeypatch.setattr("daemon.loop.RETRY_SECONDS", 0.0)
    bench.journal.full = 10**9
    real = bench.loop._full  # noqa: SLF001 - to stop between two attempts

    def full(error: JournalFull) -> None:
        real(error)
        bench.loop.stop()

    monkeypatch.setattr(bench.loop, "_full", full)
    bench.loop.handle([one(arrival("1"))])
    bench.journal.full = 0
    assert not bench.records("data.arrived")


def test_a_fenced_writer_stops(bench: Bench) -> None:
    """Once a newer writer has the journal, an error goes up: this process must end."""
    MemoryJournal(bench.journal._store)  # noqa: SLF001 - a second writer on the same store
    with pytest.raises(JournalFenced):
        bench.loop.handle([one(arrival("1"))])


def test_an_error_inside_a_transaction_leaves_the_state_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the commit fails after records were made, the state is that of before."""
    before = dump(bench.loop.state)

    def append(self: object, *arguments: object) -> None:
        raise JournalFull("no room")

    monkeypatch.setattr(MemoryTransaction, "append", append)
    with pytest.raises(JournalFull):
        bench.loop.commit([one(arrival("1"))])
    assert dump(bench.loop.state) == before
    assert bench.loop.duplicates == 0


def test_an_event_sees_those_before_it_in_its_batch(make_bench: MakeBench) -> None:
    """A withdrawal finds an arrival of the same transaction."""
    found: list[object] = []

    def complete(transaction: Transaction, state: State, offer: Offer) -> AnyEvent:
        if isinstance(offer.event, DataWithdrawn):
            found.append(transaction.find(offer.event.arrival_source, offer.event.arrival_id))
        assert offer.event is not None
        return offer.event

    bench = make_bench(complete)
    withdrawal = arrival("2", "w", event=DataWithdrawn(arrival_source="/s", arrival_id="1"))
    bench.loop.handle([one(arrival("1"), withdrawal)])
    (where,) = found
    assert where is not None
    assert len(bench.records("data.withdrawn")) == 1


def test_wishes_are_taken_up_in_the_same_transaction(make_bench: MakeBench) -> None:
    """A fact, the decision to start and the run that starts are stored together or not at all."""

    class Starter:
        """A policy that starts a run at once."""

        label = "waker"
        version = 1

        def decide(self, state: Pipeline, record: Record) -> Decision | None:
            """Return the wish."""
            if not isinstance(record.event, DataArrived):
                return None
            schedule = Schedule(kind="rewarm", peak=1.0, floor=0.1, plateau=0.5)
            training = Training(tokens=0, batch=1, context=8, replay=0.0, schedule=schedule, optimiser="keep", seed=0)
            intent = Intent(kind="base", start="scratch", training=training)
            return Decision(verdict="due", reason="It is time.", commands=(StartRun(intent=intent),))

    bench = make_bench()
    bench.loop._policies = {"p": (Starter(),)}  # noqa: SLF001 - another policy on the same bench
    bench.loop.handle([one(arrival("1"))])
    assert [record.event.kind for record in bench.records()[-3:]] == ["data.arrived", "decision.made", "run.started"]
    assert len(bench.published) == 1
    active = bench.loop.state.pipelines["p"].active
    assert active is not None
    assert active.order is not None
