"""The contract of every journal, continued: epochs, opening again, snapshots."""

from typing import TYPE_CHECKING

import pytest

from daemon.core.errors import JournalError, JournalFenced
from daemon.journal.base import Cursor, Snapshot
from tests.daemon.journal.steps import append

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Place, Records


# --------------------------------------------------------------------------------- epochs, identity, snapshots


def test_everything_is_there_after_opening_again(place: "Place", records: "Records") -> None:
    """Records, cursors, counts, snapshots and the identity outlive the writer; the epoch grows."""
    journal = place.open()
    with journal.transaction() as transaction:
        transaction.append(records(1, 3))
        transaction.move(Cursor(name="spool", expected=None, next=3))
        transaction.count_duplicates(1)
    journal.save_snapshot(position=3, reducer=1, hash="h", state=b"{}")
    identity, epoch = journal.identity(), journal.epoch
    journal.close()
    again = place.open()
    assert again.records(0) == records(1, 3)
    assert (again.cursor("spool"), again.duplicates()) == (3, 1)
    assert again.snapshots(1) == [Snapshot(position=3, reducer=1, hash="h", state=b"{}")]
    assert again.identity() == identity == place.reader().identity()
    assert again.epoch == epoch + 1
    append(again, records(4))
    assert again.head() == 4


def test_an_older_writer_is_fenced(place: "Place", records: "Records") -> None:
    """Once there is a newer writer, the older one can write nothing, and learns it before its block runs."""
    old = place.open()
    append(old, records(1))
    new = place.supersede()
    ran = False
    with pytest.raises(JournalFenced, match="newer writer"), old.transaction():
        ran = True
    assert not ran
    with pytest.raises(JournalFenced):
        old.save_snapshot(position=1, reducer=1, hash="h", state=b"")
    append(new, records(2))
    assert [record.position for record in new.records(0)] == [1, 2]
    assert new.snapshots(1) == []


def test_a_closed_journal_says_so(place: "Place") -> None:
    """Writing after close is a clear error; closing again is harmless."""
    journal = place.open()
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"), journal.transaction():
        pass


def test_the_two_newest_snapshots_are_kept(place: "Place", records: "Records") -> None:
    """Saving a third drops the first; each reducer version sees its own, newest first."""
    journal = place.open()
    append(journal, records(1, 9))
    for position in (2, 4, 6):
        journal.save_snapshot(position=position, reducer=1, hash=f"h{position}", state=bytes([position, 0, 255]))
    assert [snapshot.position for snapshot in journal.snapshots(1)] == [6, 4]
    assert place.reader().snapshots(1)[0] == Snapshot(position=6, reducer=1, hash="h6", state=b"\x06\x00\xff")
    journal.save_snapshot(position=6, reducer=2, hash="other", state=b"")
    assert [snapshot.position for snapshot in journal.snapshots(1)] == [6]
    assert [snapshot.hash for snapshot in journal.snapshots(2)] == ["other"]


def test_saving_a_snapshot_again_replaces_it(place: "Place", records: "Records") -> None:
    """The same reducer and position are one snapshot: the later one."""
    journal = place.open()
    append(journal, records(1, 5))
    for position, name in ((3, "a"), (5, "b"), (5, "c")):
        journal.save_snapshot(position=position, reducer=1, hash=name, state=b"")
    assert [snapshot.hash for snapshot in journal.snapshots(1)] == ["c", "a"]


def test_a_snapshot_cannot_be_ahead_of_the_journal(place: "Place", records: "Records") -> None:
    """A state that was folded from more than there is, is refused."""
    journal = place.open()
    append(journal, records(1))
    with pytest.raises(JournalError, match="ahead of the journal"):
        journal.save_snapshot(position=2, reducer=1, hash="h", state=b"")
