"""`POST /events`: every form, every answer, and what of it is recorded."""

import asyncio
import json
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.types import Message

from daemon.core.events import Carrier, InputRejected, OperatorRequested
from daemon.door import MAX_BYTES, Letter
from daemon.sources.http.events import Limits
from daemon.sources.http.modes import MAX_BATCH, MAX_BATCH_BYTES, TooMany, letters
from daemon.sources.queue import Inbox
from ops.health import Status
from ops.server import serve
from tests.daemon.sources.http.site import BATCH, PLAIN, STRUCTURED, Site, event


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def rejected(site: Site) -> list[InputRejected]:
    """Return the dead letters."""
    return [record.event for record in site.records() if isinstance(record.event, InputRejected)]


def test_an_event_is_answered_once_the_journal_has_it(site: Site) -> None:
    """202 with the position of its record; sent again it is 202 again, and counts once."""
    told = {"id": "1", "source": "/test", "reason": "", "message": ""}
    assert site.post(event()) == (202, {**told, "outcome": "accepted", "position": 2})
    assert site.post(event()) == (202, {**told, "outcome": "duplicate", "position": 2})
    assert [(r.source, r.id, r.pipeline) for r in site.records()] == [("/test", "1", "one")]
    assert site.loop.duplicates == 1
    assert site.counted == [("/events", 202)] * 2


def test_a_reused_id_is_a_conflict(site: Site) -> None:
    """Other content under an id that is taken becomes a dead letter, and 409."""
    site.post(event())
    status, told = site.post(event(data={"metric": "psi", "value": 0.9}))
    assert (status, told["error"], told["outcome"], told["position"]) == (409, "id_reused", "dead_letter", 3)


def test_binary_mode_is_kept_as_the_same_event(site: Site) -> None:
    """Attributes in headers, percent-encoded, and data as the body: a duplicate of the structured event."""
    headers = {
        **PLAIN,
        "ce-specversion": "1.0",
        "ce-id": "caf%C3%A9 %22",
        "ce-source": "/test",
        "ce-type": "io.rewarm.drift.detected.v1",
        "ce-subject": "one",
        "ce-time": "2026-03-01T12:00:00Z",
        "ce-traceparent": "00-1",
    }
    status, told = site.post(b'{"metric": "psi", "value": 0.5}', headers)
    assert (status, told["id"], told["outcome"]) == (202, 'café "', "accepted")
    kept = json.loads(site.records()[0].text or b"")
    assert kept == {
        **event('café "', time="2026-03-01T12:00:00Z"),
        "traceparent": "00-1",
        "data": {"metric": "psi", "value": 0.5},
    }
    assert site.post(event('café "'))[1]["outcome"] == "duplicate"


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = TRACE.replace("4bf9", "0000")


def test_the_trace_of_a_request_is_that_of_its_events(site: Site) -> None:
    """Of each in a batch too, unless the event names its own; what is no traceparent is ignored."""
    site.post([event("1"), event("2", traceparent=OTHER)], {**BATCH, "traceparent": TRACE})
    site.post(event("3"), {**STRUCTURED, "traceparent": "00-1"})
    site.post(b'{"metric": "psi", "value": 0.5}', {**binary("4"), "ce-traceparent": OTHER, "traceparent": TRACE})
    assert [record.carrier for record in site.records()] == [
        Carrier(traceparent=TRACE),
        Carrier(traceparent=OTHER),
        None,
        Carrier(traceparent=OTHER),
    ]


def binary(identity: str) -> dict[str, str]:
    """Return the headers of an event in binary mode."""
    head = {"specversion": "1.0", "id": identity, "source": "/test", "type": "drift.detected", "subject": "one"}
    return {**PLAIN, **{f"ce-{name}": value for name, value in head.items()}}


@pytest.mark.parametrize("content", [b"hello", b"\xff\x00", b'{"metric": '])
def test_a_binary_body_that_is_no_json_is_kept_as_it_came(site: Site, content: bytes) -> None:
    """It becomes a dead letter whose text has the body in base64."""
    headers = {"content-type": "text/plain", "ce-id": "1", "ce-source": "/test", "ce-type": "drift.detected"}
    status, told = site.post(content, headers)
    assert (status, told["error"], told["id"]) == (400, "wrong_data", "1")
    assert b"data_base64" in (site.records()[0].text or b"")


