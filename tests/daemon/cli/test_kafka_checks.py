"""What the doctor finds at a real cluster."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import confluent_kafka
import pytest
from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError

from daemon.cli.checks import Check
from daemon.cli.cluster import Desk
from daemon.cli.kafka_checks import MOST_PARTITIONS, kafka_checks
from daemon.config import load
from daemon.core.errors import BrokerError
from daemon.core.events import Position
from daemon.core.state import State

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

    from daemon.config import Configuration
    from tests.brokers.broker import Broker
    from tests.daemon.cli.conftest import Chronicle, Command

Listen = Callable[..., "Configuration"]
NOBODY = "127.0.0.1:1"


def found(configuration: "Configuration") -> list[Check]:
    """Return what is found before anything was read."""
    return kafka_checks(configuration, State(), lambda _name: None)


def told(checks: list[Check], level: str) -> str:
    """Return the messages and advice of one level, a line each."""
    return "\n".join(f"{check.message} → {check.advice}" for check in checks if check.level == level)


def test_a_cluster_that_answers_is_well(
    rewarm: "Command", chronicle: "Chronicle", broker: "Broker", listen: Listen
) -> None:
    """How fast it answers, and how far behind each partition is; a topic to write to that is missing is a note."""
    topic = broker.topic(partitions=2)
    broker.produce(topic, "a", "b", "c", partition=0)
    broker.produce(topic, "d", partition=1)
    group = f"g-{os.getpid()}-{topic}"
    listen(broker.address, topic, rest=f", group_id: {group}")
    with broker.admin() as admin:
        cluster = admin.describe_cluster()["cluster_id"]
        topic_id = str(admin.describe_topics([topic])[0]["topic_id"])
    chronicle.read(Position(source="kafka", cluster=cluster, topic=topic, topic_id=topic_id, partition=0, offset=1))

    code, out, _ = rewarm("doctor")

    text = " ".join(out.split())
    assert code == 0
    assert f"kafka kafka cluster {cluster} at {broker.address} answers in " in text
    assert f"{topic}: 2 partitions, 3 records behind: 2 in 0, 1 in 1" in text
    assert f"{group}.dlq, which rewarm writes to, is not there yet" in text
    assert "subscribe" not in text


def test_what_is_not_read_is_a_fault(
    rewarm: "Command", chronicle: "Chronicle", broker: "Broker", listen: Listen
) -> None:
    """A missing topic and a position out of range, with what to do; the rest is looked at all the same."""
    topic, well, half = broker.topic(), broker.topic(), broker.topic(partitions=2)
    broker.produce(topic, "a", "b")
    listen(broker.address, topic, well, half, "not.there", rest=", dead_letters: false")
    with broker.admin() as admin:
        cluster = admin.describe_cluster()["cluster_id"]
        ids = {name: str(admin.describe_topics([name])[0]["topic_id"]) for name in (topic, half)}
    for name, topic_id in ids.items():
        at = Position(source="kafka", cluster=cluster, topic=name, topic_id=topic_id, partition=0, offset=5)
        chronicle.read(at)

    code, out, _ = rewarm("doctor")

    text = " ".join(out.split())
    assert code == 1
    assert f"rewarm align --set kafka/{topic}/0=beginning" in text
    assert "There is no topic not.there" in text
    assert f"{well}: 1 partition, 0 records behind" in text
    assert f"{half}: 1 of 2 partitions read, 0 records behind" in text


def test_a_cluster_that_does_not_answer_is_a_fault(listen: Listen) -> None:
    """With the address, and nothing else is asked of it."""
    checks = found(listen(NOBODY, "events"))
    assert [check.level for check in checks] == ["wrong"]
    assert f"The Kafka cluster at {NOBODY} cannot be used" in told(checks, "wrong")


@pytest.mark.parametrize(("protocol", "who"), [("classic", "theirs at"), ("consumer", "a group of type consumer")])
def test_others_with_our_group_are_noted(broker: "Broker", listen: Listen, protocol: str, who: str) -> None:
    """Whoever subscribes with the group_id is told, by either protocol of groups, with what follows."""
    topic = broker.topic()
    group = f"shared-{topic}"
    configuration = listen(broker.address, topic, rest=f", group_id: {group}")
    settings = {"bootstrap.servers": broker.address, "group.id": group, "client.id": "theirs"}
    consumer = confluent_kafka.Consumer({**settings, "group.protocol": protocol})
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + 30
        while not consumer.assignment():
            assert time.monotonic() < deadline
            consumer.poll(0.05)
        notes = told(found(configuration), "note")
    finally:
        consumer.close()
    assert f"1 other subscribes with group_id '{group}' ({who}" in notes
    assert "give this source a group_id of its own" in notes
    assert "subscribes" not in told(found(configuration), "note"), "they are gone"


def test_a_young_cluster_has_no_groups_yet() -> None:
    """It makes its coordinators when it is asked for the first one: that is no fault, and nobody subscribes."""

    class Young:
        def describe_groups(self, _groups: list[str]) -> NoReturn:
            raise CoordinatorNotAvailableError("FindCoordinatorResponse error")

    assert Desk(cast("KafkaAdminClient", Young())).members("rewarm") == []


def test_a_group_that_we_may_not_see_is_no_fault_of_the_cluster() -> None:
    """Only that is told, with the right that is missing."""

    class Closed:
        def describe_groups(self, _groups: list[str]) -> NoReturn:
            raise GroupAuthorizationFailedError("FindCoordinatorResponse error")

    with pytest.raises(BrokerError, match="We may not look at the group 'rewarm': allow our user Describe on it"):
        Desk(cast("KafkaAdminClient", Closed())).members("rewarm")


def test_two_sources_of_one_topic_are_a_fault(broker: "Broker", listen: Listen) -> None:
    """By whatever addresses they reach the cluster: the configuration alone cannot know it."""
    topic = broker.topic()
    configuration = listen(broker.address, topic)
    file = configuration.file
    assert file is not None
    host, port = broker.address.split(",")[0].rsplit(":", 1)
    if host != "127.0.0.1":
        pytest.skip("the broker that was given has no second name that is known here")
    other = f"kind: kafka, name: other, bootstrap_servers: ['localhost:{port}'], topics: [{topic}]"
    text = file.read_text(encoding="utf-8").replace("{kind: kafka", f"{{{other}}}, {{kind: kafka")
    file.write_text(text, encoding="utf-8")

    wrong = told(found(load()), "wrong")

    assert f"sources other and kafka read the same topic {topic} of one cluster" in wrong


@pytest.mark.parametrize(("mode", "open_to_all"), [(0o644, True), (0o640, False)])
def test_a_secret_that_everybody_can_read_is_a_fault(listen: Listen, mode: int, open_to_all: bool) -> None:
    """Found without asking anybody, also while nobody answers."""
    password = Path("password")
    password.write_text("s3cret", encoding="utf-8")
    password.chmod(mode)
    security = "{protocol: sasl_plaintext, mechanism: PLAIN, username: a, password_file: password}"

    checks = found(listen(NOBODY, "events", rest=f", security: {security}"))

    assert ("everybody on this machine can read password → chmod 600 password" in told(checks, "wrong")) == open_to_all
    assert "s3cret" not in told(checks, "wrong")


def test_a_secret_that_is_missing_is_a_fault(listen: Listen) -> None:
    """The file is named."""
    security = "{protocol: sasl_plaintext, mechanism: PLAIN, username: a, password_file: gone}"
    wrong = told(found(listen(NOBODY, "events", rest=f", security: {security}")), "wrong")
    assert str(Path("gone").absolute()) in wrong


def test_of_many_partitions_the_worst_are_told(broker: "Broker", listen: Listen) -> None:
    """The sum, and those with the most lag."""
    topic = broker.topic(partitions=MOST_PARTITIONS + 2)
    for partition in range(MOST_PARTITIONS + 2):
        broker.produce(topic, *["x"] * (partition + 1), partition=partition)

    well = told(found(listen(broker.address, topic)), "ok")

    assert "10 partitions, 55 records behind, most of them 10 in 9, 9 in 8" in well
    assert " 2 in 1" not in well
