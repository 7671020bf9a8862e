"""The journal in memory: for tests, simulations and whoever needs no trace. The same rows and rules as on disk."""

import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import msgspec

from daemon.core.errors import DuplicateRecord, JournalError, JournalFenced, StaleCursor
from daemon.core.events import Record
from daemon.journal.base import KEPT_SNAPSHOTS, Cursor, Found, Pair, Snapshot, later, repeated, stale
from daemon.journal.rows import Row, Selected, instant, selected, to_records, to_rows


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a store can be seen."""

    head: int
    cursors: dict[str, int]
    duplicates: int


class MemoryStore:
    """What stays when a writer is closed and another is opened: this adapter's file."""

    def __init__(self) -> None:
        """Begin an empty journal."""
        self.identity = str(uuid.uuid4())
        self.epoch = 0
        self.rows: list[Row] = []
        self.positions: dict[Pair, int] = {}
        self.cursors: dict[str, int] = {}
        self.duplicates = 0
        self.snapshots: list[Snapshot] = []
        self.committed = self.view()
        self.lock = threading.RLock()
        self.in_transaction = False

    def view(self) -> View:
        """Return all that is there now."""
        return View(head=len(self.rows), cursors=dict(self.cursors), duplicates=self.duplicates)

    def roll_back(self) -> None:
        """Return to what is committed."""
        for row in self.rows[self.committed.head :]:
            self.positions.pop((row[2], row[3]), None)
        del self.rows[self.committed.head :]
        self.cursors = dict(self.committed.cursors)
        self.duplicates = self.committed.duplicates


class MemoryReader:
    """Answers from what is committed."""

    def __init__(self, store: MemoryStore) -> None:
        """Read `store`."""
        self._store = store

    def records(
        self,
        after: int,
        limit: int = 1000,
        *,
        upto: int | None = None,
        kinds: Collection[str] | None = None,
        pipeline: str | None = None,
        run: str | None = None,
    ) -> list[Record]:
        """Return the first `limit` records of (after, upto], in order, that fit every condition given."""
        found: list[Selected] = []
        head = self._view().head
        for position in range(max(0, after), head if upto is None else min(upto, head)):
            if len(found) >= limit:
                break
            row = self._store.rows[position]
            if (
                (kinds is None or row[4] in kinds)
                and (pipeline is None or row[6] == pipeline)
                and (run is None or row[7] == run)
            ):
                found.append(selected(row))
        return to_records(found)

    def head(self) -> int:
        """Return the last position, 0 when there is none."""
        return self._view().head

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""
        return self._view().cursors.get(name)

    def duplicates(self) -> int:
        """Return how many facts came again with the same content."""
        return self._view().duplicates

    def identity(self) -> str:
        """Return the journal's own UUID."""
        return self._store.identity

    def ancestors(self) -> dict[str, int]:
        """Return nothing: a journal in memory was never restored."""
        return {}

    def snapshots(self, reducer: int) -> list[Snapshot]:
        """Return the snapshots of a reducer version, newest first."""
        fitting = [snapshot for snapshot in self._store.snapshots if snapshot.reducer == reducer]
        return sorted(fitting, key=lambda snapshot: snapshot.position, reverse=True)

    def close(self) -> None:
        """Do nothing: there is no file."""

    def _view(self) -> View:
        return self._store.committed


