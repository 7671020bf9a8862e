"""What is on its way into the journal: the partitions that are read, and the inputs that nobody has answered. Pure.

Exactly once is kept by the journal: each input carries a step of its partition's cursor, and goes in only where the
cursor stands at its beginning. Here the steps are made one after the other; where one of them did not get in, what
follows it will not either, and the partition is ended: nothing more is taken of it, and when the last answer is in,
it is read again from where the journal stands.
"""

from collections.abc import Iterator, Mapping

import msgspec

from daemon.journal.base import Cursor
from daemon.sources.kafka.judge import Place, Start


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a cursor, with how many records it brings, and when the last of them was written (ms since 1970)."""

    cursor: Cursor
    records: int
    written: int | None = None


class Reading:
    """A partition that is read from a position of the journal on."""

    def __init__(self, place: Place, start: Start) -> None:
        self.place = place
        self.start = start
        self.next = start.offset
        self.journaled = start.offset
        self.passed = start.offset
        self.written: int | None = None
        self.unanswered = 0
        self.ended = False
        self.order: int | None = None
        self.moved_at = 0.0

    @property
    def cursor(self) -> str:
        """The name of its cursor."""
        return self.start.cursor

    @property
    def stands(self) -> int:
        """How far it is in the journal; offsets without a record that follow are none to wait for."""
        return max(self.journaled, self.passed) if self.unanswered == 0 else self.journaled

    def takes(self, order: int) -> bool:
        """Return whether what an order brought belongs here: it was given after this reading had begun."""
        return not self.ended and self.order is not None and order >= self.order

    def step(self, after: int, records: int, written: int | None, now: float) -> Step:
        """Return the step to `after`, the offset that follows the last record taken."""
        cursor = Cursor(name=self.cursor, expected=self.next, next=after)
        self.next = after
        self.unanswered += 1
        self.moved_at = now
        return Step(cursor=cursor, records=records, written=written)

    def answered(self, step: Step, *, got_in: bool) -> None:
        """Take note of what became of a step."""
        self.unanswered -= 1
        if got_in:
            self.journaled = step.cursor.next
            self.written = step.written or self.written


class Readings:
    """The readings of a source, by their cursors: one that is ended stays until its last answer."""

    def __init__(self) -> None:
        self._all: dict[str, Reading] = {}
        self._active: dict[Place, Reading] = {}

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._all.values())

    def get(self, cursor: str) -> Reading | None:
        """Return the reading of a cursor, ended or not."""
        return self._all.get(cursor)

    def begin(self, place: Place, start: Start) -> None:
        """Read a partition."""
        self._all[start.cursor] = self._active[place] = Reading(place, start)

    @property
    def active(self) -> Mapping[Place, Reading]:
        """What is read now."""
        return self._active

    def end(self, reading: Reading) -> None:
        """Take nothing more of a partition."""
        reading.ended = True
        if self._active.get(reading.place) is reading:
            del self._active[reading.place]

    def sweep(self) -> bool:
        """Forget the ended ones that nothing is awaited of; returns whether there were any."""
        over = [name for name, each in self._all.items() if each.ended and each.unanswered == 0]
        for name in over:
            del self._all[name]
        return bool(over)
