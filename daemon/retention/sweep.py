"""The sweep: what the rules let go is told to the journal, and after the commit removed from the disk.

Killed in between, the next sweep tells the same id again, hears that it is a duplicate, and removes it then.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from daemon.core.errors import RewarmError
from daemon.core.events import FilesExpired
from daemon.core.state import State
from daemon.door import Answer, Input, Offer
from daemon.journal.base import Reader, digest
from daemon.retention import disk
from daemon.retention.history import History
from daemon.retention.rules import Removal, removals
from daemon.settings import RetentionSettings
from daemon.sources.queue import Inbox
from ops.recording.cursor import read_cursor

SOURCE: Final = "/rewarm/retention"
INTERVAL: Final = 3600.0
BATCH: Final = 50
AFTER_TOLD: Final = "retention.after_told"
AFTER_ASIDE: Final = "retention.after_aside"
logger = logging.getLogger("rewarm.retention")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A removal that has something to remove."""

    removal: Removal
    paths: tuple[Path, ...]
    bytes: int


def recorded_upto(tracking_uri: str | None, state: Path, head: int) -> int | None:
    """Return up to which position MLflow has what this journal says, None where nothing is recorded."""
    if tracking_uri is None:
        return None
    cursor = read_cursor(tracking_uri, state) or 0
    return cursor if cursor <= head else 0  # a store of another journal has nothing of this one


def find_due(
    folder: Path, state: State, history: History, now: datetime, settings: RetentionSettings, told: int | None = None
) -> list[Due]:
    """Return what may go at `now` and is still in the state folder; `told` is how far MLflow has recorded."""
    found = []
    for removal in removals(state, history, now, settings, told):
        paths = tuple(path for pattern in removal.paths for path in disk.find(folder, pattern))
        if paths:
            found.append(Due(removal=removal, paths=paths, bytes=sum(map(disk.size, paths))))
    return found


class Sweeper:
    """Runs in its own thread: at the start, then every hour."""

    def __init__(
        self,
        *,
        reader: Reader,
        inbox: Inbox,
        folder: Path,
        settings: RetentionSettings,
        current: Callable[[], State],
        recorded: Callable[[], int | None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        boundary: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._reader = reader
        self._inbox = inbox
        self._folder = folder
        self._settings = settings
        self._current = current
        self._recorded = recorded
        self._now = now
        self._boundary = boundary
        self._stop = threading.Event()

    def run(self) -> None:
        """Sweep until `stop`; what goes wrong is tried again with the next sweep."""
        while not self._stop.is_set():
            try:
                self.sweep()
            except (OSError, RewarmError) as error:
                logger.warning("A sweep was broken off.", extra={"error": f"{type(error).__name__}: {error}"})
            self._stop.wait(INTERVAL)
        self._reader.close()

    def stop(self) -> None:
        """End `run` soon; what was told and not removed yet is removed by the next daemon."""
        self._stop.set()

    def sweep(self) -> None:
        """Remove once what may go. Raises OSError, JournalError."""
        disk.clear(self._folder, self._now().timestamp())
        disk.shorten(self._folder)
        history = History(shards=self._settings.shards is not None)
        if self._settings.model_dump(exclude_none=True):
            due = self._due(history)
            for first in range(0, len(due), BATCH):
                told = self._tell(due[first : first + BATCH])
                self._boundary(AFTER_TOLD)
                self._remove(told, history)

    def _due(self, history: History) -> list[Due]:
        state = self._current()  # before the history, which may know more than the state but never less
        history.read(self._reader)
        return find_due(self._folder, state, history, self._now(), self._settings, self._recorded())

    def _tell(self, due: Sequence[Due]) -> list[Due]:
        """Store that these go; returns those that are stored, now or before."""
        done = threading.Event()
        answers: list[Answer] = []

        def reply(told: Sequence[Answer] | None) -> None:
            answers.extend(told or ())
            done.set()

        offers = tuple(self._offer(each) for each in due)
        if self._stop.is_set() or not self._inbox.put(Input(offers=offers, reply=reply)):
            return []
        while not done.wait(0.5):
            if self._stop.is_set():
                return []
        return [each for each, answer in zip(due, answers, strict=False) if answer.outcome != "dead_letter"]

    def _offer(self, due: Due) -> Offer:
        removal = due.removal
        event = FilesExpired(
            what=removal.what,
            name=removal.name,
            paths=tuple(str(path.relative_to(self._folder)) for path in due.paths),
            bytes=due.bytes,
            rule=removal.rule,
            run=removal.run,
        )
        return Offer(
            source=SOURCE,
            id=removal.identity,
            where="retention",
            # What is left on the disk may have changed since it was told first: it still is the same removal.
            digest=digest(removal.identity.encode()),
            event=event,
            pipeline=removal.pipeline,
        )

    def _remove(self, due: Sequence[Due], history: History) -> None:
        """Take the files out of their places, ask the rules once more, and remove them or put them back.

        A stage may have found a shard whole just before it was taken away. Its order was in the state before it
        looked: who asks after the renaming sees it.
        """
        aside = [(each, moved) for each in due for moved in self._set_aside(each)]
        self._boundary(AFTER_ASIDE)
        state = self._current()
        history.read(self._reader)
        again = removals(state, history, self._now(), self._settings, self._recorded())
        still = {each.identity for each in again}
        for each, moved in aside:
            names = {"what": each.removal.what, "path": str(moved)}
            try:
                if each.removal.identity in still:
                    disk.remove(moved)
                    logger.info("Files expired.", extra={**names, "rule": each.removal.rule})
                else:
                    disk.put_back(moved)
            except OSError as error:
                logger.warning("Files cannot be removed.", extra={**names, "error": str(error)})

    def _set_aside(self, due: Due) -> list[Path]:
        """Take what goes out of its place, unless a process of its run is still alive."""
        moved = []
        try:
            with disk.quiet(self._folder, due.removal.run) as free:
                for path in due.paths if free else ():
                    aside = disk.set_aside(path)
                    moved += [aside] if aside is not None else []
        except OSError as error:
            logger.warning("Files cannot be set aside.", extra={"what": due.removal.name, "error": str(error)})
        return moved
