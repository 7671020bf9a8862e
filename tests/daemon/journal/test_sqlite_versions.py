"""Files of older schemas: read as they are, lifted by the first writer as a whole."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.core.events import Carrier, Record
from daemon.journal.base import scan
from daemon.journal.sqlite import open_journal, open_reader, verify
from daemon.journal.sqlite_copy import branch_off, copy_journal
from daemon.journal.sqlite_file import SCHEMA_VERSION

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Records

OLD = Path(__file__).parents[2] / "golden" / "releases" / "0.1.0" / "journal.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a journal of schema version 1."""
    found = Path(shutil.copy(OLD, tmp_path / "journal.db"))
    assert version(found) == 1
    return found


def version(path: Path) -> int:
    """Return the schema version that a file says it has."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def columns(path: Path) -> list[tuple[object, ...]]:
    """Return the columns of the table of records."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA table_info(record)").fetchall()


def everything(path: Path) -> list[Record]:
    """Return all records."""
    with open_reader(path) as reader:
        return list(scan(reader))


def carried(records: "Records", head: int) -> Record:
    """Return a record that something carried, to follow `head`."""
    (record,) = records(head + 1)
    return msgspec.structs.replace(record, carrier=Carrier(source="kafka", offset=1))


def test_an_old_file_is_read_as_it_is(path: Path) -> None:
    """Before any writer comes, reading changes nothing, and no record was carried by anything."""
    before = path.read_bytes()
    with open_reader(path) as reader:
        records = list(scan(reader))
    assert records
    assert {record.carrier for record in records} == {None}
    assert path.read_bytes() == before


def test_a_writer_lifts_it_while_others_read(path: Path, tmp_path: Path, records: "Records") -> None:
    """The schema becomes the one that a new file has; a reader that was there before sees what is new."""
    with open_reader(path) as reader:
        known = list(scan(reader))
        with open_journal(path) as journal:
            new = carried(records, journal.head())
            at = journal.stamp(new.recorded_at)
            new = msgspec.structs.replace(new, recorded_at=at)
            with journal.transaction() as transaction:
                transaction.append([new])
                assert transaction.record(new.position) == new
            assert journal.records(known[-1].position) == [new]
        assert list(scan(reader)) == [*known, new]
    with open_journal(tmp_path / "fresh.db"):
        pass
    assert columns(path) == columns(tmp_path / "fresh.db")
    assert version(path) == version(tmp_path / "fresh.db") == SCHEMA_VERSION
    assert verify(path) == []


# A writer that dies by kill -9 before the statement of its transaction that begins with the argument.
DYING = """
import os, signal, sqlite3, sys
from pathlib import Path
from daemon.journal import sqlite_file
from daemon.journal.sqlite import open_journal

class Dying(sqlite3.Connection):
    def execute(self, sql, *values):
        if self.in_transaction and sql.startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)

connect = sqlite3.connect
sqlite_file.sqlite3.connect = lambda *a, **k: connect(*a, factory=Dying, **k)
open_journal(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("statement", ["ALTER", "PRAGMA user_version =", "COMMIT"])
def test_a_kill_while_lifting_leaves_it_as_it_was(path: Path, statement: str) -> None:
    """Killed at any statement, the file is still the old one, readers read it, and the next writer lifts it."""
    known = everything(path)
    died = subprocess.run([sys.executable, "-c", DYING, str(path), statement], check=False, capture_output=True)
    assert died.returncode == -9, died.stderr
    assert version(path) == 1
    assert everything(path) == known
    with open_journal(path) as journal:
        assert journal.records(0) == known
    assert version(path) == SCHEMA_VERSION


def test_a_copy_of_an_old_file_goes_on(path: Path, tmp_path: Path) -> None:
    """A backup of an old file is an old file; restored, it is lifted by its writer and remembers where it is from."""
    known = everything(path)
    copy = tmp_path / "copy.db"
    copy_journal(path, copy)
    assert version(copy) == 1
    with open_reader(path) as reader:
        origin = reader.identity()
    branch_off(copy)
    with open_journal(copy) as journal:
        assert journal.records(0) == known
        assert journal.ancestors() == {origin: known[-1].position}
    assert version(copy) == SCHEMA_VERSION
