"""What every consumer does that the source reads by: the one in memory, and kafka-python's on a real broker."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

from daemon.broker.access import Access
from daemon.broker.look import AdminLooks
from daemon.broker.sight import Sight
from daemon.core.errors import BrokerError
from daemon.sources.kafka.consumer import Consumer, Fault, Haul, connect
from daemon.sources.kafka.judge import Place, Start
from tests.daemon.sources.kafka.cluster import MemoryCluster, until

if TYPE_CHECKING:
    from tests.brokers.broker import Broker


class Rig(Protocol):
    """A cluster with two topics, a and b, of two partitions each."""

    names: dict[str, str]

    def connect(self) -> Consumer:
        """Return a consumer."""

    def sight(self) -> Sight:
        """Look at the topics."""

    def send(self, topic: str, *values: bytes, partition: int = 0) -> None:
        """Write records."""

    def mark(self, topic: str) -> None:
        """Write offsets without a record into partition 0."""

    def trim(self, topic: str, before: int) -> None:
        """Remove the records of partition 0 before an offset."""

    def create_again(self, topic: str) -> None:
        """Delete a topic and create it."""


class MemoryRig:
    """A cluster in memory."""

    def __init__(self) -> None:
        self.names = {"a": "a", "b": "b"}
        self._cluster = MemoryCluster()
        for name in self.names:
            self._cluster.create(name, 2)
        self.sight = self._cluster.sight
        self.send = self._cluster.send
        self.mark = self._cluster.mark
        self.trim = self._cluster.trim

    def connect(self) -> Consumer:
        """Return a consumer."""
        return self._cluster.connect("C")

    def create_again(self, topic: str) -> None:
        """Delete a topic and create it."""
        self._cluster.delete(topic)
        self._cluster.create(topic, 2)


class BrokerRig:
    """Topics of a real broker."""

    def __init__(self, broker: "Broker") -> None:
        self.names = {name: broker.topic(2, prefix=f"consumer-{name}") for name in ("a", "b")}
        self._broker = broker
        self._access = Access(bootstrap_servers=(broker.address,), request_timeout=10.0)

    def connect(self) -> Consumer:
        """Return a consumer."""
        return connect(self._access, self.sight().cluster)

    def sight(self) -> Sight:
        """Look at the topics."""
        looks = AdminLooks(self._access)
        try:
            return looks.look(self.names.values())
        finally:
            looks.close()

    def send(self, topic: str, *values: bytes, partition: int = 0) -> None:
        """Write records."""
        self._broker.produce(topic, *values, partition=partition)

    def mark(self, topic: str) -> None:
        """Write offsets without a record: a transaction that is aborted, with its marker."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._broker.address, "transactional.id": f"{topic}-mark"})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"aborted", partition=0)
        producer.flush(20)
        producer.abort_transaction(20)

    def trim(self, topic: str, before: int) -> None:
        """Remove the records of partition 0 before an offset."""
        from kafka import TopicPartition

        with self._broker.admin() as admin:
            admin.delete_records({TopicPartition(topic, 0): before})

    def create_again(self, topic: str) -> None:
        """Delete a topic and create it."""
        self._broker.delete(topic)
        self._broker.create(topic, 2)


