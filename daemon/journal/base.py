"""The port: what the journal promises, whatever it is kept in.

One writer appends whole transactions; readers, also in other processes, see what was committed. Positions
start at 1 and have no gaps. Whatever goes wrong inside a transaction, nothing of it is stored.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from daemon.core.errors import JournalError
from daemon.core.events import Record

Pair = tuple[str, str]
"""What makes a fact unique: its source and the id that the source gave it."""


KEPT_SNAPSHOTS = 2


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A step of an input cursor: from `expected` (None: it must not exist yet) to `next`."""

    name: str
    expected: int | None
    next: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fact is recorded already, and the digest of its content."""

    position: int
    digest: bytes


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A state that was folded up to `position` by version `reducer`; the journal never looks into it."""

    position: int
    reducer: int
    hash: str
    state: bytes


class Reader(Protocol):
    """What everyone may ask. Every answer is committed, except to the writer inside its own transaction."""

    def records(
        self,
        after: int,
        limit: int = 1000,
        *,
        upto: int | None = None,
        kinds: Collection[str] | None = None,
        pipeline: str | None = None,
        run: str | None = None,
    ) -> list[Record]:
        """Return the first `limit` records of (after, upto], in order, that fit every condition given.

        Raises JournalCorrupt when one cannot be read, JournalTooNew when a newer rewarm wrote it.
        """

    def head(self) -> int:
        """Return the last position, 0 when there is none."""

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""

    def duplicates(self) -> int:
        """Return how many facts came again with the same content."""

    def identity(self) -> str:
        """Return the journal's own UUID: followers tell by it that they follow another journal now."""

    def ancestors(self) -> dict[str, int]:
        """Return the journals from whose copies this one was restored: identity → the last position in common."""

    def snapshots(self, reducer: int) -> list[Snapshot]:
        """Return the snapshots of a reducer version, newest first."""

    def close(self) -> None:
        """Let go of the journal; closing twice is harmless."""


class Transaction(Protocol):
    """The writer's view inside a transaction: it sees its own rows. After an error nothing can be saved."""

    def append(self, records: Sequence[Record], digests: Sequence[bytes | None] | None = None) -> None:
        """Store records whose positions continue the head; `digests` replace those of the encoded events.

        Raises DuplicateRecord when a (source, id) is taken, JournalError when positions or times do not
        continue, JournalFull when there is no room.
        """

    def find(self, source: str, id: str) -> Found | None:  # noqa: A002 - CloudEvents calls it id
        """Return where (source, id) is recorded."""

    def find_many(self, pairs: Iterable[Pair]) -> dict[Pair, Found]:
        """Return those of `pairs` that are recorded."""

    def record(self, position: int) -> Record | None:
        """Return the record at a position."""

    def move(self, cursor: Cursor) -> None:
        """Compare and set an input cursor; raises StaleCursor when it does not stand at `expected`."""

    def cursor(self, name: str) -> int | None:
        """Return what an input cursor expects next, None when it does not exist."""

    def count_duplicates(self, count: int) -> None:
        """Count facts that came again with the same content."""


class Journal(Reader, Protocol):
    """The one writer; it may read as well."""

    @property
    def epoch(self) -> int:
        """How many writers this journal has had, this one included: only the last one may write."""

    def stamp(self, now: datetime) -> datetime:
        """Return `now` as UTC, or the last record's `recorded_at` if the clock went back behind it."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Return a block whose writes are committed at its end as a whole, or not at all on any exception.

        Raises JournalFenced at once when there is a newer writer.
        """

    def save_snapshot(self, *, position: int, reducer: int, hash: str, state: bytes) -> None:  # noqa: A002
        """Keep a folded state; of all snapshots the two that were saved last are kept."""


def digest(event_json: bytes) -> bytes:
    """Return 16 bytes by which the content of two facts with the same (source, id) is compared."""
    return hashlib.blake2b(event_json, digest_size=16).digest()


def later(now: datetime, last: datetime | None) -> datetime:
    """Return the later of both instants as UTC; raises JournalError for a `now` without a time zone."""
    if now.tzinfo is None:
        raise JournalError(f"The instant {now.isoformat()} has no time zone; the journal takes aware datetimes.")
    now = now.astimezone(UTC)
    return now if last is None else max(now, last)


def scan(reader: Reader, after: int = 0, *, upto: int | None = None, chunk: int = 1000) -> Iterator[Record]:
    """Yield all records of (after, upto] in order, in short reads that never keep the writer waiting."""
    while records := reader.records(after, chunk, upto=upto):
        yield from records
        after = records[-1].position


def stale(cursor: Cursor, stands: int | None) -> str:
    """Return the message for a cursor that does not stand where the writer believed."""
    return (
        f"The input cursor {cursor.name!r} stands at {stands}, not at {cursor.expected}: "
        "read it again and go on from there."
    )


def repeated(record: Record, position: int) -> str:
    """Return the message for a record whose (source, id) is taken."""
    return (
        f"Record {record.position} repeats the id {record.id!r} of source {record.source!r}, "
        f"which is recorded at position {position} already."
    )


def scan_where(
    reader: Reader,
    after: int,
    *,
    kinds: Collection[str],
    upto: int | None = None,
    pipeline: str | None = None,
    run: str | None = None,
    chunk: int = 1000,
) -> Iterator[Record]:
    """Yield all records of (after, upto] that fit every condition given, in order."""
    while records := reader.records(after, chunk, upto=upto, kinds=kinds, pipeline=pipeline, run=run):
        yield from records
        after = records[-1].position
