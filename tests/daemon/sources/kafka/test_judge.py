"""What becomes of a partition: where it is read from, what it waits for, what is told of it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.broker.report import Condition
from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.core.state import Topic
from daemon.sources.kafka.judge import Judgement, Known, Place, judge

T0 = Place("t", 0)
CURSOR = "kafka:C/T/0"
KNOWN = {"s/t": Topic(cluster="C", topic_id="T")}


def sight(begin: int = 5, end: int = 9, *, cluster: str = "C", topic_id: str = "T", partitions: int = 1) -> Sight:
    """Return the sight of a topic t."""
    extents = {number: Extent(begin=begin, end=end) for number in range(partitions)}
    return Sight(cluster=cluster, topics={"t": TopicSight(topic_id=topic_id, partitions=extents)})


def known(cursors: Mapping[str, int] | None = None, topics: Mapping[str, Topic] | None = None, **more: object) -> Known:
    """Return what the journal knows."""
    return Known(topics=topics or {}, cursor=(cursors or {}).get, **more)  # type: ignore[arg-type] # by name


def one(seen: Sight, knows: Known) -> Judgement:
    """Judge a source s with a topic t."""
    return judge("s", ["t"], seen, knows)


def test_a_partition_without_a_position_gets_its_beginning() -> None:
    """It is not read until that is journaled; all ids are told with it."""
    found = one(sight(), known())
    assert not found.starts
    (position,) = found.firsts.values()
    assert list(found.firsts) == [CURSOR]
    assert (position.source, position.cluster, position.topic, position.topic_id) == ("s", "C", "t", "T")
    assert (position.partition, position.offset) == (0, 5)
    assert found.conditions == {T0: ("waiting", None)}
    assert not found.troubles


@pytest.mark.parametrize(
    ("offset", "condition", "words"),
    [
        (4, "out_of_range", "first record that is left is 5: 1 offset was removed unread"),
        (0, "out_of_range", "first record that is left is 5: 5 offsets were removed unread"),
        (5, "reading", ""),
        (9, "reading", ""),
        (10, "out_of_range", "lies beyond its end, 9"),
    ],
)
def test_a_position_must_be_there(offset: int, condition: Condition, words: str) -> None:
    """It is read from the journal's position, and from nowhere else."""
    found = one(sight(), known({CURSOR: offset}, KNOWN))
    assert found.conditions == {T0: (condition, offset)}
    assert [start.offset for start in found.starts.values()] == ([offset] if condition == "reading" else [])
    assert not found.firsts
    told = found.troubles.get("kafka:s/t/0")
    assert (told is None) == (not words)
    if told is not None:
        assert words in told.reason
        assert "`rewarm align --set s/t/0=beginning`" in told.reason


def test_an_end_that_may_have_moved_is_looked_at_again() -> None:
    """The sight began before the position was reached: that it lies beyond the end means nothing yet."""
    found = one(sight(), known({CURSOR: 10}, KNOWN, moved={CURSOR}))
    assert found.doubted == {CURSOR}
    assert found.conditions == {T0: ("waiting", 10)}
    assert not found.starts
    assert not found.troubles
    assert one(sight(), known({CURSOR: 4}, KNOWN, moved={CURSOR})).troubles


def test_what_is_read_is_left_to_the_brokers() -> None:
    """They say themselves when its position is gone; the journal is not asked where it stands."""
    found = one(sight(), known({CURSOR: 0}, KNOWN, reading={CURSOR: 77}))
    assert found.conditions == {T0: ("reading", 77)}
    assert not found.troubles


def test_a_fault_that_reading_has_shown_stands() -> None:
    """Though the position is within the range."""
    found = one(sight(), known({CURSOR: 6}, KNOWN, faults={CURSOR: "what was read was taken back."}))
    assert not found.starts
    assert "what was read was taken back. Say from where" in found.troubles["kafka:s/t/0"].reason


def test_a_partition_of_a_known_topic_begins_at_its_beginning() -> None:
    """One that was added, beside one that is read."""
    found = one(sight(partitions=2), known({CURSOR: 6}, KNOWN))
    assert [start.offset for start in found.starts.values()] == [6]
    assert list(found.firsts) == ["kafka:C/T/1"]


def test_a_topic_with_another_id_is_not_read() -> None:
    """Though a cursor of it may stand already: who aligns tells which topic is meant."""
    found = one(sight(topic_id="U"), known({"kafka:C/U/0": 6}, KNOWN))
    assert (found.starts, found.firsts) == ({}, {})
    assert found.conditions == {T0: ("another_topic", None)}
    assert "its id was T, and is U" in found.troubles["kafka:s/t"].reason
    aligned = {"s/t": Topic(cluster="C", topic_id="U")}
    assert one(sight(topic_id="U"), known({"kafka:C/U/0": 6}, aligned)).starts[T0].offset == 6


def test_topics_without_ids_are_what_their_names_say() -> None:
    """Brokers before 2.8 have none."""
    found = one(sight(topic_id=""), known())
    assert list(found.firsts) == ["kafka:C/t/0"]
    (position,) = found.firsts.values()
    assert position.topic_id == ""
    again = one(sight(topic_id=""), known({"kafka:C/t/0": 7}, {"s/t": Topic(cluster="C", topic_id="")}))
    assert again.starts[T0].offset == 7


