"""A journal that grows, and a topic in memory that keeps what it is told and the cursor, both or neither."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from daemon.core.events import AnyEvent, Carrier, DaemonStarted, InputRejected, Record, RunHeld
from daemon.core.state import State
from daemon.journal.memory import MemoryJournal
from ops.publishing.cursor import cursor_file
from ops.publishing.dead_letters import DeadLetters
from ops.publishing.messages import Content, Message
from ops.publishing.ports import Refused
from ops.publishing.publisher import Publisher

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CAME = int(NOON.timestamp() * 1000) - 5000


class MemoryTopic:
    """Keeps messages and cursors; `errors` are raised by the next calls, before or `after` they take effect."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.cursors: dict[str, int] = {}
        self.journal = ""
        self.opened: list[tuple[str, ...]] = []
        self.closed = 0
        self.errors: list[Exception] = []
        self.after: list[Exception] = []
        self.refuses: Callable[[Message], bool] = lambda _message: False

    def open(self, journal: str, ancestors: Sequence[str], stop: threading.Event) -> "MemoryTopic":
        """Open it."""
        del stop
        self._fail(self.errors)
        self.journal = journal
        self.opened.append((journal, *ancestors))
        return self

    def tell(self, messages: Sequence[Message], position: int) -> None:
        """Take messages and cursor, both or neither."""
        self._fail(self.errors)
        if any(map(self.refuses, messages)):
            raise Refused("too large")
        self.messages += messages
        self.cursors[self.journal] = position
        self._fail(self.after)

    def close(self) -> None:
        """Count it."""
        self.closed += 1

    @property
    def told(self) -> list[int]:
        """The positions that were told, in order."""
        return [message.position for message in self.messages]

    @staticmethod
    def _fail(errors: list[Exception]) -> None:
        if errors:
            raise errors.pop(0)


class Bench:
    """A journal, a topic, and followers that tell one of the other."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.journal = MemoryJournal()
        self.topic = MemoryTopic()
        self.now = NOON
        self.followers: list[Publisher] = []

    def add(self, event: AnyEvent, *, carrier: Carrier | None = None, text: bytes | None = None) -> Record:
        """Append a record, and wake the followers as the daemon does."""
        self.now += timedelta(seconds=1)
        position = self.journal.head() + 1
        record = Record(
            position=position,
            recorded_at=self.now,
            source="/rewarm/door",
            id=f"e{position}",
            event=event,
            text=text,
            carrier=carrier,
        )
        with self.journal.transaction() as transaction:
            transaction.append([record])
        for follower in self.followers:
            follower.observe([record], State(position=position))
        return record

    def letter(
        self, offset: int = 7, *, text: bytes | None = b"{broken", reason: str = "malformed", **came: object
    ) -> Record:
        """Append a dead letter of the source `main`, or as `came` says."""
        carrier = Carrier(
            **({"source": "main", "topic": "in", "partition": 1, "offset": offset, "timestamp": CAME} | came)  # type: ignore[arg-type]
        )
        event = InputRejected(reason=reason, message="It is no JSON: ä.", where=f"kafka:main/in/1@{offset}")
        return self.add(event, carrier=carrier, text=text)

    def held(self) -> Record:
        """Append what is no dead letter."""
        return self.add(RunHeld(run="docs-lm-1", reason="The gain is small."))

    def another_daemon(self) -> Record:
        """Append that a daemon has begun to lead."""
        return self.add(DaemonStarted(epoch=2, release="1", reducer=1, host="here", pid=1))

    def publisher(
        self, content: Content | None = None, *, new: Literal["beginning", "head"] = "beginning"
    ) -> Publisher:
        """Make a follower, and let it take up its cursor; there is no chance in its pauses."""
        follower = Publisher(
            content or DeadLetters(source="main", group="rewarm"),
            label="dlq:main",
            open=self.topic.open,
            reader=self.journal.reader(),
            file=cursor_file(self.state, "main.dlq"),
            new=new,
            random=lambda: 0.0,
        )
        follower.begin()
        self.followers.append(follower)
        return follower
