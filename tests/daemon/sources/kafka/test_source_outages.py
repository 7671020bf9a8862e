"""What a source makes of a cluster, a client or a journal that does not do what it should: nothing lost or repeated."""

import itertools
import random
import threading
import time
from collections.abc import Collection

import pytest

from daemon.broker.sight import Sight
from daemon.core.errors import JournalError
from daemon.sources.kafka import source
from daemon.sources.kafka.consumer import Haul
from daemon.sources.kafka.judge import Place
from daemon.sources.kafka.source import Tools
from tests.daemon.sources.kafka.cluster import MemoryCluster, MemoryConsumer, cluster, until
from tests.daemon.sources.kafka.world import World, value


def test_a_cluster_that_is_away_is_told_of_and_read_again_by_itself() -> None:
    """At the start, and in the middle with records on their way."""
    kafka = cluster()
    kafka.down = True
    with World(kafka) as world:
        world.await_trouble("kafka:kafka", "nobody answers")
        assert not world.source.standing().connected
        kafka.down = False
        kafka.send("t", value(0))
        world.await_names(0)
        world.await_health()
        kafka.down = True
        world.await_trouble("kafka:kafka", "nobody answers")
        kafka.send("t", value(1))
        kafka.down = False
        world.await_names(0, 1)
        world.await_health()
        standing = world.source.standing()
        assert (standing.connected, standing.connects, standing.rebuilds, standing.records) == (True, 2, 0, 2)


def test_a_consumer_that_brings_nothing_is_made_anew() -> None:
    """The lag stays, and there is no step: it is left behind, counted, and nothing is lost or repeated."""
    kafka = cluster()
    with World(kafka, watchdog=0.3) as world:
        kafka.send("t", value(0))
        world.await_names(0)
        kafka.stalled = True
        kafka.send("t", value(1))
        until(lambda: world.source.standing().rebuilds == 1, "a rebuild")
        kafka.stalled = False
        world.await_names(0, 1)
        assert world.loop.duplicates == 0
        assert kafka.consumers[0].closed.wait(5)


def test_a_consumer_that_never_returns_is_left_behind() -> None:
    """Its thread hangs inside the library: another one reads on, and the source ends as soon as it is asked to."""
    kafka = cluster()
    hangs = threading.Event()

    def connect(name: str) -> MemoryConsumer:
        consumer = kafka.connect(name)
        if len(kafka.consumers) == 1:
            poll = consumer.poll

            def hanging(timeout: float, most: int) -> Haul:
                haul = poll(timeout, most)
                hangs.wait()
                return haul

            consumer.poll = hanging  # type: ignore[method-assign] # a library that hangs
        return consumer

    using = Tools(looks=lambda: kafka, consumer=connect, hints=lambda: kafka)
    try:
        with World(kafka, watchdog=0.3, using=using) as world:
            kafka.send("t", value(0))
            world.await_names(0)
            assert world.source.standing().rebuilds == 1
    finally:
        hangs.set()


def test_it_ends_at_once_whatever_the_cluster_is_at() -> None:
    """A look, and a consumer, that hang keep nobody waiting for longer than a second."""
    kafka = cluster()
    hangs = threading.Event()

    class Hanging(MemoryCluster):
        def look(self, topics: Collection[str]) -> Sight:
            hangs.wait()
            return self.sight()

    try:
        with World(kafka, using=Tools(looks=Hanging, consumer=kafka.connect, hints=lambda: kafka)) as world:
            began = time.monotonic()
            world.source.stop()
            until(lambda: not any(thread.name == "source" for thread in threading.enumerate()), "the end", 1.0)
            assert time.monotonic() - began < 1.0
    finally:
        hangs.set()


def test_a_topic_that_may_not_be_read_keeps_no_other_waiting() -> None:
    """It is told of, tried again, and read when it is allowed."""
    kafka = cluster(1, "t", "other")
    kafka.forbidden.add("t")
    kafka.send("t", value(0))
    kafka.send("other", value("x"))
    with World(kafka, topics=("t", "other")) as world:
        world.await_trouble("kafka:kafka/t", "We may not read it")
        world.await_names("x")
        kafka.forbidden.clear()
        world.await_names("x", 0)
        world.await_health()


def test_records_that_cannot_be_read_keep_no_other_partition_waiting() -> None:
    """It is told of, tried again, and read on from where a person says."""
    kafka = cluster(2)
    kafka.odd.add(Place("t", 0))
    kafka.send("t", value(0), value(1))
    kafka.send("t", value("x"), partition=1)
    with World(kafka) as world:
        world.await_names("x")
        world.await_trouble("kafka:kafka/t/0", "It is packed oddly. It is tried again every 0.15 s")
        tries = len(kafka.consumers)
        until(lambda: len(kafka.consumers) > tries, "another try")
        kafka.send("t", value("y"), partition=1)
        world.await_names("x", "y")
        kafka.odd.clear()
        world.align("t", 1)
        world.await_names("x", "y", 1)
        world.await_health()


def test_what_cannot_be_looked_at_is_told_of() -> None:
    """A topic that is hidden from us, by the words of whoever looked."""
    kafka = cluster(1, "other")
    kafka.troubles["t"] = "We are not authorised to describe it."
    with World(kafka, topics=("t", "other")) as world:
        world.await_trouble("kafka:kafka/t", "not authorised to describe")


def test_a_journal_that_cannot_be_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of; nothing is lost."""
    monkeypatch.setattr(source, "TICK_SECONDS", 0.05)
    kafka = cluster()
    kafka.send("t", value(0))
    world = World(kafka)
    tries = itertools.count()
    real = world.source._cursor  # noqa: SLF001 - a reader that fails

    def cursor(name: str) -> int | None:
        if next(tries) < 3:
            raise JournalError("locked")
        return real(name)

    world.source._cursor = cursor  # noqa: SLF001 - as above
    with world:
        world.await_names(0)
        world.await_trouble("kafka:kafka", "locked")
        world.await_health()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_everything_comes_once(seed: int) -> None:
    """Producers, outages, restarts, full inboxes, lost answers and consumers that are left behind, at random."""
    chance = random.Random(seed)
    kafka = cluster(3)
    store, sent = None, 0
    for _ in range(4):
        high = chance.choice([3, 40, 4000])
        with World(kafka, store=store, watchdog=0.1, high_mark=high, low_mark=1, look_every=0.03) as world:
            store = world.store
            for _ in range(12):
                match chance.choice(["send", "send", "send", "mark", "forget", "down", "stall", "full", "rest"]):
                    case "send":
                        for _ in range(chance.choice([1, 30])):
                            kafka.send("t", value(sent), partition=chance.randrange(3))
                            sent += 1
                    case "mark":
                        kafka.mark("t", chance.randrange(3))
                    case "forget":
                        world.source.forget()
                    case "down":
                        kafka.down = not kafka.down
                    case "stall":
                        kafka.stalled = not kafka.stalled
                    case "full":
                        world.inbox.pause()
                    case _:
                        world.inbox.resume()
                time.sleep(chance.random() * 0.02)
    kafka.down = kafka.stalled = False
    with World(kafka, store=store, look_every=0.03) as world:
        world.await_names(*range(sent))
        assert world.loop.duplicates == 0
        assert len(world.positions) == 3
