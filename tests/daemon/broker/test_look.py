"""Looking at a real cluster: what is seen, how long it takes when nobody answers, and what comes after."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer, TopicPartition
from msgspec.structs import replace

from daemon.broker.access import Access
from daemon.broker.client import arguments
from daemon.broker.look import AdminLooks
from daemon.broker.sight import Extent, Sight
from daemon.core.errors import BrokerError
from tests.brokers.secured import USER

if TYPE_CHECKING:
    from tests.brokers.broker import Broker
    from tests.brokers.cluster import Cluster
    from tests.daemon.broker.conftest import Secured


@pytest.fixture
def looks(broker: "Broker") -> Iterator[AdminLooks]:
    """Give looks at the cluster that everyone has."""
    it = AdminLooks(access(broker))
    yield it
    it.close()


def access(broker: "Broker", timeout: float = 10.0) -> Access:
    """Return how a cluster is reached."""
    return Access(bootstrap_servers=tuple(broker.address.split(",")), request_timeout=timeout)


def until(found: Callable[[], bool]) -> None:
    """Return when it is so, within ten seconds."""
    deadline = time.monotonic() + 10
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sight_has_each_partitions_extent(broker: "Broker", looks: AdminLooks) -> None:
    """Begin and end of every partition are seen; a topic that does not exist is not in it, and is no trouble."""
    topic = broker.topic(partitions=2)
    broker.produce(topic, "a", "b", partition=1)
    with broker.admin() as admin:
        admin.delete_records({TopicPartition(topic, 1): 1})
        cluster = admin.describe_cluster()["cluster_id"]
        topic_id = admin.describe_topics([topic])[0]["topic_id"]
    sight = looks.look([topic, "not-there"])
    assert (sight.cluster, sight.troubles, list(sight.topics)) == (cluster, {}, [topic])
    assert sight.topics[topic].topic_id == topic_id
    assert sight.topics[topic].partitions == {0: Extent(begin=0, end=0), 1: Extent(begin=1, end=2)}


def test_an_end_is_that_of_committed_records(broker: "Broker", looks: AdminLooks) -> None:
    """Records of a transaction that is open lie beyond the end; committed, they and the mark lie before it."""
    topic = broker.topic()
    producer = KafkaProducer(**arguments(access(broker)), transactional_id=topic)
    try:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"held").get(timeout=10)
        assert looks.look([topic]).topics[topic].partitions[0] == Extent(begin=0, end=0)
        producer.commit_transaction()
    finally:
        producer.close()
    until(lambda: looks.look([topic]).topics[topic].partitions[0] == Extent(begin=0, end=2))


def test_changes_are_seen(broker: "Broker", looks: AdminLooks) -> None:
    """New partitions are seen, a deleted topic is not, and one that is created again has another id."""
    topic = broker.topic()
    first = looks.look([topic]).topics[topic]
    broker.grow(topic, 2)
    until(lambda: list(looks.look([topic]).topics[topic].partitions) == [0, 1])
    broker.delete(topic)
    assert looks.look([topic]).topics == {}
    broker.create(topic)
    until(lambda: topic in looks.look([topic]).topics)
    assert looks.look([topic]).topics[topic].topic_id != first.topic_id


def test_without_topics_the_cluster_is_seen(broker: "Broker", looks: AdminLooks) -> None:
    """Whoever asks for no topic learns which cluster it is, and not all of its topics."""
    broker.topic()
    sight = looks.look([])
    assert sight.cluster
    assert sight.topics == {}


def test_a_topic_that_we_may_not_see_is_a_trouble(secured: "Secured") -> None:
    """It is told apart from one that does not exist, with what to allow; the others are seen."""
    allowed, barred = secured.cluster.topic(), secured.cluster.topic()
    secured.cluster.allow(allowed, USER, "DESCRIBE")
    it = AdminLooks(secured.scram)
    try:
        until(lambda: allowed in it.look([allowed]).topics)
        sight = it.look([allowed, barred])
    finally:
        it.close()
    assert list(sight.topics) == [allowed]
    assert sight.topics[allowed].partitions == {0: Extent(begin=0, end=0)}
    assert "allow our user Describe on it, and Read or Write" in sight.troubles[barred]


def test_secrets_are_read_anew_after_a_failure(secured: "Secured", tmp_path: Path) -> None:
    """A password that was wrong is mended without starting anything again."""
    path = tmp_path / "password"
    path.write_text("not-yet", encoding="utf-8")
    it = AdminLooks(replace(secured.scram, password_file=path))
    with pytest.raises(BrokerError, match=f"it refused the user {USER}"):
        it.look([])
    path.write_bytes((secured.folder / "password").read_bytes())
    assert it.look([]).cluster
    it.close()


def test_nobody_answers_and_then_somebody_does(own_broker: "Cluster") -> None:
    """A frozen or a dead cluster is a BrokerError within the time-out; later looks see the same as before."""
    topic = own_broker.topic()
    own_broker.produce(topic, "kept")
    it = AdminLooks(access(own_broker, timeout=1.0))
    before = it.look([topic])
    assert before.topics[topic].partitions == {0: Extent(begin=0, end=1)}

    own_broker.freeze()
    for _ in range(2):  # on the connection that was there, then on a new one
        begun = time.monotonic()
        with pytest.raises(BrokerError, match="it did not answer within 1 s"):
            it.look([topic])
        assert time.monotonic() - begun < 1.5
    own_broker.thaw()
    assert seen(it, topic) == before

    own_broker.kill()
    begun = time.monotonic()
    with pytest.raises(BrokerError, match="the connection is refused"):
        it.look([topic])
    assert time.monotonic() - begun < 1.5
    own_broker.start()
    assert seen(it, topic) == before
    it.close()


def seen(looks: AdminLooks, topic: str) -> Sight:
    """Return the first sight with the topic's partitions, within ten seconds: a node that comes back needs a while."""
    deadline = time.monotonic() + 10
    while True:
        try:
            sight = looks.look([topic])
            if topic in sight.topics and sight.topics[topic].partitions:
                return sight
        except BrokerError:
            pass
        assert time.monotonic() < deadline