class MemoryJournal(MemoryReader):
    """The writer. A new one on the same store fences those before it."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        """Write `store`, or a new one; a new epoch begins."""
        super().__init__(store or MemoryStore())
        self._store.epoch += 1
        self._epoch = self._store.epoch
        self._closed = False

    @property
    def epoch(self) -> int:
        """How many writers this journal has had, this one included."""
        return self._epoch

    def reader(self) -> MemoryReader:
        """Return a reader of the same store."""
        return MemoryReader(self._store)

    def stamp(self, now: datetime) -> datetime:
        """Return `now` as UTC, or the last record's `recorded_at` if the clock went back behind it."""
        rows = self._store.rows
        return later(now, instant(rows[-1][1]) if rows else None)

    @contextmanager
    def transaction(self) -> "Iterator[MemoryTransaction]":
        """Commit what the block writes, as a whole, or nothing of it on any exception."""
        with self._store.lock:
            self._check()
            self._store.in_transaction = True
            try:
                transaction = MemoryTransaction(self._store)
                yield transaction
                transaction.finish()
                self._store.committed = self._store.view()
            except BaseException:
                self._store.roll_back()
                raise
            finally:
                self._store.in_transaction = False

    def save_snapshot(self, *, position: int, reducer: int, hash: str, state: bytes) -> None:  # noqa: A002
        """Keep a folded state; of all snapshots the two that were saved last are kept."""
        with self._store.lock:
            self._check()
            if position > self.head():
                raise JournalError(
                    f"A snapshot of position {position} is ahead of the journal, which ends at {self.head()}."
                )
            others = [s for s in self._store.snapshots if (s.reducer, s.position) != (reducer, position)]
            new = Snapshot(position=position, reducer=reducer, hash=hash, state=state)
            self._store.snapshots = [*others, new][-KEPT_SNAPSHOTS:]

    def close(self) -> None:
        """Let go of the store; closing twice is harmless."""
        self._closed = True

    def _view(self) -> View:
        return self._store.view() if self._store.in_transaction else self._store.committed

    def _check(self) -> None:
        if self._closed:
            raise JournalError("The journal is closed.")
        if self._store.in_transaction:
            raise JournalError("A transaction of this journal is open already; they do not nest.")
        if self._store.epoch != self._epoch:
            raise JournalFenced(
                f"The journal has a newer writer (epoch {self._store.epoch}, this one is {self._epoch}): stop."
            )


class MemoryTransaction:
    """The writer's view inside its transaction; made by `MemoryJournal.transaction`."""

    def __init__(self, store: MemoryStore) -> None:
        """Write `store`."""
        self._store = store
        self._spoiled = False

    def append(self, records: Sequence[Record], digests: Sequence[bytes | None] | None = None) -> None:
        """Store records whose positions continue the head; `digests` replace those of the encoded events."""
        rows = self._store.rows
        self._spoiled = True
        for record, row in zip(records, to_rows(records, len(rows), rows[-1][1] if rows else 0, digests), strict=True):
            pair = (record.source, record.id)
            if pair in self._store.positions:
                raise DuplicateRecord(repeated(record, self._store.positions[pair]))
            self._store.positions[pair] = record.position
            rows.append(row)
        self._spoiled = False

    def find(self, source: str, id: str) -> Found | None:  # noqa: A002 - CloudEvents calls it id
        """Return where (source, id) is recorded."""
        position = self._store.positions.get((source, id))
        return None if position is None else Found(position=position, digest=self._store.rows[position - 1][11])

    def find_many(self, pairs: Iterable[Pair]) -> dict[Pair, Found]:
        """Return those of `pairs` that are recorded."""
        found = {pair: self.find(*pair) for pair in pairs}
        return {pair: where for pair, where in found.items() if where is not None}

    def record(self, position: int) -> Record | None:
        """Return the record at a position."""
        if not 0 < position <= len(self._store.rows):
            return None
        return to_records([selected(self._store.rows[position - 1])])[0]

    def move(self, cursor: Cursor) -> None:
        """Compare and set an input cursor; raises StaleCursor when it does not stand at `expected`."""
        if self.cursor(cursor.name) != cursor.expected:
            self._spoiled = True
            raise StaleCursor(stale(cursor, self.cursor(cursor.name)))
        self._store.cursors[cursor.name] = cursor.next

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""
        return self._store.cursors.get(name)

    def count_duplicates(self, count: int) -> None:
        """Count facts that came again with the same content."""
        self._store.duplicates += count

    def finish(self) -> None:
        """Raise JournalError when something failed in the block and the block went on regardless."""
        if self._spoiled:
            raise JournalError("Something failed inside this transaction; it cannot be committed.")
