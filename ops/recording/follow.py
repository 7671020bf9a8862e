"""Following the journal: read a batch, bring its effects into the store, move the cursor; for ever.

A follower may be killed at any instant: everything beyond the cursor is sent again, and twice is once.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from daemon.core.errors import RewarmError
from daemon.journal.base import Reader
from ops.recording import segments
from ops.recording.cursor import sqlite_file
from ops.recording.effects import Recording
from ops.recording.history import History
from ops.recording.store import Store

logger = logging.getLogger("rewarm.mlflow")
BATCH = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between attempts while MLflow or the journal does not answer; doubled each time."""


class StoreReplaced(RewarmError):
    """The embedded store's file was removed or replaced: this process still holds the old one open."""


class Follower:
    """One pass at a time over what the journal has and the store has not."""

    def __init__(self, reader: Reader, store: Store, state: Path, *, batch: int = BATCH) -> None:
        self._reader = reader
        self._store = store
        self._recording = Recording(History(reader), state)
        self._batch = batch
        self._cursor: int | None = None

    def forget(self) -> None:
        """Begin the next pass from what the store says."""
        self._cursor = None
        self._recording.forget()
        self._store.forget()

    def step(self) -> int:
        """Record the next batch and return how many records it had, 0 when there was nothing new.

        Raises what MLflow, the journal or the disk raise; call `forget` before the next step then.
        """
        if self._cursor is None:
            self._cursor = self._store.cursor(self._reader.identity(), self._reader.ancestors())
        head = self._reader.head()
        if head <= self._cursor:
            return 0
        first = segments.cell(self._cursor + 1)
        records = self._reader.records(first - 1, self._batch + segments.WIDTH)
        batch = self._recording.batch(records, self._cursor)
        for content in batch.contents.values():
            self._store.apply(content)
        for models in batch.models:
            self._store.models(models)
        self._store.commit(batch.upto, self._reader.identity())
        new = batch.upto - self._cursor
        self._cursor = batch.upto
        logger.info(
            "Transitions recorded.", extra={"records": new, "position": batch.upto, "behind": head - batch.upto}
        )
        return new


def follow(
    begin: Callable[[], Follower],
    pause: Callable[[float], bool],
    *,
    poll: float,
    intact: Callable[[], bool] = lambda: True,
    attempts: int | None = None,
) -> None:
    """Follow until `pause`, which waits some seconds, says to stop; with `attempts`, until there is nothing new.

    Whatever goes wrong is logged and tried again with growing pauses; only `attempts` failures in a row end
    it, by raising the last one. Raises StoreReplaced when `intact` says no.
    """
    follower: Follower | None = None
    failures = 0
    wait = 0.0
    while not pause(wait):
        try:
            follower = follower or begin()
            done = follower.step()
            failures = 0
        except Exception as error:
            failures += 1
            if follower is not None:
                follower.forget()
            if attempts is not None and failures >= attempts:
                raise
            wait = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
            names = {"error": f"{type(error).__name__}: {error}"[:500], "failures": failures, "pause_seconds": wait}
            logger.warning("Recording failed; it is tried again.", extra=names)
            continue
        if not intact():
            raise StoreReplaced("The MLflow store was removed or replaced; it is recorded anew from the start.")
        if done == 0 and attempts is not None:
            return
        wait = 0.0 if done else poll


def watch(tracking_uri: str) -> Callable[[], bool]:
    """Return a question: is the embedded store still the file that it was when first asked?"""
    file = sqlite_file(tracking_uri)
    seen: list[tuple[int, int]] = []

    def intact() -> bool:
        if file is None:
            return True
        try:
            found = os.stat(file)  # noqa: PTH116 - asked every second
        except OSError:
            return not seen
        seen.append((found.st_dev, found.st_ino))
        del seen[1:]
        return seen[0] == (found.st_dev, found.st_ino)

    return intact
