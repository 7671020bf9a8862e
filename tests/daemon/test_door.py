"""What may come in, from whom, in which form."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.core.errors import InputError
from daemon.core.events import EVENTS, DataArrived, DataWithdrawn, DriftDetected, OperatorRequested
from daemon.door import MAX_BYTES, REJECTED_SOURCE, Door, Letter, Offer
from stages.roots import Remote

ARRIVED = {"uri": "a.jsonl", "domain": "prose"}
VALID = {"specversion": "1.0", "type": "io.rewarm.data.arrived.v1", "source": "/producer", "id": "1", "subject": "p"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one file in it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.jsonl").write_text("x" * 120)
    return folder


@pytest.fixture
def door(root: Path) -> Door:
    """A door for the pipelines p and q."""
    return Door(pipelines={"p": None, "q": None}, roots=(root,))


def receive(door: Door, content: object, *, by: str | None = None) -> Offer:
    """Receive a text (or what json.dumps makes of it) as line 3 of a spool file."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return door.receive(Letter(text=text, where="f.jsonl:3", source="/spool", id="abc:3", by=by))


def test_a_cloudevent_keeps_its_identity(door: Door) -> None:
    """Source, id, time, subject and data are what the producer said."""
    offer = receive(door, {**VALID, "time": "2026-03-01T12:00:00+02:00", "data": ARRIVED})
    assert (offer.source, offer.id, offer.pipeline) == ("/producer", "1", "p")
    assert offer.event == DataArrived(uri="a.jsonl", domain="prose")
    assert offer.time is not None
    assert offer.time.isoformat() == "2026-03-01T10:00:00+00:00"
    assert offer.refusal is None
    assert offer.where == "f.jsonl:3"
    assert offer.text is not None
    assert json.loads(offer.text)["id"] == "1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("/spool", "abc:3")),
        ({"source": "/producer"}, ("/spool", "abc:3")),
        ({"id": "7"}, ("/spool", "7")),
        ({"id": "7", "source": "/producer"}, ("/producer", "7")),
    ],
)
def test_plain_json_falls_back_to_the_files_identity(
    door: Door, given: dict[str, str], expected: tuple[str, str]
) -> None:
    """Without an envelope the file's hash and line make the fact unique, unless an id is told; a source needs one."""
    offer = receive(door, {"type": "data.arrived", "subject": "p", "data": ARRIVED, **given})
    assert (offer.source, offer.id) == expected


def test_without_any_id_an_event_is_refused(door: Door) -> None:
    """Where the source has no id for a text either, it is kept under its digest."""
    text = json.dumps({"type": "data.arrived", "subject": "p", "data": ARRIVED}).encode()
    offer = door.receive(Letter(text=text, where="http:ci", source="/http/ci"))
    assert offer.refusal is not None
    assert offer.refusal[0] == "missing_id"
    assert offer.id == door.receive(Letter(text=text, where="http:ci", source="/http/ci")).id
    assert offer.id.startswith("/http/ci#")


@pytest.mark.parametrize("type_", ["data.arrived", "data.arrived.v1", "io.rewarm.data.arrived", VALID["type"]])
def test_the_type_may_be_short(door: Door, type_: str) -> None:
    """Prefix and version may be left out."""
    assert receive(door, {**VALID, "type": type_, "data": ARRIVED}).event is not None


def test_unknown_attributes_and_fields_are_let_be(door: Door) -> None:
    """Extensions of the envelope, and fields that a newer producer sends, do not matter."""
    offer = receive(door, {**VALID, "dataschema": "x", "traceparent": "y", "data": {**ARRIVED, "later": 1}})
    assert offer.event == DataArrived(uri="a.jsonl", domain="prose")


