"""One request to servers that fail in every way: it ends by its deadline and says why."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ops.notify.message import DeliveryError
from ops.notify.post import Answer, Resolver, post, resolve

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from tests.ops.notify.conftest import Receiver

SOON = 0.4
Make = Callable[..., Callable[["BaseHTTPRequestHandler"], None]]


def send(url: str, timeout: float = 5.0) -> Answer:
    """Send something."""
    return post(url, b'{"a": 1}', {"content-type": "x/y"}, timeout=timeout)


@contextmanager
def serving(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Listen, and talk to the first who comes; yields the port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                talk(link, over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join(5)


def test_what_arrives(receiver: "Receiver", answer: Make) -> None:
    """Path, query, host, headers and body arrive; the status comes back, and after how long to come again."""
    receiver.answers = [answer(429, retry_after="7")]
    url = receiver.url.replace("//", "//ann:secret@")
    assert send(url) == Answer(status=429, retry_after=7.0)
    (request,) = receiver.wait(1)
    assert request.path == "/hook?team=a"
    assert request.body == b'{"a": 1}'
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "x/y"
    assert request.headers["authorization"].startswith("Basic ")


def test_redirects_are_not_followed(receiver: "Receiver", answer: Make) -> None:
    """A redirect is an answer like any other."""
    receiver.answers = [answer(302, location=receiver.url)]
    assert send(receiver.url).status == 302
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
        ("9" * 400, float("inf")),
    ],
)
def test_when_to_come_again(receiver: "Receiver", answer: Make, text: str, seconds: float | None) -> None:
    """A number of seconds or an instant counts; anything else says nothing."""
    receiver.answers = [answer(503, retry_after=text)]
    assert send(receiver.url).retry_after == seconds


def test_an_instant_to_come_again(receiver: "Receiver", answer: Make) -> None:
    """An instant in the future is so many seconds away."""
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    receiver.answers = [answer(503, retry_after=later)]
    found = send(receiver.url).retry_after
    assert found is not None
    assert 90 < found <= 100


def hang(link: socket.socket, over: threading.Event) -> None:
    """Take everything, say nothing."""
    over.wait(20)


def drip(link: socket.socket, over: threading.Event) -> None:
    """Send an endless header, a byte at a time: each operation makes progress."""
    try:
        link.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while not over.wait(0.05):
            link.sendall(b"x")
    except OSError:
        pass


@pytest.mark.parametrize("talk", [hang, drip])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_holds_for_the_whole(talk: Callable[[socket.socket, threading.Event], None], scheme: str) -> None:
    """Whoever hangs or drips, in the open or within the TLS handshake, is left at the deadline or before."""
    with serving(talk) as port:
        began = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            send(f"{scheme}://127.0.0.1:{port}/", SOON)
        assert time.monotonic() - began < SOON + 1.0
        assert f"{scheme}://127.0.0.1:{port}" in str(caught.value)


def test_nobody_listens(closed_port: int) -> None:
    """A refused connection says so."""
    with pytest.raises(DeliveryError, match="refused"):
        send(f"http://127.0.0.1:{closed_port}/secret")


def test_no_tls_where_it_is_expected(receiver: "Receiver") -> None:
    """An answer that is no TLS says so."""
    with pytest.raises(DeliveryError, match="no TLS connection"):
        send(f"https://127.0.0.1:{receiver.port}/secret")


@pytest.mark.parametrize(
    "said", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200]
)
def test_nonsense(said: bytes) -> None:
    """What is no HTTP answer is an error that shows nothing of the path."""

    def talk(link: socket.socket, over: threading.Event) -> None:
        link.recv(65536)
        link.sendall(said)

    with serving(talk) as port, pytest.raises(DeliveryError) as caught:
        send(f"http://127.0.0.1:{port}/secret")
    assert "secret" not in str(caught.value)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address says so."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DeliveryError, match="not known"):
        send("http://hooks.example/")


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver cannot be interrupted: it is left to itself at the deadline."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    began = time.monotonic()
    with pytest.raises(DeliveryError, match="did not answer"):
        send("http://hooks.example/", SOON)
    over.set()
    assert time.monotonic() - began < SOON + 1.0


def test_a_resolver_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried, one thread waits; what it hears at last is for whoever waits then, and no longer."""
    over, asked = threading.Event(), []

    def slow(*given: object, **_: object) -> list[object]:
        asked.append(given)
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    found = Resolver()
    before = set(threading.enumerate())
    for _ in range(5):
        with pytest.raises(TimeoutError):
            found("http://slow.example/", 0.01)
    with pytest.raises(TimeoutError):
        found("https://slow.example/", 0.01)
    waiting = set(threading.enumerate()) - before
    assert (len(asked), len(waiting)) == (2, 2)
    over.set()
    for thread in waiting:
        thread.join(5)
    assert found("http://slow.example/", 5.0) == []
    assert len(asked) == 3


def test_an_address_that_says_nothing_leaves_time_for_the_next(
    receiver: "Receiver", closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose first address is dead (the sixth version, where nothing is routed) is reached by its second."""
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (closed_port, receiver.port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)

    class Dead(socket.socket):
        def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            if address[1] == closed_port:
                threading.Event().wait(self.gettimeout())
                raise TimeoutError("timed out")
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Dead)
    assert send("http://twofold.example/", 1.0).status == 204


def test_an_address_of_the_sixth_version(receiver: "Receiver", monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in brackets is sent as the host, and its colons name no port."""
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: rows if (host, port) == ("fe80::abc", 80) else []
    )
    assert send("http://[fe80::abc]/").status == 204
    assert receiver.requests[0].headers["host"] == "[fe80::abc]"


def test_addresses_are_tried_in_turn(receiver: "Receiver", closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next address of a name serves where one refuses, or is of a family that this system does not have."""
    places = [(99, receiver.port), (int(socket.AF_INET), closed_port), (int(socket.AF_INET), receiver.port)]
    rows = [(family, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for family, port in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
    assert send("http://hooks.example/").status == 204
    assert len(resolve("http://hooks.example/", 1.0)) == 3
