"""The loop: the one thread that writes. Per batch one transaction: records, cursors, and all that follows."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from daemon.core.arbitration import react
from daemon.core.decisions import Policies
from daemon.core.encoding import encode
from daemon.core.errors import InputError, JournalFull, StaleCursor
from daemon.core.events import AnyEvent, InputRejected, Record
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.door import REFUSED, REJECTED_SOURCE, Input, Offer
from daemon.journal.base import Cursor, Found, Journal, Transaction, digest
from daemon.sources import clock
from daemon.sources.queue import Inbox

SNAPSHOT_RECORDS = 10_000
SNAPSHOT_SECONDS = 60.0
RETRY_SECONDS = 0.5
OWN_SOURCE = "/rewarm/daemon"
logger = logging.getLogger("rewarm.loop")

Completion = Callable[[Transaction, State, Offer], AnyEvent]
Observer = Callable[[Sequence[Record], State], None]


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction brought."""

    state: State
    records: tuple[Record, ...]
    duplicates: int


class Loop:
    """Takes inputs, journals them with their consequences, and tells the observers afterwards."""

    def __init__(  # noqa: PLR0913 - every collaborator is a parameter
        self,
        *,
        journal: Journal,
        state: State,
        policies: Policies,
        inbox: Inbox,
        complete: Completion,
        observers: Sequence[Observer],
        now: Callable[[], datetime],
        forget: Callable[[], None],
        housekeeping: Callable[[], None],
    ) -> None:
        self._journal = journal
        self.state = state
        self._policies = policies
        self._inbox = inbox
        self._complete = complete
        self._observers = observers
        self._now = now
        self._forget = forget
        self._housekeeping = housekeeping
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
        """Work until `stop`; what waits in the inbox then was not taken and comes again."""
        while not self._stop.is_set():
            self.beat = time.monotonic()
            batch = self._inbox.take(self._patience())
            if self._stop.is_set():
                break
            ticks = clock.due(self.state, self._now())
            if ticks is not None:
                batch.append(ticks)
            if batch:
                self.handle(batch)
            self._snapshot()
            self._housekeeping()

    def stop(self) -> None:
        """End `run` after the current transaction."""
        self._stop.set()
        self._inbox.wake()

    def tell(self, *events: AnyEvent) -> None:
        """Record facts of the daemon itself; raises what the journal raises."""
        offers = []
        for number, event in enumerate(events):
            identity = f"{self._journal.epoch}.{self._journal.head() + 1 + number}"
            offers.append(
                Offer(
                    source=OWN_SOURCE,
                    id=f"{event.kind}:{identity}",
                    where="daemon",
                    digest=digest(encode(event)),
                    event=event,
                )
            )
        self._publish(self.commit([Input(offers=tuple(offers))]))

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
                    self._forget()
                    return
                for item in batch:
                    self.handle([item])
                return
            if self.trouble is not None:
                logger.info("The journal takes records again.")
                self.trouble = None
                self._inbox.resume()
            self._publish(committed)
            return

    def commit(self, batch: Sequence[Input]) -> Committed:
        """Store a batch and its consequences in one transaction; on any error nothing is stored."""
        began = time.monotonic()
        with self._journal.transaction() as transaction:
            work = _Work(self._journal, transaction, self.state, self._policies, self._complete, self._now())
            known = transaction.find_many([(offer.source, offer.id) for item in batch for offer in item.offers])
            for item in batch:
                refused = sum(work.admit(offer, known) for offer in item.offers)
                if item.cursor is not None:
                    transaction.move(item.cursor)
                    if refused:
                        name = REFUSED + item.cursor.name
                        before = transaction.cursor(name)
                        transaction.move(Cursor(name=name, expected=before, next=(before or 0) + refused))
            work.flush()
            if work.duplicates:
                transaction.count_duplicates(work.duplicates)
        self.state = work.state
        self.duplicates += work.duplicates
        self.append_seconds = time.monotonic() - began
        return Committed(state=work.state, records=tuple(work.records), duplicates=work.duplicates)

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
        self.beat = time.monotonic()
        self._stop.wait(RETRY_SECONDS)

    def _patience(self) -> float:
        """Return how long to wait for input: until the next wake-up or snapshot is due, at most 5 s."""
        due = clock.next_due(self.state)
        until_due = 5.0 if due is None else (due - self._now()).total_seconds()
        return min(5.0, max(0.0, until_due))


