"""Dead letters of messages: retried, they are read by what is configured then."""

import json
from pathlib import Path

import pytest

from daemon.core.events import DataArrived, Record
from daemon.door import Answer, Input, Offer
from daemon.journal.memory import MemoryJournal
from daemon.settings.kafka import KafkaSettings, MappingSettings
from tests.daemon.office import Office
from tests.daemon.sources.kafka.mail import MAPPING, Made, binary, lake, read, structured

VALUE = json.dumps({"key": "7", "meta": {"path": "a.jsonl", "rows": 3}}).encode()
WRONG = MappingSettings(data={"uri": "path"}, constants={"domain": "prose"})


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """Give a loop with a file to name, and pipelines p and q."""
    (tmp_path / "a.jsonl").write_text("x" * 120)
    return Office(MemoryJournal(), tmp_path)


def send(office: Office, made: Made, settings: KafkaSettings) -> Answer:
    """Let a message come in."""
    letter = read(made, settings)
    offer = letter if isinstance(letter, Offer) else office.door.receive(letter)
    return office.loop.commit([Input(offers=(offer,))]).answers[0][0]


def retried(
    office: Office, position: int, settings: KafkaSettings, *, pipelines: tuple[str, ...] = ("p", "q")
) -> Record:
    """Retry a dead letter after a restart with other settings; return what it led to."""
    office.mend(roots=(office.root,), pipelines=pipelines, kafka=(settings,))
    assert office.request("retry", position).outcome == "accepted"
    return office.at(office.settled(position).led_to)


def test_a_mended_mapping_is_applied(office: Office) -> None:
    """What could not be mapped is kept as it came; after the mapping is mended it counts, with its own place."""
    refused = send(office, Made(VALUE), lake(mapping=WRONG, pipeline="p"))
    assert (refused.outcome, refused.reason) == ("dead_letter", "not_mappable")
    kept = office.at(refused.position)
    assert kept.text == VALUE
    record = retried(office, refused.position, lake(mapping=MAPPING, pipeline="p"))
    assert record.event == DataArrived(uri="a.jsonl", domain="prose", documents=3, bytes=120, tokens=120)
    assert (record.pipeline, record.id, record.source) == ("p", "7", "/kafka/c1/t1")
    assert record.carrier is not None
    assert (record.carrier.value, record.carrier.key) == (VALUE, b"k")
    again = send(office, Made(VALUE), lake(mapping=MAPPING, pipeline="p"))
    assert (again.outcome, again.position) == ("duplicate", record.position)


def test_a_mapping_that_found_the_wrong_thing_is_mended_too(office: Office) -> None:
    """What was mapped but refused at the door is mapped anew from the message's own value."""
    wrong = MAPPING.model_copy(update={"data": {"uri": "key"}})
    refused = send(office, Made(VALUE), lake(mapping=wrong, pipeline="p"))
    assert refused.reason == "file_missing"
    assert retried(office, refused.position, lake(mapping=MAPPING, pipeline="p")).event.kind == "data.arrived"


@pytest.mark.parametrize(
    "made", [Made(structured(subject=None)), Made(b'{"uri": "a.jsonl", "domain": "prose"}', binary(subject=None))]
)
def test_a_topics_pipeline_stands_for_what_is_retried(office: Office, made: Made) -> None:
    """The topic is given a pipeline after the event came: structured or binary, it counts for it."""
    refused = send(office, made, lake())
    assert refused.reason == "unknown_pipeline"
    record = retried(office, refused.position, lake(pipeline="q"))
    assert (record.event.kind, record.pipeline, record.id) == ("data.arrived", "q", "1")


def test_refused_again_it_is_a_dead_letter_of_its_own(office: Office) -> None:
    """As it was, with what carried it; that one can be retried as well."""
    refused = send(office, Made(VALUE), lake(mapping=WRONG, pipeline="p"))
    second = retried(office, refused.position, lake(mapping=WRONG, pipeline="p"))
    assert (second.event.kind, second.text, second.carrier) == (
        "input.rejected",
        VALUE,
        office.at(refused.position).carrier,
    )
    assert retried(office, second.position, lake(mapping=MAPPING, pipeline="p")).event.kind == "data.arrived"


def test_from_a_topic_that_is_read_no_more_the_text_counts(office: Office) -> None:
    """What was composed is sent as it is."""
    refused = send(office, Made(b'{"uri": "a.jsonl", "domain": "prose"}', binary(subject="r")), lake())
    other = lake().model_copy(update={"name": "pond"})
    record = retried(office, refused.position, other, pipelines=("p", "q", "r"))
    assert (record.event.kind, record.pipeline) == ("data.arrived", "r")
