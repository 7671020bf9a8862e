"""What an outside event is completed with inside the transaction that records it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from daemon.completion import completer
from daemon.core.arrivals import MAX_READMITTED
from daemon.core.errors import InputError
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    DriftDetected,
    ModelRejected,
    OperatorRequested,
    PipelineSettings,
    Position,
    Record,
    StageFailed,
    Verb,
)
from daemon.core.plans import Amount, Span
from daemon.core.state import Readmitted, State
from daemon.core.transition import evolve
from daemon.door import Door, Offer
from daemon.journal.memory import MemoryJournal

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Desk:
    """A journal with a history, and completion as the loop uses it."""

    def __init__(self, root: Path, most: int = 2) -> None:
        self.journal = MemoryJournal()
        self.state = State()
        door = Door(pipelines={"p": 1, "q": 1}, roots=(root,), topics={"k": {"t", "u"}})
        self._complete = completer(door, self.journal)
        settings = PipelineSettings(stages=("ingest",), policies=(), max_domains=most)
        self.store(ConfigurationChanged(hash="h", slots=1, pipelines={"p": settings, "q": settings}), None)

    def store(self, event: AnyEvent, pipeline: str | None = "p", id_: str | None = None) -> int:
        """Append a record and fold it; return its position."""
        position = self.journal.head() + 1
        record = Record(
            position=position,
            recorded_at=NOON,
            source="/s",
            id=id_ or f"n{position}",
            pipeline=pipeline,
            event=event,
        )
        with self.journal.transaction() as transaction:
            transaction.append([record])
        self.state = evolve(self.state, record)
        return position

    def complete(self, event: AnyEvent | None, pipeline: str = "p") -> AnyEvent:
        """Complete an event in a transaction of its own."""
        offer = Offer(source="/s", id="x", where="w", digest=b"d", event=event, pipeline=pipeline)
        with self.journal.transaction() as transaction:
            return self._complete(transaction, self.state, offer)

    def refusal(self, event: AnyEvent | None, pipeline: str = "p") -> str:
        """Return the reason for which an event is refused."""
        with pytest.raises(InputError) as caught:
            self.complete(event, pipeline)
        return caught.value.reason


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk whose root holds one file."""
    (tmp_path / "a").write_text("x" * 50)
    return Desk(tmp_path)


def arrived(domain: str = "prose", tokens: int | None = 9) -> DataArrived:
    """An arrival of the file."""
    return DataArrived(uri="a", domain=domain, tokens=tokens, bytes=tokens, documents=1 if tokens else None)


def test_an_arrival_gets_its_size(desk: Desk) -> None:
    """Bytes and tokens come from the file."""
    assert desk.complete(DataArrived(uri="a", domain="prose")) == DataArrived(
        uri="a", domain="prose", bytes=50, tokens=50
    )


def test_every_transaction_looks_at_the_folders_anew(desk: Desk, tmp_path: Path) -> None:
    """A link out of the root that took a folder's place since is not taken for the folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("b")
    inside = DataArrived(uri="folder/b", domain="prose")
    assert desk.complete(inside) == replace(inside, bytes=1, tokens=1)
    (tmp_path / "folder").rename(tmp_path.parent / f"{tmp_path.name}-away")
    (tmp_path / "folder").symlink_to(tmp_path.parent / f"{tmp_path.name}-away")
    assert desk.refusal(inside) == "outside_roots"


def test_domains_are_bounded_per_pipeline(desk: Desk) -> None:
    """The third domain of a pipeline that takes two is refused; another pipeline has its own two."""
    desk.store(arrived("prose"))
    desk.store(arrived("code"))
    assert desk.refusal(arrived("law")) == "too_many_domains"
    desk.complete(arrived("code"))
    desk.complete(arrived("law"), "q")


def test_a_pipeline_that_is_not_known_yet_takes_one_domain(desk: Desk) -> None:
    """Without settings the least is assumed; an arrival is completed all the same."""
    desk.complete(arrived(), "new")


def test_a_withdrawal_finds_its_arrival(desk: Desk) -> None:
    """Position, domain and amount are the arrival's as it was recorded."""
    position = desk.store(arrived(), id_="1")
    withdrawn = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1", reason="wrong"))
    amount = Amount(arrivals=1, documents=1, bytes=9, tokens=9)
    assert withdrawn == DataWithdrawn(
        arrival_source="/s", arrival_id="1", arrival=position, domain="prose", amount=amount, reason="wrong"
    )


