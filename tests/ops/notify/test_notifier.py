"""A target's follower: order, at least once, patience, and an end to it."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import InputRejected, RunFailed
from daemon.journal.memory import MemoryJournal
from ops.followers import Followers
from ops.notify.cursor import Cursor, behind, cursor_file, read_cursor, write_cursor
from ops.notify.message import Target
from ops.notify.notifier import GIVE_UP, SAVE_EVERY

if TYPE_CHECKING:
    from tests.ops.notify.conftest import Bench, Receiver

Answer = Callable[[BaseHTTPRequestHandler], None]


class Died(BaseException):
    """What stands for a SIGKILL."""


def told(receiver: "Receiver") -> list[int]:
    """Return the positions that came, in the order in which they came."""
    return [json.loads(request.body)["position"] for request in receiver.requests]


def drain(notifier: object) -> None:
    """Step until there is nothing to tell."""
    while notifier.step() is not None:  # type: ignore[attr-defined]
        pass


def test_a_new_target_is_told_of_what_comes(bench: "Bench", receiver: "Receiver") -> None:
    """It begins at the head of the journal where it first appears, and gets what it asked for, in order."""
    notifier = bench.notifier()
    assert notifier.step() is None
    bench.held()
    bench.failed()
    bench.add(InputRejected(reason="malformed", message="It is no JSON.", where="x:1"), pipeline=None)
    drain(notifier)
    assert told(receiver) == [2, 4]
    assert notifier.behind == 0
    assert bench.outcomes == [("team", "delivered")] * 2
    request = receiver.requests[0]
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert request.headers["webhook-id"] == f"{bench.journal.identity()}/2" == json.loads(request.body)["id"]
    assert "webhook-signature" not in request.headers


def test_the_next_daemon_goes_on_behind_what_was_told(bench: "Bench", receiver: "Receiver") -> None:
    """The cursor is kept: what came meanwhile is told, and nothing twice."""
    first = bench.notifier()
    bench.held()
    drain(first)
    bench.held()
    drain(bench.notifier())
    assert told(receiver) == [2, 3]


def test_a_kill_after_the_answer_sends_the_same_again(bench: "Bench", receiver: "Receiver") -> None:
    """The answer came and the cursor did not: the next daemon sends the same id and body again."""

    def die(name: str) -> None:
        raise Died

    bench.boundary = die
    first = bench.notifier()
    bench.held()
    with pytest.raises(Died):
        first.step()
    bench.boundary = lambda name: None
    drain(bench.notifier())
    one, again = receiver.requests
    assert one.body == again.body
    assert one.headers["webhook-id"] == again.headers["webhook-id"]


def test_signatures_follow_the_file(bench: "Bench", receiver: "Receiver", tmp_path: Path) -> None:
    """Each message is signed with what the file holds then; while it is missing nothing is sent unsigned."""
    file = tmp_path / "secret"
    notifier = bench.notifier(secret_file=file)
    bench.held()
    assert notifier.step() == 1.0
    assert receiver.requests == []
    for secret, key in (("whsec_" + base64.b64encode(b"first").decode(), b"first"), ("second", b"second")):
        file.write_text(secret, encoding="utf-8")
        bench.held()
        notifier.step()
        request = receiver.requests[-1]
        content = b".".join(
            [request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body]
        )
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"
        assert request.headers["webhook-timestamp"] == str(int(bench.now.timestamp()))


@pytest.mark.parametrize("code", [301, 400, 401, 404, 429, 500, 503, 199])
def test_only_success_counts(bench: "Bench", receiver: "Receiver", answer: Callable[..., Answer], code: int) -> None:
    """Any other answer is tried again, later each time, and what follows waits: order is kept."""
    receiver.answers = [answer(code), answer(code), answer(code), answer(200)]
    notifier = bench.notifier()
    bench.held()
    bench.held()
    assert [notifier.step() for _ in range(3)] == [1.0, 2.0, 4.0]
    assert notifier.behind == 2
    drain(notifier)
    assert told(receiver) == [2, 2, 2, 2, 3]
    assert len({request.headers["webhook-id"] for request in receiver.requests[:4]}) == 1
    assert [outcome for _, outcome in bench.outcomes] == ["failed"] * 3 + ["delivered"] * 2


def test_pauses_grow_to_ten_minutes(bench: "Bench", closed_port: int) -> None:
    """Twice as long each time, from a second to ten minutes."""
    notifier = bench.notifier(url=f"http://127.0.0.1:{closed_port}/")
    bench.held()
    pauses = [notifier.step() for _ in range(12)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]


@pytest.mark.parametrize(("text", "pause"), [("30", 30.0), ("0", 1.0), ("86400", 3600.0)])
def test_a_target_says_when_to_come_again(
    bench: "Bench", receiver: "Receiver", answer: Callable[..., Answer], text: str, pause: float
) -> None:
    """Retry-After is kept to, up to an hour."""
    receiver.answers = [answer(429, retry_after=text)]
    notifier = bench.notifier()
    bench.held()
    assert notifier.step() == pause


def test_after_three_days_it_is_given_up(bench: "Bench", closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """What is older than three days when a try fails is given up, and told so; what is younger is tried on."""
    notifier = bench.notifier(url=f"http://ann:secret@127.0.0.1:{closed_port}/secret?secret")
    bench.held()
    bench.held()
    bench.pass_time(GIVE_UP)
    young = bench.held()
    assert notifier.step() == 1.0
    assert [outcome for _, outcome in bench.outcomes] == ["failed"]
    bench.pass_time(timedelta(seconds=1))
    notifier.step()
    assert [outcome for _, outcome in bench.outcomes] == ["failed", "failed", "given_up", "given_up"]
    cursor = read_cursor(cursor_file(bench.state, "team"))
    assert cursor is not None
    assert cursor.position == young.position - 1
    assert "given up" in caplog.text
    assert "secret" not in caplog.text
    assert not any("secret" in str(value) for record in caplog.records for value in vars(record).values())


def test_an_old_record_is_tried_before_it_is_given_up(bench: "Bench", receiver: "Receiver") -> None:
    """A daemon that was away for a week tells what happened before."""
    notifier = bench.notifier()
    bench.held()
    bench.pass_time(timedelta(days=7))
    drain(notifier)
    assert told(receiver) == [2]


def test_a_target_that_is_gone(bench: "Bench", receiver: "Receiver", answer: Callable[..., Answer]) -> None:
    """410 ends the message at once; the next one is tried all the same."""
    receiver.answers = [answer(410), answer(200)]
    notifier = bench.notifier()
    bench.held()
    bench.held()
    drain(notifier)
    assert told(receiver) == [2, 3]
    assert [outcome for _, outcome in bench.outcomes] == ["gone", "delivered"]


def test_another_journal(bench: "Bench", receiver: "Receiver") -> None:
    """A cursor of another journal, or one beyond the head, says nothing: the target goes on at the head."""
    file = cursor_file(bench.state, "team")
    for cursor in (
        Cursor(journal="another", position=0),
        Cursor(journal=bench.journal.identity(), position=bench.journal.head() + 1),
    ):
        write_cursor(file, cursor)
        notifier = bench.notifier()
        assert notifier.step() is None
        assert read_cursor(file) == Cursor(journal=bench.journal.identity(), position=bench.journal.head())
    assert receiver.requests == []


def test_a_cursor_that_cannot_be_read_is_none(bench: "Bench") -> None:
    """A torn file is as good as none."""
    file = cursor_file(bench.state, "team")
    file.parent.mkdir()
    file.write_bytes(b'{"journal": "a')
    assert read_cursor(file) is None
    bench.notifier()
    assert read_cursor(file) == Cursor(journal=bench.journal.identity(), position=1)


def test_a_cursor_that_cannot_be_kept(bench: "Bench", receiver: "Receiver", monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk it goes on telling; only a restart would repeat it."""
    notifier = bench.notifier()
    bench.held()
    bench.held()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ops.notify.notifier.write_cursor", full)
    drain(notifier)
    assert told(receiver) == [2, 3]