def test_a_binary_header_that_cannot_be_read_is_named(site: Site) -> None:
    """Percent-encoding that is no UTF-8 is refused, and not guessed at."""
    status, told = site.post(b"{}", {"ce-id": "%FF", "ce-type": "drift.detected", **PLAIN})
    assert (status, told["error"]) == (400, "wrong_envelope")
    assert "ce-id" in told["message"]


def test_of_a_batch_with_one_bad_event_the_others_count(site: Site) -> None:
    """207: each event is named with its outcome, in order; the bad one is a dead letter."""
    bad = event("b", subject="nobody")
    status, told = site.post([event("a"), bad, event("c"), event("a")], BATCH)
    assert status == 207
    assert [(each["id"], each["outcome"]) for each in told["events"]] == [
        ("a", "accepted"),
        ("b", "dead_letter"),
        ("c", "accepted"),
        ("a", "duplicate"),
    ]
    assert told["events"][1]["reason"] == "unknown_pipeline"
    assert site.kinds() == ["drift.detected", "input.rejected", "drift.detected"]


def test_a_batch_is_202_or_400_where_all_agree(site: Site) -> None:
    """All taken: 202; all refused: 400; an empty one asks for nothing."""
    assert site.post([event("a"), event("b")], BATCH)[0] == 202
    status, told = site.post([event("c", subject="nobody"), 7], BATCH)
    assert (status, told["error"], len(told["events"])) == (400, "all_refused", 2)
    assert site.post([], BATCH) == (202, {"events": []})
    status, told = site.post(b'[{"id": ', BATCH)
    assert (status, told["events"][0]["reason"]) == (400, "malformed")
    assert len(rejected(site)) == 3


def test_plain_json_takes_its_id_from_a_header(site: Site) -> None:
    """`Idempotency-Key` stands for the id; in a batch with the event's number; under the source of who sent it."""
    plain = event(None, source=None, specversion=None, type="drift.detected")
    keyed = {**PLAIN, "idempotency-key": '"k-1"'}
    assert site.post(plain, keyed)[1]["outcome"] == "accepted"
    assert site.post(plain, {**PLAIN, "idempotency-key": "k-1"})[1]["outcome"] == "duplicate"
    site.post([plain, plain], {**BATCH, "idempotency-key": "k-2"})
    assert [(record.source, record.id) for record in site.records()] == [
        ("/http/anonymous", "k-1"),
        ("/http/anonymous", "k-2:0"),
        ("/http/anonymous", "k-2:1"),
    ]
    assert site.post(plain, {**PLAIN, "idempotency-key": "k" * 257})[1]["error"] == "wrong_key"


def test_an_event_without_any_id_is_a_dead_letter(site: Site) -> None:
    """It would count again with every try: 400, and the operator sees it."""
    status, told = site.post(event(None, source=None, specversion=None), PLAIN)
    assert (status, told["error"], told["position"]) == (400, "missing_id", 2)
    status, told = site.post(event(None), STRUCTURED)
    assert (status, told["error"]) == (400, "missing_id")


