"""Every form of a message becomes the same fact, or a dead letter that says why not."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.events import Carrier, DataArrived
from daemon.door import MAX_BYTES, Door, Letter, Offer
from daemon.sources.kafka.messages import MAX_BESIDE, again
from tests.daemon.sources.kafka.mail import (
    DATA,
    MAPPING,
    TRACE,
    WHERE,
    Made,
    accepted,
    binary,
    lake,
    read,
    refused,
    structured,
)

JSON = ("content-type", b"application/json")
CLOUDEVENT = ("content-type", b"application/cloudevents+json; charset=UTF-8")
PLAIN = json.dumps({"type": "data.arrived", "subject": "p", "data": DATA}).encode()
DOOR = Door(pipelines={"p": None, "q": None}, roots=(Path("/nowhere"),))


def received(made: Letter | Offer) -> Offer:
    """Return what the door makes of a letter."""
    assert isinstance(made, Letter)
    return DOOR.receive(made)


@pytest.mark.parametrize(
    ("made", "source", "id_"),
    [
        (Made(structured()), "/producer", "1"),
        (Made(structured(), [CLOUDEVENT]), "/producer", "1"),
        (Made(structured(), [("Content-Type", b"APPLICATION/CloudEvents+JSON")]), "/producer", "1"),
        (Made(structured(), [JSON, ("x", b"\xff")]), "/producer", "1"),
        (Made(json.dumps(DATA).encode(), [*binary(), JSON]), "/producer", "1"),
        (Made(json.dumps(DATA).encode(), binary()), "/producer", "1"),
        (Made(PLAIN), "/kafka/c1/t1", "2/17"),
        (Made(PLAIN, [JSON]), "/kafka/c1/t1", "2/17"),
        (Made(PLAIN, [("content-type", b"application/vnd.shop+json")]), "/kafka/c1/t1", "2/17"),
    ],
)
def test_every_form_is_the_same_fact(made: Made, source: str, id_: str) -> None:
    """Structured, binary and plain give one event; without an id of its own its place is one."""
    offer = received(read(made))
    assert offer.refusal is None
    assert offer.event == DataArrived(uri="a.jsonl", domain="prose")
    assert (offer.pipeline, offer.source, offer.id, offer.where) == ("p", source, id_, WHERE)
    assert offer.digest == received(read(Made(structured()))).digest


def test_what_carried_it_is_kept() -> None:
    """Topic, partition, offset, timestamp, key and all headers in their order; text as it came."""
    headers = [("x", b"\xff"), ("x", None), CLOUDEVENT]
    made = accepted(Made(structured(), headers, key=b"\x00k"))
    assert made.text == structured()
    assert made.carrier == Carrier(
        source="lake",
        topic="events",
        partition=2,
        offset=17,
        timestamp=1_764_000_000_123,
        key=b"\x00k",
        headers=tuple(headers),
    )


def test_what_was_composed_keeps_the_value_too() -> None:
    """In binary mode the text is the event as a whole, and the carrier has the data as it came."""
    value = b' {"uri": "a.jsonl",  "domain": "prose"}\n'
    made = accepted(Made(value, binary()))
    assert json.loads(made.text) == json.loads(structured())
    assert made.carrier is not None
    assert made.carrier.value == value


def test_a_binary_event_without_data_is_one() -> None:
    """A null value in binary mode is an event without data, as the binding says; alone it is nothing."""
    assert json.loads(accepted(Made(None, binary())).text)["data"] == {}
    found = read(Made(None))
    assert isinstance(found, Offer)
    assert found.refusal is not None
    assert (found.refusal[0], found.text) == ("empty", None)


def test_a_message_without_a_time_has_none() -> None:
    """-1 means that there is no timestamp."""
    made = accepted(Made(structured(), timestamp=-1))
    assert made.carrier is not None
    assert made.carrier.timestamp is None


@pytest.mark.parametrize(
    ("made", "reason", "told"),
    [
        (Made(b"{}", [("content-type", b"application/avro")]), "unknown_form", "application/avro"),
        (Made(b"{}", [*binary(), ("content-type", b"application/x-protobuf")]), "unknown_form", "x-protobuf"),
        (Made(b"[]", [("content-type", b"application/cloudevents-batch+json")]), "unknown_form", "one event a message"),
        (Made(b"", [("content-type", b"application/cloudevents+avro")]), "unknown_form", "cloudevents+avro"),
        (Made(b"{}", [("content-type", b"application/json; charset=UTF-16")]), "unknown_form", "utf-16"),
        (Made(b"{}", [("content-type", b"\xff\n\xfe")]), "unknown_form", "content type"),
        (Made(b"\x00\x00\x00\x00\x07avro"), "unknown_form", "zero byte"),
        (Made(b"{}", [JSON, CLOUDEVENT]), "wrong_envelope", "twice"),
        (Made(b"{}", [*binary(), ("ce_id", b"2")]), "wrong_envelope", "ce_id is there twice"),
        (Made(b"{}", [*binary(), ("ce_x", b"\xff")]), "wrong_envelope", "ce_x is no UTF-8"),
        (Made(b"{}", [*binary(), ("ce_data", b"1")]), "wrong_envelope", "ce_data names no"),
        (Made(b"{}", [("ce_", b"1")]), "wrong_envelope", "names no"),
        (Made(b"hello", binary()), "wrong_data", "no JSON"),
    ],
)
def test_what_is_no_event_says_why(made: Made, reason: str, told: str) -> None:
    """A content type, a header or a value that cannot be read is named; the value is kept as it came."""
    found = refused(made)
    assert found[0] == reason
    assert told in found[1]
    kept = read(made)
    assert isinstance(kept, Offer)
    assert kept.text == made.value
    assert kept.letter is not None
    assert kept.letter.carrier is not None
    assert (kept.letter.carrier.value, kept.letter.carrier.headers) == (None, tuple(made.headers))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (Made(structured(id=None)), "missing_id"),
        (Made(structured(specversion="0.3")), "wrong_envelope"),
        (Made(b"hello"), "malformed"),
        (Made(b"\xff\xfe{"), "malformed"),
        (Made(b""), "malformed"),
        (Made(json.dumps(DATA).encode(), binary(source=None)), "missing_source"),
        (Made(b" " * (MAX_BYTES + 1)), "too_large"),
        (Made(b" " * (MAX_BYTES + 1), binary()), "too_large"),
        (Made(structured(subject="nobody")), "unknown_pipeline"),
    ],
)
def test_what_the_door_refuses_is_told_by_its_words(made: Made, reason: str) -> None:
    """The reasons are those of every other way in."""
    offer = received(read(made))
    assert offer.refusal is not None
    assert offer.refusal[0] == reason


def test_key_and_headers_have_a_limit() -> None:
    """Beyond it they are not kept, and it is told."""
    found = read(Made(b"{}", [("x", b"y" * MAX_BESIDE)]))
    assert isinstance(found, Offer)
    assert found.refusal is not None
    assert found.refusal[0] == "too_large"
    assert found.letter is not None
    assert found.letter.carrier == Carrier(
        source="lake", topic="events", partition=2, offset=17, timestamp=1_764_000_000_123
    )
    accepted(Made(b"{}", [("x", b"y" * (MAX_BESIDE - 2))]))


@pytest.mark.parametrize(("told", "pipeline"), [("p", "p"), (None, "q")])
def test_a_topic_may_stand_for_a_pipeline(told: str | None, pipeline: str) -> None:
    """Who has no subject is about the topic's pipeline; a subject of its own comes first."""
    assert received(read(Made(structured(subject=told)), lake(pipeline="q"))).pipeline == pipeline


