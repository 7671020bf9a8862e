"""Reading a SQLite journal: short queries that never keep the writer waiting, from any thread or process."""

import sqlite3
import threading
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.core.events import Record
from daemon.journal.base import Snapshot
from daemon.journal.rows import instant, to_record
from daemon.journal.sqlite_file import RARE, RARE_KINDS, connect_reader, translated

Parameter = str | int
SELECT = (
    "SELECT position, recorded_at, source, id, kind, version, pipeline, cause, time, data, text FROM record "
)


class SqliteReader:
    """Answers from what is committed. Close it, or use it in a `with`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take over a connection of this journal file."""
        self._path = path
        self._connection = connection
        self._lock = threading.RLock()

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
        terms, values = ["position > ?"], [after]
        parameters: list[Parameter] = [*values]
        for term, value in (("position <= ?", upto), ("pipeline = ?", pipeline), ("run = ?", run)):
            if value is not None:
                terms.append(term)
                parameters.append(value)
        if kinds is None:
            query = f"{SELECT} WHERE {' AND '.join(terms)} ORDER BY position LIMIT ?"
            return read(self, query, [*parameters, limit])
        if run is None and RARE_KINDS.issuperset(kinds):
            return read(self, *_by_kind(terms, parameters, limit, sorted(set(kinds))))
        terms.append(f"kind IN ({', '.join('?' * len(kinds))})")
        query = f"{SELECT} WHERE {' AND '.join(terms)} ORDER BY position LIMIT ?"
        return read(self, query, [*parameters, *kinds, limit])
