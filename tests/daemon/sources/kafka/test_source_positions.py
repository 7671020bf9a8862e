"""From where a source reads: no silent reset, no other topic, no other cluster, and what a person can do."""

import pytest

from daemon.core.events import SourceDegraded
from daemon.sources.kafka import intake
from daemon.sources.kafka.judge import Place
from tests.daemon.sources.kafka.cluster import cluster, until
from tests.daemon.sources.kafka.world import World, value


def test_partitions_that_are_added_are_read_from_their_beginning() -> None:
    """Whatever they have by the time they are seen."""
    kafka = cluster(2)
    kafka.send("t", value(0), partition=1)
    with World(kafka) as world:
        world.await_names(0)
        kafka.grow("t", 4)
        kafka.send("t", value(1), partition=3)
        world.await_names(0, 1)
        until(lambda: len(world.positions) == 4, "a position of each partition")
        assert [at.position.offset for at in world.positions] == [0, 0, 0, 0]


def test_offsets_without_a_record_are_passed_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that retention can remove them without anything to be missed: nothing is out of range afterwards."""
    monkeypatch.setattr(intake, "GAP_SECONDS", 0.02)
    kafka = cluster()
    kafka.send("t", value(0))
    kafka.mark("t")
    with World(kafka) as world:
        until(lambda: world.journal.cursor("kafka:C/C1/0") == 2, "the cursor behind the marker")
        until(lambda: (report := world.report()) is not None and report.lag == 0, "no lag")
    kafka.trim("t", 2)
    kafka.send("t", value(1))
    with World(kafka, store=world.store) as second:
        second.await_names(0, 1)
        assert not second.degraded


def test_a_position_that_an_old_look_does_not_reach_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was reached since, by records or without any: nothing is taken for out of range."""
    monkeypatch.setattr(intake, "GAP_SECONDS", 0.02)
    kafka = cluster(2)
    with World(kafka) as first:
        until(lambda: len(first.positions) == 2, "first positions")
    with World(kafka, store=first.store, look_every=30.0) as world:
        until(lambda: len(world.source.standing().partitions) == 2, "the first look")
        kafka.send("t", value(0))
        kafka.mark("t", 1)
        until(lambda: world.journal.cursor("kafka:C/C1/1") == 1, "the cursor behind the marker")
        world.await_names(0)
        looks = kafka.looks
        world.source.forget()
        until(lambda: kafka.looks > looks, "another look")
        kafka.send("t", value(1))
        kafka.send("t", value(2), partition=1)
        world.await_names(0, 1, 2)
        assert not world.events(SourceDegraded)


def test_a_partition_that_is_read_can_be_aligned() -> None:
    """Backwards, what comes again is counted as repeated; forwards, what is skipped is never read."""
    kafka = cluster()
    with World(kafka) as world:
        kafka.send("t", *(value(n) for n in range(5)))
        world.await_names(*range(5))
        world.align("t", 2)
        until(lambda: world.loop.duplicates == 3, "what comes again")
        assert (world.positions[-1].before, world.positions[-1].position.offset) == (5, 2)
        world.inbox.pause()
        kafka.send("t", *(value(n) for n in range(5, 9)))
        until(lambda: world.source.standing().paused, "records on their way")
        world.inbox.resume()
        world.align("t", 9)
        kafka.send("t", value(9))
        until(lambda: "9" in world.names, "the next event")
        until(lambda: (report := world.report()) is not None and report.position == 10, "the position")


def test_a_topic_that_is_missing_is_read_when_it_appears() -> None:
    """Meanwhile it is told of, and the other topic is read."""
    kafka = cluster(1, "other")
    kafka.send("other", value("x"))
    with World(kafka, topics=("t", "other")) as world:
        world.await_trouble("kafka:kafka/t", "There is no topic t")
        world.await_names("x")
        kafka.create("t")
        kafka.send("t", value(0))
        world.await_names("x", 0)
        world.await_health()


@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_was_created_again_waits_for_a_person(running: bool) -> None:
    """Whether or not a daemon saw it: nothing of the new one is read, the other topic is, and aligning heals."""
    kafka = cluster(1, "t", "other")
    world = World(kafka, topics=("t", "other"))
    with world:
        kafka.send("t", value(0), value(1))
        world.await_names(0, 1)
        if running:
            kafka.delete("t")
            kafka.create("t")
            kafka.send("t", *(value(f"new {n}") for n in range(5)))
            world.await_trouble("kafka:kafka/t", "created again")
    if not running:
        kafka.delete("t")
        kafka.create("t")
        kafka.send("t", *(value(f"new {n}") for n in range(5)))
    with World(kafka, topics=("t", "other"), store=world.store) as second:
        second.await_trouble("kafka:kafka/t", "created again")
        kafka.send("other", value("x"))
        second.await_names(0, 1, "x")
        assert (report := second.report()) is not None
        assert report.condition == "another_topic"
        second.align("t", 3)
        second.await_names(0, 1, "x", "new 3", "new 4")
        second.await_health()
        aligned = second.positions[-1]
        assert (aligned.why, aligned.by, aligned.before, aligned.position.topic_id) == ("aligned", "tester", None, "C3")


