"""The lock's file: who holds it, what it shows of its holder's life, and files of earlier releases."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon import pids
from daemon.core.errors import JournalBusy, JournalFenced
from daemon.journal import lock
from daemon.journal.base import Cursor
from daemon.journal.lock import Holder
from daemon.journal.sqlite import open_journal

Taken = Callable[..., int]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Give a journal's path; the file itself is not needed."""
    return tmp_path / "journal.db"


@pytest.fixture
def taken(journal: Path) -> Iterator[Taken]:
    """Take the lock; it is freed with the test."""
    descriptors: list[int] = []

    def take(lease: float | None = None) -> int:
        descriptors.append(lock.take(journal, lease=lease))
        return descriptors[-1]

    yield take
    for descriptor in descriptors:
        lock.release(descriptor)


def test_the_file_tells_all_by_which_its_holder_is_known(journal: Path, taken: Taken) -> None:
    """Host, pid, start time, boot and pid namespace of this process, and the lease that it promises."""
    taken(2.5)
    who = lock.holder(journal)
    assert who == lock.myself(2.5)
    assert who is not None
    assert (who.host, who.pid, who.lease) == (socket.gethostname(), os.getpid(), 2.5)
    assert who.start_time == pids.start_time(os.getpid())
    assert who.namespace == str(Path("/proc/self/ns/pid").readlink())
    assert lock.locked_by(lock.lock_path(journal)) == who


def test_a_file_of_an_earlier_release_is_read(journal: Path) -> None:
    """It names no namespace and promises no lease."""
    old = {"host": "box", "pid": 7, "start_time": 1, "boot_id": "b"}
    lock.lock_path(journal).write_text(json.dumps(old), encoding="utf-8")
    assert lock.holder(journal) == Holder(host="box", pid=7, start_time=1, boot_id="b")


@pytest.mark.parametrize("content", [b"", b"7\n", b'{"host": "box"', b"\xff"])
def test_a_file_that_says_nothing_names_nobody(journal: Path, content: bytes) -> None:
    """It can be looked at, and be taken."""
    lock.lock_path(journal).write_bytes(content)
    sign = lock.look(journal)
    assert sign is not None
    assert (sign.holder, lock.holder(journal)) == (None, None)
    lock.release(lock.take(journal))
    assert lock.holder(journal) == lock.myself()


def test_each_beat_changes_what_is_seen(journal: Path, taken: Taken) -> None:
    """Nothing but a beat does; another holder is another sign."""
    assert lock.look(journal) is None
    descriptor = taken(1.0)
    first = lock.look(journal)
    assert lock.look(journal) == first
    os.utime(descriptor, ns=(0, 0))
    early = lock.look(journal)
    lock.beat(descriptor)
    assert len({str(first), str(early), str(lock.look(journal))}) == 3
    assert lock.holder(journal) == lock.myself(1.0)


def test_a_dead_holder_holds_nothing(journal: Path) -> None:
    """The kernel frees the lock of a process that ended; what its file says counts no more."""
    code = f"from pathlib import Path; from daemon.journal.lock import take; take(Path({str(journal)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lock.holder(journal) is not None
    assert lock.locked_by(lock.lock_path(journal)) is None
    lock.release(lock.take(journal))


def test_one_standby_is_shown(journal: Path, taken: Taken) -> None:
    """The first one; the journal's own lock is another one, and the next standby is shown when the first has gone."""
    taken()
    with pytest.raises(JournalBusy, match=f"process {os.getpid()} on host"):
        lock.take(journal)
    first = lock.enrol(journal)
    assert first is not None
    assert lock.enrol(journal) is None
    assert lock.locked_by(lock.standby_path(journal)) == lock.myself()
    lock.release(first)
    assert lock.locked_by(lock.standby_path(journal)) is None
    second = lock.enrol(journal)
    assert second is not None
    lock.release(second)


def test_a_lock_whose_file_is_silent_is_held_by_somebody(journal: Path, taken: Taken) -> None:
    """That the kernel says so is enough."""
    taken()
    lock.lock_path(journal).write_bytes(b"")
    assert lock.locked_by(lock.lock_path(journal)) == Holder(host="", pid=0)


def test_an_old_leader_learns_with_its_next_beat_that_it_is_none(journal: Path) -> None:
    """Its lock's file was removed and another one began: it can show no life, and write by no way."""
    old = open_journal(journal, lease=1.0)
    old.beat()
    lock.lock_path(journal).unlink()
    new = open_journal(journal, lease=1.0)
    with pytest.raises(JournalFenced, match="newer writer"):
        old.beat()
    with pytest.raises(JournalFenced), old.transaction() as transaction:
        transaction.move(Cursor(name="spool", expected=None, next=1))
    with pytest.raises(JournalFenced), old.transaction() as transaction:
        transaction.count_duplicates(1)
    with pytest.raises(JournalFenced):
        old.save_snapshot(position=0, reducer=1, hash="h", state=b"")
    new.beat()
    assert (new.cursor("spool"), new.duplicates(), new.snapshots(1)) == (None, 0, [])
    old.close()
    old.beat()
    assert lock.locked_by(lock.lock_path(journal)) == lock.myself(1.0)
    new.close()
