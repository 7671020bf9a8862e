"""The SQLite file: damage that is found, versions, space, durability."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.core.errors import JournalCorrupt, JournalError, JournalFull, JournalTooNew
from daemon.core.events import EVENTS
from daemon.journal.base import Cursor, scan
from daemon.journal.sqlite import SqliteReader, open_journal, open_reader, verify
from daemon.journal.sqlite_file import RARE_KINDS, SCHEMA_VERSION

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Records

Opener = Callable[[Path], SqliteReader]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a journal that is not there yet, in a folder that is not there either."""
    return tmp_path / "state" / "journal.db"


def fill(path: Path, records: "Records", count: int, text: bytes | None = None) -> None:
    """Make a journal of so many records and close it."""
    with open_journal(path) as journal, journal.transaction() as transaction:
        transaction.append(records(1, count, text=text))


def test_a_damaged_page_is_found(path: Path, records: "Records") -> None:
    """Garbage over a page of records: reading raises JournalCorrupt, and `verify` tells it."""
    fill(path, records, 500, text=b"x" * 500)
    assert verify(path) == []
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(pages // 4, pages // 4 * 3):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    assert verify(path) != []
    with open_reader(path) as reader, pytest.raises(JournalCorrupt, match="restore it from a backup"):
        list(scan(reader))


def test_verify_tells_of_a_file_that_is_no_database(path: Path) -> None:
    """A file without SQLite's header is damage as well."""
    path.parent.mkdir()
    path.write_bytes(b"\xa5" * 8192)
    assert "not a database" in verify(path)[0]
    with pytest.raises(JournalCorrupt):
        open_reader(path)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ("data = '{\"uri\": 3}'", JournalCorrupt, "Record 2 cannot be read"),
        ("data = x'ff'", JournalCorrupt, "Record 2 cannot be read"),
        ('carrier = \'{"offset": "x"}\'', JournalCorrupt, "Record 2 cannot be read"),
        ("carrier = x'ff'", JournalCorrupt, "Record 2 cannot be read"),
        ("recorded_at = 'noon'", JournalCorrupt, "Record 2 cannot be read"),
        ("recorded_at = 9223372036854775807", JournalCorrupt, "Record 2 cannot be read"),
        ("kind = 'data.dreamt'", JournalTooNew, "Record 2 was written by a newer rewarm"),
        ("version = 99", JournalTooNew, "Record 2 was written by a newer rewarm"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(
    path: Path, records: "Records", change: str, error: type[JournalError], match: str
) -> None:
    """The message says which record it is, and tells damage from a newer rewarm."""
    fill(path, records, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE record SET {change} WHERE position = 2")  # noqa: S608 - written above
    with open_reader(path) as reader:
        assert len(reader.records(2)) == 1
        with pytest.raises(error, match=match):
            reader.records(0)


# ------------------------------------------------------------------------------------- versions, space


@pytest.mark.parametrize("opener", [open_journal, open_reader])
def test_a_newer_schema_is_refused(path: Path, records: "Records", opener: Opener) -> None:
    """A journal of a newer rewarm is left alone, with the advice to upgrade."""
    fill(path, records, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(JournalTooNew, match="upgrade rewarm"):
        opener(path)


@pytest.mark.parametrize("opener", [open_journal, open_reader])
def test_another_programs_file_is_refused(path: Path, opener: Opener) -> None:
    """A SQLite file that is no journal is neither read nor changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE other (a)")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="no journal of rewarm"):
        opener(path)
    assert path.read_bytes() == before


def test_a_full_disk_stores_nothing_and_passes(path: Path, records: "Records") -> None:
    """Without room nothing of the transaction is stored, readers go on, and with room the same batch goes in."""
    with open_journal(path) as journal, open_reader(path) as reader:
        with journal.transaction() as transaction:
            transaction.append(records(1, 10))
        journal.limit_pages(1)  # SQLite takes this for the size that the file has
        batch = records(11, 200, text=b"x" * 1000)

        def write() -> None:
            with journal.transaction() as transaction:
                transaction.move(Cursor(name="c", expected=None, next=1))
                transaction.append(batch)

        for _ in range(2):
            with pytest.raises(JournalFull, match="nothing was stored"):
                write()
            assert journal.head() == reader.head() == 10
            assert journal.cursor("c") is None
        journal.limit_pages(1_000_000)
        write()
        assert reader.head() == 210
    assert verify(path) == []


def test_text_is_stored_byte_for_byte(path: Path, records: "Records") -> None:
    """Whatever was received lies in the file as it came; our own records have none."""
    text = bytes(range(256)) * 3
    with open_journal(path) as journal, journal.transaction() as transaction:
        transaction.append([*records(1, text=text), *records(2, text=b""), *records(3)])
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT text FROM record ORDER BY position").fetchall()
    assert stored == [(text,), (b"",), (None,)]
    with open_reader(path) as reader:
        assert [record.text for record in reader.records(0)] == [text, b"", None]


def test_commits_are_synced_and_indexes_are_used(path: Path, records: "Records") -> None:
    """WAL with a full fsync; runs and rare kinds are found without reading the whole table."""
    with open_journal(path) as journal:
        settings = {name: journal._rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")}  # noqa: SLF001 - looked at from inside
        assert settings == {"journal_mode": "wal", "synchronous": 2}
        asked: list[str] = []
        journal._connection.set_trace_callback(asked.append)  # noqa: SLF001 - as above
        journal.records(5, 10, run="docs-lm-1")
        journal.records(5, 10, kinds=["model.promoted", "decision.made"], pipeline="docs-lm", upto=99)
        journal._connection.set_trace_callback(None)  # noqa: SLF001 - as above
        plans = [" ".join(row[3] for row in journal._rows(f"EXPLAIN QUERY PLAN {query}")) for query in asked]  # noqa: SLF001 - as above
    assert "INDEX record_run (run=?" in plans[0]
    assert plans[1].count("INDEX record_kind (kind=? AND position>?") == 2
    assert not any("SCAN record" in plan for plan in plans)


def test_rare_kinds_are_kinds() -> None:
    """The index by kind names kinds that exist, and arrivals are not among them."""
    assert set(EVENTS) >= RARE_KINDS
    assert "data.arrived" not in RARE_KINDS
    assert "stage.progressed" not in RARE_KINDS


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A path below a file is a clear error."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be made"):
        open_journal(tmp_path / "file" / "below" / "journal.db")


# Appends under a limit on the size of files, as a quota would set one; lifts it, and appends again.
LIMITED = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.core.errors import JournalFull
from daemon.core.events import DataArrived, Record
from daemon.journal.sqlite import open_journal

def append(journal):
    record = Record(
        position=journal.head() + 1, recorded_at=journal.stamp(datetime.now(UTC)), source="s", id=str(journal.head()),
        pipeline="p", event=DataArrived(uri="a", domain="d"), text=b"x" * 200_000,
    )
    with journal.transaction() as transaction:
        transaction.append([record])

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
with open_journal(Path(sys.argv[1])) as journal:
    append(journal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, hard))
    try:
        append(journal)
    except JournalFull as error:
        print("full", journal.head(), error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    append(journal)
    print("again", journal.head())
"""


def test_a_quota_is_a_full_disk_too(path: Path) -> None:
    """A write that the system refuses stores nothing, is told as JournalFull, and works again afterwards."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("full 1 There is no room")
    assert second == "again 2"