def test_a_withdrawal_after_ingest_takes_the_exact_amount(desk: Desk) -> None:
    """Once ingested, an arrival counts as what was counted; so it is taken out as that."""
    position = desk.store(arrived(), id_="1")
    exact = Amount(arrivals=1, documents=3, bytes=40, tokens=44)
    for arrival, amount in ((position, exact), (position + 7, Amount(arrivals=1))):
        ingested = DataIngested(
            run="p-1",
            stage="ingest",
            attempt=1,
            arrival=arrival,
            domain="prose",
            estimate=Amount(arrivals=1),
            amount=amount,
            duplicates=0,
            manifest="m",
            sha256="0" * 64,
        )
        desk.store(ingested)
    withdrawn = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    assert isinstance(withdrawn, DataWithdrawn)
    assert withdrawn.amount == exact


def test_a_withdrawal_of_what_ingest_refused_takes_it_from_what_is_set_aside(desk: Desk) -> None:
    """It is counted there, and as what ingest was told of it; once dropped it is counted nowhere."""
    position = desk.store(arrived(), id_="1")
    rejected = DataRejected(
        run="p-1",
        stage="ingest",
        attempt=1,
        arrival=position,
        domain="prose",
        estimate=Amount(arrivals=1, tokens=9),
        reason="r",
        message="m",
    )
    desk.store(rejected)
    withdrawn = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    assert isinstance(withdrawn, DataWithdrawn)
    assert (withdrawn.account, withdrawn.amount) == ("set_aside", Amount(arrivals=1, tokens=9))
    desk.store(OperatorRequested(verb="drop", dead_letter=desk.journal.head()))
    withdrawn = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    assert isinstance(withdrawn, DataWithdrawn)
    assert (withdrawn.account, withdrawn.amount) == ("set_aside", Amount())


def test_what_was_withdrawn_while_ingest_was_at_work_is_counted_as_nothing(desk: Desk) -> None:
    """Whatever ingest tells of it afterwards has no estimate; of another arrival it is as the stage wrote it."""
    gone, other = desk.store(arrived(), id_="1"), desk.store(arrived(), id_="2")
    withdrawn = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    desk.store(withdrawn)
    ingested = DataIngested(
        run="p-1",
        stage="ingest",
        attempt=1,
        arrival=gone,
        domain="prose",
        estimate=Amount(arrivals=1, tokens=9),
        amount=Amount(arrivals=1, tokens=7),
        duplicates=0,
        manifest="m",
        sha256="0" * 64,
    )
    assert desk.complete(ingested) == replace(ingested, estimate=Amount())
    assert desk.complete(replace(ingested, arrival=other)) == replace(ingested, arrival=other)
    assert desk.complete(rejected(gone)) == replace(rejected(gone), estimate=Amount())
    assert desk.complete(ingested, "q") == ingested


def test_withdrawals_that_refer_to_nothing(desk: Desk) -> None:
    """An unknown id, a fact that is no arrival, another pipeline's arrival, and a second withdrawal are refused."""
    position = desk.store(arrived(), id_="1")
    desk.store(DriftDetected(metric="m", value=1.0), id_="2")
    desk.store(arrived(), "q", id_="3")
    for id_ in ("9", "2", "3"):
        assert desk.refusal(DataWithdrawn(arrival_source="/s", arrival_id=id_)) == "unknown_arrival"
    assert desk.refusal(DataWithdrawn(arrival_source="/other", arrival_id="1")) == "unknown_arrival"
    first = desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    desk.store(first)
    with pytest.raises(InputError, match=f"position {position} was withdrawn") as caught:
        desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1"))
    assert caught.value.reason == "withdrawn_already"


