"""A target's follower: a thread that tells it of records in their order, again and again until it listens.

It only reads the journal, with a reader of its own. However long a target hangs, nothing else waits for it.
At least once: the cursor is kept after the answer, so a kill in between sends the same id again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from daemon.core.events import Record
from daemon.core.state import State
from daemon.journal.base import Reader
from ops.notify.cursor import Cursor, cursor_file, read_cursor, write_cursor
from ops.notify.message import DeliveryError, Target, body, headers, identity, read_keys, shown
from ops.notify.post import Answer, post

SHORTEST, LONGEST = 1.0, 600.0
"""Seconds between two tries: doubled with each failure, a random half of it taken off."""
ASKED_LONGEST: Final = 3600.0
"""Longest wait in seconds that a target's Retry-After is granted."""
GIVE_UP: Final = timedelta(days=3)
PAGE: Final = 100
SAVE_EVERY: Final = 10_000
GONE: Final = 410
AFTER_SEND: Final = "notify.after_send"
logger = logging.getLogger("rewarm.notify")


class Post(Protocol):
    """Sends one request; raises DeliveryError when there is no answer in time."""

    def __call__(self, url: str, content: bytes, headers: dict[str, str], *, timeout: float) -> Answer: ...  # noqa: D102


class Notifier:
    """Runs in its own thread; `observe` wakes it when the journal has grown."""

    def __init__(
        self,
        target: Target,
        *,
        reader: Reader,
        state: Path,
        random: Callable[[], float],
        tell: Callable[[str, str], None] = lambda _target, _outcome: None,
        boundary: Callable[[str], None] = lambda _name: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        send: Post = post,
    ) -> None:
        self.name = target.name
        self._target = target
        self._reader = reader
        self._file = cursor_file(state, target.name)
        self._random = random
        self._tell = tell
        self._boundary = boundary
        self._now = now
        self._send = send
        self._journal: str | None = None
        self._position = 0
        self._saved = 0
        self._head = 0
        self._page: deque[Record] = deque()
        self._failures = 0
        self._woken = threading.Event()
        self._stop = threading.Event()

    @property
    def label(self) -> str:
        """What metrics call it."""
        return f"notify:{self.name}"

    @property
    def behind(self) -> int:
        """How many records lie before the target: 0 when it has been told of all that it is to be told of."""
        return max(0, self._head - self._position) if self._journal is not None else 0

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Take note that the journal has grown."""
        self._head = state.position
        self._woken.set()

    def run(self) -> None:
        """Tell until `stop`."""
        while True:
            self._woken.clear()
            if self._stop.is_set():  # asked after: `stop` wakes too, and that must not be cleared away
                break
            wait = self.step()
            if wait is None:
                self._woken.wait()
            elif wait > 0:
                self._stop.wait(wait)  # what is new meanwhile waits its turn
        self._reader.close()

    def stop(self) -> None:
        """End `run` soon; what was not told yet is told by the next daemon."""
        self._stop.set()
        self._woken.set()

    def begin(self) -> None:
        """Take up the cursor; a target that has none begins here and now."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - as in `step`, which tries it again
            self._trouble(error)

    def step(self) -> float | None:
        """Try to tell the next record; return the seconds until the next try, None when there is nothing to tell."""
        try:
            self._begin()
            record = self._next()
            return None if record is None else self._deliver(record)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next events want to be told
            return self._trouble(error)

    def _begin(self) -> None:
        if self._journal is not None:
            return
        journal, head = self._reader.identity(), self._reader.head()
        cursor = read_cursor(self._file)
        fits = cursor is not None and cursor.journal == journal and cursor.position <= head
        names = {"target": self.name, "position": head}
        if cursor is not None and not fits:
            logger.warning(
                "The journal is another one than this target was told of: it goes on at its end.", extra=names
            )
        elif cursor is None:
            logger.info("A target is new: it is told of what happens from here on.", extra=names)
        self._position = self._saved = cursor.position if cursor is not None and fits else head
        self._head = max(self._head, head)
        self._journal = journal
        if not fits:
            self._saved -= SAVE_EVERY  # overdue until it is kept: a target without a cursor would begin anew
            self._save()

    def _next(self) -> Record | None:
        if not self._page:
            head = self._reader.head()
            self._page.extend(self._reader.records(self._position, PAGE, upto=head, kinds=self._target.on))
            self._position = self._page[0].position - 1 if self._page else head
        if self._position - self._saved >= SAVE_EVERY:
            self._save()
        return self._page[0] if self._page else None

    def _deliver(self, record: Record) -> float:
        name = identity(self._journal or "", record)
        content = body(self._journal or "", record)
        try:
            keys = read_keys(self._target.secret_file)  # each time: it may have been replaced
            signed = headers(name, int(self._now().timestamp()), content, keys)
            answer = self._send(self._target.url, content, signed, timeout=self._target.timeout)
        except DeliveryError as error:
            return self._failed(record, str(error), None)
        if 200 <= answer.status < 300:  # noqa: PLR2004 - the success class, RFC 9110
            self._boundary(AFTER_SEND)
            self._done("delivered")
            if self._failures:
                logger.info("A target listens again.", extra=self._names(record))
            self._failures = 0
            return 0.0
        if answer.status == GONE:
            logger.error("A target says that it is gone: it is not told of this.", extra=self._names(record))
            self._done("gone")
            return 0.0
        return self._failed(record, f"{shown(self._target.url)} answered {answer.status}.", answer.retry_after)

    def _failed(self, record: Record, why: str, asked: float | None) -> float:
        """Return how long to wait; what is too old by now is given up."""
        self._failures += 1
        grown = SHORTEST * 2.0 ** min(self._failures - 1, 20)
        wait = max(SHORTEST, min(LONGEST, grown) * (1 - self._random() / 2), min(asked or 0.0, ASKED_LONGEST))
        self._tell(self.name, "failed")
        names = {**self._names(record), "failures": self._failures, "pause_seconds": round(wait, 1)}
        logger.warning("A target could not be told; it is tried again.", extra={**names, "why": why})
        while self._page and self._now() - self._page[0].recorded_at > GIVE_UP:
            logger.error("A target was not told in three days: this is given up.", extra=self._names(self._page[0]))
            self._done("given_up")
        return wait

    def _done(self, outcome: str) -> None:
        """Go on behind the first record of the page."""
        self._position = self._page.popleft().position
        self._tell(self.name, outcome)
        self._save()

    def _save(self) -> None:
        try:
            write_cursor(self._file, Cursor(journal=self._journal or "", position=self._position))
        except OSError as error:
            names = {"target": self.name, "error": str(error)}
            logger.warning("How far a target was told cannot be kept: after a restart it is told again.", extra=names)
        else:
            self._saved = self._position

    def _trouble(self, error: Exception) -> float:
        logger.warning(
            "Telling a target waits.", extra={"target": self.name, "error": f"{type(error).__name__}: {error}"}
        )
        self._page.clear()
        return LONGEST / 60

    def _names(self, record: Record) -> dict[str, str | int]:
        return {"target": self.name, "position": record.position, "kind": record.event.kind}