def test_a_new_target_whose_cursor_could_not_be_kept_at_first(
    bench: "Bench", receiver: "Receiver", closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept with the next step: a restart after that loses nothing of what came since it began."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ops.notify.notifier.write_cursor", full)
        notifier = bench.notifier(url=f"http://127.0.0.1:{closed_port}/")
        bench.held()
        notifier.step()
    assert notifier.step() is not None
    bench.held()
    notifier.step()
    drain(bench.notifier())
    assert told(receiver) == [2, 3]


def test_a_stop_is_not_missed(bench: "Bench", monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to end at the very moment when it looks whether it was woken, it ends."""
    notifier = bench.notifier()
    clear = threading.Event.clear

    def stopped(event: threading.Event) -> None:
        if event is notifier._woken:  # noqa: SLF001 - that very moment
            notifier.stop()
        clear(event)

    monkeypatch.setattr(threading.Event, "clear", stopped)
    thread = threading.Thread(target=notifier.run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_what_is_not_asked_for_moves_the_cursor_now_and_then(bench: "Bench") -> None:
    """A target that is told of little does not make the next daemon read everything again."""
    notifier = bench.notifier()
    unasked = RunFailed(run="docs-lm-8", stage="train", failure="hang", reason="It hung.")
    for _ in range(SAVE_EVERY // 1000):
        bench.add(*[unasked] * 1000)
    drain(notifier)
    assert read_cursor(cursor_file(bench.state, "team")) == Cursor(
        journal=bench.journal.identity(), position=1 + SAVE_EVERY
    )


def test_how_far_a_target_is_behind(bench: "Bench", closed_port: int) -> None:
    """Counted from the first record that it is still to be told of; nothing while there is none."""
    notifier = bench.notifier(url=f"http://127.0.0.1:{closed_port}/")
    target = Target(name="team", url="http://x", on=frozenset({"run.held"}))
    assert behind(bench.journal, bench.state, target) == 0
    bench.failed()
    assert behind(bench.journal, bench.state, target) == 0
    bench.held()
    bench.failed()
    notifier.step()
    assert behind(bench.journal, bench.state, target) == notifier.behind == 2
    other = Target(name="other", url="http://x", on=frozenset({"run.held"}))
    assert behind(bench.journal, bench.state, other) == 0


def test_trouble_with_the_journal_passes(bench: "Bench", receiver: "Receiver", monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a reader raises is tried again."""
    notifier = bench.notifier()
    bench.held()
    with monkeypatch.context() as patched:
        patched.setattr(MemoryJournal, "head", lambda self: 1 // 0)
        assert notifier.step() == 10.0
    drain(notifier)
    assert told(receiver) == [2]


def test_one_that_hangs_delays_no_other(bench: "Bench", receiver: "Receiver", answer: Callable[..., Answer]) -> None:
    """While one target hangs, another is told; and the end of both is not waited for."""

    def hang(handler: BaseHTTPRequestHandler) -> None:
        receiver.released.wait(20)

    slow = type(receiver)()
    slow.answers = [hang]
    group = Followers([bench.notifier(name="slow", url=slow.url, timeout=20.0), bench.notifier(name="quick")])
    group.start()
    bench.held()
    slow.wait(1)
    bench.held()
    receiver.wait(2)
    assert told(receiver) == [2, 3]
    assert group.behind()["notify:slow"] == 2
    before = threading.active_count()
    group.stop()
    assert threading.active_count() <= before
    slow.close()