def rejected(arrival: int, run: str = "p-1", attempt: int = 1) -> DataRejected:
    """What ingest tells of an arrival that it cannot use."""
    return DataRejected(
        run=run,
        stage="ingest",
        attempt=attempt,
        arrival=arrival,
        domain="prose",
        estimate=Amount(arrivals=1, tokens=9),
        reason="truncated",
        message="It is half a file.",
    )


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_a_rejected_arrival_is_settled_with_its_amount(desk: Desk, verb: Verb) -> None:
    """Span and amount are the arrival's, as ingest was told of it; another pipeline cannot ask for it."""
    arrival = desk.store(arrived(), id_="1")
    letter = desk.store(rejected(arrival))
    asked = OperatorRequested(verb=verb, dead_letter=letter, by="ann")
    spans, amounts = (Span(after=arrival - 1, upto=arrival),), {"prose": Amount(arrivals=1, tokens=9)}
    assert desk.complete(asked) == msgspec.structs.replace(asked, spans=spans, amounts=amounts)
    assert desk.refusal(asked, "q") == "wrong_pipeline"


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_a_rejected_arrival_that_was_withdrawn_is_settled(desk: Desk, verb: Verb) -> None:
    """Its producer has taken it back."""
    arrival = desk.store(arrived(), id_="1")
    letter = desk.store(rejected(arrival))
    desk.store(desk.complete(DataWithdrawn(arrival_source="/s", arrival_id="1")))
    assert desk.refusal(OperatorRequested(verb=verb, dead_letter=letter)) == "resolved_already"


def test_the_words_of_an_attempt_that_had_ended_are_no_dead_letter(desk: Desk) -> None:
    """The state did not count them; those of the next attempt are one."""
    arrival = desk.store(arrived(), id_="1")
    desk.store(StageFailed(run="p-1", stage="ingest", attempt=1, failure="hang", message="It hung."))
    stale, letter = desk.store(rejected(arrival)), desk.store(rejected(arrival, attempt=2))
    assert desk.refusal(OperatorRequested(verb="retry", dead_letter=stale)) == "unknown_dead_letter"
    desk.complete(OperatorRequested(verb="retry", dead_letter=letter))


def test_what_waits_for_the_next_run_is_bounded(desk: Desk) -> None:
    """Beyond the bound a retry, and an accept, is refused; a drop is not."""
    arrival = desk.store(arrived(), id_="1")
    letter = desk.store(rejected(arrival))
    spans = (Span(after=0, upto=1),)
    desk.store(ModelRejected(run="p-9", reason="It forgot.", spans=spans, amounts={}))
    many = tuple(Readmitted(after=n, upto=n + 1, since=9) for n in range(MAX_READMITTED))
    pipelines = {**desk.state.pipelines, "p": msgspec.structs.replace(desk.state.pipelines["p"], readmitted=many)}
    desk.state = msgspec.structs.replace(desk.state, pipelines=pipelines)
    assert desk.refusal(OperatorRequested(verb="retry", dead_letter=letter)) == "too_many_readmitted"
    assert desk.refusal(OperatorRequested(verb="accept", run="p-9")) == "too_many_readmitted"
    desk.complete(OperatorRequested(verb="drop", dead_letter=letter))


@pytest.mark.parametrize("first", ["accept", "withdraw"])
def test_what_a_run_set_aside_is_settled_once(desk: Desk, first: Verb) -> None:
    """Accepted twice, its data would be trained on twice."""
    spans, amounts = (Span(after=3, upto=9),), {"prose": Amount(arrivals=2, tokens=5)}
    desk.store(ModelRejected(run="p-9", reason="It forgot.", spans=spans, amounts=amounts))
    desk.store(desk.complete(OperatorRequested(verb=first, run="p-9")))
    for verb in ("accept", "withdraw"):
        assert desk.refusal(OperatorRequested(verb=verb, run="p-9")) == "resolved_already"


@pytest.mark.parametrize("verb", ["accept", "withdraw"])
def test_what_was_set_aside_is_found_by_its_run(desk: Desk, verb: Verb) -> None:
    """Spans and amounts are those of the rejected candidate; the person's reason stays."""
    spans, amounts = (Span(after=3, upto=9),), {"prose": Amount(arrivals=2, tokens=5)}
    desk.store(ModelRejected(run="p-9", reason="It forgot.", spans=spans, amounts=amounts))
    asked = desk.complete(OperatorRequested(verb=verb, run="p-9", by="ann", reason="fine"))
    assert asked == OperatorRequested(verb=verb, run="p-9", by="ann", reason="fine", spans=spans, amounts=amounts)
    assert desk.refusal(OperatorRequested(verb=verb, by="ann")) == "missing_run"
    assert desk.refusal(OperatorRequested(verb=verb, run="p-1", by="ann")) == "nothing_set_aside"
    assert desk.refusal(OperatorRequested(verb=verb, run="p-9", by="ann"), "q") == "nothing_set_aside"


