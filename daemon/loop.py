"""The loop: the one thread that writes. Per batch one transaction: records, cursors, and all that follows."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from daemon.core.decisions import Policies
from daemon.core.errors import JournalFull, StaleCursor
from daemon.core.events import AnyEvent, Record
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.door import REFUSED, Answer, Input, Letter, Offer, own
from daemon.journal.base import Cursor, Journal
from daemon.sources import clock
from daemon.sources.queue import Inbox
from daemon.work import Completion, Reloading, Work

SNAPSHOT_RECORDS = 10_000
SNAPSHOT_SECONDS = 60.0
RETRY_SECONDS = 0.5
OWN_SOURCE = "/rewarm/daemon"
logger = logging.getLogger("rewarm.loop")

Observer = Callable[[Sequence[Record], State], None]


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction brought; `answers` has one entry for each input."""

    state: State
    records: tuple[Record, ...]
    duplicates: int
    answers: tuple[tuple[Answer, ...], ...]


class Loop:
    """Takes inputs, journals them with their consequences, and tells the observers afterwards."""

    def __init__(  # noqa: PLR0913 - every collaborator is a parameter
        self,
        *,
        journal: Journal,
        state: State,
        policies: Policies,
        inbox: Inbox,
        receive: Callable[[Letter], Offer],
        complete: Completion,
        observers: Sequence[Observer],
        now: Callable[[], datetime],
        forget: Callable[[], None],
        housekeeping: Callable[[], None],
        longest_wait: float = 5.0,
        heartbeat: Callable[[], None] = lambda: None,
        reload: Reloading | None = None,
    ) -> None:
        self._journal = journal
        self.state = state
        self._policies = policies
        self._inbox = inbox
        self._receive = receive
        self._complete = complete
        self._observers = observers
        self._now = now
        self._forget = forget
        self._housekeeping = housekeeping
        self._longest_wait = longest_wait
        self._heartbeat = heartbeat
        self._reload = reload
        self._stop = threading.Event()
        self.snapshot_position = 0
        self._snapshot_at = time.monotonic()
        self.beat = time.monotonic()
        self.trouble: str | None = None
        self.duplicates = 0
        self.append_seconds = 0.0

    def begin(self, state: State, snapshot_position: int) -> None:
        """Go on from a folded state, of which the snapshot at `snapshot_position` is kept."""
        self.state = state
        self.snapshot_position = snapshot_position

    def run(self) -> None:
        """Work until `stop`; what waits in the inbox then was not taken: who asked is told, or it comes again."""
        while not self._stop.is_set():
            self.show_life()
            batch = self._inbox.take(self._patience())
            if self._stop.is_set():
                _turn_away(batch)
                break
            ticks = clock.due(self.state, self._now())
            if ticks is not None:
                batch.append(ticks)
            if batch:
                self.handle(batch)
            self._snapshot()
            self._housekeeping()

    def turn_away(self) -> None:
        """Tell who waits for what is left in the closed inbox that it did not get in."""
        while batch := self._inbox.take(0):
            _turn_away(batch)

    def stop(self) -> None:
        """End `run` after the current transaction."""
        self._stop.set()
        self._inbox.wake()

    def show_life(self) -> None:
        """Say that whoever runs this loop is not stuck; raises JournalFenced when another one leads."""
        self.beat = time.monotonic()
        self._heartbeat()

    def tell(self, *events: AnyEvent) -> None:
        """Record facts of the daemon itself; raises what the journal raises."""
        next_one = self._journal.head() + 1
        offers = tuple(
            own(event, source=OWN_SOURCE, id=f"{event.kind}:{self._journal.epoch}.{position}", where="daemon")
            for position, event in enumerate(events, next_one)
        )
        self.record([Input(offers=offers)])

    def record(self, batch: Sequence[Input]) -> None:
        """Commit a batch and tell the observers; raises what the journal raises."""
        self._publish(self.commit(batch))

    def handle(self, batch: list[Input]) -> None:
        """Commit a batch; while the disk is full, pause intake and try again, losing nothing."""
        while not self._stop.is_set():
            try:
                committed = self.commit(batch)
            except JournalFull as error:
                self._full(error)
                continue
            except StaleCursor as error:
                logger.warning("An input had been read already.", extra={"error": str(error)})
                if len(batch) == 1:
                    self._recovered()
                    self._forget()
                    _turn_away(batch)
                    return
                for item in batch:
                    self.show_life()  # each is a transaction of its own: on a slow disk all of them outlast a lease
                    self.handle([item])
                return
            self._recovered()
            self._publish(committed)
            for item, answers in zip(batch, committed.answers, strict=True):
                if item.reply is not None:
                    item.reply(answers)
            return
        _turn_away(batch)

    def commit(self, batch: Sequence[Input]) -> Committed:
        """Store a batch and its consequences in one transaction; on any error nothing is stored."""
        began = time.monotonic()
        with self._journal.transaction() as transaction:
            work = Work(
                transaction,
                self.state,
                self._policies,
                receive=self._receive,
                complete=self._complete,
                stamp=self._journal.stamp(self._now()),
                reload=self._reload,
            )
            known = transaction.find_many([(offer.source, offer.id) for item in batch for offer in item.offers])
            answers = []
            for item in batch:
                begun = work.state.position
                answers.append(tuple(work.admit(offer, known) for offer in item.offers))
                # A dead letter that was told before counted then.
                refused = len({a.position for a in answers[-1] if a.outcome == "dead_letter" and a.position > begun})
                if item.cursor is not None:
                    transaction.move(item.cursor)
                    if refused:
                        name = REFUSED + item.cursor.name
                        before = transaction.cursor(name)
                        transaction.move(Cursor(name=name, expected=before, next=(before or 0) + refused))
            work.flush()
            if work.duplicates:
                transaction.count_duplicates(work.duplicates)
        self.state, self._policies = work.state, work.policies
        if self._reload is not None and work.reconfigured is not None:
            self._reload.took(work.reconfigured)
        self.duplicates += work.duplicates
        self.append_seconds = time.monotonic() - began
        return Committed(
            state=work.state, records=tuple(work.records), duplicates=work.duplicates, answers=tuple(answers)
        )

    def snapshot(self) -> None:
        """Keep the state now."""
        if self.state.position <= self.snapshot_position:
            return
        state = dump(self.state)
        self._journal.save_snapshot(
            position=self.state.position, reducer=REDUCER_VERSION, hash=fingerprint(state), state=state
        )
        self.snapshot_position = self.state.position
        self._snapshot_at = time.monotonic()

    def _snapshot(self) -> None:
        grown = self.state.position - self.snapshot_position
        old = time.monotonic() - self._snapshot_at >= SNAPSHOT_SECONDS
        if grown >= SNAPSHOT_RECORDS or (grown > 0 and old):
            try:
                self.snapshot()
            except JournalFull as error:
                self._snapshot_at = time.monotonic()
                logger.warning("No snapshot could be kept.", extra={"error": str(error)})

    def _publish(self, committed: Committed) -> None:
        for observer in self._observers:
            observer(committed.records, committed.state)

    def _full(self, error: JournalFull) -> None:
        if self.trouble is None:
            logger.error("The journal is full: intake pauses.", extra={"error": str(error)})
            self._inbox.pause()
        self.trouble = str(error)
        self.show_life()
        self._stop.wait(RETRY_SECONDS)

    def _recovered(self) -> None:
        if self.trouble is not None:
            logger.info("The journal takes records again.")
            self.trouble = None
            self._inbox.resume()

    def _patience(self) -> float:
        """Return how long to wait for input: until the next wake-up or tick is due, at most a few seconds."""
        due = clock.next_due(self.state)
        until_due = self._longest_wait if due is None else (due - self._now()).total_seconds()
        return min(self._longest_wait, max(0.0, until_due))


def _turn_away(batch: Sequence[Input]) -> None:
    """Tell who waits that these inputs did not get in."""
    for item in batch:
        if item.reply is not None:
            item.reply(None)
