"""Whatever comes in: never a traceback, never a 500, and nothing half recorded.

Mutations of what is right, and what is not even wrong, against the door and the loop, HTTP, and the configuration.
"""

import contextlib
import io
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from daemon import dead_letters
from daemon.cli import main
from daemon.core.events import InputRejected, Record
from daemon.core.state import State, dump
from daemon.core.transition import evolve
from daemon.door import OUTSIDE_KINDS, Answer, Input, Letter, Offer
from daemon.journal.base import scan
from daemon.settings.kafka import KafkaSettings
from daemon.sources.cloudevents import BATCH, PLAIN, STRUCTURED
from daemon.sources.kafka.messages import letter, receiver
from ops.server import Bounds, serve
from tests.daemon.sources.http.site import SECRETS, Site, event

ROOT = Path(__file__).parent.parent
EXAMPLES = 100
KINDS = [*OUTSIDE_KINDS, "run.failed", "timer.fired", "input.rejected", "x.y"]
SAMPLES: dict[str, dict[str, Any]] = {
    "data.arrived": {"uri": "a.jsonl", "domain": "words"},
    "data.withdrawn": {"arrival_source": "/test", "arrival_id": "1"},
    "drift.detected": {"metric": "psi", "value": 0.5},
    "evaluation.reported": {"metric": "loss", "value": 1.0},
    "failure.reported": {"failure": "transient"},
    "label.arrived": {"metric": "accuracy", "value": 1.0},
    "operator.requested": {"verb": "pause", "run": "one-1", "dead_letter": 2},
}
CONTENT_TYPES = [
    STRUCTURED,
    BATCH,
    PLAIN,
    f"{STRUCTURED}; charset=UTF-8",
    "application/cloudevents+avro",
    "text/plain",
    "",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([2**63, -(2**70), 1e308, "\0", "\ud800", "../..", "/rewarm/x", "2099-01-01T00:00:00Z", "one"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: DrawFn, whole: SearchStrategy[Any], replacements: SearchStrategy[Any] = values) -> Any:  # noqa: ANN401 - JSON
    """Return a document of which some parts were taken away, replaced, doubled or wrapped."""
    document = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        document = _mutate(draw, document, replacements)
    return document


def _mutate(draw: DrawFn, node: Any, replacements: SearchStrategy[Any]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(node, dict) and node and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(node)))
        match draw(st.sampled_from(["deeper", "replace", "remove", "add"])):
            case "remove":
                return {name: value for name, value in node.items() if name != key}
            case "add":
                return {**node, draw(st.text(max_size=6)): draw(replacements)}
            case "replace":
                return {**node, key: draw(replacements)}
            case _:
                return {**node, key: _mutate(draw, node[key], replacements)}
    if isinstance(node, list) and node and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(node) - 1))
        return [*node[:at], _mutate(draw, node[at], replacements), *node[at + draw(st.integers(0, 1)) :]]
    return draw(st.sampled_from([[node], {"x": node}])) if draw(st.booleans()) else draw(replacements)


@st.composite
def torn(draw: DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """Return a text that was cut, overwritten or prolonged somewhere, or left whole."""
    text = draw(whole)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=3)) + text[at + draw(st.integers(0, 8)) :]
    return text


def encoded(document: object) -> bytes:
    """Return JSON as a sloppy producer writes it: NaN and lone surrogates too."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


events = st.sampled_from(KINDS).flatmap(
    lambda kind: mutated(
        st.builds(lambda identity: event(identity, kind, data=SAMPLES.get(kind, {})), st.sampled_from("123"))
    )
)
texts = torn(events.map(encoded))
bodies = texts | torn(st.lists(events, max_size=4).map(encoded)) | st.binary(max_size=40)
names = st.sampled_from(["id", "source", "type", "subject", "specversion", "time", "data", "", "x", "ID"])
wire = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12) | st.sampled_from(
    ["1.0", "/test", "one", "data.arrived", "drift.detected", "%FF", "%", '"', '"a\\"', "Bearer " + SECRETS["operator"]]
)


def fresh(site: Site, before: int) -> list[Record]:
    """Return what was recorded since a position."""
    return list(scan(site.journal, before))


def is_told(site: Site, outcome: dict[str, Any], before: int) -> None:
    """Hold what an answer says of an event against the journal."""
    record = site.journal.records(outcome["position"] - 1, 1)[0]
    if outcome["outcome"] == "dead_letter":
        assert isinstance(record.event, InputRejected)
        assert outcome["reason"]
        assert outcome["message"]
    else:
        assert (record.source, record.id) == (outcome["source"], outcome["id"])
        assert (outcome["outcome"] == "accepted") <= (record.position > before)
        assert record.event.kind in OUTSIDE_KINDS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A working site that lets an operator in; what it stored folds to what it holds."""
    made = Site(tmp_path_factory.mktemp("site")).start().named("operator")
    with made.client:
        yield made
    made.stop()
    assert refolded(made) == dump(made.loop.state)