def test_a_request_about_no_pipeline_stays_so() -> None:
    """The topic's pipeline is none of an alignment's."""
    value = structured(type="operator.requested", subject=None, data={"verb": "align"})
    offer = received(read(Made(value), lake(pipeline="q", operators=True)))
    assert (offer.pipeline, offer.refusal) == (None, None)


def test_who_writes_to_a_topic_operates_only_where_it_is_configured() -> None:
    """Without `operators` a request has nobody behind it; with it, the source."""
    value = structured(type="operator.requested", data={"verb": "pause"})
    refusal = received(read(Made(value))).refusal
    assert refusal is not None
    assert refusal[0] == "not_an_operator"
    event = received(read(Made(value), lake(operators=True))).event
    assert event is not None
    assert getattr(event, "by", None) == "kafka:lake"


OTHER = TRACE.replace("4bf9", "0000")


@pytest.mark.parametrize(
    ("made", "trace"),
    [
        (Made(structured(), [("traceparent", TRACE.encode())]), TRACE),
        (Made(structured(), [("traceparent", TRACE.encode())] * 2), ""),
        (Made(structured(), [("traceparent", b"\xff")]), ""),
        (Made(structured(), [("traceparent", None)]), ""),
        (Made(structured(traceparent=TRACE)), TRACE),
        (Made(structured(traceparent=["x"])), ""),
        (Made(structured(traceparent=OTHER), [("traceparent", TRACE.encode())]), OTHER),
        (Made(structured(traceparent="x"), [("traceparent", TRACE.encode())]), TRACE),
        (Made(json.dumps(DATA).encode(), binary(traceparent=TRACE)), TRACE),
        (Made(PLAIN, [("traceparent", TRACE.encode())]), TRACE),
    ],
)
def test_the_trace_is_carried(made: Made, trace: str) -> None:
    """The event's own traceparent comes first, then the message's; what is none is ignored."""
    offer = received(read(made))
    assert offer.refusal is None
    assert offer.letter is not None
    assert offer.letter.carrier is not None
    assert offer.letter.carrier.traceparent == trace
    assert offer.letter.carrier.topic == "events"


def test_what_is_read_again_is_read_by_the_settings_of_the_day() -> None:
    """From the message's own value; a topic that is read no more leaves its letters as they are."""
    value = json.dumps({"key": "7", "meta": {"path": "a.jsonl"}}).encode()
    first = accepted(Made(value), lake(mapping=MAPPING, pipeline="q"))
    topics = {"lake": {"events": lake(mapping=MAPPING.model_copy(update={"id": None}), pipeline="p").topics[0]}}
    found = again(replace(first, by="ann", pipeline=None), topics)
    offer = received(found)
    assert (offer.pipeline, offer.id) == ("p", "2/17")
    assert isinstance(found, Letter)
    assert found.by == "ann"
    assert again(found, topics) == found
    assert again(first, {"lake": {}}) == first
    assert again(replace(first, carrier=None), topics) == replace(first, carrier=None)
    assert again(replace(first, carrier=Carrier(traceparent=TRACE)), topics).text == first.text
