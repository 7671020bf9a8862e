"""What the port promises, asked of every adapter."""

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.core.errors import JournalError
from daemon.core.events import (
    Carrier,
    DecisionMade,
    ModelRejected,
    Record,
    RunHeld,
    StageProgressed,
)
from daemon.journal.base import scan
from tests.daemon.journal.steps import append

if TYPE_CHECKING:
    from tests.daemon.journal.conftest import Place, Records

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "https://data.example/crawler"


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


def test_what_carried_a_record_is_kept(place: "Place", records: "Records") -> None:
    """Key, headers, value and the rest come back byte for byte, and a record that nothing carried has nothing."""
    journal = place.open()
    carrier = Carrier(
        source="kafka",
        topic="rewarm.events",
        partition=3,
        offset=2**62,
        timestamp=1_764_000_000_123,
        key=b"\xff\x00key",
        headers=(("x", b"\xfe"), ("x", None), ("\u00e4", b"")),
        value=b"",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    carriers = [carrier, None, Carrier(), Carrier(offset=0)]
    made = [msgspec.structs.replace(record, carrier=each) for record, each in zip(records(1, 4), carriers, strict=True)]
    append(journal, made)
    assert place.reader().records(0) == made
    with journal.transaction() as transaction:
        assert transaction.record(1) == made[0]


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