REFUSED: dict[str, tuple[object, str, str]] = {
    "no json": (b"hello", "malformed", "no JSON"),
    "nothing": (b"", "malformed", "no JSON"),
    "no UTF-8": (b'{"type": "\xff\xfe"}', "malformed", "no JSON"),
    "half a surrogate": (b'{"type":"data.arrived","subject":"p","source":"\\ud800","id":"1"}', "malformed", ""),
    "trailing text": (b'{"type":"data.arrived"} {}', "malformed", ""),
    "a number": (1, "wrong_envelope", "object"),
    "an array": ([VALID], "wrong_envelope", "object"),
    "no type": ({"subject": "p"}, "wrong_envelope", "type"),
    "another version": ({**VALID, "specversion": "0.3", "data": ARRIVED}, "wrong_envelope", "'0.3'"),
    "type is a number": ({**VALID, "type": 1}, "wrong_envelope", "$.type"),
    "id is a number": ({**VALID, "id": 7, "data": ARRIVED}, "wrong_envelope", "$.id"),
    "id too long": ({**VALID, "id": "7" * 1025, "data": ARRIVED}, "wrong_envelope", "$.id"),
    "unknown kind": ({**VALID, "type": "data.vanished"}, "unknown_kind", "data.arrived"),
    "foreign type": ({**VALID, "type": "com.github.push"}, "unknown_kind", "com.github.push"),
    "empty type": ({**VALID, "type": ""}, "unknown_kind", ""),
    "future version": ({**VALID, "type": "io.rewarm.data.arrived.v9", "data": ARRIVED}, "wrong_data", "upgrade"),
    "version 0": ({**VALID, "type": "io.rewarm.data.arrived.v0", "data": ARRIVED}, "wrong_data", "upcaster"),
    "no data": (VALID, "wrong_data", "uri"),
    "data is null": ({**VALID, "data": None}, "wrong_data", "object"),
    "data is text": ({**VALID, "data": "x"}, "wrong_data", "object"),
    "no domain": ({**VALID, "data": {"uri": "a"}}, "wrong_data", "domain"),
    "odd domain": ({**VALID, "data": {"uri": "a", "domain": "../x"}}, "wrong_data", "$.domain"),
    "negative tokens": ({**VALID, "data": {**ARRIVED, "tokens": -1}}, "wrong_data", "$.tokens"),
    "too many tokens": ({**VALID, "data": {**ARRIVED, "tokens": 2**60}}, "wrong_data", "$.tokens"),
    "fractional tokens": ({**VALID, "data": {**ARRIVED, "tokens": 1.5}}, "wrong_data", "$.tokens"),
    "no hash": ({**VALID, "data": {**ARRIVED, "sha256": "AB"}}, "wrong_data", "$.sha256"),
    "unknown format": ({**VALID, "data": {**ARRIVED, "format": "pickle"}}, "wrong_data", "$.format"),
    "uri too long": ({**VALID, "data": {**ARRIVED, "uri": "a" * 5000}}, "wrong_data", "$.uri"),
    "no subject": ({**VALID, "subject": None, "data": ARRIVED}, "unknown_pipeline", "known: p, q"),
    "unknown pipeline": ({**VALID, "subject": "r", "data": ARRIVED}, "unknown_pipeline", "known: p, q"),
    "no id": ({k: v for k, v in {**VALID, "data": ARRIVED}.items() if k != "id"}, "missing_id", "id"),
    "empty id": ({**VALID, "id": "", "data": ARRIVED}, "missing_id", "id"),
    "no source": ({k: v for k, v in {**VALID, "data": ARRIVED}.items() if k != "source"}, "missing_source", "source"),
    "our source": ({**VALID, "source": "/rewarm/clock", "data": ARRIVED}, "forbidden_source", "/rewarm/"),
    "time without zone": ({**VALID, "time": "2026-03-01T12:00:00", "data": ARRIVED}, "wrong_time", "no zone"),
    "date alone": ({**VALID, "time": "2026-03-01", "data": ARRIVED}, "wrong_time", "no zone"),
    "no time": ({**VALID, "time": "yesterday", "data": ARRIVED}, "wrong_time", "RFC 3339"),
    "empty time": ({**VALID, "time": "", "data": ARRIVED}, "wrong_time", "RFC 3339"),
    "before all time": ({**VALID, "time": "0001-01-01T00:00:00+05:00", "data": ARRIVED}, "wrong_time", "years"),
    "after all time": ({**VALID, "time": "9999-12-31T23:59:59-05:00", "data": ARRIVED}, "wrong_time", "years"),
    "infinite value": (
        b'{"type":"drift.detected","subject":"p","data":{"metric":"m","value":1e999}}',
        "wrong_data",
        "range",
    ),
    "no number": (b'{"type":"drift.detected","subject":"p","data":{"metric":"m","value":NaN}}', "malformed", ""),
    "too deep": (b'{"type":"drift.detected","subject":"p","data":' + b"[" * 100_000, "malformed", "recursion"),
    "too large": (b'{"type":"data.arrived"}' + b" " * MAX_BYTES, "too_large", "1,048,576"),
}


