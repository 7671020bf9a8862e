"""What is told to a topic: a record as a message, and who makes messages of records."""

from typing import Protocol

import msgspec

from daemon.core.events import Record

Header = tuple[str, bytes]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way to a topic; `position` is its record's, `timestamp` in milliseconds since 1970.

    With a key, that says which partition it goes to; without one it is `partition`, modulo their number.
    """

    position: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    partition: int = 0


class Content(Protocol):
    """Makes messages of records of some kinds."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of which something is told."""

    def message(self, journal: str, record: Record, refusals: int = 0) -> Message | None:
        """Return what is told of a record of the journal of that identity, if anything; the same each time.

        After each time that the brokers refused it, something more modest, and nothing at the end.
        """


def milliseconds(record: Record) -> int:
    """Return when a record was recorded, in milliseconds since 1970."""
    return int(record.recorded_at.timestamp() * 1000)