class _Work:
    """One transaction in the making."""

    def __init__(
        self,
        journal: Journal,
        transaction: Transaction,
        state: State,
        policies: Policies,
        complete: Completion,
        now: datetime,
    ) -> None:
        self._transaction = transaction
        self._policies = policies
        self._complete = complete
        self._stamp = journal.stamp(now)
        self._pending: list[Record] = []
        self._digests: list[bytes | None] = []
        self._seen: dict[tuple[str, str], bytes] = {}
        self.state = state
        self.records: list[Record] = []
        self.duplicates = 0

    def admit(self, offer: Offer, known: dict[tuple[str, str], Found]) -> int:
        """Take an offer in: as a fact, a counted duplicate or a dead letter; returns 1 for a dead letter."""
        pair = (offer.source, offer.id)
        before = self._seen.get(pair) or (known[pair].digest if pair in known else None)
        if before is not None and before == offer.digest:
            self.duplicates += 1
            return 0
        if before is not None:
            message = f"{offer.source} used the id {offer.id!r} before, with other content; ids are for ever."
            return self._refuse(msgspec.structs.replace(offer, refusal=None), "id_reused", message)
        self._seen[pair] = offer.digest
        if offer.refusal is not None:
            return self._refuse(offer, *offer.refusal)
        try:
            self.flush_if_needed(offer)
            event = self._complete(self._transaction, self.state, offer)
        except InputError as error:
            # A refused event keeps its own identity free: it may come again, corrected or retried.
            del self._seen[pair]
            return self._refuse(offer, error.reason, str(error))
        except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            logger.exception("An input could not be completed; it becomes a dead letter.", extra={"where": offer.where})
            del self._seen[pair]
            return self._refuse(offer, "not_completable", f"{type(error).__name__}: {error}")
        self._add(offer, event)
        return 0

    def flush_if_needed(self, offer: Offer) -> None:
        """Make this transaction's own records visible to an event that refers to earlier ones."""
        if offer.event is not None and offer.event.kind in {"data.withdrawn", "operator.requested"}:
            self.flush()

    def flush(self) -> None:
        """Append what was collected."""
        if self._pending:
            self._transaction.append(self._pending, self._digests)
            self._pending, self._digests = [], []

    def _refuse(self, offer: Offer, reason: str, message: str) -> int:
        rejected = InputRejected(reason=reason, message=message[:4000], where=offer.where)
        if offer.refusal is None:
            identity = f"{offer.source}#{offer.id}#{offer.where}#{offer.digest.hex()}"
            pair = (REJECTED_SOURCE, identity)
            if pair in self._seen or self._transaction.find(*pair) is not None:
                self.duplicates += 1
                return 0
            self._seen[pair] = offer.digest
            offer = msgspec.structs.replace(offer, source=REJECTED_SOURCE, id=identity)
        self._add(offer, rejected)
        return 1

    def _add(self, offer: Offer, event: AnyEvent) -> None:
        record = Record(
            position=self.state.position + 1,
            recorded_at=self._stamp,
            source=offer.source,
            id=offer.id,
            event=event,
            pipeline=offer.pipeline,
            time=offer.time,
            text=offer.text,
        )
        state = evolve(self.state, record)
        self.state, decided = react(state, record, self._policies)
        self._pending += [record, *decided]
        self._digests += [offer.digest, *([None] * len(decided))]
        self.records += [record, *decided]