REFUSED = {
    "year 2099": (event(time="2099-01-01T00:00:00Z"), "time_in_future"),
    "no zone": (event(time="2026-03-01T12:00:00"), "wrong_time"),
    "our kind": (event(kind="run.failed"), "forbidden_kind"),
    "our source": (event(source="/rewarm/daemon"), "forbidden_source"),
    "unknown kind": (event(kind="data.vanished"), "unknown_kind"),
    "wrong data": (event(data={"metric": 1}), "wrong_data"),
    "file missing": (event(kind="data.arrived", data={"uri": "b", "domain": "d"}), "file_missing"),
    "outside": (event(kind="data.arrived", data={"uri": "/etc/passwd", "domain": "d"}), "outside_roots"),
    "10,000 deep": (b'{"id":"1","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "malformed"),
    "no json": (b"hello", "malformed"),
    "nothing": (b"", "malformed"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_bad_input_is_kept_as_a_dead_letter(site: Site, content: object, reason: str) -> None:
    """400 with the reason and the position of the dead letter; sent again it is the same one."""
    status, told = site.post(content)
    assert (status, told["error"], told["outcome"], told["position"]) == (400, reason, "dead_letter", 2)
    assert rejected(site)[0].where == "http:anonymous"
    assert site.post(content)[1]["position"] == 2
    assert site.kinds() == ["input.rejected"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/cloudevents+avro"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": ";;;"},
    ],
)
def test_an_unknown_form_is_refused_unrecorded(site: Site, headers: dict[str, str]) -> None:
    """415: nothing of it is read; a web page cannot send what is taken without asking first."""
    assert site.post(event(), headers)[0] == 415
    assert site.records() == []


def test_what_is_too_large_is_not_read(site: Site) -> None:
    """413 by the announced length, by what arrives, and by the number of events; nothing is recorded."""
    assert site.post(b" " * (MAX_BYTES + 1))[1]["error"] == "too_large"
    assert site.post(b" " * (MAX_BATCH_BYTES + 1), BATCH)[0] == 413
    read = []

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            read.append(1)
            yield b" " * (1 << 16)

    answer = site.client.post("/events", content=chunks(), headers=STRUCTURED)
    assert answer.status_code == 413
    assert site.post([{}] * (MAX_BATCH + 1), BATCH)[1]["error"] == "too_many"
    assert site.records() == []


def test_a_batch_of_too_many_is_not_taken_apart(site: Site) -> None:
    """Two million numbers in a body that is short enough cost no more memory than as many bytes."""
    body = b"[" + b"0," * (1 << 21) + b"0]"
    blank = Letter(text=b"", where="http:ci", source="/http/ci")
    tracemalloc.start()
    try:
        with pytest.raises(TooMany):
            letters("batch", (), body, blank)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert site.post(body, BATCH)[1]["error"] == "too_many"
    assert site.post([event(f"{number}") for number in range(MAX_BATCH)], BATCH)[0] == 202


def test_bodies_that_wait_for_their_answer_count_as_under_way(tmp_path: Path) -> None:
    """While the loop has not answered, their memory is in use: the next one is asked to come again."""
    site = Site(tmp_path, limits=Limits(held=1000))
    answers: list[tuple[int, object]] = []
    waiting = threading.Thread(target=lambda: answers.append(site.post(event("1", pad="x" * 600))))
    waiting.start()
    while not site.inbox.depth():
        waiting.join(0.01)
    assert site.post(event("2", pad="x" * 600))[1]["error"] == "busy"
    site.start()
    waiting.join(10)
    assert answers[0][0] == 202
    assert site.post(event("2", pad="x" * 600))[0] == 202
    site.stop()


def test_an_answer_repeats_what_was_sent_in_part(site: Site) -> None:
    """The sentence of an answer is bounded as the record's is, also for the same once more."""
    kind = "x" * 500_000
    for _ in range(2):
        status, told = site.post(event(type=kind))
        assert (status, told["error"]) == (400, "unknown_kind")
        assert told["message"] == rejected(site)[0].message
        assert len(told["message"]) == 4000


def test_who_is_not_answered_in_time_may_send_again(tmp_path: Path) -> None:
    """503 while the journal does not answer; what was given to it all the same counts, once."""
    site = Site(tmp_path, limits=Limits(loop=0.1))
    status, told = site.post(event())
    assert (status, told["error"]) == (503, "no_answer")
    site.start()
    until(lambda: site.records() != [])
    assert site.post(event())[1]["outcome"] == "duplicate"
    assert site.kinds() == ["drift.detected"]
    site.stop()


def test_half_a_body_is_not_waited_for(site: Site) -> None:
    """408 when its time is over, however it drips; a sender that goes away leaves nothing behind."""
    handle = serve(site.application, "127.0.0.1", 0)
    head = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
    try:
        with socket.create_connection(("127.0.0.1", handle.port), timeout=10) as connection:
            connection.sendall(head)
            while not select.select([connection], [], [], 0.02)[0]:
                connection.sendall(b" ")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(("127.0.0.1", handle.port), timeout=10) as connection:
            connection.sendall(head)
        until(lambda: ("/events", 400) in site.counted)
    finally:
        handle.stop()
    assert site.records() == []


def test_a_request_that_is_given_up_is_answered(site: Site) -> None:
    """A server that stops gives up on half a body: 503, and not as if the daemon had made a mistake."""

    async def given_up() -> list[Message]:
        sent: list[Message] = []
        reading = asyncio.Event()

        async def receive() -> Message:
            reading.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/events", "headers": headers, "query_string": b""}
        task = asyncio.create_task(site.application(scope, receive, send))
        await asyncio.wait_for(reading.wait(), 10)
        task.cancel()
        await task
        return sent

    start, body = asyncio.run(given_up())
    assert (start["status"], json.loads(body["body"])["error"]) == (503, "not_ready")
    assert site.counted == [("/events", 503)]


def test_one_event_of_a_batch_may_be_too_large_alone(site: Site) -> None:
    """It is a dead letter, the other counts."""
    status, told = site.post([event("a"), event("b", pad="x" * MAX_BYTES)], BATCH)
    assert status == 207
    assert told["events"][1]["reason"] == "too_large"


def test_a_failing_check_is_told_with_its_reason(site: Site) -> None:
    """503 with Retry-After while the daemon is not ready; nothing is recorded, nor is a body read."""
    site.status = Status(beat_age=0.0, journal="the disk is full")
    answer = site.client.post("/events", content=b"{}", headers=STRUCTURED)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "the disk is full" in answer.json()["message"]
    site.status = Status(beat_age=0.0)
    site.desk.inbox = None
    assert site.post(event())[0] == 503
    assert site.records() == []


def test_a_full_queue_asks_to_come_again(tmp_path: Path) -> None:
    """429 with Retry-After at once: the sender waits, not the server."""
    site = Site(tmp_path, inbox=Inbox(size=1))
    first: list[tuple[int, object]] = []
    waiting = threading.Thread(target=lambda: first.append(site.post(event("1"))))
    waiting.start()
    while not site.inbox.depth():
        waiting.join(0.01)
    answer = site.client.post("/events", content=json.dumps(event("2")), headers=STRUCTURED)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    site.start()
    waiting.join(10)
    assert first[0][0] == 202
    assert site.post(event("2"))[0] == 202
    site.stop()


def test_who_waits_when_the_daemon_stops_is_told(tmp_path: Path) -> None:
    """503: it did not get in, and may be sent again."""
    site = Site(tmp_path)
    answers: list[tuple[int, dict[str, object]]] = []
    waiting = threading.Thread(target=lambda: answers.append(site.post(event())))
    waiting.start()
    while not site.inbox.depth():
        waiting.join(0.01)
    site.stop()
    waiting.join(10)
    assert (answers[0][0], answers[0][1]["error"]) == (503, "not_ready")
    assert site.records() == []


def test_requests_are_recorded_with_the_tokens_name(guarded: Site) -> None:
    """Only `operate` may ask for something, and does so under its own name whatever the event says."""
    request = event(kind="operator.requested", data={"verb": "pause", "by": "mallory"})
    status, told = guarded.post(request, token="sender")
    assert (status, told["error"]) == (403, "not_an_operator")
    assert guarded.post(request, token="operator")[0] == 202
    recorded = guarded.records()[-1].event
    assert isinstance(recorded, OperatorRequested)
    assert recorded.by == "operator"


def test_every_scope_is_for_what_it_says(guarded: Site) -> None:
    """Who may operate alone sends no facts, who may read alone sends nothing; none of it is recorded."""
    assert guarded.post(event(), token="sender")[0] == 202
    assert guarded.post(event("2"), token="operator") == (
        403,
        {"error": "scope_missing", "message": "operator has no scope send; it may send operator.requested alone."},
    )
    assert guarded.post(event("2"), token="reader")[1]["error"] == "scope_missing"
    assert guarded.post(event("2"))[1]["error"] == "token_missing"
    assert len(guarded.records()) == 1
    assert guarded.records()[0].source == "/test"
