"""Messages that went through a real broker, in every form and compression."""

import json
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import DataArrived
from daemon.door import Door
from daemon.settings.kafka import MappingSettings
from daemon.sources.kafka.lenient import read_any_header
from daemon.sources.kafka.messages import letter
from tests.daemon.sources.kafka.mail import ATTRIBUTES, DATA, accepted, binary, lake, structured

if TYPE_CHECKING:
    from tests.brokers.broker import Broker

JSON = ("content-type", b"application/json")
CLOUDEVENT = ("content-type", b"application/cloudevents+json; charset=UTF-8")
OWN = ("x", b"\xff\x00")


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_every_form_is_the_same_fact_in_every_compression(broker: "Broker", compression: str | None) -> None:
    """Structured, binary, plain and mapped; key, headers, their order, timestamp and offset are kept."""
    topic = broker.topic(prefix="messages")
    data = json.dumps(DATA).encode()
    plain = json.dumps({"type": ATTRIBUTES["type"], "subject": "p", "data": DATA}).encode()
    sent = [
        (structured(), [OWN, CLOUDEVENT, OWN]),
        (data, [*binary(), JSON]),
        (plain, []),
        (json.dumps({"meta": {"path": "a.jsonl"}, "team": "p"}).encode(), []),
    ]
    for number, (value, headers) in enumerate(sent):
        broker.produce(
            topic, value, key=b"\xfek", headers=headers, timestamp=1_764_000_000_000 + number, compression=compression
        )
    mapping = MappingSettings(data={"uri": "meta.path"}, constants={"domain": "prose"}, pipeline="team")
    settings = [lake(), lake(), lake(), lake(mapping=mapping)]
    door = Door(pipelines={"p": None}, roots=())
    seen = broker.read(topic, len(sent))
    for number, (record, (value, headers), each) in enumerate(zip(seen, sent, settings, strict=True)):
        offer = door.receive(accepted(record, each))
        assert offer.event == DataArrived(uri="a.jsonl", domain="prose")
        assert offer.pipeline == "p"
        assert offer.letter is not None
        carrier = offer.letter.carrier
        assert carrier is not None
        assert (carrier.topic, carrier.partition, carrier.offset) == (topic, 0, number)
        assert (carrier.key, carrier.headers, carrier.timestamp) == (
            b"\xfek",
            tuple(headers),
            1_764_000_000_000 + number,
        )
        assert (carrier.value if carrier.value is not None else offer.text) == value


def test_a_tombstone_and_a_time_of_the_brokers(broker: "Broker") -> None:
    """A null value without attributes is nothing, not even with a key; LogAppendTime is a timestamp like another."""
    topic = broker.topic(prefix="messages", message_timestamp_type="LogAppendTime")
    broker.produce(topic, None, structured(), key="k", timestamp=1)
    tombstone, event = broker.read(topic, 2)
    settings = lake()
    found = letter(tombstone, settings=settings, topic=settings.topics[0], cluster="c", topic_id="t")
    refusal = getattr(found, "refusal", None)
    assert refusal is not None
    assert refusal[0] == "empty"
    carrier = accepted(event).carrier
    assert carrier is not None
    assert carrier.timestamp is not None
    assert carrier.timestamp > 1_764_000_000_000


class Odd(str):
    """A header's name as a client in another language may write it."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        """Return what is no UTF-8."""
        return b"\xff\xfen"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_header_that_cannot_be_read_stops_nothing(broker: "Broker", compression: str | None) -> None:
    """Its name gets legible, its value and its neighbours are as they were, and what lies behind it is read."""
    read_any_header()
    read_any_header()
    topic = broker.topic(prefix="messages")
    broker.produce(topic, structured(id="1"))
    odd = [("a", b"1"), (Odd("n"), b"\xff"), CLOUDEVENT]
    broker.produce(topic, structured(id="2"), structured(id="3"), headers=odd, compression=compression)
    broker.produce(topic, structured(id="4"))
    found = [accepted(record) for record in broker.read(topic, 4)]
    assert [json.loads(each.text)["id"] for each in found] == ["1", "2", "3", "4"]
    carrier = found[1].carrier
    assert carrier is not None
    assert carrier.headers == (("a", b"1"), ("\\xff\\xfen", b"\xff"), CLOUDEVENT)
