"""The book of a pipeline's arrivals that are in no champion yet: what dispatcher and ingest would know of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from daemon.core.arrivals import amount_of, within
from daemon.core.events import DataArrived
from daemon.core.plans import Amount, Span
from daemon.core.state import Model

Account = Literal["past", "champion", "set_aside"]


class Entry:
    """One arrival; `amount` is an estimate until ingest made it `exact`. One that is `followed` is withdrawn later.

    `recorded` is where it stands in the journal that the history is from.
    """

    __slots__ = ("amount", "at", "domain", "exact", "followed", "position", "recorded")

    def __init__(
        self, position: int, at: datetime, event: DataArrived, *, followed: bool, recorded: int | None
    ) -> None:
        self.position = position
        self.at = at
        self.domain = event.domain
        self.amount = amount_of(event)
        self.exact = False
        self.followed = followed
        self.recorded = recorded


class Book:
    """Holds arrivals from when they come until they are in a champion, set aside, rejected or withdrawn."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._gone: dict[int, tuple[datetime | None, Amount]] = {}
        self.newest: datetime | None = None
        self._before: datetime | None = None
        self._promoted_at: datetime | None = None
        self.set_aside = 0
        self.rejected = 0
        self.withdrawn = 0

    def arrived(
        self, position: int, at: datetime, event: DataArrived, *, followed: bool, recorded: int | None = None
    ) -> None:
        """Note an arrival."""
        self._entries[position] = Entry(position, at, event, followed=followed, recorded=recorded)

    def counted(self, position: int, amount: Amount) -> None:
        """Note the exact amount of an arrival."""
        entry = self._entries.get(position)
        if entry is not None:
            entry.amount, entry.exact = amount, True

    def reject(self, position: int) -> None:
        """Take out an arrival that ingest could not use."""
        if position in self._entries:
            self.rejected += 1
            self._take([self._entries[position]])

    def withdraw(self, position: int, champion: Model | None) -> tuple[Account | None, Amount]:
        """Take out a withdrawn arrival; return the account that it is in, and as how much.

        No account: it is pending or a living run's, which the fold can tell by its position.
        """
        entry = self._entries.pop(position, None)
        if entry is not None:
            self.withdrawn += 1
            return None, entry.amount
        promoted_at, amount = self._gone.pop(position)
        if promoted_at is None:
            return "set_aside", amount
        return "champion" if champion is not None and champion.promoted_at == promoted_at else "past", amount

    def within(self, spans: tuple[Span, ...]) -> list[Entry]:
        """Return the arrivals in spans of positions, in order."""
        if not spans:
            return []
        last = max(span.upto for span in spans)
        return [entry for entry in self._until(last) if within(spans, entry.position)]

    def used(self, upto: int, living: Sequence[Span]) -> list[Entry]:
        """Take out the arrivals up to a position that are in none of these spans; return them."""
        return self._take([e for e in self._until(upto) if not within(tuple(living), e.position)])

    def promoted(self, spans: tuple[Span, ...], at: datetime) -> list[Entry]:
        """Take out the arrivals of a champion, and note when the `newest` came; return them."""
        found = self._take(self.within(spans), at)
        self._before, self._promoted_at = self.newest, at
        self.newest = max((entry.at for entry in found), default=self.newest)
        return found

    def rolled_back(self) -> None:
        """Note that the champion before the last one is back: what the last one had is set aside."""
        self.newest = self._before
        for position, (at, amount) in self._gone.items():
            self._gone[position] = None if at == self._promoted_at else at, amount

    def waiting(self) -> list[Entry]:
        """Return what is left, oldest first."""
        return list(self._entries.values())

    def _until(self, upto: int) -> Iterator[Entry]:
        for position, entry in self._entries.items():
            if position > upto:
                return
            yield entry

    def _take(self, found: list[Entry], promoted_at: datetime | None = None) -> list[Entry]:
        for entry in found:
            del self._entries[entry.position]
            if entry.followed:
                self._gone[entry.position] = promoted_at, entry.amount
        if found:
            self._entries = dict(self._entries)  # without the holes at its front, which every search would pass
        return found
