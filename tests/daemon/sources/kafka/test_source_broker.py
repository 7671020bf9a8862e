"""The source on a real broker: what only one can show."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from daemon.broker.access import Access
from daemon.broker.look import AdminLooks
from daemon.broker.sight import Sight
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.source import tools
from tests.daemon.sources.kafka.cluster import until
from tests.daemon.sources.kafka.world import World, value

if TYPE_CHECKING:
    from tests.brokers.broker import Broker

Make = Callable[..., World]


@pytest.fixture
def make(broker: "Broker") -> Make:
    """Make worlds on the broker that everyone has."""
    access = Access(bootstrap_servers=(broker.address,), request_timeout=10.0)

    def made(*topics: str, **options: Any) -> World:  # noqa: ANN401 - a world's own
        settings = KafkaSettings(bootstrap_servers=(broker.address,), topics=topics, group_id=f"{topics[0]}-group")
        given = {"using": tools(settings, access), "sight": lambda: look(access, *topics), "look_every": 0.2, **options}
        return World(topics=topics, **given)

    return made


def look(access: Access, *topics: str) -> Sight:
    """Return what is to be seen of topics."""
    looks = AdminLooks(access)
    try:
        return looks.look(topics)
    finally:
        looks.close()


def test_topics_come_and_grow_and_are_created_again(broker: "Broker", make: Make) -> None:
    """One that is missing, one that gets a partition, and one that is deleted and created again, with more records."""
    grows, other = broker.topic(prefix="source"), broker.topic(prefix="source")
    missing = f"{grows}-missing"
    broker.produce(grows, value(0))
    with make(grows, other, missing) as world:
        world.await_names(0)
        world.await_trouble(f"kafka:kafka/{missing}", "There is no topic")
        broker.create(missing)
        broker.grow(grows, 2)
        broker.produce(missing, value(1))
        broker.produce(grows, value(2), partition=1)
        world.await_names(0, 1, 2)
        world.await_health()
        broker.delete(missing)
        broker.create(missing)
        broker.produce(missing, *(value(f"new {n}") for n in range(5)))
        world.await_trouble(f"kafka:kafka/{missing}", "created again")
        broker.produce(other, value(3))
        world.await_names(0, 1, 2, 3)
    with make(grows, other, missing, store=world.store) as second:
        second.await_trouble(f"kafka:kafka/{missing}", "created again")
        second.align(missing, 4)
        second.await_names(0, 1, 2, 3, "new 4")
        second.await_health()
        assert second.loop.duplicates == 0


def test_records_that_were_removed_unread_wait_for_a_person(broker: "Broker", make: Make) -> None:
    """Retention was quicker: how much is gone is told, and aligning heals."""
    from kafka import TopicPartition

    topic = broker.topic(prefix="source")
    with make(topic) as world:
        broker.produce(topic, value(0))
        world.await_names(0)
        world.inbox.pause()
        broker.produce(topic, *(value(n) for n in range(1, 9)))
    broker.produce(topic, value(9))
    with broker.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 7})
    with make(topic, store=world.store) as second:
        second.await_trouble(f"kafka:kafka/{topic}/0", "first record that is left is 7: 6 offsets were removed unread")
        second.align(topic, 7)
        second.await_names(0, 7, 8, 9)
        second.await_health()


def test_transactions_are_read_when_they_are_committed(broker: "Broker", make: Make) -> None:
    """Aborted ones never, open ones not yet; the journal passes their markers, and a group's offsets tell of it."""
    from confluent_kafka import Producer
    from kafka import TopicPartition

    topic = broker.topic(prefix="source")
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": f"{topic}-tx"})
    producer.init_transactions(20)
    with make(topic) as world:
        for name, ends in (("a", True), ("b", False), ("c", True)):
            producer.begin_transaction()
            producer.produce(topic, value(name), partition=0)
            producer.flush(20)
            assert name not in world.names
            (producer.commit_transaction if ends else producer.abort_transaction)(20)
        world.await_names("a", "c")
        until(lambda: (report := world.report(topic)) is not None and (report.position, report.lag) == (6, 0), "no lag")
        place = TopicPartition(topic, 0)
        with broker.admin() as admin:

            def hinted() -> bool:
                offsets = admin.list_group_offsets({f"{topic}-group": [place]})
                return any("offset=6" in repr(each) for each in offsets.values())

            until(hinted, "the group's offset")


def test_a_compression_that_is_not_read_here_keeps_no_other_partition_waiting(broker: "Broker", make: Make) -> None:
    """Snappy: it is told by its name, and the records behind it are read when a person says so."""
    from confluent_kafka import Producer

    topic = broker.topic(2, prefix="source")
    producer = Producer({"bootstrap.servers": broker.address, "compression.type": "snappy"})
    for _ in range(9):
        producer.produce(topic, value("packed") * 9, partition=0)
    producer.flush(20)
    with make(topic, look_every=0.5) as world:
        world.await_trouble(f"kafka:kafka/{topic}/0", "snappy")
        broker.produce(topic, value(0), partition=1)
        broker.produce(topic, value(1), partition=0)
        world.await_names(0)
        world.align(topic, 9)
        world.await_names(0, 1)
