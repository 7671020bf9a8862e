"""What only a file can do: be killed, torn, damaged, filled up, and read by others meanwhile."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.core.errors import JournalBusy, JournalCorrupt, JournalError
from daemon.journal import sqlite as module
from daemon.journal.base import Cursor, scan
from daemon.journal.lock import holder, lock_path
from daemon.journal.sqlite import SqliteReader, open_journal, open_reader, verify

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Records

Opener = Callable[[Path], SqliteReader]

# A process of its own that writes batches of ten records, telling each commit, until it is killed.
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.core.events import DataArrived, Record
from daemon.journal.base import Cursor
from daemon.journal.sqlite import open_journal

now = datetime(2026, 3, 1, 12, tzinfo=UTC)
event = DataArrived(uri="u" * 2000, domain="d")
journal = open_journal(Path(sys.argv[1]))
print("open", flush=True)
while True:
    with journal.transaction() as transaction:
        head = journal.head()
        transaction.append(
            [
                Record(position=p, recorded_at=now, source="s", id=str(p), event=event)
                for p in range(head + 1, head + 11)
            ]
        )
        transaction.move(Cursor(name="c", expected=head or None, next=head + 10))
    print(head + 10, flush=True)
"""

# Adds five records to two, and kills itself at a write boundary.
VICTIM = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.core.events import DataArrived, Record
from daemon.journal.base import Cursor
from daemon.journal.sqlite import open_journal

