"""What the ranks tell the parent that writes for them: one message a datagram, whole or not at all."""

import os
import socket

import msgspec

from daemon.core.encoding import encode
from daemon.core.errors import FailureClass
from daemon.core.events import AnyEvent
from daemon.core.plans import Document
from stages.base import Result

LARGEST = 1 << 20


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of what is told."""


class Born(Message, frozen=True, kw_only=True):
    """A rank has begun, as this process."""

    rank: int
    pid: int


class Beat(Message, frozen=True, kw_only=True):
    """The ranks have come this far together; the leader says it once a second."""

    step: int
    steps: int
    metrics: dict[str, float]


class Alive(Message, frozen=True, kw_only=True):
    """The leader has done a part that takes long, such as to load the model."""


class Fact(Message, frozen=True, kw_only=True):
    """An event for the outcome file."""

    kind: str
    version: int
    data: bytes


class Halted(Message, frozen=True, kw_only=True):
    """All ranks stopped as they were asked to."""

    reason: str


class Failed(Message, frozen=True, kw_only=True):
    """A rank ends by an error; `peer`: because another one was gone."""

    rank: int
    failure: FailureClass
    message: str
    peer: bool
    step: int | None = None
    documents: tuple[Document, ...] = ()


class Done(Message, frozen=True, kw_only=True):
    """The leader has written everything; what the stage returns."""

    result: Result


AnyMessage = Born | Beat | Alive | Fact | Halted | Failed | Done
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


class Wire:
    """A rank's end; every rank has the same one, for the kernel keeps datagrams apart."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def send(self, message: AnyMessage) -> None:
        """Send a message; raises BrokenPipeError when the parent is gone."""
        self._socket.send(_encoder.encode(message))

    def write(self, event: AnyEvent, *, durable: bool = True) -> None:
        """Send an event as a stage's context writes it; how durably is the parent's to choose."""
        self.send(Fact(kind=event.kind, version=event.version, data=encode(event)))

    def close(self) -> None:
        """Let go of this end."""
        self._socket.close()


def pair() -> tuple[socket.socket, int]:
    """Return the parent's end, and the descriptor that the ranks inherit."""
    parent, ranks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent.setblocking(False)  # noqa: FBT003
    descriptor = ranks.detach()
    os.set_inheritable(descriptor, True)  # noqa: FBT003
    return parent, descriptor


def receive(parent: socket.socket) -> list[AnyMessage]:
    """Return all that has been told and not yet received."""
    found: list[AnyMessage] = []
    while True:
        try:
            data = parent.recv(LARGEST)
        except BlockingIOError:
            return found
        except ConnectionResetError:
            return found
        if not data:
            return found
        found.append(_decoder.decode(data))
