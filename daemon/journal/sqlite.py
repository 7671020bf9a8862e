"""The journal in one SQLite file: WAL, a real fsync with every commit, one writer, any number of readers."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from daemon.core.errors import DuplicateRecord, JournalError, JournalFenced, StaleCursor
from daemon.core.events import Record
from daemon.journal.base import KEPT_SNAPSHOTS, Cursor, Found, Pair, later, repeated, stale
from daemon.journal.lock import beat, release, take
from daemon.journal.rows import instant, to_records, to_rows
from daemon.journal.sqlite_file import connect_writer, translated, verify
from daemon.journal.sqlite_reader import COLUMNS, SqliteReader, open_reader

__all__ = ["SqliteJournal", "SqliteReader", "SqliteTransaction", "open_journal", "open_reader", "verify"]

Boundary = Callable[[str], None]

PAIRS_PER_QUERY = 400  # two parameters each; older builds of SQLite take 999
WAL_LIMIT = 64 * 1024 * 1024
WAL_PATIENCE_MS = 20

INSERT = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def nothing(boundary: str) -> None:
    """Do nothing at a write boundary; tests end the process there instead."""


class SqliteJournal(SqliteReader):
    """The writer. Its transactions are taken one at a time, from any thread.

    Write boundaries, in order: journal.before_commit, journal.after_commit; snapshot.before, snapshot.after.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int, boundary: Boundary) -> None:
        """Take over a connection and the descriptor of the lock; a new epoch begins."""
        super().__init__(path, connection)
        self._carried = True
        self._descriptor: int | None = lock
        self._boundary = boundary
        self._tail: tuple[int, int] | None = None
        self._commits = 0
        self._epoch = self._begin_epoch()

    @property
    def epoch(self) -> int:
        """How many writers this journal has had, this one included."""
        return self._epoch

    def head(self) -> int:
        """Return the last position, within a transaction that of its own rows."""
        return self.tail()[0]

    def stamp(self, now: datetime) -> datetime:
        """Return `now` as UTC, or the last record's `recorded_at` if the clock went back behind it."""
        head, last = self.tail()
        return later(now, instant(last) if head else None)

    def tail(self) -> tuple[int, int]:
        """Return the last position and its instant in microseconds, (0, 0) when there is none."""
        if self._tail is None:
            rows = self._rows("SELECT position, recorded_at FROM record ORDER BY position DESC LIMIT 1")
            self._tail = rows[0] if rows else (0, 0)
        return self._tail

    @contextmanager
    def transaction(self) -> "Iterator[SqliteTransaction]":
        """Commit what the block writes, as a whole, or nothing of it on any exception."""
        with self._writing():
            transaction = SqliteTransaction(self, self._connection)
            yield transaction
            transaction.finish()
            self._boundary("journal.before_commit")
        self._boundary("journal.after_commit")

    def save_snapshot(self, *, position: int, reducer: int, hash: str, state: bytes) -> None:  # noqa: A002
        """Keep a folded state; of all snapshots the two that were saved last are kept."""
        self._boundary("snapshot.before")
        with self._writing():
            if position > self.tail()[0]:
                raise JournalError(
                    f"A snapshot of position {position} is ahead of the journal, which ends at {self.head()}."
                )
            self._connection.execute(
                "INSERT OR REPLACE INTO snapshot (position, reducer, hash, state) VALUES (?, ?, ?, ?)",
                (position, reducer, hash, state),
            )
            self._connection.execute(
                "DELETE FROM snapshot WHERE saved NOT IN (SELECT saved FROM snapshot ORDER BY saved DESC LIMIT ?)",
                (KEPT_SNAPSHOTS,),
            )
        self._boundary("snapshot.after")

    def beat(self) -> None:
        """Show that this writer lives; raises JournalFenced when there is a newer one."""
        with self._lock:
            if self._descriptor is None:
                return
            beat(self._descriptor)
            with suppress(sqlite3.Error):  # what is wrong with the file, the next transaction says
                self._check_epoch()

    def limit_pages(self, pages: int) -> None:
        """Bound the file's size in pages of 4 KiB: beyond it appending raises JournalFull."""
        self._rows(f"PRAGMA max_page_count = {pages:d}")

    def close(self) -> None:
        """Close the file, then free the lock; closing twice is harmless."""
        super().close()
        if self._descriptor is not None:
            release(self._descriptor)
            self._descriptor = None

    def appended(self, head: int, last: int) -> None:
        """Note the end of the journal after an append."""
        self._tail = (head, last)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the write lock as this journal's owner, and commit or roll back."""
        with self._lock:
            try:
                if self._connection.in_transaction:
                    raise JournalError("A transaction of this journal is open already; they do not nest.")
            except sqlite3.ProgrammingError as error:
                raise JournalError(f"The journal {self._path} is closed.") from error
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._check_epoch()
                yield
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._undo()
                if isinstance(error, sqlite3.Error):
                    raise translated(error, self._path) from error
                raise
            self._relieve()

    def _check_epoch(self) -> None:
        (now,) = self._connection.execute("SELECT epoch FROM journal").fetchone()
        if now != self._epoch:
            raise JournalFenced(
                f"The journal {self._path} has a newer writer (epoch {now}, this one is {self._epoch}): stop."
            )

    def _undo(self) -> None:
        self._tail = None
        with suppress(sqlite3.Error):  # the cause is on its way up already; SQLite may have rolled back by itself
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _begin_epoch(self) -> int:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE journal SET epoch = epoch + 1")
            (epoch,) = self._connection.execute("SELECT epoch FROM journal").fetchone()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise translated(error, self._path) from error
        return int(epoch)

    def _relieve(self) -> None:
        """Cut a WAL that has grown because readers always overlapped, without waiting long for them."""
        self._commits += 1
        if self._commits % 256:
            return
        try:
            grown = self._path.with_name(f"{self._path.name}-wal").stat().st_size > WAL_LIMIT
        except OSError:
            return
        if grown:
            with suppress(sqlite3.Error):  # the next commits try again; nothing depends on it
                (before,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
                self._connection.execute(f"PRAGMA busy_timeout = {WAL_PATIENCE_MS}")
                try:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self._connection.execute(f"PRAGMA busy_timeout = {before}")


class SqliteTransaction:
    """The writer's view inside its transaction; made by `SqliteJournal.transaction`."""

    def __init__(self, journal: SqliteJournal, connection: sqlite3.Connection) -> None:
        """Write by the journal's connection."""
        self._journal = journal
        self._connection = connection
        self._spoiled = False

    def append(self, records: Sequence[Record], digests: Sequence[bytes | None] | None = None) -> None:
        """Store records whose positions continue the head; `digests` replace those of the encoded events."""
        if not records:
            return
        self._spoiled = True
        head, last = self._journal.tail()
        rows = to_rows(records, head, last, digests)
        try:
            self._connection.executemany(INSERT, rows)
        except sqlite3.IntegrityError as error:
            raise DuplicateRecord(self._duplicate(records, head)) from error
        self._journal.appended(rows[-1][0], rows[-1][1])
        self._spoiled = False

    def find(self, source: str, id: str) -> Found | None:  # noqa: A002 - CloudEvents calls it id
        """Return where (source, id) is recorded."""
        return self.find_many([(source, id)]).get((source, id))

    def find_many(self, pairs: Iterable[Pair]) -> dict[Pair, Found]:
        """Return those of `pairs` that are recorded."""
        wanted = list(pairs)
        found: dict[Pair, Found] = {}
        for start in range(0, len(wanted), PAIRS_PER_QUERY):
            part = wanted[start : start + PAIRS_PER_QUERY]
            # CROSS JOIN fixes the order: each pair is looked up in the unique index, the table is not scanned.
            query = (
                f"WITH wanted (s, i) AS (VALUES {', '.join(['(?, ?)'] * len(part))}) "  # noqa: S608 - no input
                "SELECT s, i, position, digest FROM wanted CROSS JOIN record ON source = s AND id = i"
            )
            values = [value for pair in part for value in pair]
            for source, identity, position, content in self._connection.execute(query, values):
                found[source, identity] = Found(position=position, digest=content)
        return found

    def record(self, position: int) -> Record | None:
        """Return the record at a position."""
        query = f"SELECT {COLUMNS} FROM record WHERE position = ?"  # noqa: S608 - no input
        found = to_records(self._connection.execute(query, (position,)).fetchall())
        return found[0] if found else None

    def move(self, cursor: Cursor) -> None:
        """Compare and set an input cursor; raises StaleCursor when it does not stand at `expected`."""
        query = "UPDATE cursor SET next = ? WHERE name = ? AND next = ?"
        values: tuple[int | str | None, ...] = (cursor.next, cursor.name, cursor.expected)
        if cursor.expected is None:
            query = "INSERT OR IGNORE INTO cursor (next, name) VALUES (?, ?)"
            values = values[:2]
        if self._connection.execute(query, values).rowcount != 1:
            self._spoiled = True
            raise StaleCursor(stale(cursor, self.cursor(cursor.name)))

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""
        row = self._connection.execute("SELECT next FROM cursor WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def count_duplicates(self, count: int) -> None:
        """Count facts that came again with the same content."""
        self._connection.execute("UPDATE journal SET duplicates = duplicates + ?", (count,))

    def finish(self) -> None:
        """Raise JournalError when something failed in the block and the block went on regardless."""
        if self._spoiled:
            raise JournalError("Something failed inside this transaction; it cannot be committed.")

    def _duplicate(self, records: Sequence[Record], head: int) -> str:
        found = self.find_many((record.source, record.id) for record in records)
        for record in records:
            known = found.get((record.source, record.id))
            if known is not None and known.position != record.position:
                return repeated(record, known.position)
        return f"A record after position {head} was refused by the journal's file."


def open_journal(path: Path, *, boundary: Boundary = nothing, lease: float | None = None) -> SqliteJournal:
    """Open a journal as its one writer; make it, and its folder, if there is none.

    With a `lease` (seconds) the writer promises to `beat` within it: a standby ends one that does not.
    Raises JournalBusy naming the process that writes it, JournalTooNew, JournalCorrupt, JournalFull.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
    lock = take(path, lease=lease)
    try:
        connection = connect_writer(path)
        try:
            return SqliteJournal(path, connection, lock, boundary)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        release(lock)
        raise
