"""What `rewarm schema asyncapi` says is a document by AsyncAPI's own rules, and what the door and the followers do."""

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest

from daemon.config import Configuration, load
from daemon.core.errors import ConfigurationError
from daemon.core.events import EVENTS, Carrier, InputRejected, Record, RunSucceeded
from daemon.door import OUTSIDE_KINDS, Door, Offer
from daemon.schema import Schema, event_type
from daemon.schema.asyncapi import document
from daemon.sources.kafka.messages import letter
from ops.publishing.dead_letters import DeadLetters
from ops.publishing.transitions import Transitions

GOLDEN = Path(__file__).parents[2] / "golden"
OFFICIAL = jsonschema_rs.validator_for(
    json.loads(gzip.decompress((GOLDEN / "asyncapi" / "3.0.0.json.gz").read_bytes()))
)
EVERYTHING = """
pipelines: {docs-lm: {}, code-lm: {}}
sources:
  - kind: kafka
    bootstrap_servers: ["one:9092", "two:9092"]
    operators: true
    topics:
      - rewarm.events
      - name: uploads
        pipeline: docs-lm
        mapping:
          data: {uri: file.path, domain: meta.kind, bytes: file.size}
          constants: {format: text}
          id: file.path
          time: meta.at
    transitions: {on: [model.promoted, run.succeeded, decision.made, data.arrived]}
  - {kind: kafka, name: bare, bootstrap_servers: ["three:9092"], topics: [t], group_id: other, dead_letters: false}
"""
HEAD = {
    "specversion": "1.0",
    "id": "1",
    "source": "/crawler",
    "type": "io.rewarm.data.arrived.v1",
    "subject": "docs-lm",
    "time": "2026-03-01T12:00:00Z",
}
ARRIVAL: dict[str, Any] = {"uri": "a.jsonl", "domain": "prose"}
UPLOAD: dict[str, Any] = {"file": {"path": "a.txt", "size": 7}, "meta": {"kind": "prose", "at": "2026-03-01T12:00:00Z"}}
SAMPLES = [
    path for kind in OUTSIDE_KINDS for path in sorted((GOLDEN / "events").glob(f"{kind}.v{EVENTS[kind].version}*"))
]
ENDPOINT = '{url: "https://idp/t", client_id: ada, secret_file: hidden, scope: a b}'
RECORDED = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Sent(NamedTuple):
    """A message as a consumer returns it."""

    value: bytes | None
    headers: list[tuple[str, bytes]]
    topic: str = "rewarm.events"
    partition: int = 0
    offset: int = 7
    timestamp: int = 1_772_366_400_000
    key: bytes | None = None


def loaded(content: str, folder: Path) -> Configuration:
    """Return a configuration."""
    file = folder / "rewarm.yaml"
    file.write_text(content, encoding="utf-8")
    return load(file)


@pytest.fixture
def everything(tmp_path: Path) -> Configuration:
    """A configuration with two sources, a mapping, and everything that is told to others."""
    return loaded(EVERYTHING, tmp_path)


def described(configuration: Configuration) -> dict[str, Any]:
    """Return the document as a reader gets it."""
    found: dict[str, Any] = json.loads(json.dumps(document("1.2.3", configuration)))
    return found


def part(found: Mapping[str, Any], name: str, of: str) -> jsonschema_rs.Validator:
    """Return the validator of a message's payload or headers."""
    whole = {**found, "$schema": "http://json-schema.org/draft-07/schema#"}
    return jsonschema_rs.validator_for({**whole, "allOf": [{"$ref": f"#/components/messages/{name}/{of}"}]})


def references(node: object) -> Iterator[str]:
    """Yield everything that is referred to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def received(sent: Sent, configuration: Configuration) -> Offer:
    """Return what the door says of a message."""
    settings = configuration.kafka[0].settings
    topic = next(topic for topic in settings.topics if topic.name == sent.topic)
    told = letter(sent, settings=settings, topic=topic, cluster="c", topic_id="t")
    door = Door(pipelines={"docs-lm": None}, roots=())
    return told if isinstance(told, Offer) else door.receive(told)


def headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return attributes as binary mode writes them."""
    return {"content-type": "application/json", **{f"ce_{name}": value for name, value in attributes.items()}}


