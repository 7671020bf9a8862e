"""One transaction in the making: what is admitted, what it brings, and what became of each offer."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from msgspec.structs import replace

from daemon import dead_letters
from daemon.broker.positions import cursor_name, source_of
from daemon.core.arbitration import react
from daemon.core.decisions import Policies
from daemon.core.errors import ConfigurationError, InputError
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataWithdrawn,
    InputRejected,
    OperatorRequested,
    PositionSet,
    Record,
)
from daemon.core.state import State
from daemon.core.transition import evolve
from daemon.door import REJECTED_SOURCE, Answer, Letter, Offer, own, refuse
from daemon.journal.base import Cursor, Found, Transaction

MAX_AHEAD = timedelta(days=1)
MAX_MESSAGE = 4000
CHANGED_SOURCE = "/rewarm/configuration"
"""Another one than that of what the policies bring: a change is a fact, and is answered itself."""
logger = logging.getLogger("rewarm.loop")

Completion = Callable[[Transaction, State, Offer], AnyEvent]


class Reconfigured(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration file says when it is read again; `needs_restart` are the keys of it that are not taken."""

    changed: ConfigurationChanged
    policies: Policies
    needs_restart: tuple[str, ...] = ()


class Reloading(Protocol):
    """Whoever can read the configuration file again."""

    def read(self) -> Reconfigured:
        """Return what it says. Raises ConfigurationError when it cannot be used."""

    def took(self, found: Reconfigured) -> None:
        """Hear that this stands in the journal, and counts from now on."""


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
        reload: Reloading | None = None,
    ) -> None:
        self._transaction = transaction
        self.policies = policies
        self._receive = receive
        self._complete = complete
        self._stamp = stamp
        self._reload = reload
        self.reconfigured: Reconfigured | None = None
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
            event, found = self._read_again(self._complete(self._transaction, self.state, offer))
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
        if isinstance(event, OperatorRequested):
            self._carry_out(event, position, found)
        return Answer(outcome="accepted", position=position, message=_left(found))

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

    def _carry_out(self, request: OperatorRequested, position: int, found: Reconfigured | None) -> None:
        """Do what a recorded request asks for beyond its fold."""
        if request.dead_letter is not None:
            self._settle(request, request.dead_letter, position)
        if request.verb == "align":
            self._align(request, position)
        if found is not None:
            self._reconfigure(found, position)

    def _read_again(self, event: AnyEvent) -> tuple[AnyEvent, Reconfigured | None]:
        """Return what the configuration file says, where that is asked for; raises InputError when it is no use."""
        if not isinstance(event, OperatorRequested) or event.verb != "reload" or self._reload is None:
            return event, None
        try:
            found = self._reload.read()
        except ConfigurationError as error:
            raise InputError("broken_configuration", str(error)) from error
        return replace(event, needs_restart=found.needs_restart), found

    def _reconfigure(self, found: Reconfigured, position: int) -> None:
        """Carry out a recorded reload: from here on other policies are asked. What is as it was is not told again."""
        self.reconfigured = found
        if found.changed.hash == self.state.configuration:
            return
        self.policies = found.policies
        offer = own(found.changed, source=CHANGED_SOURCE, id=f"reload:{position}", where="daemon")
        self._add(offer, found.changed, position)

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
        self.state, decided = react(state, record, self.policies)
        self._pending += [record, *decided]
        self._digests += [offer.digest, *([None] * len(decided))]
        self.records += [record, *decided]
        return record.position


def _left(found: Reconfigured | None) -> str:
    """Return what of a configuration file was not taken, in words."""
    if found is None or not found.needs_restart:
        return ""
    return f"Needs a restart, and is as it was: {', '.join(found.needs_restart)}."


def _dead(position: int, reason: str, message: str) -> Answer:
    return Answer(outcome="dead_letter", position=position, reason=reason, message=message[:MAX_MESSAGE])
