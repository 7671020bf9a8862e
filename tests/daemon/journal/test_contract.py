"""What the port promises, asked of every adapter."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from daemon.core.encoding import encode
from daemon.core.errors import DuplicateRecord, JournalError, StaleCursor
from daemon.core.events import (
    DataArrived,
    DecisionMade,
    ModelRejected,
    Record,
    RunHeld,
    StageProgressed,
)
from daemon.journal.base import Cursor, Found, Journal, digest, scan

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Place, Records

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "https://data.example/crawler"


class Crash(Exception):
    """Something unexpected inside a transaction."""


def append(journal: Journal, records: list[Record]) -> None:
    """Append in a transaction of its own."""
    with journal.transaction() as transaction:
        transaction.append(records)


def positions(records: list[Record]) -> list[int]:
    """Return the positions of records."""
    return [record.position for record in records]


# ---------------------------------------------------------------------------------- appending and reading


def test_an_empty_journal_has_nothing(place: "Place") -> None:
    """A new journal has head 0, no cursor, no duplicate, no snapshot and no record."""
    journal = place.open()
    for reader in (journal, place.reader()):
        assert reader.head() == 0
        assert reader.records(0) == []
        assert reader.cursor("spool") is None
        assert reader.duplicates() == 0
        assert reader.snapshots(1) == []


def test_records_come_back_as_they_were(place: "Place", records: "Records") -> None:
    """What was appended is read back equal, in order, by the writer and by a reader."""
    journal = place.open()
    made = [
        *records(1, 2, text=b'{"a": "\xff\x00 byte for byte"}'),
        *records(3, event=DecisionMade(policy="p", policy_version=1, verdict="no", reason="Too few: 3 < 5.")),
        *records(4, pipeline=None),
    ]
    append(journal, made)
    assert journal.records(0) == made
    assert place.reader().records(0) == made
    assert journal.head() == place.reader().head() == 4


def test_the_producers_time_is_kept_as_an_instant(place: "Place", records: "Records") -> None:
    """A time with another offset comes back as the same instant, to the microsecond."""
    journal = place.open()
    local = datetime(2026, 3, 1, 13, 0, 0, 123457, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    (record,) = records(1, at=local)
    append(journal, [record])
    (read,) = journal.records(0)
    assert read.time == read.recorded_at == local
    assert read.recorded_at.tzinfo is UTC


@pytest.mark.parametrize("odd", ["", "a\x00b", "line\nbreak", "\U0001f600", "' OR 1=1 --", "x" * 5000])
def test_any_text_may_be_an_id(place: "Place", records: "Records", odd: str) -> None:
    """Ids and sources are opaque: empty, long, with NUL or quotes, they are found again."""
    journal = place.open()
    append(journal, records(1, source=odd, id=odd))
    with journal.transaction() as transaction:
        found = transaction.find(odd, odd)
    assert found is not None
    assert found.position == 1
    assert journal.records(0)[0].id == odd


def test_appending_nothing_changes_nothing(place: "Place") -> None:
    """An empty batch is stored as nothing."""
    journal = place.open()
    append(journal, [])
    assert journal.head() == 0


@pytest.mark.parametrize("first", [1, 2, 4, 5])
def test_positions_must_continue_the_head(place: "Place", records: "Records", first: int) -> None:
    """A batch that leaves a gap or overlaps is refused as a whole."""
    journal = place.open()
    append(journal, records(1, 2))
    with pytest.raises(JournalError, match="position 3 is next"):
        append(journal, records(first, 1, id="new"))
    assert journal.head() == 2


def test_a_gap_within_a_batch_is_refused(place: "Place", records: "Records") -> None:
    """Positions must continue inside a batch too."""
    journal = place.open()
    with pytest.raises(JournalError, match="position 2 is next"):
        append(journal, [*records(1), *records(3)])
    assert journal.head() == place.reader().head() == 0


def test_times_must_not_decrease(place: "Place", records: "Records") -> None:
    """A record before the one it follows is refused."""
    journal = place.open()
    append(journal, records(1))
    with pytest.raises(JournalError, match="take the instant from `stamp`"):
        append(journal, records(2, at=NOON - timedelta(microseconds=1)))
    assert journal.head() == 1


def test_an_instant_without_a_time_zone_is_refused(place: "Place", records: "Records") -> None:
    """Naive datetimes are an error, not a guess."""
    journal = place.open()
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(JournalError, match="no time zone"):
        append(journal, records(1, at=naive))
    with pytest.raises(JournalError, match="no time zone"):
        journal.stamp(naive)


def test_stamps_never_decrease(place: "Place", records: "Records") -> None:
    """When the clock goes back behind the last record, its instant is used, also after opening again."""
    journal = place.open()
    assert journal.stamp(NOON) == NOON
    append(journal, records(1, at=NOON))
    assert journal.stamp(NOON - timedelta(hours=1)) == NOON
    assert journal.stamp(NOON + timedelta(hours=1)) == NOON + timedelta(hours=1)
    assert journal.stamp(NOON.astimezone(timezone(timedelta(hours=2)))).tzinfo is UTC
    journal.close()
    assert place.open().stamp(NOON - timedelta(days=1)) == NOON


# ------------------------------------------------------------------------------------------- conditions


def test_ranges_and_limits(place: "Place", records: "Records") -> None:
    """`after` is left out, `upto` included, `limit` keeps the first ones."""
    journal = place.open()
    append(journal, records(1, 10))
    assert positions(journal.records(0)) == list(range(1, 11))
    assert positions(journal.records(4, upto=7)) == [5, 6, 7]
    assert positions(journal.records(4, 2)) == [5, 6]
    assert positions(journal.records(4, 0)) == []
    assert positions(journal.records(7, upto=7)) == []
    assert positions(journal.records(10)) == []
    assert positions(journal.records(99)) == []
    assert positions(journal.records(9, upto=99)) == [10]


def test_conditions_narrow_what_is_read(place: "Place", records: "Records") -> None:
    """Kinds (indexed or not), pipeline and run may be combined, and keep the order of positions."""
    journal = place.open()
    rejected = ModelRejected(run="a-1", reason="Worse.", spans=(), amounts={})
    progressed = StageProgressed(run="a-1", stage="train", attempt=1, step=1, steps=2)
    append(
        journal,
        [
            *records(1, event=rejected, pipeline="a"),
            *records(2, pipeline="a"),
            *records(3, event=RunHeld(run="b-1", reason="Ask."), pipeline="b"),
            *records(4, event=progressed, pipeline="a"),
            *records(5, event=rejected, pipeline="a"),
            *records(6, pipeline="b"),
        ],
    )
    for reader in (journal, place.reader()):
        assert positions(reader.records(0, kinds=["model.rejected"])) == [1, 5]
        both = ["run.held", "model.rejected", "run.held"]
        assert positions(reader.records(0, kinds=both)) == [1, 3, 5]
        assert positions(reader.records(0, 2, kinds=both)) == [1, 3]
        assert positions(reader.records(1, kinds=both, upto=4)) == [3]
        assert positions(reader.records(0, kinds=both, pipeline="a")) == [1, 5]
        assert positions(reader.records(0, kinds=["model.rejected", "stage.progressed"], run="a-1")) == [1, 4, 5]
        assert positions(reader.records(0, kinds=["data.arrived", "run.held"])) == [2, 3, 6]
        assert positions(reader.records(0, kinds=["data.arrived"], pipeline="b")) == [6]
        assert positions(reader.records(0, kinds=[])) == []
        assert positions(reader.records(0, kinds=["no.such"])) == []
        assert positions(reader.records(0, pipeline="b")) == [3, 6]
        assert positions(reader.records(0, run="a-1", upto=4)) == [1, 4]
        assert positions(reader.records(0, run="none")) == []


def test_a_scan_reads_all_in_chunks(place: "Place", records: "Records") -> None:
    """`scan` yields every record of its range once, whatever the size of its chunks."""
    journal = place.open()
    append(journal, records(1, 25))
    assert [record.position for record in scan(journal, chunk=10)] == list(range(1, 26))
    assert [record.position for record in scan(journal, 3, upto=24, chunk=7)] == list(range(4, 25))


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
