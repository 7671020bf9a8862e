"""Copies of a journal's file: taken while it is written, and journals of their own afterwards."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.core.errors import JournalCorrupt, JournalError
from daemon.core.events import DriftDetected, Record
from daemon.journal.base import Cursor
from daemon.journal.memory import MemoryJournal
from daemon.journal.sqlite import open_journal, open_reader, verify
from daemon.journal.sqlite_copy import branch_off, copy_journal
from daemon.journal.sqlite_file import restore_marker

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def record(position: int) -> Record:
    """Return a record."""
    event = DriftDetected(metric="psi", value=float(position))
    return Record(position=position, recorded_at=NOW, source="/test", id=str(position), event=event)


def write(path: Path, upto: int, after: int = 0) -> None:
    """Append records, and move a cursor to the last one."""
    with open_journal(path) as journal, journal.transaction() as transaction:
        transaction.append([record(position) for position in range(after + 1, upto + 1)])
        transaction.move(Cursor(name="spool:x", expected=after or None, next=upto))


def test_a_copy_says_what_the_original_says(tmp_path: Path) -> None:
    """Records, cursors and identity; one file that needs no other beside it, sound, and no journal in WAL mode."""
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    write(source, 50)
    with open_journal(source):  # its writer lives
        copy_journal(source, target)
    assert verify(target) == []
    assert {path.name for path in tmp_path.glob("b.db*")} == {"b.db"}
    with open_reader(source) as original, open_reader(target) as copy:
        assert copy.records(0, 100) == original.records(0, 100)
        assert (copy.identity(), copy.cursor("spool:x")) == (original.identity(), 50)
        assert copy.ancestors() == {}
    assert {path.name for path in tmp_path.glob("b.db*")} == {"b.db"}


def test_a_copy_is_of_one_instant(tmp_path: Path) -> None:
    """While transactions are committed, each copy ends with a whole one: the cursor stands at the last record."""
    source = tmp_path / "a.db"
    journal = open_journal(source)
    stop = threading.Event()
    heads = []

    def stream() -> None:
        position = 0
        while not stop.is_set():
            with journal.transaction() as transaction:
                transaction.append([record(position + n) for n in range(1, 21)])
                transaction.move(Cursor(name="spool:x", expected=position or None, next=position + 20))
            position += 20

    writer = threading.Thread(target=stream)
    writer.start()
    for number in range(10):
        copy_journal(source, tmp_path / f"{number}.db")
        with open_reader(tmp_path / f"{number}.db") as copy:
            heads.append(copy.head())
            assert copy.head() == (copy.cursor("spool:x") or 0)
    stop.set()
    writer.join()
    journal.close()
    assert heads == sorted(heads)
    assert heads[-1] > heads[0]


def test_a_branch_is_another_journal(tmp_path: Path) -> None:
    """It has a new identity and remembers the old one with the last position in common; writing goes on."""
    path = tmp_path / "a.db"
    write(path, 5)
    with open_reader(path) as reader:
        first = reader.identity()
    second, head = branch_off(path)
    assert (head, second == first) == (5, False)
    write(path, 8, after=5)
    third, _ = branch_off(path)
    with open_reader(path) as reader:
        assert reader.identity() == third
        assert reader.ancestors() == {first: 5, second: 8}
        assert reader.head() == 8


def test_a_journal_in_memory_has_no_ancestors() -> None:
    """It cannot be copied."""
    assert MemoryJournal().ancestors() == {}


def test_a_journal_that_is_being_restored_is_not_opened(tmp_path: Path) -> None:
    """While the marker stands no daemon writes, or makes a new journal; readers are left alone."""
    path = tmp_path / "a.db"
    write(path, 5)
    restore_marker(path).touch()
    with pytest.raises(JournalError, match="was broken off"):
        open_journal(path)
    with open_reader(path) as reader:
        assert reader.head() == 5
    restore_marker(path).unlink()
    open_journal(path).close()


def test_what_cannot_be_copied_is_told(tmp_path: Path) -> None:
    """No journal, a torn one, and a target that cannot be written."""
    with pytest.raises(JournalError, match="There is no journal"):
        copy_journal(tmp_path / "none.db", tmp_path / "b.db")
    write(tmp_path / "a.db", 500)
    with pytest.raises(JournalError):
        copy_journal(tmp_path / "a.db", tmp_path / "nowhere" / "b.db")
    with (tmp_path / "a.db").open("r+b") as file:
        file.truncate(30_000)
    with pytest.raises(JournalCorrupt):
        read_copy(tmp_path / "a.db", tmp_path / "b.db")


def read_copy(source: Path, target: Path) -> None:
    """Copy a journal and read all of the copy."""
    copy_journal(source, target)
    with open_reader(target) as reader:
        reader.records(0, 1000)
