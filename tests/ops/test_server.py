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


async def large(_request: Request) -> Response:
    """Answer more than any buffer on the way takes."""
    return Response(b"x" * LARGE)


async def page(_request: Request) -> Response:
    """Answer what the server need not wait to send."""
    return Response(b"x" * 50_000)


LARGE = 16 << 20
ROUTES = [Route("/hello", hello, methods=["GET", "POST"]), Route("/large", large), Route("/page", page)]
APPLICATION = Starlette(routes=ROUTES)


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


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
def test_an_answer_that_is_not_read_is_not_kept(start: Start, more: bytes) -> None:
    """Who does not read gets a while for it; then the connection is given up, and its place is free."""
    handle = start(answer=0.4, linger=0.2, connections=1)
    with connect(handle) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n%s\r\n" % more)
        began = time.monotonic()
        while not served(handle) and time.monotonic() - began < 10:
            pass
        assert 0.3 < time.monotonic() - began < 5
        assert len(rest(connection)) < LARGE


def test_small_answers_that_are_not_read_are_not_kept_either(start: Start) -> None:
    """Pipelined until every buffer on the way is full, in whatever state that leaves the connection."""
    handle = start(head=0.4, answer=0.4, linger=0.2, connections=1)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", handle.port))
        began = time.monotonic()
        connection.sendall(HELLO.replace(b"hello", b"page") * 200)
        while not served(handle) and time.monotonic() - began < 10:
            pass
        assert time.monotonic() - began < 8


def test_a_large_answer_may_be_read_slowly(start: Start) -> None:
    """As long as it is read in time it is whole, longer than the connection may wait for its next head."""
    with connect(start(answer=10.0, head=0.2, linger=0.2)) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        until = time.monotonic() + 0.6
        found, most = 0, 1
        while part := connection.recv(most):
            found += len(part)
            most = 1 if time.monotonic() < until else 1 << 20
        assert found > LARGE


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


def test_nonsense_in_a_body_does_not_answer_twice(start: Start) -> None:
    """What was answered is answered: what comes after it closes the connection, without a second answer."""
    with connect(start()) as connection:
        connection.sendall(b"POST /hello HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        assert greeted(connection)
        connection.sendall(b"no chunk\r\n")
        assert rest(connection) == b""


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


def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    """Over TLS too a connection that sends nothing is closed when its time is over."""
    certificate = Certificate(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    make_certificate(certificate.certificate, certificate.key)
    handle = serve(APPLICATION, "127.0.0.1", 0, certificate=certificate, bounds=Bounds(head=0.3))
    try:
        began = time.monotonic()
        with connect(handle) as connection:
            assert rest(connection) == b""
        assert 0.2 < time.monotonic() - began < 5
    finally:
        handle.stop()
