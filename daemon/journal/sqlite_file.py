"""The SQLite file behind a journal: schema, connections, and SQLite's errors in our words."""

import shutil
import sqlite3
import uuid
from pathlib import Path

from daemon.core.errors import JournalCorrupt, JournalError, JournalFull, JournalTooNew

SCHEMA_VERSION = 2
APPLICATION = 0x7257_6172  # "rWar": tells a journal from any other SQLite file
BUSY_SECONDS = 5.0

# The kinds that are looked up by kind, over the whole journal. Arrivals, and what each stage reports many
# times, are not among them: appending those costs nothing here. The list is part of the schema.
RARE = (
    "kind IN ('configuration.changed', 'daemon.started', 'daemon.stopped', 'data.ingested', 'data.rejected', "
    "'data.withdrawn', 'decision.made', 'failure.reported', 'input.rejected', 'model.evaluated', "
    "'model.promoted', 'model.rejected', 'model.rolled_back', 'operator.requested', 'run.cancelled', "
    "'run.failed', 'run.held', 'run.started', 'run.succeeded')"
)
RARE_KINDS = frozenset(RARE.split("'")[1::2])

SCHEMA = (
    """CREATE TABLE record (
        position INTEGER PRIMARY KEY,
        recorded_at INTEGER NOT NULL,  -- microseconds since 1970, UTC; never decreasing
        source TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        version INTEGER NOT NULL,
        pipeline TEXT,
        run TEXT,
        cause INTEGER,                 -- the position that led to this record
        time INTEGER,                  -- what the producer said, microseconds since 1970
        data TEXT NOT NULL,            -- the event as JSON
        digest BLOB NOT NULL,          -- of the content, to tell a duplicate from a reused id
        text BLOB,                     -- what was received, byte for byte; NULL for our own records
        carrier TEXT,                  -- how it came, as JSON; since version 2
        UNIQUE (source, id)
    )""",
    "CREATE INDEX record_run ON record (run) WHERE run IS NOT NULL",
    f"CREATE INDEX record_kind ON record (kind, position) WHERE {RARE}",
    "CREATE TABLE cursor (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE snapshot (
        saved INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        reducer INTEGER NOT NULL,
        hash TEXT NOT NULL,
        state BLOB NOT NULL,
        UNIQUE (reducer, position)
    )""",
    """CREATE TABLE journal (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        identity TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        duplicates INTEGER NOT NULL
    )""",
)

# What lifts a file to a version from the one before it. Readers go on meanwhile; they read both.
MIGRATIONS = {2: ("ALTER TABLE record ADD COLUMN carrier TEXT",)}


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open or create the file for writing. Raises JournalError and its kinds; who calls holds the lock."""
    if restore_marker(path).exists():
        raise JournalError(f"A restore of {path} was broken off, its files are not whole: run `rewarm restore` again.")
    connection = _connect(path, "rwc")
    try:
        check(connection, path, empty_allowed=True)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")  # a WAL that once grew is cut again
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: with 1000 a stream writes each index page often
        if _version(connection) == 0:
            _create(connection)
        _migrate(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise translated(error, path) from error
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading only, whether or not a daemon writes it. Raises JournalError and its kinds."""
    if not path.exists():
        raise JournalError(f"There is no journal at {path} yet: `rewarm demo` or `rewarm serve` makes one.")
    connection = _connect(path, "ro")
    try:
        connection.execute("PRAGMA query_only = ON")
        check(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise translated(error, path) from error
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path, *, empty_allowed: bool = False) -> None:
    """Raise JournalTooNew for a newer schema, JournalError for a file that is no journal."""
    version = _version(connection)
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if application == APPLICATION and version > SCHEMA_VERSION:
        raise JournalTooNew(
            f"The journal {path} has schema {version}, this rewarm knows schemas up to {SCHEMA_VERSION}: "
            "upgrade rewarm."
        )
    if application == APPLICATION and version > 0:
        return
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty:
        raise JournalError(f"{path} is a SQLite file, but no journal of rewarm; name another path.")
    if not empty_allowed:
        raise JournalError(f"The journal {path} is empty: the daemon that makes it has not finished yet.")


def restore_marker(path: Path) -> Path:
    """Return the file that lies beside a journal while `rewarm restore` puts it and its files in place."""
    return path.with_name(f"{path.name}.restoring")


def translated(error: sqlite3.Error, path: Path) -> JournalError:
    """Return SQLite's error as ours."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    # A quota or a limit on the file's size is told as a failed write, not as a full disk.
    refused = code == sqlite3.SQLITE_IOERR_WRITE or (primary == sqlite3.SQLITE_IOERR and _no_room(path))
    if primary == sqlite3.SQLITE_FULL or refused:
        return JournalFull(f"There is no room to append to {path}: nothing was stored. Free some space.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalCorrupt(f"The journal {path} cannot be read ({error}): restore it from a backup.")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalError(f"Another program kept {path} locked for {BUSY_SECONDS:.0f} s: {error}.")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return JournalError(
            f"The journal {path} cannot be opened ({error}): check that this user may write {path.parent}."
        )
    return JournalError(f"The journal {path} failed: {error}.")


def verify(path: Path) -> list[str]:
    """Return what SQLite finds wrong with the file's structure; an empty list means that it is sound."""
    try:
        connection = connect_reader(path)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(20)")]
        finally:
            connection.close()
    except JournalCorrupt as error:
        return [str(error)]
    except sqlite3.Error as error:
        return [str(translated(error, path))]
    return [] if found == ["ok"] else found


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            check_same_thread=False,  # each adapter has its own lock
        )
    except sqlite3.Error as error:
        raise translated(error, path) from error


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO journal VALUES (1, ?, 0, 0)", (str(uuid.uuid4()),))
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _migrate(connection: sqlite3.Connection) -> None:
    """Lift an old file to this schema as a whole, or leave it as it was."""
    first = _version(connection) + 1
    if first > SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for version in range(first, SCHEMA_VERSION + 1):
        for statement in MIGRATIONS[version]:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < 1024 * 1024
    except OSError:
        return False