def test_of_another_cluster_nothing_is_read_until_one_of_its_topics_is_aligned() -> None:
    """Not a topic that is new to us either; once one was aligned, new ones are read from their beginning."""
    seen = Sight(cluster="D", topics={name: sight(topic_id=name).topics["t"] for name in ("a", "b", "new")})
    old = {"s/a": Topic(cluster="C", topic_id="A"), "s/b": Topic(cluster="C", topic_id="B")}
    found = judge("s", ["a", "b", "new"], seen, known({}, old))
    assert {condition for condition, _ in found.conditions.values()} == {"another_cluster"}
    assert (found.starts, found.firsts) == ({}, {})
    assert list(found.troubles) == ["kafka:s"]
    assert "cluster D, what was read of a, b to C" in found.troubles["kafka:s"].reason
    assert "`rewarm align --set s/a=beginning --set s/b=beginning`" in found.troubles["kafka:s"].reason
    aligned = judge(
        "s", ["a", "b", "new"], seen, known({"kafka:D/a/0": 6}, {**old, "s/a": Topic(cluster="D", topic_id="a")})
    )
    assert [place.topic for place in aligned.starts] == ["a"]
    assert [position.topic for position in aligned.firsts.values()] == ["new"]
    assert aligned.conditions[Place("b", 0)] == ("another_cluster", None)


@pytest.mark.parametrize(
    ("troubles", "topics", "words"),
    [
        ({}, {}, "There is no topic t"),
        ({}, KNOWN, "Topic t is not there any more"),
        ({"t": "We may not see it."}, KNOWN, "We may not see it."),
    ],
)
def test_a_topic_that_is_not_seen(troubles: dict[str, str], topics: dict[str, Topic], words: str) -> None:
    """It is missing, was deleted, or is hidden from us; its cluster is the right one all the same."""
    found = one(Sight(cluster="C", topics={}, troubles=troubles), known({CURSOR: 6}, topics))
    assert words in found.troubles["kafka:s/t"].reason
    assert (found.starts, found.conditions) == ({}, {})


def test_what_is_wrong_with_a_part_of_a_topic_is_told() -> None:
    """The rest of it is read."""
    seen = sight()
    found = one(
        Sight(cluster="C", topics=seen.topics, troubles={"t": "Partition 1 has no leader."}), known({CURSOR: 5}, KNOWN)
    )
    assert found.starts
    assert found.troubles["kafka:s/t"].reason == "Partition 1 has no leader."


offsets = st.integers(0, 6)
ids = st.sampled_from(["C", "D"])


@given(
    seen=st.dictionaries(
        st.sampled_from(["t", "u"]),
        st.tuples(st.sampled_from(["T", "U"]), st.dictionaries(offsets, st.tuples(offsets, offsets), max_size=3)),
    ),
    topics=st.dictionaries(st.sampled_from(["s/t", "s/u", "x/t"]), st.tuples(ids, st.sampled_from(["T", "U"]))),
    cursors=st.dictionaries(st.tuples(ids, st.sampled_from(["T", "U"]), offsets), offsets),
    moved=st.booleans(),
)
def test_nothing_is_read_but_from_where_the_journal_stands(
    seen: dict[str, tuple[str, dict[int, tuple[int, int]]]],
    topics: dict[str, tuple[str, str]],
    cursors: dict[tuple[str, str, int], int],
    moved: bool,
) -> None:
    """A start is a cursor's position within the range of the topic that is meant; first positions have no cursor.

    Whatever is seen of a configured topic has a condition, and what is not read has a trouble, or waits.
    """
    stands = {f"kafka:{cluster}/{topic_id}/{number}": at for (cluster, topic_id, number), at in cursors.items()}
    extents = {
        name: TopicSight(
            topic_id=topic_id,
            partitions={n: Extent(begin=min(pair), end=max(pair)) for n, pair in partitions.items()},
        )
        for name, (topic_id, partitions) in seen.items()
    }
    means = {name: Topic(cluster=cluster, topic_id=topic_id) for name, (cluster, topic_id) in topics.items()}
    knows = known(stands, means, moved=set(stands) if moved else ())
    found = judge("s", ["t", "u"], Sight(cluster="C", topics=extents), knows)
    for place, start in found.starts.items():
        extent = extents[place.topic].partitions[place.partition]
        meant = means.get(f"s/{place.topic}")
        assert extent.begin <= start.offset <= extent.end
        assert start.offset == stands[start.cursor]
        assert meant in {None, Topic(cluster="C", topic_id=start.topic_id)}
        assert start.cursor == f"kafka:C/{extents[place.topic].topic_id}/{place.partition}"
    for cursor, position in found.firsts.items():
        assert cursor not in stands
        assert position.offset == extents[position.topic].partitions[position.partition].begin
    places = {Place(topic, number) for topic, each in extents.items() for number in each.partitions}
    assert found.conditions.keys() == places
    for (topic, number), (condition, _) in found.conditions.items():
        told = {"kafka:s", f"kafka:s/{topic}", f"kafka:s/{topic}/{number}"} & found.troubles.keys()
        assert told or condition in {"reading", "waiting"}
        assert (condition == "reading") == (Place(topic, number) in found.starts)
