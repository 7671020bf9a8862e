"""`rewarm emit --kafka`: to a real broker, and back out of the journal."""

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from daemon.broker.positions import cursor_of
from daemon.core.events import DriftDetected, InputRejected, SourceDegraded
from daemon.door import Door, Letter
from daemon.journal.base import Cursor

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.brokers.broker import Broker
    from tests.daemon.cli.conftest import Chronicle, Command

Listen = Callable[..., "Configuration"]
DRIFT = ("drift.detected", "docs-lm", "--data", '{"metric": "psi", "value": 0.3}')
NOBODY = "127.0.0.1:1"


@pytest.fixture
def topic(broker: "Broker", listen: Listen) -> str:
    """A topic that a source is configured to read."""
    name = broker.topic()
    listen(broker.address, name)
    return name


def cursor(broker: "Broker", topic: str) -> str:
    """Return the name of the cursor of the topic's one partition."""
    with broker.admin() as admin:
        cluster = admin.describe_cluster()["cluster_id"]
        return cursor_of(cluster, str(admin.describe_topics([topic])[0]["topic_id"]), 0)


def move(chronicle: "Chronicle", name: str, before: int | None, after: int) -> None:
    """Move a cursor as the daemon does."""
    with chronicle._journal.transaction() as transaction:  # noqa: SLF001 - stands in for the daemon
        transaction.move(Cursor(name=name, expected=before, next=after))


def test_an_event_goes_to_the_first_topic(
    rewarm: "Command", configuration: "Configuration", broker: "Broker", topic: str
) -> None:
    """As a structured CloudEvent that the daemon's door takes, keyed by its pipeline; where it lies is told."""
    code, out, err = rewarm("emit", *DRIFT, "--kafka")

    assert (code, err) == (0, "")
    assert f"  {topic}/0@0" in out.splitlines()
    assert "No daemon is running" in out
    (record,) = broker.read(topic, 1)
    assert (record.key, dict(record.headers)["content-type"]) == (
        b"docs-lm",
        b"application/cloudevents+json; charset=UTF-8",
    )
    door = Door(pipelines=configuration.settings.pipelines, roots=())
    offer = door.receive(Letter(text=record.value, where="w", source="/kafka"))
    assert (offer.event, offer.pipeline) == (DriftDetected(metric="psi", value=0.3), "docs-lm")


def test_a_topic_can_be_named(rewarm: "Command", broker: "Broker", listen: Listen) -> None:
    """With its source or without; one that nobody reads is refused with those that there are."""
    first, second = broker.topic(), broker.topic()
    listen(broker.address, first, second)

    told = json.loads(rewarm("emit", *DRIFT, "--kafka", f"kafka/{second}", "--json").out)["event"]
    refused = rewarm("emit", *DRIFT, "--kafka", "elsewhere")

    assert (told["way"], told["topic"], told["partition"], told["offset"]) == ("kafka", second, 0, 0)
    assert refused.code == 2
    names = sorted([first, second])
    assert f"Configured: kafka/{names[0]}, kafka/{names[1]}." in refused.err
    assert json.loads(rewarm("emit", *DRIFT, "--kafka", first, "--json").out)["event"]["topic"] == first


@pytest.mark.parametrize("became", ["accepted", "duplicate", "dead_letter"])
def test_wait_says_what_became_of_it(
    rewarm: "Command", chronicle: "Chronicle", broker: "Broker", topic: str, became: str
) -> None:
    """Once the journal's position is beyond it: a record, none because it was known, or a dead letter."""
    name = cursor(broker, topic)
    move(chronicle, name, None, 0)

    def daemon() -> None:
        broker.read(topic, 1)
        if became == "accepted":
            chronicle.tell(DriftDetected(metric="psi", value=0.3), source="/me", id="one")
        if became == "dead_letter":
            where = f"kafka:kafka/{topic}/0@0"
            chronicle.tell(InputRejected(reason="id_reused", message="Another.", where=where), pipeline=None)
        move(chronicle, name, 0, 1)

    thread = threading.Thread(target=daemon)
    thread.start()
    code, out, _ = rewarm("emit", *DRIFT, "--id", "one", "--source", "/me", "--kafka", "--wait", "--timeout", "30")
    thread.join()

    assert code == (1 if became == "dead_letter" else 0)
    assert f"  by Kafka: {topic}/0@0" in out.splitlines()
    words = {"accepted": "Accepted at position", "duplicate": "A duplicate", "dead_letter": "Refused (id_reused)"}
    assert words[became] in out


def test_a_wait_in_vain_says_why(rewarm: "Command", chronicle: "Chronicle", topic: str) -> None:
    """A topic that the daemon does not read is told with what it says of it; exit code 1."""
    trouble = f"Topic {topic} was deleted and created again."
    chronicle.tell(SourceDegraded(name=f"kafka:kafka/{topic}", reason=trouble), pipeline=None)
    chronicle.tell(SourceDegraded(name="kafka:kafka2", reason="another one's"), pipeline=None)

    code, out, _ = rewarm("emit", *DRIFT, "--kafka", "--wait", "--timeout", "0")

    assert code == 1
    assert "In Kafka, and not in the journal yet" in out
    assert f"kafka:kafka/{topic}: {trouble}" in out
    assert "another one's" not in out


def test_a_broker_that_does_not_answer_is_told_soon(rewarm: "Command", listen: Listen) -> None:
    """In one sentence, within the time-out."""
    listen(NOBODY, "events")
    began = time.monotonic()

    code, _, err = rewarm("emit", *DRIFT, "--kafka")

    assert code == 2
    assert f"The Kafka cluster at {NOBODY} cannot be used" in err
    assert time.monotonic() - began < 8


def test_a_topic_is_not_made_by_the_way(rewarm: "Command", broker: "Broker", listen: Listen) -> None:
    """A name that was mistyped in the configuration is told, not created."""
    listen(broker.address, "not.there")

    code, _, err = rewarm("emit", *DRIFT, "--kafka")

    assert (code, "There is no such topic" in err) == (2, True)
    with broker.admin() as admin:
        assert "not.there" not in admin.list_topics()


def test_there_is_one_way_at_a_time(rewarm: "Command", configuration: "Configuration", listen: Listen) -> None:
    """--kafka goes with no other way, and needs a Kafka source."""
    assert "No Kafka source is configured" in rewarm("emit", *DRIFT, "--kafka").err
    listen(NOBODY, "events")
    code, _, err = rewarm("emit", *DRIFT, "--kafka", "--spool")
    assert (code, "neither --spool nor --token-file" in err) == (2, True)


@pytest.mark.parametrize("operators", [True, False])
def test_a_request_needs_a_source_for_operators(
    rewarm: "Command", broker: "Broker", listen: Listen, operators: bool
) -> None:
    """What the daemon would refuse from there is not sent."""
    listen(broker.address, broker.topic(), rest=f", operators: {str(operators).lower()}")

    code, _, err = rewarm("emit", "operator.requested", "docs-lm", "--data", '{"verb": "pause"}', "--kafka")

    assert (code, "needs somebody" in err) == ((0, False) if operators else (2, True))
