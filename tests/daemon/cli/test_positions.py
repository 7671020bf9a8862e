"""Where a Kafka source stands, and what is to be set: from what was seen and what the journal has."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from daemon.broker.positions import cursor_of
from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.cli.positions import Change, Survey, changes, survey, topic_named, wanted
from daemon.core.errors import RewarmError
from daemon.core.events import Position
from daemon.core.state import Topic

KNOWN = {"kafka": ["events", "more"], "other": ["events", "7"]}
CURSORS = {0: 40, 1: 5, 3: 90}
"""Partition → the journal's position, in a topic whose partitions reach from 10 to 60."""


def seen(topic_id: str = "A", cluster: str = "C", partitions: int = 4) -> Sight:
    """A cluster whose topic `events` reaches from 10 to 60 in each partition."""
    topic = TopicSight(topic_id=topic_id, partitions={number: Extent(begin=10, end=60) for number in range(partitions)})
    return Sight(cluster=cluster, topics={"events": topic}, troubles={"secret": "We are not authorised to see it."})


def stands(sight: Sight, *topics: str, known: Topic | None = None) -> Survey:
    """Return how topics stand in a cluster when the journal has read the topic A of cluster C."""
    cursors = {cursor_of("C", "A", number): at for number, at in CURSORS.items()}
    state = {"kafka/events": known or Topic(cluster="C", topic_id="A")}
    return survey("kafka", topics or ("events",), sight, state, cursors.get)


def test_each_partition_has_its_condition() -> None:
    """Read, out of range before and behind, and new: with lag, what is lost, and what to do."""
    found = stands(seen())
    (view,) = found.topics
    assert [(each.condition, each.position, each.lag, each.lost) for each in view.partitions] == [
        ("reading", 40, 20, 0),
        ("out_of_range", 5, None, 5),
        ("waiting", None, 50, 0),
        ("out_of_range", 90, None, 0),
    ]
    assert set(found.troubles) == {"kafka:kafka/events/1", "kafka:kafka/events/3"}
    assert "rewarm align --set kafka/events/1=beginning" in found.troubles["kafka:kafka/events/1"]


def test_an_end_is_no_fault() -> None:
    """A position at either end of a partition is in range."""
    sight = Sight(cluster="C", topics={"events": TopicSight(topic_id="A", partitions={0: Extent(begin=40, end=40)})})
    found = stands(sight)
    assert found.topics[0].partitions[0].condition == "reading"
    assert found.troubles == {}


@pytest.mark.parametrize(
    ("sight", "condition"), [(seen(topic_id="B"), "another_topic"), (seen(cluster="D"), "another_cluster")]
)
def test_another_topic_of_the_name_is_not_read(sight: Sight, condition: str) -> None:
    """A topic that was created again, or lies in another cluster, says so; the old position is not its own."""
    found = stands(sight)
    (view,) = found.topics
    assert {each.condition for each in view.partitions} == {condition}
    assert {(each.position, each.lag) for each in view.partitions} == {(None, None)}
    (trouble,) = found.troubles.values()
    assert "rewarm align --set kafka/events=beginning" in trouble


def test_what_cannot_be_seen_has_no_partitions() -> None:
    """The reason is the one that the cluster gives, where it gives one."""
    found = stands(seen(), "gone", "secret")
    assert [view.partitions for view in found.topics] == [(), ()]
    assert "There is no topic gone" in found.troubles["kafka:kafka/gone"]
    assert found.troubles["kafka:kafka/secret"] == "We are not authorised to see it."


def test_brokers_without_topic_ids_are_known_by_name() -> None:
    """Where a cluster knows no ids, a topic's name takes the place of its id."""
    sight = Sight(cluster="C", topics={"events": TopicSight(topic_id="", partitions={0: Extent(begin=0, end=9)})})
    cursors = {cursor_of("C", "events", 0): 4}
    (view,) = survey("kafka", ["events"], sight, {"kafka/events": Topic(cluster="C", topic_id="")}, cursors.get).topics
    assert (view.partitions[0].condition, view.partitions[0].lag) == ("reading", 5)