def refolded(site: Site) -> bytes:
    """Return the state that the stored records give."""
    state = State()
    for record in scan(site.journal):
        state = evolve(state, record)
    return dump(state)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(text=texts, by=st.sampled_from([None, "ann"]), identity=st.sampled_from([None, "k"]))
@example(text=b'{"id":"1","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", by=None, identity=None)
def test_an_envelope_counts_whole_or_is_a_dead_letter(site: Site, text: bytes, by: str | None, identity: str) -> None:
    """Through the door and the loop: an event is recorded as itself, once, or its text is kept with a reason."""
    before = site.journal.head()
    offer = site.door.receive(Letter(text=text, where="fuzz", source="/fuzz", id=identity, by=by))
    answers = entered(site, offer)
    records = fresh(site, before)
    assert len(records) == (answers[0].position > before)
    told = {"source": offer.source, "id": offer.id, **{f: getattr(answers[0], f) for f in Answer.__struct_fields__}}
    is_told(site, told, before)
    assert all(record.text == text for record in records)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    body=bodies,
    kind=st.sampled_from(CONTENT_TYPES) | wire,
    attributes=st.dictionaries(names, wire, max_size=4),
    others=st.dictionaries(
        st.sampled_from(["idempotency-key", "authorization", "host", "content-length"]), wire, max_size=1
    ),
)
def test_a_request_is_answered_by_what_became_of_it(
    site: Site, body: bytes, kind: str, attributes: dict[str, str], others: dict[str, str]
) -> None:
    """Each event that is answered is in the journal as the answer says; of anything else there is no trace."""
    before = site.journal.head()
    headers = {"content-type": kind, **{f"ce-{name}": value for name, value in attributes.items()}, **others}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    answer = site.client.post("/events", content=body, headers=raw)
    told = answer.json()
    assert answer.status_code in {202, 207, 400, 401, 403, 409, 413, 415}
    assert answer.status_code < 300 or (told["error"] and told["message"])
    outcomes = told.get("events", [told] if "outcome" in told else [])
    for outcome in outcomes:
        is_told(site, outcome, before)
    new = {outcome["position"] for outcome in outcomes if outcome["position"] > before}
    assert {record.position for record in fresh(site, before)} == new


attributes_sent = st.sampled_from(["ce_", "ce_id", "ce_source", "ce_specversion", "ce_type", "ce_subject", "ce_data"])
header_values = (
    st.none()
    | st.binary(max_size=8)
    | st.sampled_from([b"1.0", b"/test", b"one", b"drift.detected", b"\xff", *map(str.encode, CONTENT_TYPES)])
)
message_headers = st.lists(
    st.tuples(attributes_sent | st.sampled_from(["content-type", "Content-Type", "traceparent"]), header_values)
    | st.tuples(st.text(max_size=4), header_values),
    max_size=6,
)
mappings = st.none() | st.builds(
    lambda paths, data: {"kind": "drift.detected", **paths, "data": {"metric": data[0], "value": data[1]}},
    st.dictionaries(st.sampled_from(["pipeline", "id", "time"]), st.sampled_from(["id", "data.0", "time", "x"])),
    st.tuples(st.sampled_from(["type", "data.metric", "data.x.0"]), st.sampled_from(["data.value", "data"])),
)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    value=bodies | st.none() | st.sampled_from([b'{"metric": "psi", "value": 0.5}', b"\0\0\0\0\1x"]),
    headers=message_headers,
    key=st.none() | st.binary(max_size=6),
    timestamp=st.integers(-1, 2**62),
    mapping=mappings,
    pipeline=st.sampled_from([None, "one", "nobody"]),
)
def test_a_message_counts_whole_or_is_a_dead_letter(
    site: Site,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    key: bytes | None,
    timestamp: int,
    mapping: dict[str, Any] | None,
    pipeline: str | None,
) -> None:
    """Any bytes, headers and key give one record, whose carrier has all that came; read again it is the same."""
    before = site.journal.head()
    topic = {"name": "t", "pipeline": pipeline, "mapping": mapping}
    source = KafkaSettings.model_validate({"bootstrap_servers": ["b:1"], "topics": [topic], "operators": True})
    sent = Message(value, tuple(headers), key, timestamp, partition=0, offset=before)
    made = letter(sent, settings=source, topic=source.topics[0], cluster="c", topic_id="t")
    offer = made if isinstance(made, Offer) else site.door.receive(made)
    (answer,) = entered(site, offer)
    for record in fresh(site, before):
        carrier = record.carrier
        assert carrier is not None
        original = record.text if carrier.value is None else carrier.value
        assert (original or b"") == (value or b"")
        assert (carrier.key, carrier.headers) == (key, tuple(headers))
    if answer.outcome == "dead_letter":
        letter_kept = dead_letters.reopen(site.journal.records(answer.position - 1, 1)[0], "ann")
        again = receiver(site.door.receive, [source])(letter_kept)
        assert value is None or again.refusal == offer.refusal