def test_another_topic_of_the_same_name_is_never_taken_for_it() -> None:
    """It was created again between two looks, and filled beyond where the old one stood: nothing of it gets in."""
    kafka = cluster()
    with World(kafka, look_every=30.0) as world:
        kafka.send("t", value(0), value(1))
        world.await_names(0, 1)
        with kafka.changed:
            kafka.delete("t")
            kafka.create("t")
            kafka.send("t", *(value(f"new {n}") for n in range(50)))
        world.await_trouble("kafka:kafka/t", "created again")
        assert world.names == ["0", "1"]


@pytest.mark.parametrize("running", [True, False])
def test_another_cluster_behind_the_same_name_is_not_read(running: bool) -> None:
    """Not its new topics either, until a person says that it is the one; when the old one is back, it goes on."""
    kafka, imposter = cluster(), cluster(name="D")
    imposter.create("added")
    imposter.send("t", *(value(f"other {n}") for n in range(9)))
    topics = ("t", "added")
    world = World(kafka, topics=topics)
    home = kafka.topics
    with world:
        kafka.send("t", value(0))
        world.await_names(0)
        if running:
            kafka.cluster, kafka.topics = "D", imposter.topics
            world.await_trouble("kafka:kafka", "cluster D, what was read of t to C")
            assert world.names == ["0"]
            assert {each.condition for each in world.source.standing().partitions} == {"another_cluster"}
    kafka.cluster, kafka.topics = "D", imposter.topics
    with World(kafka, topics=topics, store=world.store) as second:
        second.await_trouble("kafka:kafka", "cluster D, what was read of t to C")
        assert second.names == ["0"]
        kafka.cluster, kafka.topics = "C", home
        kafka.send("t", value(1))
        second.await_names(0, 1)
        kafka.cluster, kafka.topics = "D", imposter.topics
        second.await_trouble("kafka:kafka", "cluster D")
        second.align("t", 8)
        second.await_names(0, 1, "other 8")
        until(lambda: len(second.positions) == 3, "the added topic's position")
        second.await_health()


def test_records_that_were_removed_unread_are_told_of() -> None:
    """How many they were; nothing is skipped until a person says so; the other partition is read meanwhile."""
    kafka = cluster(2)
    with World(kafka) as world:
        kafka.send("t", value(0))
        world.await_names(0)
    kafka.send("t", *(value(n) for n in range(1, 6)))
    kafka.trim("t", 4)
    with World(kafka, store=world.store) as second:
        second.await_trouble("kafka:kafka/t/0", "its position 1 is gone, the first record that is left is 4: 3 offsets")
        kafka.send("t", value("b"), partition=1)
        second.await_names(0, "b")
        second.align("t", 4)
        second.await_names(0, "b", 4, 5)
        second.await_health()


def test_records_that_are_removed_while_the_source_is_busy_are_told_of() -> None:
    """The broker says so when they are fetched; the next look says how many they are."""
    kafka = cluster()
    with World(kafka) as world:
        kafka.send("t", value(0))
        world.await_names(0)
        with kafka.changed:
            kafka.send("t", *(value(n) for n in range(1, 6)))
            kafka.trim("t", 4)
        world.await_trouble("kafka:kafka/t/0", "3 offsets were removed unread")
        assert (report := world.report()) is not None
        assert (report.condition, report.position) == ("out_of_range", 1)
        world.align("t", 4)
        world.await_names(0, 4, 5)


def test_a_position_beyond_the_end_is_told_of() -> None:
    """A log that was cut short, as after a restore of the cluster: records at those offsets would be others."""
    kafka = cluster()
    with World(kafka) as world:
        kafka.send("t", *(value(n) for n in range(5)))
        world.await_names(*range(5))
        kafka.cut("t", 2)
        world.await_trouble("kafka:kafka/t/0", "its position 5 lies beyond its end, 2")
        kafka.send("t", *(value(f"other {n}", source="/producer") for n in range(2, 7)))
        looks = kafka.looks
        until(lambda: kafka.looks >= looks + 3, "more looks")
        assert len(world.names) == 5
        world.align("t", 2)
        world.await_names(*range(5), *(f"other {n}" for n in range(2, 7)))
        world.await_health()


def test_records_that_the_brokers_took_back_are_told_of() -> None:
    """The position is within the range all the same: it is not read on until a person says so."""
    kafka = cluster()
    with World(kafka) as world:
        kafka.send("t", value(0))
        world.await_names(0)
        kafka.taken_back.add(Place("t", 0))
        world.await_trouble("kafka:kafka/t/0", "It was taken back. Say from where")
        kafka.send("t", value(1))
        looks = kafka.looks
        until(lambda: kafka.looks >= looks + 3, "more looks")
        assert world.names == ["0"]
        world.align("t", 1)
        world.await_names(0, 1)
        world.await_health()
