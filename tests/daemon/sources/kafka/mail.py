"""Kafka messages made by hand, and a source's settings to read them with."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from daemon.door import Letter, Offer
from daemon.settings.kafka import KafkaSettings, MappingSettings
from daemon.sources.kafka.messages import Headers, letter

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WHERE = "kafka:lake/events/2@17"
ATTRIBUTES: dict[str, object] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/producer",
    "type": "io.rewarm.data.arrived.v1",
    "subject": "p",
}
DATA = {"uri": "a.jsonl", "domain": "prose"}
MAPPING = MappingSettings(
    data={"uri": "meta.path", "documents": "meta.rows"}, constants={"domain": "prose"}, id="key", time="at"
)


class Made(NamedTuple):
    """A message, with the names that a consumer's record has."""

    value: bytes | None
    headers: Headers = ()
    key: bytes | None = b"k"
    timestamp: int = 1_764_000_000_123
    topic: str = "events"
    partition: int = 2
    offset: int = 17


def structured(**changes: object) -> bytes:
    """Return a CloudEvent as JSON; None takes an attribute away."""
    whole = {**ATTRIBUTES, "data": DATA, **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def binary(**changes: str | None) -> Sequence[tuple[str, bytes]]:
    """Return the headers of a CloudEvent in binary mode."""
    whole = {**ATTRIBUTES, **changes}
    return [(f"ce_{name}", str(value).encode()) for name, value in whole.items() if value is not None]


def lake(
    *, pipeline: str | None = None, mapping: MappingSettings | None = None, operators: bool = False
) -> KafkaSettings:
    """Return the settings of a source with one topic."""
    topic = {"name": "events", "pipeline": pipeline, "mapping": mapping}
    return KafkaSettings(name="lake", bootstrap_servers=("localhost:9092",), topics=(topic,), operators=operators)


def read(made: Made, settings: KafkaSettings | None = None) -> Letter | Offer:
    """Return what a message becomes."""
    settings = settings or lake()
    return letter(made, settings=settings, topic=settings.topics[0], cluster="c1", topic_id="t1")


def accepted(made: Made, settings: KafkaSettings | None = None) -> Letter:
    """Return the letter that a message becomes."""
    found = read(made, settings)
    assert isinstance(found, Letter), found.refusal
    return found


def refused(made: Made, settings: KafkaSettings | None = None) -> tuple[str, str]:
    """Return why a message is a dead letter."""
    found = read(made, settings)
    assert isinstance(found, Offer)
    assert found.refusal is not None
    assert found.where == WHERE
    return found.refusal
