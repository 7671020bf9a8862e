"""A topic of a real cluster: what arrives there, who may write, and what is said when nobody can."""

import json
import socket
import threading
import time
from collections.abc import Sequence

import pytest
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    PolicyViolationError,
    ProducerFencedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from msgspec.structs import replace

from daemon.broker.access import Access
from daemon.core.errors import BrokerError
from ops.publishing.build import publishers
from ops.publishing.messages import Message
from ops.publishing.publisher import Publisher
from ops.publishing.sink import AFTER_CURSOR, KafkaSink
from ops.publishing.topic import Topic
from tests.brokers.broker import Broker
from tests.ops.publishing.world import Bench

JOURNAL = "journal"


def access(address: str, request_timeout: float = 10.0) -> Access:
    """Return how a cluster is reached."""
    return Access(bootstrap_servers=tuple(address.split(",")), request_timeout=request_timeout)


def topic(address: str, name: str, *, request_timeout: float = 10.0) -> Topic:
    """Return a topic under a cursor of its own."""
    given = access(address, request_timeout)
    return Topic(access=given, topic=name, name=f"{name}.main.dlq", boundary=lambda _name: None)


def opened(broker: Broker, name: str) -> KafkaSink:
    """Open a topic for the journal."""
    return topic(broker.address, name).open(JOURNAL, (), threading.Event())


def messages(*positions: int, key: bytes | None = None) -> list[Message]:
    """Return messages of these positions."""
    return [Message(position=at, timestamp=now(), value=str(at).encode(), key=key, partition=at) for at in positions]


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def follower(bench: Bench, broker: Broker, group: str, dead_letters: str) -> Publisher:
    """Return a follower of the bench's journal as the daemon has it, with its cursor taken up."""
    (made,) = publishers(
        source="main",
        group=group,
        access=access(broker.address),
        dead_letters=dead_letters,
        transitions=None,
        state=bench.state,
        reader=bench.journal.reader,
        boundary=lambda _name: None,
    )
    assert isinstance(made, Publisher)
    made.begin()
    return made


def drain(made: Publisher) -> None:
    """Tell all that there is to tell, and let go of the cluster."""
    while made.step() is not None:
        pass
    made.stop()
    made.run()


def values(records: Sequence[object]) -> list[object]:
    """Return the values of records."""
    return [getattr(record, "value") for record in records]  # noqa: B009 - the library ships no types


def test_a_dead_letter_as_a_consumer_sees_it(bench: Bench, broker: Broker) -> None:
    """The topic is made, and has what came, as it came, with the reasons in the headers, once over several daemons."""
    group = f"group-{now()}"
    name = f"{group}.dlq"
    at = now() - 5000
    bench.letter(7, key=b"k", headers=(("h", b"1"), ("none", None)), timestamp=at)
    bench.letter(8, text=None, key=b"k", timestamp=at)
    drain(follower(bench, broker, group, name))
    bench.letter(9, text=None, timestamp=None)
    drain(follower(bench, broker, group, name))
    first, second, third = broker.read(name, 3)
    assert (first.key, first.value, first.timestamp) == (b"k", b"{broken", at)
    headers = dict(first.headers)
    assert (headers["h"], headers["none"]) == (b"1", b"")
    assert headers["__connect.errors.offset"] == b"7"
    assert headers["rewarm.errors.id"] == f"{bench.journal.identity()}/1".encode()
    assert (second.key, second.value) == (b"k", None)
    assert (third.key, third.value) == (None, b"")


def test_a_transition_as_a_consumer_sees_it(bench: Bench, broker: Broker) -> None:
    """A CloudEvent in structured mode, told from when there was a follower on."""
    name = broker.topic(prefix="transitions")
    bench.held()
    made = publishers(
        source="main",
        group=name,
        access=access(broker.address),
        dead_letters=None,
        transitions=(name, ["run.held"]),
        state=bench.state,
        reader=bench.journal.reader,
        boundary=lambda _name: None,
    )
    assert [type(each) for each in made] == [Publisher]
    made[0].begin()
    told = bench.held()
    assert isinstance(made[0], Publisher)
    drain(made[0])
    (record,) = broker.read(name, 1)
    event = json.loads(record.value)
    assert event["id"] == f"{bench.journal.identity()}/{told.position}"
    assert event["type"] == "io.rewarm.run.held.v1"
    assert dict(record.headers)["content-type"].startswith(b"application/cloudevents+json")


def test_the_brokers_limits_hold_nobody_up(bench: Bench, broker: Broker) -> None:
    """Too large for the topic, or of a time that it does not take: these are told in another form, the others whole."""
    name = broker.topic(prefix="limited", max_message_bytes="4000")
    for text in (b"a", b"b" * 5000, b"c"):
        bench.letter(text=text, timestamp=now())
    late = now() + 86_400_000
    bench.letter(text=b"d", timestamp=late)
    drain(follower(bench, broker, name, name))
    found = broker.read(name, 4)
    assert values(found) == [b"a", b"", b"c", b"d"]
    assert dict(found[1].headers)["rewarm.errors.note"].startswith(b"without its value of 5000 bytes")
    assert found[3].timestamp < late
    assert dict(found[3].headers)["rewarm.errors.timestamp"] == str(late).encode()


