"""A target on this machine that answers as it is told, and a journal that grows."""

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.core.events import AnyEvent, InputRejected, Record, RunFailed, RunHeld
from daemon.core.state import State
from daemon.journal.memory import MemoryJournal
from ops.notify.message import Target
from ops.notify.notifier import Notifier

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE = 20.0


class Request(NamedTuple):
    """What a target got."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A web server on this machine; `answers` is what it says next, the last of them for ever."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = [status(204)]
        self.changed = threading.Condition()
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with receiver.changed:
                    names = {name.lower(): value for name, value in self.headers.items()}
                    receiver.requests.append(Request(self.path, names, body))
                    answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                    receiver.changed.notify_all()
                answer(self)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, address: object) -> None:
                """Say nothing: who hangs up on a hanging server does what is wanted."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook?team=a"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def wait(self, count: int) -> list[Request]:
        """Return what came, once it is so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE)
            return list(self.requests)

    def close(self) -> None:
        """End the server, and whatever hangs in it."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Make an answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


class Bench:
    """A journal, a clock that is set, and notifiers that tell one target."""

    def __init__(self, state: Path, receiver: Receiver) -> None:
        self.state = state
        self.receiver = receiver
        self.journal = MemoryJournal()
        self.now = NOON
        self.outcomes: list[tuple[str, str]] = []
        self.boundary: Callable[[str], None] = lambda name: None
        self.observers: list[Notifier] = []

    def add(self, *events: AnyEvent, pipeline: str | None = "docs-lm") -> list[Record]:
        """Record events; wake everyone."""
        head = self.journal.head()
        records = [
            Record(position=head + number, recorded_at=self.now, source="/test", id=f"{head + number}",
                   event=event, pipeline=pipeline, text=b"{broken" if isinstance(event, InputRejected) else None)
            for number, event in enumerate(events, 1)
        ]  # fmt: skip
        with self.journal.transaction() as transaction:
            transaction.append(records)
        for notifier in self.observers:
            notifier.observe(records, State(position=head + len(records)))
        return records

    def held(self, run: str = "docs-lm-7") -> Record:
        """Record that a candidate waits for a person."""
        return self.add(RunHeld(run=run, reason="The gain is small."))[0]

    def failed(self) -> Record:
        """Record something that the target is not told of."""
        return self.add(RunFailed(run="docs-lm-8", stage="train", failure="hang", reason="It hung."))[0]

    def notifier(self, *, url: str | None = None, name: str = "team", timeout: float = 5.0,
                 secret_file: Path | None = None) -> Notifier:  # fmt: skip
        """Make a follower that has begun."""
        target = Target(
            name=name,
            url=url or self.receiver.url,
            on=frozenset({"run.held", "input.rejected"}),
            secret_file=secret_file,
            timeout=timeout,
        )
        made = Notifier(
            target,
            reader=self.journal,
            state=self.state,
            random=lambda: 0.0,
            tell=lambda target, outcome: self.outcomes.append((target, outcome)),
            boundary=self.boundary,
            now=lambda: self.now,
        )
        made.begin()
        self.observers.append(made)
        return made

    def pass_time(self, by: timedelta) -> None:
        """Set the clock forward."""
        self.now += by


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A target that takes everything."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, receiver: Receiver) -> Bench:
    """A journal with one record, of before there was a target."""
    made = Bench(tmp_path, receiver)
    made.held("docs-lm-1")
    return made


@pytest.fixture
def answer() -> Callable[..., Callable[[BaseHTTPRequestHandler], None]]:
    """Make an answer: a status with headers."""
    return status


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