class Message(NamedTuple):
    """What a consumer hands out."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    key: bytes | None
    timestamp: int
    partition: int
    offset: int
    topic: str = "t"


def entered(site: Site, offer: Offer) -> Sequence[Answer]:
    """Let an offer in; return what became of it."""
    answers: list[Answer] = []
    answered = threading.Event()

    def reply(told: Sequence[Answer] | None) -> None:
        answers.extend(told or ())
        answered.set()

    site.inbox.put(Input(offers=(offer,), reply=reply))
    assert answered.wait(10)
    return answers


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    sent=torn(
        st.builds(
            lambda method, path, length, body: (
                f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                f"content-length: {length}\r\nconnection: close\r\n\r\n".encode()
                + body
            ),
            st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
            st.sampled_from(
                ["/events", "/state", "/runs?limit=3", "/runs/one-1", "/livez", "/é".encode().decode("latin-1")]
            ),
            st.sampled_from(["0", "3", "-1", "99999999999999999999", "x", "1, 1"]),
            st.binary(max_size=20),
        )
    )
    | st.binary(max_size=60)
)
def test_bytes_on_the_wire_never_end_the_server(wired: Callable[[bytes], bytes], sent: bytes) -> None:
    """What is no HTTP is refused or cut off; the next request is answered."""
    answer = wired(sent)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert wired(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").endswith(b"ok\n")


@pytest.fixture(scope="module")
def wired(site: Site) -> Iterator[Callable[[bytes], bytes]]:
    """Serve the site; what is sent on a connection of its own is answered by what comes back."""
    handle = serve(site.application, "127.0.0.1", 0, bounds=Bounds(head=0.05, linger=0.05))

    def say(sent: bytes) -> bytes:
        found = b""
        with (
            socket.create_connection(("127.0.0.1", handle.port), timeout=10) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(sent)
            while part := connection.recv(1 << 16):
                found += part
        return found

    yield say
    handle.stop()


CONFIGURATION = yaml.safe_load((ROOT / "rewarm.yaml").read_text(encoding="utf-8"))
settings_values = values | st.sampled_from(
    ["0 3 31 2 *", "Mars/Phobos", "P1D", "-P1D", "sqlite:///x", "sqlite:////", "http://", "file:///etc", "~", "a" * 300]
)
WHOLE = {
    **CONFIGURATION,
    "http": {"host": "127.0.0.1", "port": 8420, "tls": {"certificate": "cert.pem", "key": "key.pem"}},
    "tokens": [{"name": "ci", "file": "ci", "scopes": ["send"], "expires": "2026-01-01T00:00:00Z"}],
    "notify": [{"url": "https://example.org/x", "on": ["run.failed"], "secret_file": "s"}],
    "retention": {"checkpoints": "P1D", "models": 3},
    "standby": {"enabled": True, "lease": 1.5},
}


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    text=mutated(st.sampled_from([CONFIGURATION, WHOLE]), settings_values).map(
        lambda document: yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
    )
    | torn(st.just((ROOT / "rewarm.yaml").read_bytes()))
)
@example(text=b"[" * 2_000)
@example(text=b"a: &a [*a]")
@example(text=b"pipelines: &p {x: *p}")
def test_a_configuration_is_valid_or_explained(text: bytes) -> None:
    """`check-config` answers each with 0, or with 2 and a sentence; never with a traceback."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rewarm.yaml"
        file.write_bytes(text)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--config", str(file), "--json", "check-config"])
    assert code in {0, 2}
    told = json.loads(out.getvalue() if code == 0 else err.getvalue())
    assert code == 0 or told["message"]
