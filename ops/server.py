"""A web server in a thread of its own that no client can wear out: heads, bodies and connections are bounded.

uvicorn waits for ever for the head of a request and for whoever does not read its answer, and takes every
connection; the protocol here does neither.
"""

import asyncio
import contextlib
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Final

import h11
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from daemon.core.errors import RewarmError

STOP_PATIENCE: Final = 5.0
REFUSAL: Final = msgspec.json.encode(
    {"error": "too_many_connections", "message": "Too many connections are open; try again later."}
)


class AddressTaken(RewarmError):
    """Nothing can listen at the configured address."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may take: connections at once, and seconds.

    `head` is for the whole head of a request, and before it for the handshake of TLS. `answer` is for reading what
    the server could not send at once. `linger` is for the rest of a body after its answer: it is thrown away for that
    long, so that the sender gets to read why, then the connection is closed; and for closing it.
    """

    connections: int = 256
    head: float = 10.0
    answer: float = 30.0
    linger: float = 2.0


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a certificate, with its chain, and of its key."""

    certificate: Path
    key: Path


class Handle:
    """A server in a thread of its own; `host` and `port` are what it got where a name or port 0 was asked for."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, handshake: float | None) -> None:
        self._server = server
        self._listener = listener
        self._handshake = handshake
        self.host: str = listener.getsockname()[0]
        self.port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="rewarm-http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Return a loop whose servers wait as long for a handshake as they may; uvicorn has no setting for it."""
        loop = asyncio.SelectorEventLoop()
        if self._handshake is not None:
            bounded = partial(loop.create_server, ssl_handshake_timeout=self._handshake)
            loop.create_server = bounded  # type: ignore[method-assign]
        return loop

    def stop(self) -> None:
        """Answer what is being asked, then close; harmless when repeated."""
        self._server.should_exit = True
        self._thread.join(STOP_PATIENCE)
        with contextlib.suppress(OSError):
            self._listener.close()


def serve(
    application: ASGIApp, host: str, port: int, *, certificate: Certificate | None = None, bounds: Bounds | None = None
) -> Handle:
    """Serve in a background thread, without signal handlers; the address is taken before this returns.

    Raises AddressTaken. That the certificate can be used was tried before.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise AddressTaken(
            f"http: {host}:{port} cannot be listened at ({error.strerror}): change http.port, or stop who holds it."
        ) from error
    # Connections inherit it. asyncio sets it for sockets that say TCP, which those of create_server do not; without
    # it every answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bounds = bounds or Bounds()
    config = uvicorn.Config(
        application,
        http=type("Protocol", (BoundedProtocol,), {"bounds": bounds}),
        ws="none",
        log_config=None,
        log_level="error",  # what a client does wrong is counted by the application, not logged
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    return Handle(uvicorn.Server(config), listener, bounds.head if certificate else None)


class BoundedProtocol(H11Protocol):
    """One connection, kept within bounds."""

    bounds = Bounds()
    _deadline: asyncio.TimerHandle | None = None
    _awaited: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse one too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._send(b"503 Service Unavailable", REFUSAL, b"retry-after: 1\r\n")
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came; nothing more once the connection is being closed."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for what may follow an answer."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # here its next head is waited for like its first
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on once it has."""
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._await(None, 0.0)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, as JSON like everything else, unless the request before has its answer."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        self._send(b"400 Bad Request", msgspec.json.encode({"error": "no_http", "message": msg}))

    def _watch(self) -> None:
        """Set the deadline for what is awaited now."""
        if self.flow.write_paused:
            self._await("reader", self.bounds.answer)
        elif self.transport.is_closing():  # what is still to be sent may never be read
            self._await("end", self.bounds.linger)
        elif self.conn.their_state is h11.IDLE:
            self._await("head", self.bounds.head)
        elif self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            self._await("rest", self.bounds.linger)
        else:  # the application has deadlines of its own
            self._await(None, 0.0)

    def _await(self, what: str | None, seconds: float) -> None:
        if what == self._awaited:
            return
        self._awaited = what
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._close) if what else None

    def _close(self) -> None:
        self._deadline = None
        if self._awaited in {"reader", "end"}:
            self.transport.abort()
        else:
            self.transport.close()
            self._watch()

    def _send(self, status: bytes, body: bytes, extra: bytes = b"") -> None:
        """Answer without the application, and close."""
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, extra, len(body)) + body)
        self.transport.close()
        self._watch()
