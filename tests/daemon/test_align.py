"""A person's `align`: positions are set and told of in the transaction that records who asked."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from daemon.broker.positions import cursor_name, source_of
from daemon.completion import completer
from daemon.core.events import (
    ConfigurationChanged,
    DriftDetected,
    OperatorRequested,
    PipelineSettings,
    Position,
    PositionSet,
    Record,
)
from daemon.core.state import State, Topic
from daemon.core.transition import evolve
from daemon.door import Answer, Door, Input, Letter, Offer, own
from daemon.journal.base import Cursor, Journal, scan
from daemon.journal.memory import MemoryJournal
from daemon.journal.sqlite import open_journal
from daemon.loop import Loop
from daemon.sources.queue import Inbox

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(partition: int, offset: int, topic_id: str = "A") -> Position:
    """A position in the topic `events` of source `kafka`."""
    return Position(source="kafka", cluster="C", topic="events", topic_id=topic_id, partition=partition, offset=offset)


class World:
    """A loop on a journal, that reads a topic."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.forgotten = 0
        self.mend({"kafka": {"events"}})
        known = {"p": PipelineSettings(stages=("train",), policies=())}
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known))

    def mend(self, topics: dict[str, set[str]]) -> None:
        """Go on with other topics configured, as after a restart."""
        state = State()
        for record in scan(self.journal):
            state = evolve(state, record)
        self.door = Door(pipelines={"p": None}, roots=(), topics=topics)
        self.loop = Loop(
            journal=self.journal,
            state=state,
            policies={},
            inbox=Inbox(),
            receive=self.door.receive,
            complete=completer(self.door, self.journal),
            observers=(),
            now=lambda: NOON,
            forget=self._forget,
            housekeeping=lambda: None,
        )

    def _forget(self) -> None:
        self.forgotten += 1

    def asked(self, *positions: Position, identity: str = "one", by: str | None = "ann") -> Offer:
        """Return the offer of a request that came by the spool."""
        event = {
            "specversion": "1.0",
            "id": identity,
            "source": "/cli",
            "type": "io.rewarm.operator.requested.v1",
            "data": {"verb": "align", "positions": positions},
        }
        return self.door.receive(Letter(text=msgspec.json.encode(event), where="x.json:1", source="/spool", by=by))

    def align(self, *positions: Position, identity: str = "one") -> Answer:
        """Ask, in a transaction of its own."""
        ((answer,),) = self.loop.commit([Input(offers=(self.asked(*positions, identity=identity),))]).answers
        return answer

    def read(self, place: Position, before: int | None) -> Input:
        """Return what a source sends when it has read up to a place."""
        fact = DriftDetected(metric="psi", value=place.offset)
        offer = own(fact, source="/producer", id=f"{place.topic_id}/{place.offset}", where="w", pipeline="p")
        return Input(offers=(offer,), cursor=Cursor(name=cursor_name(place), expected=before, next=place.offset))

    def position(self, place: Position) -> int | None:
        """Return where the journal stands in a partition."""
        return self.journal.cursor(cursor_name(place))

    def told(self) -> Sequence[Record]:
        """Return the records of positions that were set."""
        return [record for record in scan(self.journal) if isinstance(record.event, PositionSet)]


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Give a world on either journal."""
    journal: Journal = MemoryJournal() if request.param == "memory" else open_journal(tmp_path / "journal.db")
    yield World(journal)
    journal.close()


def test_positions_are_set_and_told(world: World) -> None:
    """Each with where it stood before and by whom, caused by the request; the topic is the one that is meant now."""
    world.loop.commit([world.read(at(0, 40), None)])

    answer = world.align(at(0, 10), at(1, 25))

    assert answer.outcome == "accepted"
    assert (world.position(at(0, 0)), world.position(at(1, 0))) == (10, 25)
    first, second = world.told()
    assert first.event == PositionSet(position=at(0, 10), before=40, why="aligned", by="ann")
    assert second.event == PositionSet(position=at(1, 25), before=None, why="aligned", by="ann")
    assert {(record.cause, record.source, record.pipeline) for record in (first, second)} == {
        (answer.position, source_of("kafka"), None)
    }
    assert world.loop.state.topics == {"kafka/events": Topic(cluster="C", topic_id="A")}


def test_a_topic_that_was_created_again_becomes_the_known_one(world: World) -> None:
    """Its positions are its own: those of the topic before it stay as they were."""
    world.align(at(0, 40))
    world.align(at(0, 0, topic_id="B"), identity="two")

    assert (world.position(at(0, 0)), world.position(at(0, 0, topic_id="B"))) == (40, 0)
    assert world.loop.state.topics["kafka/events"].topic_id == "B"


def test_a_request_counts_once(world: World) -> None:
    """Sent twice, by HTTP and the spool say, it does not set back what was read in between."""
    world.align(at(0, 10))
    world.loop.commit([world.read(at(0, 20), 10)])

    assert world.align(at(0, 10)).outcome == "duplicate"
    assert world.position(at(0, 0)) == 20
    assert len(world.told()) == 1


def test_what_was_on_its_way_from_the_old_position_is_turned_away(world: World) -> None:
    """The request stands, whatever else is in its batch; the source reads again from where the journal stands."""
    world.loop.commit([world.read(at(0, 40), None)])
    aligned = Input(offers=(world.asked(at(0, 10)),))
    replies: list[object] = []
    late = msgspec.structs.replace(world.read(at(0, 50), 40), reply=replies.append)

    world.loop.handle([aligned, late])

    assert world.position(at(0, 0)) == 10
    assert (replies, world.forgotten) == ([None], 1)
    world.loop.handle([world.read(at(0, 15), 10)])
    assert world.position(at(0, 0)) == 15
    assert world.forgotten == 1


def test_what_comes_before_it_in_its_batch_is_read(world: World) -> None:
    """The position before is the one that stands at that very moment."""
    world.loop.handle([world.read(at(0, 40), None), Input(offers=(world.asked(at(0, 10)),))])

    (record,) = world.told()
    assert isinstance(record.event, PositionSet)
    assert record.event.before == 40
    assert world.position(at(0, 0)) == 10


def test_a_refused_request_sets_nothing_until_it_is_retried(world: World) -> None:
    """A topic that nobody reads is a dead letter; once it is configured, a retry carries it out."""
    world.mend({})
    refused = world.align(at(0, 10))
    assert (refused.outcome, refused.reason) == ("dead_letter", "unknown_topic")
    assert (world.position(at(0, 0)), world.told()) == (None, [])

    world.mend({"kafka": {"events"}})
    retry = OperatorRequested(verb="retry", dead_letter=refused.position, by="bob")
    world.loop.commit([Input(offers=(own(retry, source="/cli", id="two", where="w"),))])

    assert world.position(at(0, 0)) == 10
    (record,) = world.told()
    assert isinstance(record.event, PositionSet)
    assert record.event.by == "bob"


def test_nobody_aligns_without_the_right_to_operate(world: World) -> None:
    """From a sender who may not operate it is a dead letter."""
    offer = world.asked(at(0, 10), by=None)
    assert offer.refusal is not None
    assert offer.refusal[0] == "not_an_operator"