@pytest.mark.parametrize(("content", "reason", "words"), REFUSED.values(), ids=list(REFUSED))
def test_bad_inputs_become_dead_letters(door: Door, content: object, reason: str, words: str) -> None:
    """Nothing raises; each keeps its text, a stable reason, a sentence, and an identity under our own source."""
    offer = receive(door, content)
    assert offer.refusal is not None
    assert offer.refusal[0] == reason
    assert words in offer.refusal[1]
    assert offer.event is None
    assert (offer.source, offer.id) == (REJECTED_SOURCE, "/spool#abc:3")
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    assert offer.text == text[:MAX_BYTES]


@settings(suppress_health_check=list(HealthCheck), max_examples=200)
@given(text=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_text_raises(door: Door, text: bytes) -> None:
    """Whatever comes, it is an offer: an event or a dead letter."""
    offer = door.receive(Letter(text=text, where="w", source="/spool", id="1"))
    assert (offer.event is None) == (offer.refusal is not None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=list(HealthCheck), max_examples=150)
@given(
    kind=st.sampled_from(sorted(EVENTS)),
    data=json_values | st.fixed_dictionaries({"uri": json_values, "domain": json_values, "metric": json_values}),
    time=st.none() | st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat()) | st.text(max_size=9),
)
def test_no_event_raises(door: Door, kind: str, data: object, time: str | None) -> None:
    """Whatever an envelope carries, it is an offer."""
    offer = receive(door, {"type": kind, "subject": "p", "data": data, "time": time}, by="ann")
    assert (offer.event is None) == (offer.refusal is not None)
    assert offer.event is None or EVENTS[kind].origin in {"outside", "operator"}


@pytest.mark.parametrize("kind", sorted(k for k, cls in EVENTS.items() if cls.origin in {"stage", "daemon"}))
def test_what_rewarm_alone_tells_is_refused_from_outside(door: Door, kind: str) -> None:
    """No producer can say that a stage succeeded, a model was promoted or a decision made."""
    offer = receive(door, {**VALID, "type": f"io.rewarm.{kind}.v1", "data": {}}, by="ann")
    assert offer.refusal is not None
    assert offer.refusal[0] == "forbidden_kind"


def test_requests_need_somebody(door: Door) -> None:
    """A request is taken only where it is known who stands behind it, and that is who is recorded."""
    request = {**VALID, "type": "operator.requested", "data": {"verb": "pause", "by": "mallory", "reason": "x"}}
    anonymous = receive(door, request)
    assert anonymous.refusal is not None
    assert anonymous.refusal[0] == "not_an_operator"
    assert receive(door, request, by="ann").event == OperatorRequested(verb="pause", by="ann", reason="x")


def test_completed_fields_cannot_be_smuggled_in(door: Door) -> None:
    """What the daemon fills in from its journal is thrown away when it comes from outside."""
    amount = {"arrivals": 9, "documents": 9, "bytes": 9, "tokens": 9}
    request = {"verb": "accept", "run": "p-1", "spans": [{"after": 0, "upto": 99}], "amounts": {"prose": amount}}
    asked = receive(door, {**VALID, "type": "operator.requested", "data": request}, by="ann").event
    assert asked == OperatorRequested(verb="accept", run="p-1", by="ann")
    withdrawal = {"arrival_source": "/s", "arrival_id": "1", "arrival": 5, "domain": "prose", "amount": amount}
    withdrawn = receive(door, {**VALID, "type": "data.withdrawn", "data": withdrawal}).event
    assert withdrawn == DataWithdrawn(arrival_source="/s", arrival_id="1")


def test_the_digest_tells_content_apart(door: Door) -> None:
    """The same fact written differently is the same; another pipeline, kind or field is not."""
    first = receive(door, {**VALID, "data": ARRIVED})
    again = receive(door, {"data": {**ARRIVED, "format": "jsonl"}, **VALID, "time": "2026-03-01T12:00:00Z"})
    assert again.digest == first.digest
    value = {"metric": "m", "value": 1.0}
    others = [
        {**VALID, "subject": "q", "data": ARRIVED},
        {**VALID, "data": {**ARRIVED, "tokens": 1}},
        {**VALID, "type": "drift.detected", "data": value},
        {**VALID, "type": "label.arrived", "data": value},
    ]
    assert len({first.digest, *(receive(door, other).digest for other in others)}) == 5


