"""The contract of every journal, continued: what counts once, transactions, cursors."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from daemon.core.encoding import encode
from daemon.core.errors import DuplicateRecord, JournalError, StaleCursor
from daemon.core.events import DataArrived
from daemon.journal.base import Cursor, Found, digest
from tests.daemon.journal.steps import append

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Place, Records

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "https://data.example/crawler"


class Crash(Exception):
    """Something unexpected inside a transaction."""


# ------------------------------------------------------------------------------------------- duplicates


def test_a_repeated_id_is_refused_and_nothing_of_the_batch_is_stored(place: "Place", records: "Records") -> None:
    """(source, id) is unique: over the journal, and within a batch."""
    journal = place.open()
    append(journal, records(1, id="a"))
    with pytest.raises(DuplicateRecord, match=r"'a'.*position 1 already"):
        append(journal, [*records(2, id="b"), *records(3, id="a")])
    with pytest.raises(DuplicateRecord, match=r"'c'.*position 2 already"):
        append(journal, [*records(2, id="c"), *records(3, id="c")])
    assert journal.head() == 1
    append(journal, records(2, id="a", source="another"))
    assert [record.id for record in journal.records(0)] == ["a", "a"]


def test_a_transaction_finds_its_own_rows(place: "Place", records: "Records") -> None:
    """Duplicates within one batch are seen before anything is committed."""
    journal = place.open()
    append(journal, records(1, id="old"))
    with journal.transaction() as transaction:
        transaction.append(records(2, id="new"))
        old, new = (SOURCE, "old"), (SOURCE, "new")
        found = transaction.find_many([old, new, (SOURCE, "none"), ("else", "old"), new])
        assert {pair: where.position for pair, where in found.items()} == {old: 1, new: 2}
        assert transaction.find(*new) == found[new]
        assert transaction.find(SOURCE, "none") is None
        assert transaction.find_many([]) == {}
        record = transaction.record(2)
        assert record is not None
        assert record.id == "new"
        assert transaction.record(0) is None
        assert transaction.record(3) is None


def test_many_pairs_are_found_at_once(place: "Place", records: "Records") -> None:
    """A batch of any size is looked up."""
    journal = place.open()
    append(journal, records(1, 900))
    with journal.transaction() as transaction:
        found = transaction.find_many((SOURCE, str(number)) for number in range(1, 2000))
    assert len(found) == 900
    assert found[SOURCE, "900"].position == 900


def test_the_digest_tells_same_content_from_other_content(place: "Place", records: "Records") -> None:
    """The digest is that of the encoded event, unless the caller gives that of what was received."""
    journal = place.open()
    event = DataArrived(uri="file:///srv/a", domain="news")
    given = digest(b"as received")
    with journal.transaction() as transaction:
        transaction.append([*records(1, event=event), *records(2, event=event)], [None, given])
        assert transaction.find(SOURCE, "1") == Found(position=1, digest=digest(encode(event)))
        assert transaction.find(SOURCE, "2") == Found(position=2, digest=given)
    assert digest(b"as received") == given != digest(b"as received ")
    with pytest.raises(JournalError, match="2 records came with 1 digests"), journal.transaction() as transaction:
        transaction.append(records(3, 2), [None])


def test_duplicates_are_counted(place: "Place") -> None:
    """The count of repeated facts is part of the transaction."""
    journal = place.open()
    with journal.transaction() as transaction:
        transaction.count_duplicates(2)
        transaction.count_duplicates(3)

    def fail() -> None:
        with journal.transaction() as transaction:
            transaction.count_duplicates(7)
            raise Crash

    with pytest.raises(Crash):
        fail()
    assert journal.duplicates() == place.reader().duplicates() == 5


# ----------------------------------------------------------------------------------- transactions, cursors


def test_an_exception_takes_everything_back(place: "Place", records: "Records") -> None:
    """Records, cursors and counts of a failed transaction are gone, and the next one works."""
    journal = place.open()
    append(journal, records(1))

    def fail() -> None:
        with journal.transaction() as transaction:
            transaction.append(records(2, at=NOON + timedelta(hours=1)))
            transaction.move(Cursor(name="spool", expected=None, next=1))
            raise Crash

    with pytest.raises(Crash):
        fail()
    assert journal.head() == place.reader().head() == 1
    assert journal.cursor("spool") is None
    assert journal.stamp(NOON) == NOON
    append(journal, records(2))
    assert [record.id for record in journal.records(0)] == ["1", "2"]


def test_readers_see_whole_transactions(place: "Place", records: "Records") -> None:
    """Inside a transaction the writer sees its rows; a reader sees them after the commit."""
    journal, reader = place.open(), place.reader()
    with journal.transaction() as transaction:
        transaction.append(records(1, 2))
        transaction.move(Cursor(name="spool", expected=None, next=2))
        assert journal.head() == 2
        assert len(journal.records(0)) == 2
        assert reader.head() == 0
        assert reader.records(0) == []
        assert reader.cursor("spool") is None
    assert reader.head() == 2
    assert reader.cursor("spool") == 2


def test_several_appends_make_one_transaction(place: "Place", records: "Records") -> None:
    """A transaction may append again and again; positions go on."""
    journal = place.open()
    with journal.transaction() as transaction:
        transaction.append(records(1, 2))
        transaction.append(records(3, 2))
    assert journal.head() == 4


@pytest.mark.parametrize("mistake", ["duplicate", "gap", "cursor"])
def test_an_error_that_was_swallowed_still_spoils_the_transaction(
    place: "Place", records: "Records", mistake: str
) -> None:
    """Catching an error inside the block does not let half a batch be committed."""
    journal = place.open()

    def go_on_regardless() -> None:
        with journal.transaction() as transaction:
            transaction.append(records(1))
            with suppress(JournalError):
                if mistake == "duplicate":
                    transaction.append([*records(2), *records(3, id="1")])
                elif mistake == "gap":
                    transaction.append(records(9))
                else:
                    transaction.move(Cursor(name="spool", expected=4, next=5))

    with pytest.raises(JournalError, match="cannot be committed"):
        go_on_regardless()
    assert journal.head() == place.reader().head() == 0


def test_transactions_do_not_nest(place: "Place", records: "Records") -> None:
    """Opening a transaction, or saving a snapshot, inside one is an error; the outer one can be tried again."""
    journal = place.open()
    with journal.transaction() as transaction:
        with pytest.raises(JournalError, match="do not nest"), journal.transaction():
            pass
        with pytest.raises(JournalError, match="do not nest"):
            journal.save_snapshot(position=0, reducer=1, hash="", state=b"")
        transaction.append(records(1))
    assert journal.head() == 1


def test_a_cursor_moves_by_compare_and_set(place: "Place") -> None:
    """A cursor is made once, moves from where it stands, and refuses every other belief."""
    journal = place.open()
    with journal.transaction() as transaction:
        transaction.move(Cursor(name="spool", expected=None, next=3))
        transaction.move(Cursor(name="spool", expected=3, next=5))
        transaction.move(Cursor(name="other", expected=None, next=0))
        assert transaction.cursor("spool") == 5
    for expected in (None, 3, 6):
        with (
            pytest.raises(StaleCursor, match=rf"'spool' stands at 5, not at {expected}"),
            journal.transaction() as transaction,
        ):
            transaction.move(Cursor(name="spool", expected=expected, next=9))
    with pytest.raises(StaleCursor, match="stands at None"), journal.transaction() as transaction:
        transaction.move(Cursor(name="new", expected=0, next=1))
    assert journal.cursor("spool") == place.reader().cursor("spool") == 5
    assert journal.cursor("other") == 0
    assert journal.cursor("new") is None
