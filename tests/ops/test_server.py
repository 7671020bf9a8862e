"""The server's bounds: heads, bodies and connections, over real sockets."""

import logging
import select
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ops.server import AddressTaken, Bounds, Certificate, Handle, serve
from tests.ops.certificate import make_certificate

HELLO = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n"
Start = Callable[..., Handle]


async def hello(_request: Request) -> Response:
    """Greet; a body is not read."""
    return PlainTextResponse("hello")


APPLICATION = Starlette(routes=[Route("/hello", hello, methods=["GET", "POST"])])


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers; they end with the test."""
    handles: list[Handle] = []

    def build(**bounds: float) -> Handle:
        handles.append(serve(APPLICATION, "127.0.0.1", 0, bounds=Bounds(**bounds)))  # type: ignore[arg-type]
        return handles[-1]

    yield build
    for handle in handles:
        handle.stop()


def connect(handle: Handle) -> socket.socket:
    """Return a connection whose every wait is bounded."""
    return socket.create_connection(("127.0.0.1", handle.port), timeout=10)


def greeted(connection: socket.socket, times: int = 1) -> bool:
    """Return whether so many answers come."""
    found = b""
    while found.count(b"\r\n\r\nhello") < times:
        part = connection.recv(1 << 16)
        if not part:
            return False
        found += part
    return True


def drip(connection: socket.socket, part: bytes, seconds: float) -> int:
    """Send a part again and again, until the other side has closed or the time is over; return how many bytes."""
    until = time.monotonic() + seconds
    sent = 0
    try:
        while time.monotonic() < until:
            sent += connection.send(part)
            readable, _, _ = select.select([connection], [], [], 0.001)
            if readable and not connection.recv(1 << 16):
                return sent
    except ConnectionError:
        return sent
    pytest.fail("the connection was not closed")


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    found = b""
    while True:
        try:
            part = connection.recv(1 << 16)
        except ConnectionResetError:
            return found
        if not part:
            return found
        found += part


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /hello HTTP/1.1\r\nhost: x\r\nx: "])
def test_a_head_that_does_not_come_is_not_waited_for(start: Start, sent: bytes) -> None:
    """A connection that sends nothing, or half a head, is closed when its time is over."""
    handle = start(head=0.3)
    began = time.monotonic()
    with connect(handle) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""
    assert 0.25 < time.monotonic() - began < 5


def test_a_head_that_drips_is_not_waited_for(start: Start) -> None:
    """Each byte that comes does not buy more time."""
    with connect(start(head=0.4)) as connection:
        connection.sendall(b"GET /hello HTTP/1.1\r\n")
        began = time.monotonic()
        drip(connection, b"x: y\r\n", 5)
        assert time.monotonic() - began < 3


def test_the_next_head_is_bounded_too(start: Start) -> None:
    """A connection that is kept after an answer has as long for its next head, and no longer."""
    handle = start(head=0.4)
    with connect(handle) as connection:
        connection.sendall(HELLO)
        assert greeted(connection)
        connection.sendall(HELLO)
        assert greeted(connection)
        began = time.monotonic()
        connection.sendall(HELLO[:20])
        assert rest(connection) == b""
        assert 0.3 < time.monotonic() - began < 3


def test_many_requests_on_one_connection_go_on(start: Start) -> None:
    """What comes in time is answered for as long as it comes, pipelined or not."""
    handle = start(head=0.3)
    with connect(handle) as connection:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            connection.sendall(HELLO)
            assert greeted(connection)
        connection.sendall(HELLO * 20)
        assert greeted(connection, 20)


def test_the_rest_of_an_unread_body_is_thrown_away_for_a_while(start: Start) -> None:
    """The sender gets to read the answer; then, however much is still to come, the connection is closed."""
    handle = start(linger=0.5)
    with connect(handle) as connection:
        connection.sendall(b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n\r\n")
        began = time.monotonic()
        sent = drip(connection, b"x" * 65536, 10)
        assert 0.4 < time.monotonic() - began < 5
    assert sent > 1 << 20


def test_one_connection_too_many_is_told(start: Start) -> None:
    """503 as JSON at once; when another has gone there is room again."""
    handle = start(connections=3)
    open_ones = [connect(handle) for _ in range(3)]
    for connection in open_ones:
        connection.sendall(HELLO)
        assert greeted(connection)
    with connect(handle) as connection:
        told = rest(connection)
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in told
    assert b"too_many_connections" in told
    open_ones.pop().close()
    deadline = time.monotonic() + 10
    while not served(handle) and time.monotonic() < deadline:
        pass
    assert served(handle)
    for connection in open_ones:
        connection.close()


def served(handle: Handle) -> bool:
    """Return whether a new connection is answered."""
    with connect(handle) as connection:
        try:
            connection.sendall(HELLO)
            return greeted(connection)
        except ConnectionError:
            return False


def test_what_is_no_http_is_told_as_json(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """400, and the connection is closed; a client's mistake is not logged."""
    caplog.set_level(logging.INFO)
    with connect(start()) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        told = rest(connection)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b'"error":"no_http"' in told
    assert caplog.records == []


def test_an_address_is_taken_at_once_and_given_back(start: Start) -> None:
    """Another server is told who has it; after the first has ended it gets the port."""
    handle = start()
    with pytest.raises(AddressTaken, match=r"http\.port"):
        serve(APPLICATION, "127.0.0.1", handle.port)
    handle.stop()
    handle.stop()
    serve(APPLICATION, "127.0.0.1", handle.port).stop()


def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    """Served with the files of a certificate and its key, it is trusted by whoever trusts the certificate."""
    certificate = Certificate(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    make_certificate(certificate.certificate, certificate.key)
    handle = serve(APPLICATION, "127.0.0.1", 0, certificate=certificate)
    context = ssl.create_default_context(cafile=certificate.certificate)
    try:
        with urllib.request.urlopen(f"https://localhost:{handle.port}/hello", timeout=10, context=context) as answer:
            assert answer.read() == b"hello"
    finally:
        handle.stop()