def test_an_arrival_is_completed_from_its_file(door: Door) -> None:
    """Bytes are the file's, tokens are estimated as one a byte; what the producer knows stays."""
    completed = door.complete(DataArrived(uri="a.jsonl", domain="prose"), [], 1)
    assert completed == DataArrived(uri="a.jsonl", domain="prose", bytes=120, tokens=120)
    known = DataArrived(uri="a.jsonl", domain="prose", bytes=5, tokens=3, documents=1)
    assert door.complete(known, [], 1) == known
    assert door.complete(DataArrived(uri="a.jsonl", domain="prose", bytes=5), [], 1) == DataArrived(
        uri="a.jsonl", domain="prose", bytes=5, tokens=5
    )
    other = DriftDetected(metric="m", value=1.0)
    assert door.complete(other, [], 0) is other


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("none.jsonl", "file_missing"),
        (".", "not_a_file"),
        ("a.jsonl/b", "file_missing"),
        ("x" * 3000, "file_missing"),
        ("../secret", "outside_roots"),
        ("file://[abc", "outside_roots"),
        ("s3://bucket/a", "unknown_scheme"),
    ],
)
def test_arrivals_without_a_file_are_refused(door: Door, root: Path, uri: str, reason: str) -> None:
    """What is not there, no file, or not ours to read, is refused with the reason."""
    with pytest.raises(InputError) as caught:
        door.complete(DataArrived(uri=uri, domain="prose"), [], 9)
    assert caught.value.reason == reason


@pytest.fixture
def far_door(root: Path) -> Door:
    """A door for a folder and a root elsewhere."""
    return Door(pipelines={"p": None}, roots=(root, Remote(url="s3://bucket/in")))


def test_an_arrival_elsewhere_counts_as_announced(far_door: Door) -> None:
    """Nobody asks the store: tokens are estimated by the bytes announced, and one of the two must be."""
    arrived = DataArrived(uri="s3://bucket/in/a.jsonl", domain="prose", bytes=70)
    assert far_door.complete(arrived, [], 1) == DataArrived(uri=arrived.uri, domain="prose", bytes=70, tokens=70)
    known = DataArrived(uri="s3://bucket/in/a.parquet", domain="prose", format="parquet", tokens=900)
    assert far_door.complete(known, [], 1) == known
    with pytest.raises(InputError, match="announce its `bytes`") as caught:
        far_door.complete(DataArrived(uri=arrived.uri, domain="prose"), [], 1)
    assert caught.value.reason == "missing_size"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/in/../a", "outside_roots"),
        ("s3://bucket/in/%2e%2e/a", "outside_roots"),
        ("s3://bucket/in/a?versionId=1", "outside_roots"),
        ("s3://other/in/a", "outside_roots"),
        ("S3://bucket/in/a", "outside_roots"),
        ("s3://key:secret@bucket/in/a", "outside_roots"),
        ("gs://bucket/in/a", "unknown_scheme"),
        ("https://bucket/in/a", "unknown_scheme"),
        ("file://bucket/in/a", "outside_roots"),
    ],
)
def test_what_lies_below_no_root_elsewhere_is_refused(far_door: Door, uri: str, reason: str) -> None:
    """Only a url that is plainly below a configured one comes in."""
    with pytest.raises(InputError) as caught:
        far_door.complete(DataArrived(uri=uri, domain="prose", bytes=1), [], 1)
    assert caught.value.reason == reason


def test_folders_are_found_beside_roots_elsewhere(root: Path) -> None:
    """A relative path counts from the first folder, wherever it stands among the roots."""
    door = Door(pipelines={"p": None}, roots=(Remote(url="s3://bucket/in"), root))
    assert door.complete(DataArrived(uri="a.jsonl", domain="prose"), [], 1).bytes == 120  # type: ignore[union-attr]


def test_the_number_of_domains_is_bounded(door: Door) -> None:
    """A domain more than `max_domains` is refused; those that are there already go on."""
    arrived = DataArrived(uri="a.jsonl", domain="prose")
    door.complete(arrived, {"prose": 1, "code": 1}, 2)
    with pytest.raises(InputError, match="max_domains") as caught:
        door.complete(arrived, {"law": 1, "code": 1}, 2)
    assert caught.value.reason == "too_many_domains"


def test_pipes_and_loops_are_no_files(door: Door, root: Path) -> None:
    """A named pipe would keep a reader waiting, a loop of links leads nowhere."""
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    for name, reason in (("pipe", "not_a_file"), ("loop", "file_missing")):
        with pytest.raises(InputError) as caught:
            door.complete(DataArrived(uri=name, domain="prose"), [], 1)
        assert caught.value.reason == reason