def test_it_is_what_asyncapi_calls_a_document(everything: Configuration) -> None:
    """It holds to the official schema, and what it refers to is there."""
    found = described(everything)
    OFFICIAL.validate(found)
    for reference in {*references(found)}:
        target: Any = found
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_the_official_schema_sees_mistakes(everything: Configuration) -> None:
    """It is no schema that takes anything: a word that is none is refused, also in a binding."""
    found = described(everything)
    del found["operations"]["receive.kafka.uploads"]["bindings"]["kafka"]["groupId"]["type"]
    OFFICIAL.validate(found)
    found["operations"]["receive.kafka.uploads"]["bindings"]["kafka"]["groupId"] = "rewarm"
    assert not OFFICIAL.is_valid(found)


def test_channels_are_what_is_read_and_written(everything: Configuration) -> None:
    """Each topic is received from; dead letters and transitions are sent, where they are configured."""
    found = described(everything)
    actions = {
        name: (each["action"], found["channels"][name.partition(".")[2]]["address"])
        for name, each in found["operations"].items()
    }
    assert actions == {
        "receive.kafka.rewarm.events": ("receive", "rewarm.events"),
        "receive.kafka.uploads": ("receive", "uploads"),
        "send.kafka.rewarm.dlq": ("send", "rewarm.dlq"),
        "send.kafka.rewarm.transitions": ("send", "rewarm.transitions"),
        "receive.bare.t": ("receive", "t"),
    }
    groups = {
        name: each["bindings"]["kafka"]["groupId"]["enum"]
        for name, each in found["operations"].items()
        if "bindings" in each
    }
    assert groups["receive.bare.t"] == ["other"]
    assert {name: each["host"] for name, each in found["servers"].items()} == {
        "kafka-1": "one:9092",
        "kafka-2": "two:9092",
        "bare": "three:9092",
    }
    assert found["channels"]["bare.t"]["servers"] == [{"$ref": "#/servers/bare"}]


def test_who_may_operate_is_told(everything: Configuration) -> None:
    """A person's requests are among the messages of a source only where it takes them."""
    channels = described(everything)["channels"]
    assert {"OperatorRequested", "OperatorRequestedBinary"} <= set(channels["kafka.rewarm.events"]["messages"])
    assert not any(name.startswith("Operator") for name in channels["bare.t"]["messages"])


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples_fit_in_both_modes(sample: Path, everything: Configuration) -> None:
    """Each golden sample fits its message in structured and in binary mode, and no other kind's."""
    found, kind = described(everything), sample.name.partition(".v")[0]
    data, head = json.loads(sample.read_bytes()), {**HEAD, "type": event_type(kind)}
    name = "".join(word.title() for word in kind.split("."))
    part(found, name, "payload").validate({**head, "data": data})
    part(found, f"{name}Binary", "payload").validate(data)
    part(found, f"{name}Binary", "headers").validate(headers(head))
    other = "DataArrived" if kind != "data.arrived" else "DriftDetected"
    assert not part(found, other, "payload").is_valid({**head, "data": data})
    assert not part(found, f"{other}Binary", "headers").is_valid(headers(head))


@pytest.mark.parametrize(
    ("change", "data"),
    [
        ({}, ARRIVAL),
        ({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, ARRIVAL),
        ({"id": ""}, ARRIVAL),
        ({"source": "/rewarm/daemon"}, ARRIVAL),
        ({"subject": "unknown"}, ARRIVAL),
        ({"specversion": "0.3"}, ARRIVAL),
        ({}, {"uri": "a.jsonl"}),
        ({}, {**ARRIVAL, "bytes": -1}),
    ],
    ids=str,
)
def test_the_door_and_the_document_agree(
    change: dict[str, str], data: dict[str, Any], everything: Configuration
) -> None:
    """What fits is accepted in both modes; what is refused does not fit."""
    found, head = described(everything), {**HEAD, **change}
    structured = {**head, "data": data}
    told = received(
        Sent(json.dumps(structured).encode(), [("content-type", b"application/cloudevents+json")]), everything
    )
    assert part(found, "DataArrived", "payload").is_valid(structured) == (told.refusal is None)
    binary = headers(head)
    told = received(
        Sent(json.dumps(data).encode(), [(name, text.encode()) for name, text in binary.items()]), everything
    )
    fits = part(found, "DataArrivedBinary", "headers").is_valid(binary)
    assert (fits and part(found, "DataArrivedBinary", "payload").is_valid(data)) == (told.refusal is None)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (UPLOAD, True),
        ({**UPLOAD, "file": {"path": "a.txt"}}, True),
        ({**UPLOAD, "meta": {"kind": "prose"}}, True),
        ({**UPLOAD, "file": {"size": 7}}, False),
        ({**UPLOAD, "file": {"path": 7}}, False),
        ({**UPLOAD, "meta": {"kind": "../prose"}}, False),
        ({"file": UPLOAD["file"]}, False),
        ([UPLOAD], False),
    ],
    ids=str,
)
def test_a_mapping_and_the_document_agree(value: object, fits: bool, everything: Configuration) -> None:
    """A producer's own JSON fits its message where the mapping makes an event of it that the door takes."""
    told = received(Sent(json.dumps(value).encode(), [], topic="uploads"), everything)
    assert (told.refusal is None) == fits
    assert part(described(everything), "kafka.uploads", "payload").is_valid(value) == fits