@pytest.mark.parametrize(
    "make",
    [
        lambda: OperatorRequested(verb="pause", by="ann"),
        lambda: OperatorRequested(verb="retry", run="p-1", by="ann"),
        lambda: DriftDetected(metric="m", value=1.0),
    ],
)
def test_all_else_is_as_it_was(desk: Desk, make: Callable[[], AnyEvent]) -> None:
    """Events that refer to nothing pass unchanged."""
    event = make()
    assert desk.complete(event) is event


def test_facts_of_the_daemon_pass(desk: Desk) -> None:
    """A fact without a pipeline is not completed; an input without an event is none."""
    event = ConfigurationChanged(hash="h", slots=1, pipelines={})
    complete = completer(Door(pipelines={}, roots=()), desk.journal)
    with desk.journal.transaction() as transaction:
        offer = Offer(source="/s", id="x", where="w", digest=b"d", event=event)
        assert complete(transaction, desk.state, offer) is event
    assert desk.refusal(None) == "malformed"


def test_an_adopted_model_has_seen_what_is_pending_at_that_very_position(desk: Desk, tmp_path: Path) -> None:
    """The folder is told where it really lies; the arrivals up to here are its past, or, where asked, none."""
    (tmp_path / "my model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "my model")
    asked = OperatorRequested(verb="adopt", model="link", by="ann")
    folder = str((tmp_path / "my model").resolve())
    assert desk.complete(asked) == msgspec.structs.replace(asked, model=folder)
    position = desk.store(arrived(), id_="1")
    seen = desk.complete(OperatorRequested(verb="adopt", model=(tmp_path / "my model").as_uri()))
    assert isinstance(seen, OperatorRequested)
    assert (seen.model, seen.spans) == (folder, (Span(after=0, upto=position),))
    assert seen.amounts == {"prose": Amount(arrivals=1, documents=1, bytes=9, tokens=9)}
    nothing = desk.complete(OperatorRequested(verb="adopt", model="link", trained_on="nothing"))
    assert isinstance(nothing, OperatorRequested)
    assert (nothing.spans, nothing.amounts) == ((), {})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (None, "missing_model"),
        ("", "missing_model"),
        ("nowhere", "file_missing"),
        ("a", "not_a_folder"),
        ("/etc", "outside_roots"),
        ("..", "outside_roots"),
        ("s3://bucket/model", "unknown_scheme"),
    ],
)
def test_a_model_is_a_folder_inside_the_roots(desk: Desk, model: str | None, reason: str) -> None:
    """Anything else is refused before it is recorded."""
    assert desk.refusal(OperatorRequested(verb="adopt", model=model)) == reason


def at(topic: str = "t", **changed: object) -> Position:
    """A position in a topic of source k."""
    names = {"source": "k", "cluster": "C", "topic": topic, "topic_id": "A", "partition": 0, "offset": 7, **changed}
    return msgspec.convert(names, Position)


def test_an_alignment_names_partitions_of_configured_topics(desk: Desk) -> None:
    """It is taken as it is: several partitions, and the same number in topics of their own."""
    event = OperatorRequested(verb="align", positions=(at(), at(partition=1), at("u", topic_id="B")))
    assert desk.complete(event) == event


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ((), "missing_positions"),
        ((at("v"),), "unknown_topic"),
        ((at(source="l"),), "unknown_topic"),
        ((at(), at(offset=8)), "position_twice"),
        ((at(topic_id=""), at(topic_id="", offset=8)), "position_twice"),
        ((at(), at(topic_id="B", partition=1)), "position_twice"),
        ((at(), at(cluster="D", partition=1)), "position_twice"),
    ],
)
def test_an_alignment_that_contradicts_itself_is_refused(
    desk: Desk, positions: tuple[Position, ...], reason: str
) -> None:
    """No positions, a topic that nobody reads, one partition twice, or a name for two topics."""
    assert desk.refusal(OperatorRequested(verb="align", positions=positions)) == reason