def test_keys_choose_partitions(broker: Broker) -> None:
    """The same key goes to the same partition with every writer; without one it is the partition that it came from."""
    name = broker.topic(partitions=3)
    for positions in ((1, 2), (3, 4), (5, 6)):
        sink = opened(broker, name)
        sink.tell([*messages(*positions), *messages(*positions, key=b"k")], positions[-1])
        sink.close()
    found = broker.read(name, 12)
    assert len({record.partition for record in found if record.key}) == 1
    assert all(record.partition == int(record.value) % 3 for record in found if record.key is None)


def test_the_cursor_moves_with_the_messages(broker: Broker) -> None:
    """Who opens the topic next knows how far it was told of each journal; a cursor may move without a message."""
    name = broker.topic()
    sink = opened(broker, name)
    assert sink.cursors == {}
    sink.tell(messages(3, 4), 4)
    sink.tell([], 9)
    sink.close()
    sink = topic(broker.address, name).open("restored", (JOURNAL, "unknown"), threading.Event())
    assert sink.cursors == {JOURNAL: 9}
    sink.close()


def test_who_opens_a_topic_fences_who_had_it(broker: Broker) -> None:
    """The former one's open transaction is undone, and nothing that it does afterwards can be seen."""
    name = broker.topic()
    boundaries: list[str] = []

    def pass_by(boundary: str) -> None:
        boundaries.append(boundary)
        if boundary == AFTER_CURSOR and boundaries.count(boundary) == 2:
            raise Died

    old = replace(topic(broker.address, name), boundary=pass_by).open(JOURNAL, (), threading.Event())
    old.tell(messages(1), 1)
    with pytest.raises(Died):
        old.tell(messages(2), 2)
    new = opened(broker, name)
    assert new.cursors == {JOURNAL: 1}
    new.tell(messages(2), 2)
    with pytest.raises(BrokerError):
        old.tell(messages(2), 2)
    old.close()
    new.tell(messages(3), 3)
    new.close()
    assert values(broker.read(name, 3)) == [b"1", b"2", b"3"]


class Died(Exception):
    """Stands for the end of a process."""


class Refusing:
    """An admin client of a cluster that has no such topic, and lets us do nothing."""

    error: Exception = KafkaError()

    def __init__(self, **configuration: object) -> None:
        """Connect to nobody."""

    def describe_topics(self, topics: list[str]) -> list[dict[str, object]]:
        """Say that there is none."""
        return [{"name": topics[0], "error_code": UnknownTopicOrPartitionError.errno}]

    def create_topics(self, topics: dict[str, object], *, wait_for_metadata: bool) -> None:
        """Refuse."""
        raise self.error

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (TopicAuthorizationFailedError("t"), r"making it failed: .* Make it, or allow Create and Describe on it\."),
        (PolicyViolationError("too few copies"), r"too few copies\. Make it, or allow"),
        (KafkaTimeoutError("timed out"), r"Topic t at 127\.0\.0\.1:9 cannot be told: it did not answer within 10 s\."),
    ],
)
def test_a_topic_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str) -> None:
    """It says why, and what to do."""
    monkeypatch.setattr("ops.publishing.topic.KafkaAdminClient", Refusing)
    monkeypatch.setattr(Refusing, "error", error)
    with pytest.raises(BrokerError, match=advice):
        topic("127.0.0.1:9", "t").open(JOURNAL, (), threading.Event())


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            TransactionalIdAuthorizationFailedError(),
            r"Describe and Write on transactional ids that begin with t\.main\.dlq",
        ),
        (GroupAuthorizationFailedError(), r"Describe and Read on groups that begin with t\.main\.dlq"),
        (TopicAuthorizationFailedError(), r"Describe and Write on topic t\."),
        (ProducerFencedError(), "not ours to tell"),
    ],
)
def test_what_we_are_not_allowed(monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str) -> None:
    """Each missing permission is named as an access control list has it."""

    def refuse(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("ops.publishing.topic.KafkaAdminClient", Refusing)
    monkeypatch.setattr(Refusing, "describe_topics", refuse)
    with pytest.raises(BrokerError, match=advice):
        topic("127.0.0.1:9", "t").open(JOURNAL, (), threading.Event())


def test_a_name_that_no_topic_can_have(broker: Broker) -> None:
    """It is told at once."""
    with pytest.raises(BrokerError, match=r"Topic \.\. at .* cannot be told: .*InvalidTopicError"):
        opened(broker, "..")


def test_a_cluster_that_is_not_there() -> None:
    """The addresses are named, and no thread stays behind."""
    before = threading.active_count()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port}"):
        topic(f"127.0.0.1:{port}", "t", request_timeout=0.5).open(JOURNAL, (), threading.Event())
    assert threading.active_count() == before
