"""What a broker does to a daemon that reads it: it is slow to be needed, killed, frozen, and another one's."""

import base64
import itertools
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from daemon.broker.access import Access
from daemon.core.events import DriftDetected, PositionSet
from daemon.door import Input
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.consumer import KafkaPython, connect
from daemon.sources.kafka.source import Tools, tools
from tests.acceptance.home import Home
from tests.brokers.cluster import Cluster
from tests.daemon.sources.kafka.cluster import until
from tests.daemon.sources.kafka.world import World, value

if TYPE_CHECKING:
    import subprocess

    from tests.brokers.broker import Broker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, broker: "Broker") -> Iterator[Cluster]:
    """Give a cluster that closes connections on which nothing has come for two seconds, to be killed and frozen."""
    with Cluster(tmp_path_factory.mktemp("impatient") / "n", settings={"connections.max.idle.ms": "2000"}) as cluster:
        yield cluster


def test_a_paused_consumer_goes_on_at_once(impatient: Cluster) -> None:
    """After a pause that is longer than every time-out: by the same connection, and no record is fetched twice."""
    topic = impatient.topic(prefix="paused")
    access = Access(bootstrap_servers=(impatient.address,), request_timeout=1.0)
    made: list[KafkaPython] = []
    batches: list[int] = []

    def consumer(cluster: str) -> KafkaPython:
        made.append(connect(access, cluster, refresh=0.2, idle_ms=2000, wait_ms=200))
        note_batches(made[-1], batches)
        return made[-1]

    plain = tools(KafkaSettings(bootstrap_servers=(impatient.address,), topics=(topic,)), access)
    using = Tools(looks=plain.looks, consumer=consumer, hints=plain.hints)
    world = World(topics=(topic,), using=using, high_mark=20, low_mark=0, look_every=0.5)
    gate, real = threading.Event(), world.loop.handle

    def handle(batch: list[Input]) -> None:
        if any(len(item.offers) > 1 for item in batch):
            assert gate.wait(30)
        real(batch)

    world.loop.handle = handle  # type: ignore[method-assign] # a loop that is busy
    with world:
        for first in range(0, 100, 10):
            impatient.produce(topic, *(value(n) for n in range(first, first + 10)))
        until(lambda: world.source.standing().paused, "a pause")
        connections = made[0]._client._manager._conns  # noqa: SLF001 - is it the same one afterwards?
        before = connections[1]
        came = len(batches)
        time.sleep(3.0)  # the subject is that time passes
        assert world.source.standing().paused
        assert len(batches) == came
        gate.set()
        began = time.monotonic()
        until(lambda: len(world.names) > 40, "more than what was in hand")
        assert time.monotonic() - began < 1.0
        world.await_names(*range(100))
        assert connections[1] is before
        assert before.connected
    assert len(made) == 1
    assert len(batches) == len(set(batches))


def note_batches(consumer: KafkaPython, batches: list[int]) -> None:
    """Note the first offset of every batch that a consumer fetches."""
    from kafka.record import MemoryRecords

    fetcher = consumer._consumer._fetcher  # noqa: SLF001 - what comes by the network
    real = fetcher._handle_fetch_response  # noqa: SLF001 - as above

    def handle(*arguments: Any) -> Any:  # noqa: ANN401 - the library's own
        for topic in arguments[-1].responses:
            for partition in topic.partitions:
                found = MemoryRecords(partition.records or b"")
                batches.extend(batch.base_offset for batch in iter(found.next_batch, None))
        return real(*arguments)

    fetcher._handle_fetch_response = handle  # noqa: SLF001 - as above


def test_an_outage_is_survived_and_a_stranger_is_not_read(home: Home, impatient: Cluster) -> None:
    """Killed with a producer at work: everything comes once. Frozen: the daemon stops all the same.

    And then the same address is another cluster's: nothing is read of it, though the topic has the same name.
    """
    from confluent_kafka import Producer

    topic = impatient.topic(3, prefix="killed")
    source = {"bootstrap_servers": [impatient.address], "topics": [topic], "look_every": 0.3, "request_timeout": 2.0}
    home.configure(http=True, kafka={**source, "dead_letters": False})
    options = {"bootstrap.servers": impatient.address, "enable.idempotence": True, "reconnect.backoff.max.ms": 200}
    producer = Producer(options)
    sent = itertools.count()
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.01):
            number = next(sent)
            producer.produce(topic, drift(number), partition=number % 3)
            producer.poll(0)

    thread = threading.Thread(target=produce)
    daemon = home.start()
    thread.start()
    try:
        home.wait(lambda: len(names(home)) > 20, "events")
        impatient.kill()
        home.wait(lambda: "kafka:kafka" in home.get("/readyz?verbose")[1], "the trouble")
        assert home.get("/readyz")[0] == 200
        impatient.start()
        came = len(names(home))
        home.wait(lambda: len(names(home)) > came + 20, "more events")
    finally:
        stop.set()
        thread.join()
    assert producer.flush(20) == 0
    wanted = next(sent)
    home.wait(lambda: len(names(home)) >= wanted, f"{wanted} events")
    assert sorted(map(int, names(home))) == list(range(wanted))
    home.wait(lambda: "kafka:kafka" not in home.get("/readyz?verbose")[1], "health")
    impatient.freeze()
    try:
        assert seconds_to_stop(home, daemon) < 3.0
    finally:
        impatient.thaw()
    replace(impatient, topic)
    home.start()
    home.wait(lambda: "belong to the cluster" in home.get("/readyz?verbose")[1], "the trouble")
    assert len(names(home)) == wanted
    assert len(home.events(PositionSet)) == 3


def drift(name: object) -> bytes:
    """Return an event that starts no run."""
    data = {"metric": f"{name}", "value": 1.0}
    return json.dumps({"type": "drift.detected", "subject": "one", "data": data}).encode()


def names(home: Home) -> list[str]:
    """Return the names of the events that came."""
    return [each.metric for each in home.events(DriftDetected)]


def seconds_to_stop(home: Home, daemon: "subprocess.Popen[str]") -> float:
    """Return how long a daemon takes to end in order."""
    began = time.monotonic()
    assert home.stop(daemon) == 0
    return time.monotonic() - began


def replace(cluster: Cluster, topic: str) -> None:
    """Let another cluster have the address, with a topic of the same name and records beyond where the first stood."""
    cluster.kill()
    (node,) = cluster.nodes
    shutil.rmtree(node.folder / "data")
    node.format(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
    cluster.start()
    cluster.create(topic, 3)
    for partition in range(3):
        cluster.produce(topic, *(drift(f"other {n}") for n in range(200)), partition=partition)