@pytest.mark.parametrize(
    ("text", "source", "topic", "partition", "target"),
    [
        ("more=beginning", "kafka", "more", None, "beginning"),
        ("more/3=end", "kafka", "more", 3, "end"),
        ("kafka/events=17", "kafka", "events", None, 17),
        ("other/events/12=0", "other", "events", 12, 0),
        ("other/7=1", "other", "7", None, 1),
        ("7/7=1", "other", "7", 7, 1),
        ("more=2026-03-01T12:00:00Z", "kafka", "more", None, datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_place_may_leave_out_what_is_clear(
    text: str, source: str, topic: str, partition: int | None, target: object
) -> None:
    """The source where one alone has the topic, the partition where all are meant."""
    found = wanted(text, KNOWN)
    assert (found.source, found.topic, found.partition, found.target) == (source, topic, partition, target)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("more", "what to set where"),
        ("more=", "what to set where"),
        ("events=end", "write kafka/events"),
        ("none=end", "Configured: kafka/events, kafka/more, other/7, other/events"),
        ("kafka/none=end", "No Kafka source has a topic 'kafka/none'"),
        ("kafka/more/x=end", "No Kafka source has a topic 'kafka/more/x'"),
        ("more=-1", "neither an offset nor an instant"),
        ("more=last", "neither an offset nor an instant"),
        ("more=2026-03-01T12:00:00", "has no zone"),
    ],
)
def test_what_is_not_clear_is_asked_back(text: str, words: str) -> None:
    """Nothing is guessed: the message says what there is."""
    with pytest.raises(RewarmError) as caught:
        wanted(text, KNOWN)
    assert words in str(caught.value)


def test_no_source_at_all_is_told() -> None:
    """Where no Kafka source is configured, that is the answer."""
    with pytest.raises(RewarmError, match="Configured: no Kafka source"):
        topic_named("events", {})


def at_thirty(asked: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int | None]:
    """Answer that the first record since any instant is at 30, and that partition 1 has none."""
    return {place: None if place[1] == 1 else 30 for place in asked}


def to_set(*texts: str, sight: Sight | None = None) -> list[Change]:
    """Return what is to be set of the topic as it stands."""
    asked = [wanted(f"kafka/events{text}", KNOWN) for text in texts]
    return changes(asked, stands(sight or seen()), at_thirty)


def told(found: list[Change]) -> list[tuple[int, int | None, int, int, int, int]]:
    """Return partition, before, after, and how many are read again, skipped and lost."""
    return [(each.partition, each.before, each.after, each.again, each.skipped, each.lost) for each in found]


def test_a_whole_topic_is_set() -> None:
    """From its beginning: what was read is read again, what is gone stays gone, nothing is skipped."""
    assert told(to_set("=beginning")) == [
        (0, 40, 10, 30, 0, 0),
        (1, 5, 10, 0, 0, 5),
        (2, None, 10, 0, 0, 0),
        (3, 90, 10, 50, 0, 0),
    ]


def test_the_end_skips_what_is_there() -> None:
    """Also in a partition that was never read; what was out of reach anyway is not counted as skipped."""
    assert told(to_set("=end")) == [
        (0, 40, 60, 0, 20, 0),
        (1, 5, 60, 0, 50, 5),
        (2, None, 60, 0, 50, 0),
        (3, 90, 60, 0, 0, 0),
    ]


def test_an_instant_becomes_an_offset() -> None:
    """The cluster says where; a partition without a record since then is read from its end."""
    asked: list[int] = []

    def times(wanted_: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int | None]:
        asked.extend(wanted_.values())
        return at_thirty(wanted_)

    found = changes([wanted("kafka/events=1970-01-01T00:00:01.5Z", KNOWN)], stands(seen(partitions=2)), times)
    assert [(each.partition, each.after) for each in found] == [(0, 30), (1, 60)]
    assert asked == [1500, 1500]
    assert [each.after for each in to_set("/0=1812-06-24T00:00:00Z")] == [30], "before 1970 there is no other instant"


def test_what_stands_there_is_left_out() -> None:
    """A position is set only where it changes; of another topic it is new in any case."""
    assert to_set("/0=40") == []
    assert told(to_set("/0=41", "/1=10")) == [(0, 40, 41, 0, 1, 0), (1, 5, 10, 0, 0, 5)]
    again = to_set("/0=10", sight=seen(topic_id="B"))
    assert [each.position() for each in again] == [
        Position(source="kafka", cluster="C", topic="events", topic_id="B", partition=0, offset=10)
    ]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("/0=61",), "has no offset 61: it can stand at 10 to 60 (its end)"),
        (("/0=9",), "has no offset 9"),
        (("=20", "/3=20"), "kafka/events/3 is set twice"),
        (("/4=end",), "no partition 4 that has a leader; there are: 0, 1, 2, 3"),
    ],
)
def test_what_a_partition_does_not_have_is_refused(texts: tuple[str, ...], words: str) -> None:
    """Offsets outside, partitions that are none, and two positions for one."""
    with pytest.raises(RewarmError) as caught:
        to_set(*texts)
    assert words in str(caught.value)


def test_a_missing_topic_cannot_be_set() -> None:
    """There is nothing to stand in: the reason is told."""
    with pytest.raises(RewarmError, match="There is no topic more"):
        changes([wanted("more=end", KNOWN)], stands(seen(), "more"), at_thirty)
    bare = Sight(cluster="C", topics={"events": TopicSight(topic_id="A", partitions={})})
    with pytest.raises(RewarmError, match="None of its partitions has a leader"):
        to_set("=end", sight=bare)
