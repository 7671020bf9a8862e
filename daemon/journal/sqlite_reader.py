"""Reading a SQLite journal: short queries that never keep the writer waiting, from any thread or process."""

import sqlite3
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemon.core.errors import JournalError
from daemon.core.events import Record
from daemon.journal.base import Snapshot
from daemon.journal.rows import Selected, to_records
from daemon.journal.sqlite_file import RARE, RARE_KINDS, connect_reader, translated

COLUMNS = "position, recorded_at, source, id, kind, version, pipeline, cause, time, data, text, carrier"
BEFORE_CARRIERS = COLUMNS.replace("carrier", "NULL")
"""The same of a file of schema version 1, which stays so until a writer comes."""


class SqliteReader:
    """Answers from what is committed. Close it, or use it in a `with`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take over a connection to the journal file."""
        self._path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._carried = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        where = "position > ?"
        values: list[str | int] = [after]
        for term, value in (("position <= ?", upto), ("pipeline = ?", pipeline), ("run = ?", run)):
            if value is not None:
                where += f" AND {term}"
                values.append(value)
        if kinds is not None and run is None and RARE_KINDS.issuperset(kinds):
            where, values = _by_kind(where, values, limit, sorted(set(kinds)))
        elif kinds is not None:
            where += f" AND kind IN ({', '.join('?' * len(kinds))})"
            values.extend(kinds)
        return to_records(self._selected(f"FROM record WHERE {where} ORDER BY position LIMIT ?", [*values, limit]))

    def head(self) -> int:
        """Return the last position, 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM record")[0][0])

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""
        rows = self._rows("SELECT next FROM cursor WHERE name = ?", [name])
        return int(rows[0][0]) if rows else None

    def duplicates(self) -> int:
        """Return how many facts came again with the same content."""
        return int(self._rows("SELECT duplicates FROM journal")[0][0])

    def identity(self) -> str:
        """Return the journal's own UUID."""
        return str(self._rows("SELECT identity FROM journal")[0][0])

    def ancestors(self) -> dict[str, int]:
        """Return the journals from whose copies this one was restored: identity → the last position in common."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'ancestor'"):
            return {}
        return {str(row[0]): int(row[1]) for row in self._rows("SELECT identity, position FROM ancestor")}

    def snapshots(self, reducer: int) -> list[Snapshot]:
        """Return the snapshots of a reducer version, newest first."""
        rows = self._rows(
            "SELECT position, reducer, hash, state FROM snapshot WHERE reducer = ? ORDER BY position DESC",
            [reducer],
        )
        return [Snapshot(position=row[0], reducer=row[1], hash=row[2], state=row[3]) for row in rows]

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        with self._lock:
            self._connection.close()

    def _selected(self, query: str, values: Sequence[str | int]) -> list[Selected]:
        self._carried = self._carried or self._version() > 1
        if not self._carried:
            rows: list[Selected] = self._rows(f"SELECT {BEFORE_CARRIERS} {query}", values)
            self._carried = self._version() > 1  # a writer came meanwhile
            if not self._carried:
                return rows
        return self._rows(f"SELECT {COLUMNS} {query}", values)

    def _version(self) -> int:
        return int(self._rows("PRAGMA user_version")[0][0])

    # What a query returns has the types of the columns that it names; sqlite3 cannot say so.
    def _rows(self, query: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """Run a query to its end at once: a half-read one would hold back the writer's checkpoints."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.ProgrammingError as error:
                raise JournalError(f"The journal {self._path} is closed.") from error
            except sqlite3.Error as error:
                raise translated(error, self._path) from error


def open_reader(path: Path) -> SqliteReader:
    """Open a journal for reading, whether or not a daemon writes it.

    Raises JournalError when there is none, JournalTooNew, JournalCorrupt.
    """
    return SqliteReader(path, connect_reader(path))


def _by_kind(where: str, values: list[str | int], limit: int, kinds: list[str]) -> tuple[str, list[str | int]]:
    """Return a condition that finds rare kinds by their index: the first `limit` of each, then merged."""
    if not kinds:
        return "0", []
    each = (
        "SELECT * FROM (SELECT position FROM record INDEXED BY record_kind "  # noqa: S608 - no input
        f"WHERE {RARE} AND kind = ? AND {where} ORDER BY position LIMIT ?)"
    )
    return (
        f"position IN ({' UNION ALL '.join([each] * len(kinds))})",
        [value for kind in kinds for value in (kind, *values, limit)],
    )
