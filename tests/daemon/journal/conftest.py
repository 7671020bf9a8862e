"""Both adapters behind one face, and records to put into them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from daemon.core.events import AnyEvent, DataArrived, Record
from daemon.journal.base import Journal, Reader
from daemon.journal.lock import lock_path
from daemon.journal.memory import MemoryJournal, MemoryReader, MemoryStore
from daemon.journal.sqlite import open_journal, open_reader

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "https://data.example/crawler"


class Place(Protocol):
    """Where a journal is kept."""

    def open(self) -> Journal:
        """Open it as its writer; the writer before must be closed."""

    def supersede(self) -> Journal:
        """Open it as its writer although another one believes to be it."""

    def reader(self) -> Reader:
        """Open it for reading."""


class Records(Protocol):
    """Make `count` records from position `first` on; ids are positions unless `id` is given."""

    def __call__(  # noqa: D102
        self,
        first: int = 1,
        count: int = 1,
        *,
        at: datetime = NOON,
        source: str = SOURCE,
        id: str | None = None,  # noqa: A002
        event: AnyEvent | None = None,
        pipeline: str | None = "docs-lm",
        text: bytes | None = None,
    ) -> list[Record]: ...


class MemoryPlace:
    """A store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self) -> Journal:
        """Open the store."""
        return MemoryJournal(self.store)

    def supersede(self) -> Journal:
        """Open the store again: nothing locks it."""
        return MemoryJournal(self.store)

    def reader(self) -> Reader:
        """Read the store."""
        return MemoryReader(self.store)


class SqlitePlace:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[Reader] = []

    def open(self) -> Journal:
        """Open the file."""
        journal = open_journal(self.path)
        self.opened.append(journal)
        return journal

    def supersede(self) -> Journal:
        """Remove the lock's file, as a careless person would, and open the journal."""
        lock_path(self.path).unlink()
        return self.open()

    def reader(self) -> Reader:
        """Read the file."""
        reader = open_reader(self.path)
        self.opened.append(reader)
        return reader


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a place with no journal yet, once per adapter."""
    if request.param == "memory":
        yield MemoryPlace()
        return
    place = SqlitePlace(tmp_path / "journal.db")
    yield place
    for opened in place.opened:
        opened.close()


@pytest.fixture
def records() -> Records:
    """Give the maker of records."""

    def make(
        first: int = 1,
        count: int = 1,
        *,
        at: datetime = NOON,
        source: str = SOURCE,
        id: str | None = None,  # noqa: A002
        event: AnyEvent | None = None,
        pipeline: str | None = "docs-lm",
        text: bytes | None = None,
    ) -> list[Record]:
        return [
            Record(
                position=position,
                recorded_at=at,
                source=source,
                id=str(position) if id is None else id,
                event=event or DataArrived(uri=f"file:///srv/inbox/{position}.jsonl", domain="news", bytes=position),
                pipeline=pipeline,
                time=at,
                text=text,
            )
            for position in range(first, first + count)
        ]

    return make