def test_what_is_told_fits(everything: Configuration) -> None:
    """A transition and a dead letter are, byte for byte, what the document says."""
    found = described(everything)
    ended = Record(
        position=9,
        recorded_at=RECORDED,
        source="/rewarm/loop",
        id="9:0",
        pipeline="docs-lm",
        event=RunSucceeded(run="docs-lm-3", outcome="promoted"),
    )
    told = Transitions(on=frozenset({"run.succeeded"})).message("journal", ended)
    assert told is not None
    part(found, "RunSucceededTold", "payload").validate(json.loads(told.value or b""))
    part(found, "RunSucceededTold", "headers").validate({name: text.decode() for name, text in told.headers})
    refused = InputRejected(
        reason="malformed", message="The text is no JSON object.", where="kafka:kafka/rewarm.events/0@7"
    )
    came = Carrier(source="kafka", topic="rewarm.events", partition=0, offset=7, timestamp=1, headers=(("a", b"b"),))
    record = Record(
        position=10, recorded_at=RECORDED, source="/rewarm/door", id="x", event=refused, text=b"{", carrier=came
    )
    dead = DeadLetters(source="kafka", group="rewarm").message("journal", record)
    assert dead is not None
    validator = part(found, "DeadLetter", "headers")
    validator.validate({name: text.decode() for name, text in dead.headers})
    known = found["components"]["messages"]["DeadLetter"]["headers"]["properties"]
    assert {name for name, _ in dead.headers} - {*known} == {"a"}


@pytest.mark.parametrize(
    ("security", "protocol", "schemes"),
    [
        ("{}", "kafka", []),
        ("{protocol: ssl, certificate_file: c, key_file: k}", "kafka-secure", [{"type": "X509"}]),
        (
            "{protocol: sasl_plaintext, mechanism: PLAIN, username: ada, password_file: hidden}",
            "kafka",
            [{"type": "plain"}],
        ),
        (
            "{protocol: sasl_ssl, mechanism: SCRAM-SHA-256, username: ada, password_file: hidden}",
            "kafka-secure",
            [{"type": "scramSha256"}],
        ),
        (
            "{protocol: sasl_ssl, mechanism: SCRAM-SHA-512, username: ada, password_file: hidden}",
            "kafka-secure",
            [{"type": "scramSha512"}],
        ),
        (
            f"{{protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {ENDPOINT}}}",
            "kafka-secure",
            [{"type": "oauth2", "scopes": ["a", "b"]}],
        ),
        (
            "{protocol: sasl_ssl, mechanism: OAUTHBEARER, oauth: {token_file: hidden}}",
            "kafka-secure",
            [{"type": "http", "scheme": "bearer"}],
        ),
    ],
    ids=str,
)
def test_security_without_secrets(security: str, protocol: str, schemes: list[Schema], tmp_path: Path) -> None:
    """The document says how a client shows who it is, and neither who we are nor where our secrets lie."""
    source = f"{{kind: kafka, bootstrap_servers: [a:1], topics: [t], security: {security}}}"
    found = described(loaded(f"sources: [{source}]\n", tmp_path))
    OFFICIAL.validate(found)
    server = found["servers"]["kafka"]
    assert server["protocol"] == protocol
    names = [each["$ref"].rpartition("/")[2] for each in server.get("security", [])]
    shown = [found["components"]["securitySchemes"][name] for name in names]
    assert len(shown) == len(schemes)
    assert all(wanted.items() <= each.items() for wanted, each in zip(schemes, shown, strict=True))
    assert not any(word in json.dumps(found) for word in ("ada", "hidden", str(tmp_path)))


def test_without_kafka_there_is_nothing_to_describe(tmp_path: Path) -> None:
    """A configuration without a Kafka source is told so, with what to add."""
    with pytest.raises(ConfigurationError, match="kind: kafka"):
        document("1.2.3", loaded("pipelines: {docs-lm: {}}\n", tmp_path))
