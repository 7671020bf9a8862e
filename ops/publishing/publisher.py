"""A topic's follower: a thread that tells it of records in their order, each once, for as long as it takes.

It only reads the journal, with a reader of its own. However long the cluster is away, nothing else waits for it.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon.core.errors import RewarmError
from daemon.core.events import DaemonStarted, Record
from daemon.core.state import State
from daemon.journal.base import Reader
from ops.notify.cursor import Cursor, read_cursor, write_cursor
from ops.publishing.cursor import reached
from ops.publishing.messages import Content, Message
from ops.publishing.patience import Ended
from ops.publishing.ports import Open, Refused, Sink

SHORTEST, LONGEST = 1.0, 60.0
"""Seconds between two tries: doubled with each failure, a random half of it taken off."""
PAGE: Final = 32
"""Records in a transaction; each may hold a megabyte, and more than one."""
logger = logging.getLogger("rewarm.publishing")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What is told in one transaction, and where the cursor stands after it."""

    messages: tuple[Message, ...]
    position: int


class Publisher:
    """Runs in its own thread; `observe` wakes it when there is something to tell.

    `new` is where a topic begins that has no cursor yet.
    """

    def __init__(
        self,
        content: Content,
        *,
        label: str,
        open: Open,  # noqa: A002 - that is what it does
        reader: Reader,
        file: Path,
        new: Literal["beginning", "head"],
        random: Callable[[], float],
    ) -> None:
        self.label = label
        self._content = content
        self._kinds = content.kinds
        self._opener = open
        self._reader = reader
        self._file = file
        self._new = new
        self._random = random
        self._journal = ""
        self._began = 0
        self._position = 0
        self._head = 0
        self._sink: Sink | None = None
        self._alone = 0
        self._refusals: Counter[int] = Counter()
        self._busy = False
        self._failures = 0
        self._trouble: type[BaseException] | None = None
        self._woken = threading.Event()
        self._woken.set()  # what waits is not known before the first look
        self._stop = threading.Event()

    @property
    def behind(self) -> int:
        """How many records lie between the last that was told and the head; 0 when nothing waits."""
        waits = self._busy or self._woken.is_set()
        return max(0, self._head - self._position) if waits else 0

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Take note that the journal has grown; what is not to be told wakes nobody."""
        self._head = state.position
        if any(record.event.kind in self._kinds for record in records):
            self._woken.set()

    def begin(self) -> None:
        """Take up the cursor; a topic that has none begins here and now, or at the journal's beginning."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - as in `step`, which tries it again
            self._failed(error)

    def run(self) -> None:
        """Tell until `stop`, or until a newer daemon leads."""
        while True:
            self._busy = True
            self._woken.clear()
            if self._stop.is_set():  # asked after: `stop` wakes too, and that must not be cleared away
                break
            wait = self.step()
            self._busy = wait is not None
            if wait is None:
                self._woken.wait()
            elif wait > 0:
                self._stop.wait(wait)  # what is new meanwhile waits its turn
        self._close()
        self._reader.close()

    def stop(self) -> None:
        """End `run` soon; what was not told yet is told by the next daemon."""
        self._stop.set()
        self._woken.set()

    def step(self) -> float | None:
        """Try to tell the next records; return the seconds until the next try, None when there is nothing to tell."""
        try:
            self._begin()
            page = self._next()
            if page is None:
                return None
            if self._sink is None:
                self._open()
                return 0.0
            return self._tell(self._sink, page)
        except Ended:
            return 0.0
        except Exception as error:  # noqa: BLE001 - whatever it was, the next records want to be told
            self._close()
            return self._failed(error)

    def _begin(self) -> None:
        if self._journal:
            return
        journal, head = self._reader.identity(), self._reader.head()
        found = read_cursor(self._file)
        cursors = {} if found is None else {found.journal: found.position}
        known = reached(cursors, journal, self._reader.ancestors(), head)
        self._position = known if known is not None else head if self._new == "head" else 0
        self._head = max(self._head, head)
        self._began = head
        self._journal = journal
        if self._new == "head":
            self._save()  # at once: a topic without a cursor would begin anew with every daemon

    def _next(self) -> Page | None:
        """Return what is to be told next; records that say nothing are passed over."""
        while True:
            head = self._reader.head()
            limit = 1 if self._position < self._alone else PAGE
            records = self._reader.records(self._position, limit, upto=head, kinds=self._kinds)
            messages = tuple(message for record in records if (message := self._message(record)) is not None)
            position = records[-1].position if records else head
            if messages or any(record.position in self._refusals for record in records):
                return Page(messages=messages, position=position)
            self._position = position
            if not records:
                return None

    def _message(self, record: Record) -> Message | None:
        return self._content.message(self._journal, record, self._refusals.get(record.position, 0))

    def _open(self) -> None:
        """Become the one who tells the topic, unless a newer daemon is, and go on where the cluster says."""
        if self._reader.records(self._began, 1, kinds=(DaemonStarted.kind,)):
            logger.error("A newer daemon leads: this one tells a topic nothing any more.", extra=self._names)
            self.stop()
            return
        ancestors = self._reader.ancestors()
        self._sink = self._opener(self._journal, tuple(ancestors), self._stop)
        told = reached(self._sink.cursors, self._journal, ancestors, self._reader.head())
        # What we know to be told stays told: a coordinator that was just elected may have forgotten it for a moment.
        self._position = max(self._position, told or 0)

    def _tell(self, sink: Sink, page: Page) -> float:
        if not page.messages:
            logger.error(
                "The brokers do not take a message in any form: it is in the journal alone.",
                extra={**self._names, "position": page.position},
            )
        try:
            sink.tell(page.messages, page.position)
        except Refused as error:
            self._close()
            self._refused(page, error)
            return 0.0
        self._position = page.position
        self._refusals.clear()
        self._save()
        if self._trouble is not None:
            logger.info("A topic is told again.", extra=self._names)
        self._failures, self._trouble = 0, None
        return 0.0

    def _refused(self, page: Page, error: Refused) -> None:
        """Find out which message it is, by telling each alone; that one is told in another form."""
        if len(page.messages) > 1:
            self._alone = page.position
            return
        position = page.messages[0].position
        self._refusals[position] += 1
        logger.warning(
            "The brokers do not take a message: it is told in a more modest form, if it has one.",
            extra={**self._names, "position": position, "why": str(error)},
        )

    def _failed(self, error: Exception) -> float:
        """Return how long to wait; only what is new is logged, for it may take days."""
        self._failures += 1
        kind = type(error.__cause__ or error)
        if kind is not self._trouble:
            self._trouble = kind
            why = str(error) if isinstance(error, RewarmError) else f"{type(error).__name__}: {error}"
            logger.warning("A topic cannot be told; it is tried until it can.", extra={**self._names, "why": why})
        grown = SHORTEST * 2.0 ** min(self._failures - 1, 20)
        return max(SHORTEST, min(LONGEST, grown) * (1 - self._random() / 2))

    def _save(self) -> None:
        try:
            write_cursor(self._file, Cursor(journal=self._journal, position=self._position))
        except OSError as error:
            logger.warning(
                "How far a topic was told cannot be kept; the cluster knows.", extra={**self._names, "why": str(error)}
            )

    def _close(self) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    @property
    def _names(self) -> dict[str, str | int]:
        return {"follower": self.label, "journaled": self._head, "told": self._position}
