"""One transaction in the making: what is admitted, what it brings, and what became of each offer."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from daemon import dead_letters
from daemon.broker.positions import cursor_name, source_of
from daemon.core.arbitration import react
from daemon.core.decisions import Policies
from daemon.core.errors import InputError
from daemon.core.events import AnyEvent, DataWithdrawn, InputRejected, OperatorRequested, PositionSet, Record
from daemon.core.state import State
from daemon.core.transition import evolve
from daemon.door import REJECTED_SOURCE, Answer, Letter, Offer, own, refuse
from daemon.journal.base import Cursor, Found, Transaction

MAX_AHEAD = timedelta(days=1)
MAX_MESSAGE = 4000
logger = logging.getLogger("rewarm.loop")

Completion = Callable[[Transaction, State, Offer], AnyEvent]


class Work:
    """One transaction in the making."""

    def __init__(
        self,
        transaction: Transaction,
        state: State,
        policies: Policies,
        *,
        receive: Callable[[Letter], Offer],
        complete: Completion,
        stamp: datetime,
    ) -> None:
        self._transaction = transaction
        self._policies = policies
        self._receive = receive
        self._complete = complete
        self._stamp = stamp
        self._pending: list[Record] = []
        self._digests: list[bytes | None] = []
        self._seen: dict[tuple[str, str], Found] = {}
        self.state = state
        self.records: list[Record] = []
        self.duplicates = 0

    def admit(self, offer: Offer, known: dict[tuple[str, str], Found], cause: int | None = None) -> Answer:
        """Take an offer in: as a fact, a counted duplicate or a dead letter; `cause` is the request that retries it."""
        pair = (offer.source, offer.id)
        before = self._seen.get(pair) or known.get(pair)
        if before is not None and before.digest == offer.digest:
            self.duplicates += 1
            if offer.refusal is not None:
                return _dead(before.position, *offer.refusal)
            return Answer(outcome="duplicate", position=before.position)
        if before is not None and offer.refusal is not None:  # another text without a name of its own
            return self._refuse(replace(offer, refusal=None), *offer.refusal, cause)
        if before is not None:
            message = f"{offer.source} used the id {offer.id!r} before, for other content: what is new needs a new id."
            return self._refuse(offer, "id_reused", message, cause)
        if offer.refusal is not None:
            self._seen[pair] = Found(position=self.state.position + 1, digest=offer.digest)
            return self._refuse(offer, *offer.refusal, cause)
        try:
            self._check_time(offer)
            self.flush_if_needed(offer)
            event = self._complete(self._transaction, self.state, offer)
        except InputError as error:
            # A refused event keeps its own identity free: it may come again, corrected or retried.
            return self._refuse(offer, error.reason, str(error), cause)
        except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            logger.exception("An input could not be completed; it becomes a dead letter.", extra={"where": offer.where})
            return self._refuse(offer, "not_completable", f"{type(error).__name__}: {error}", cause)
        position = self._add(offer, event, cause)
        if isinstance(event, DataWithdrawn):
            self.flush()  # what ingest tells of the arrival may follow in this very transaction
        self._seen[pair] = Found(position=position, digest=offer.digest)
        if isinstance(event, OperatorRequested) and event.dead_letter is not None:
            self._settle(event, event.dead_letter, position)
        if isinstance(event, OperatorRequested) and event.verb == "align":
            self._align(event, position)
        return Answer(outcome="accepted", position=position)

    def _check_time(self, offer: Offer) -> None:
        """Raise InputError for a producer's time that no clock can be wrong by; a stage's own word always counts."""
        if offer.letter is not None and offer.time is not None and offer.time - self._stamp > MAX_AHEAD:
            message = (
                f"The time {offer.time.isoformat()} lies more than {MAX_AHEAD.days} day ahead of the journal's clock, "
                f"{self._stamp.isoformat(timespec='seconds')}: mend the producer's clock."
            )
            raise InputError("time_in_future", message)

    def flush_if_needed(self, offer: Offer) -> None:
        """Make this transaction's own records visible to an event that refers to earlier ones."""
        if offer.event is not None and offer.event.kind in {"data.withdrawn", "operator.requested"}:
            self.flush()

    def flush(self) -> None:
        """Append what was collected."""
        if self._pending:
            self._transaction.append(self._pending, self._digests)
            self._pending, self._digests = [], []

    def _align(self, request: OperatorRequested, position: int) -> None:
        """Carry out a recorded alignment: every cursor that it names is set, and told of."""
        self.flush()
        for number, at in enumerate(request.positions):
            name = cursor_name(at)
            before = self._transaction.cursor(name)
            self._transaction.move(Cursor(name=name, expected=before, next=at.offset))
            event = PositionSet(position=at, before=before, why="aligned", by=request.by)
            identity = f"aligned:{position}:{number}"
            self._add(own(event, source=source_of(at.source), id=identity, where=name), event, position)

    def _settle(self, request: OperatorRequested, dead_letter: int, position: int) -> None:
        """Carry out a recorded retry or drop: it is settled for ever, and a retried input goes through the door."""
        if request.verb not in {"retry", "drop"}:
            return
        self._transaction.move(Cursor(name=dead_letters.name(dead_letter), expected=None, next=position))
        old = self._transaction.record(dead_letter)
        if request.verb == "drop" or old is None or not isinstance(old.event, InputRejected):
            return  # what was retried of an arrival, the fold has made pending
        letter = dead_letters.reopen(old, request.by)
        offer = self._receive(letter)
        if isinstance(offer.event, OperatorRequested) and offer.event.verb == "retry" and offer.event.dead_letter:
            message = f"A retry is not retried: retry the dead letter {offer.event.dead_letter} itself."
            offer = refuse(letter, InputError("retry_of_a_retry", message))
        if offer.refusal is not None:
            offer = replace(offer, id=f"{offer.id}#{position}")  # refused again: a dead letter of its own
        pair = (offer.source, offer.id)
        self.admit(offer, self._transaction.find_many([pair]), position)

    def _refuse(self, offer: Offer, reason: str, message: str, cause: int | None) -> Answer:
        letter = offer.letter
        rejected = InputRejected(
            reason=reason,
            message=message[:MAX_MESSAGE],
            where=offer.where,
            source=letter.source if letter else "",
            id=letter.id if letter else None,
        )
        if offer.refusal is None:
            identity = f"{offer.source}#{offer.id}#{offer.where}#{offer.digest.hex()}"
            identity += f"#{cause}" if cause is not None else ""
            pair = (REJECTED_SOURCE, identity)
            before = self._seen.get(pair) or self._transaction.find(*pair)
            if before is not None:
                self.duplicates += 1
                return _dead(before.position, reason, message)
            self._seen[pair] = Found(position=self.state.position + 1, digest=offer.digest)
            offer = replace(offer, source=REJECTED_SOURCE, id=identity)
        return _dead(self._add(offer, rejected, cause), reason, message)

    def _add(self, offer: Offer, event: AnyEvent, cause: int | None) -> int:
        record = Record(
            position=self.state.position + 1,
            recorded_at=self._stamp,
            source=offer.source,
            id=offer.id,
            event=event,
            pipeline=offer.pipeline,
            cause=cause,
            time=offer.time,
            text=offer.text,
            carrier=offer.letter.carrier if offer.letter else None,
        )
        state = evolve(self.state, record)
        self.state, decided = react(state, record, self._policies)
        self._pending += [record, *decided]
        self._digests += [offer.digest, *([None] * len(decided))]
        self.records += [record, *decided]
        return record.position


def _dead(position: int, reason: str, message: str) -> Answer:
    return Answer(outcome="dead_letter", position=position, reason=reason, message=message[:MAX_MESSAGE])