def kill(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

now = datetime(2026, 3, 1, 12, tzinfo=UTC)
event = DataArrived(uri="file:///srv/a", domain="news")
with open_journal(Path(sys.argv[1]), boundary=kill) as journal, journal.transaction() as transaction:
    transaction.append(
        [Record(position=p, recorded_at=now, source="s", id=str(p), event=event) for p in range(3, 8)]
    )
    transaction.move(Cursor(name="c", expected=None, next=5))
"""

HOLDER = """
import sys
from pathlib import Path
from daemon.journal.sqlite import open_journal

journal = open_journal(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""

# Reads while others write; every answer must be whole tens.
READER = """
import sys
from pathlib import Path
from daemon.journal.base import scan
from daemon.journal.sqlite import open_reader

with open_reader(Path(sys.argv[1])) as reader:
    for line in sys.stdin:
        head = reader.head()
        positions = [record.position for record in scan(reader, upto=head, chunk=7)]
        print(head if positions == list(range(1, head + 1)) else "gap", flush=True)
"""


class Program:
    """A Python program in a process of its own, spoken to line by line."""

    def __init__(self, code: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> list[str]:
        """Kill it with SIGKILL and return the lines that it had printed by then."""
        self.process.kill()
        output, _ = self.process.communicate()
        return str(output).split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a journal that is not there yet, in a folder that is not there either."""
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Give a list of programs that are ended after the test."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


def fill(path: Path, records: "Records", count: int, text: bytes | None = None) -> None:
    """Make a journal of so many records and close it."""
    with open_journal(path) as journal, journal.transaction() as transaction:
        transaction.append(records(1, count, text=text))


# ----------------------------------------------------------------------------------------- one writer


def test_a_second_writer_is_told_who_holds_the_journal(path: Path, programs: list[Program]) -> None:
    """The refusal names pid and host; the lock is free as soon as its holder is killed."""
    program = Program(HOLDER, path)
    programs.append(program)
    assert program.line() == "open"
    who = holder(path)
    assert who is not None
    assert who.pid == program.process.pid
    with pytest.raises(JournalBusy, match=rf"process {who.pid} on host {who.host}"):
        open_journal(path)
    program.kill()
    with open_journal(path) as journal:
        assert journal.epoch == 2
        mine = holder(path)
        assert mine is not None
        assert mine.pid == os.getpid()


def test_a_writer_of_the_same_process_is_refused_too(path: Path) -> None:
    """The lock belongs to the journal that was opened, not to the process; closing frees it, and its file stays."""
    with open_journal(path), pytest.raises(JournalBusy, match=f"process {os.getpid()} "):
        open_journal(path)
    assert lock_path(path).exists()
    open_journal(path).close()


def test_a_lock_that_tells_nothing_still_holds(path: Path) -> None:
    """An empty or damaged lock file is no way in."""
    with open_journal(path):
        lock_path(path).write_bytes(b"\xff not JSON")
        with pytest.raises(JournalBusy, match="another process"):
            open_journal(path)


def test_a_failed_opening_frees_the_lock(path: Path) -> None:
    """Whoever cannot open the file leaves nothing locked behind."""
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 10)
    for _ in range(2):
        with pytest.raises(JournalCorrupt):
            open_journal(path)


def test_threads_take_turns(path: Path, records: "Records") -> None:
    """Transactions of several threads never mix."""
    with open_journal(path) as journal:

        def write() -> None:
            for _ in range(20):
                with journal.transaction() as transaction:
                    transaction.append(records(journal.head() + 1, 3))

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [record.position for record in scan(journal)] == list(range(1, 181))


# -------------------------------------------------------------------------------------------- readers


def test_readers_in_other_processes_follow_the_writer(path: Path, records: "Records", programs: list[Program]) -> None:
    """A reader sees each commit at once, never half a transaction, while the writer writes and after it closed."""
    with open_journal(path) as journal:
        program = Program(READER, path)
        programs.append(program)
        for head in range(0, 50, 10):
            with journal.transaction() as transaction:
                transaction.append(records(head + 1, 10))
                program.say("read")
                assert program.line() == str(head)
            program.say("read")
            assert program.line() == str(head + 10)
    program.say("read")
    assert program.line() == "50"


def test_reading_needs_no_writer(path: Path, records: "Records") -> None:
    """A journal that nobody writes is read as well, and reading leaves it unlocked."""
    fill(path, records, 3)
    with open_reader(path) as reader:
        assert reader.head() == 3
        with open_journal(path) as journal, journal.transaction() as transaction:
            transaction.append(records(4))
        assert reader.head() == 4


def test_a_reader_cannot_write(path: Path, records: "Records") -> None:
    """The connection of a reader is read-only in SQLite's own eyes."""
    fill(path, records, 1)
    with open_reader(path) as reader, pytest.raises(JournalError, match="readonly"):
        reader._rows("DELETE FROM record")  # noqa: SLF001 - no public way leads to a write


def test_without_a_journal_the_reader_says_what_to_do(path: Path) -> None:
    """A missing file and an empty one are clear errors, and nothing is made by reading."""
    with pytest.raises(JournalError, match="rewarm serve"):
        open_reader(path)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(JournalError, match="empty"):
        open_reader(path)
    assert path.stat().st_size == 0


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    """What a kill left behind between making the file and its tables is finished by the next writer."""
    path.parent.mkdir()
    path.touch()
    with open_journal(path) as journal:
        assert (journal.head(), journal.epoch) == (0, 1)


def test_a_closed_reader_says_so(path: Path, records: "Records") -> None:
    """Asking after close is a clear error; closing again is harmless."""
    fill(path, records, 1)
    reader = open_reader(path)
    reader.close()
    reader.close()
    with pytest.raises(JournalError, match="closed"):
        reader.head()


def test_a_slow_reader_does_not_keep_the_wal_growing(
    path: Path, records: "Records", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WAL that grew behind a long read is cut once the reader is done, and no commit fails meanwhile."""
    monkeypatch.setattr(module, "WAL_LIMIT", 64 * 1024)
    wal = path.with_name("journal.db-wal")
    with open_journal(path) as journal:

        def write(batches: int) -> None:
            for _ in range(batches):
                with journal.transaction() as transaction:
                    transaction.append(records(journal.head() + 1, text=b"x" * 8000))

        write(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as slow:
            slow.execute("BEGIN")
            slow.execute("SELECT count(*) FROM record").fetchall()
            write(300)
            grown = wal.stat().st_size
        write(256)
        assert journal.head() == 557
        assert grown > 5 * 64 * 1024
        assert wal.stat().st_size < grown / 2


# --------------------------------------------------------------------------------- killed, torn, damaged


def test_a_kill_leaves_whole_transactions(path: Path, programs: list[Program]) -> None:
    """After SIGKILL at any instant every reported commit is there, and nothing of a transaction without the rest."""
    for lines in (1, 4, 9):
        program = Program(WRITER, path)
        programs.append(program)
        reported = [program.line() for _ in range(lines + 1)] + program.kill()
        with open_reader(path) as reader:
            head = reader.head()
            assert head % 10 == 0
            assert head >= int(reported[-1] if reported[-1].isdigit() else 0)
            assert reader.cursor("c") == head
            assert sum(1 for _ in scan(reader)) == head
    assert verify(path) == []


@pytest.mark.parametrize("boundary", ["journal.before_commit", "journal.after_commit"])
def test_a_kill_at_a_boundary_stores_all_or_nothing(path: Path, records: "Records", boundary: str) -> None:
    """Killed before the commit nothing is stored, after it everything is."""
    fill(path, records, 2)
    process = subprocess.run([sys.executable, "-c", VICTIM, str(path), boundary], check=False)
    assert process.returncode == -signal.SIGKILL
    with open_journal(path) as journal:
        stored = boundary == "journal.after_commit"
        assert journal.head() == (7 if stored else 2)
        assert journal.cursor("c") == (5 if stored else None)


def test_boundaries_are_passed_in_order(path: Path, records: "Records") -> None:
    """Tests may end the process at each named boundary; a read passes none."""
    passed: list[str] = []
    with open_journal(path, boundary=passed.append) as journal:
        with journal.transaction() as transaction:
            transaction.append(records(1))
        journal.save_snapshot(position=1, reducer=1, hash="h", state=b"")
        journal.records(0)
    assert passed == ["journal.before_commit", "journal.after_commit", "snapshot.before", "snapshot.after"]


@pytest.mark.parametrize("keep", [0, 20, 1000, 5000, -1, -3000])
def test_a_torn_wal_opens_with_whole_transactions(path: Path, records: "Records", tmp_path: Path, keep: int) -> None:
    """A WAL that was cut anywhere opens; what its cut took is gone as whole transactions."""
    torn = tmp_path / "torn.db"
    with open_journal(path) as journal:
        for first in range(1, 41, 10):
            with journal.transaction() as transaction:
                transaction.append(records(first, 10))
                transaction.move(Cursor(name="c", expected=first - 1 or None, next=first + 9))
        shutil.copy(path, torn)
        wal = path.with_name("journal.db-wal").read_bytes()
    torn.with_name("torn.db-wal").write_bytes(wal[:keep])
    if keep == 0:  # without a WAL the schema that was in it is gone too: the file is as good as new
        with open_journal(torn) as again:
            assert again.head() == 0
        return
    with open_journal(torn) as again:
        head = again.head()
        assert head in (0, 10, 20, 30)
        assert (again.cursor("c") or 0) == head
        with again.transaction() as transaction:
            transaction.append(records(head + 1, 10))
    assert verify(torn) == []
