"""What a follower needs of a topic: to open it, and to tell it messages together with its cursor."""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from daemon.core.errors import BrokerError
from ops.publishing.messages import Message


class Refused(BrokerError):
    """One of the messages is never taken, however often it is sent; which one, only a message alone can tell."""


class Sink(Protocol):
    """An open topic."""

    @property
    def cursors(self) -> Mapping[str, int]:
        """How far the topic was told of each journal when it was opened."""

    def tell(self, messages: Sequence[Message], position: int) -> None:
        """Tell messages and move the cursor to `position`, both or neither.

        Raises Refused, or what else went wrong; whatever it was, the sink is of no use any more.
        """

    def close(self) -> None:
        """Let go of the connections."""


class Open(Protocol):
    """Opens a topic."""

    def __call__(self, journal: str, ancestors: Sequence[str], stop: threading.Event) -> Sink:
        """Become the one who tells it of a journal; `ancestors` are journals whose cursors are read as well.

        Gives up soon when `stop` is set. Raises BrokerError, which says what to do.
        """