@pytest.fixture(params=["memory", "broker"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Give a cluster."""
    return MemoryRig() if request.param == "memory" else BrokerRig(request.getfixturevalue("broker"))


@pytest.fixture
def consumer(rig: Rig) -> Iterator[Consumer]:
    """Give a consumer of it."""
    made = rig.connect()
    yield made
    made.close()


def read(consumer: Consumer, rig: Rig, seeks: dict[Place, int], *others: Place) -> None:
    """Let a consumer read places from these positions, and others from where they are."""
    ids = {name: topic.topic_id for name, topic in rig.sight().topics.items()}
    places = {
        place: Start(cursor=f"{place}", topic_id=ids[place.topic], offset=seeks.get(place, 0))
        for place in (*seeks, *others)
    }
    consumer.read(places, seeks)


def collect(consumer: Consumer, done: Callable[[Haul], bool], most: int = 500, seconds: float = 20.0) -> list[Haul]:
    """Poll until a haul is the one that is waited for; return all of them."""
    hauls: list[Haul] = []
    deadline = time.monotonic() + seconds
    while not hauls or not done(hauls[-1]):
        assert time.monotonic() < deadline, f"in vain: {hauls[-3:]}"
        hauls.append(consumer.poll(0.2, most))
    return hauls


def brought(hauls: list[Haul]) -> dict[Place, list[tuple[int, bytes | None]]]:
    """Return what hauls have brought."""
    found: dict[Place, list[tuple[int, bytes | None]]] = {}
    for haul in hauls:
        for place, messages in haul.records.items():
            found.setdefault(place, []).extend((each.offset, each.value) for each in messages)
    return found


def test_it_brings_what_is_there_in_order_and_no_more_than_is_wanted(rig: Rig, consumer: Consumer) -> None:
    """From the given position on."""
    place = Place(rig.names["a"], 0)
    rig.send(place.topic, *(b"%d" % n for n in range(10)))
    read(consumer, rig, {place: 3})
    hauls = collect(consumer, lambda haul: any(m[-1].offset == 9 for m in haul.records.values()), most=4)
    assert brought(hauls) == {place: [(n, b"%d" % n) for n in range(3, 10)]}
    assert max(sum(len(each) for each in haul.records.values()) for haul in hauls) <= 4


def test_it_returns_as_soon_as_something_comes(rig: Rig, consumer: Consumer) -> None:
    """Not at the end of the time that it may take."""
    place = Place(rig.names["a"], 0)
    read(consumer, rig, {place: 0})
    consumer.poll(0.3, 1)
    threading.Timer(0.3, rig.send, (place.topic, b"x")).start()
    began = time.monotonic()
    while not (haul := consumer.poll(5.0, 1)).records:
        assert time.monotonic() - began < 20
    assert time.monotonic() - began < 3.0
    assert brought([haul]) == {place: [(0, b"x")]}


def test_those_that_stay_go_on_where_they_were(rig: Rig, consumer: Consumer) -> None:
    """Another place comes and one goes; a seek moves one of them back."""
    first, second = Place(rig.names["a"], 0), Place(rig.names["b"], 1)
    rig.send(first.topic, b"0", b"1")
    rig.send(second.topic, b"x", partition=1)
    read(consumer, rig, {first: 0})
    collect(consumer, lambda haul: any(m[-1].offset == 1 for m in haul.records.values()))
    read(consumer, rig, {second: 0}, first)
    assert brought(collect(consumer, lambda haul: bool(haul.records))) == {second: [(0, b"x")]}
    read(consumer, rig, {first: 1})
    rig.send(second.topic, b"y", partition=1)
    assert brought(collect(consumer, lambda haul: bool(haul.records))) == {first: [(1, b"1")]}
    assert not consumer.poll(0.2, 10).records


def test_offsets_without_a_record_are_passed(rig: Rig, consumer: Consumer) -> None:
    """They are told when nothing else has come, once."""
    place = Place(rig.names["a"], 0)
    rig.send(place.topic, b"0")
    rig.mark(place.topic)
    read(consumer, rig, {place: 0})
    hauls = collect(consumer, lambda haul: haul.passed.get(place, 0) > 1)
    assert hauls[-1].passed == {place: rig.sight().topics[place.topic].partitions[0].end}
    assert brought(hauls) == {place: [(0, b"0")]}
    assert consumer.poll(0.2, 10) == Haul()


def test_a_position_that_is_gone_keeps_no_other_place_waiting(rig: Rig, consumer: Consumer) -> None:
    """It is told; the rest goes on."""
    gone, other = Place(rig.names["a"], 0), Place(rig.names["b"], 0)
    rig.send(gone.topic, b"0", b"1", b"2")
    rig.trim(gone.topic, 2)
    read(consumer, rig, {gone: 0, other: 0})
    hauls = collect(consumer, lambda haul: haul.fault is not None)
    assert hauls[-1].fault == Fault(what="out_of_range", places=frozenset({gone}))
    rig.send(other.topic, b"x")
    read(consumer, rig, {}, other)
    assert brought(collect(consumer, lambda haul: bool(haul.records))) == {other: [(0, b"x")]}


def test_another_topic_of_the_same_name_is_not_taken_for_it(rig: Rig, consumer: Consumer) -> None:
    """It was created again while nobody fetched, and has a record at the very position: none of it is brought."""
    place, other = Place(rig.names["a"], 0), Place(rig.names["b"], 0)
    rig.send(place.topic, b"0", b"1")
    read(consumer, rig, {place: 0, other: 0})
    collect(consumer, lambda haul: any(m[-1].offset == 1 for m in haul.records.values()))
    rig.create_again(place.topic)
    rig.send(place.topic, *(b"new %d" % n for n in range(5)))
    rig.send(other.topic, b"x")
    hauls = collect(consumer, lambda haul: haul.fault is not None)
    assert hauls[-1].fault is not None
    assert hauls[-1].fault.what == "changed"
    assert hauls[-1].fault.places == {place}
    read(consumer, rig, {}, other)
    if not brought(hauls):
        hauls += collect(consumer, lambda haul: bool(haul.records))
    assert brought(hauls) == {other: [(0, b"x")]}


def test_whoever_waits_in_it_is_let_go_when_it_is_aborted(rig: Rig, consumer: Consumer) -> None:
    """With an error, at once."""
    read(consumer, rig, {Place(rig.names["a"], 0): 0})
    errors = []

    def wait() -> None:
        try:
            while True:
                consumer.poll(30.0, 1)
        except BrokerError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    consumer.abort()
    until(lambda: errors, "an error")
    thread.join()


def test_nobody_there_is_an_error_in_time() -> None:
    """It says where nobody answered."""
    began = time.monotonic()
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 "):
        connect(Access(bootstrap_servers=("127.0.0.1:1",), request_timeout=1.0), "C")
    assert time.monotonic() - began < 3.0
