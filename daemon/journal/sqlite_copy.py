"""A journal's file as a whole: copied while it is written, and given an identity of its own where it goes on."""

import contextlib
import sqlite3
import uuid
from pathlib import Path

from daemon.files import sync
from daemon.journal.sqlite_file import connect_reader, translated

PAGES = 256  # 1 MiB between two flushes
ANCESTOR = "CREATE TABLE IF NOT EXISTS ancestor (identity TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID"


def copy_journal(source: Path, target: Path) -> None:
    """Copy the journal as it is at one instant into a new file, flushed; its writer goes on meanwhile.

    The copy has no file beside it, so that it can be read where nothing can be written. Raises JournalError.
    """
    try:
        with contextlib.closing(connect_reader(source)) as origin, contextlib.closing(_open(target)) as copy:
            # A read transaction keeps the instant; without it each commit meanwhile would begin the copy anew.
            origin.execute("BEGIN")
            origin.execute("SELECT count(*) FROM journal").fetchone()
            # Flushed bit by bit: the writer's own flushes would wait for all of it at once.
            origin.backup(copy, pages=PAGES, progress=lambda *_: sync(target))
            origin.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise translated(error, target) from error
    sync(target)


def branch_off(path: Path) -> tuple[str, int]:
    """Give a closed journal's file a new identity that remembers the old one; return both new identity and head.

    From here on it is another journal: what the old one says beyond this position is not in it. Raises JournalError.
    """
    try:
        with contextlib.closing(_open(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(ANCESTOR)
            (head,) = connection.execute("SELECT coalesce(max(position), 0) FROM record").fetchone()
            connection.execute("INSERT INTO ancestor SELECT identity, ? FROM journal", (head,))
            identity = str(uuid.uuid4())
            connection.execute("UPDATE journal SET identity = ?", (identity,))
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    sync(path)
    return identity, int(head)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
