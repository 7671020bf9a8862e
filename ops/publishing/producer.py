"""kafka-python's transactional producer, with waits that end."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from kafka import ConsumerGroupMetadata, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from ops.publishing.patience import GRACE_SECONDS, Patience

LEAST_TRANSACTION_MS, MOST_TRANSACTION_MS = 10_000, 900_000
"""How long a transaction may take before the brokers undo it; they grant 15 minutes (transaction.max.timeout.ms)."""
LARGEST_REQUEST = 64 << 20
"""Bytes: what is too large the brokers say, who know their topics."""
DELIVERY_MS = 120_000
RETRY_MS = 20
"""A transaction that follows another at once is refused until that one's end has been written everywhere."""


class Result(Protocol):
    """What becomes of a step of a transaction."""

    def wait(self, timeout_ms: float) -> bool:
        """Wait for so long, return whether it is done; raises what went wrong."""


class Sent(Protocol):
    """What becomes of a record that was sent."""

    is_done: bool
    exception: Exception | None

    def get(self, timeout: float) -> object:
        """Wait for so long; raises what went wrong, or that it is not done."""


class TransactionalProducer(KafkaProducer):  # type: ignore[misc]  # the library ships no types
    """A producer whose steps end by a deadline: the library's own repeat them for as long as there is no answer.

    After any error it is of no use: what became of its transaction, the `init_transactions` of the next one settles.
    An abort would not do after records were refused, for this client counts on with their sequence numbers.
    """

    def __init__(self, patience: Patience, **configuration: object) -> None:
        self._patience = patience
        super().__init__(**configuration)
        self._unregister_cleanup()  # the end of the process waits for nobody

    def init_transactions(self) -> None:
        """Fence whoever has the same id, end what they began, and wait until that is done."""
        self._finish(self._transaction_manager.initialize_transactions(), "Beginning as the one writer")

    @property
    def last_error(self) -> BaseException | None:
        """Why the transaction under way cannot be committed, if it cannot."""
        error: BaseException | None = self._transaction_manager.last_error
        return error

    def place(self, group: str, place: TopicPartition, position: int) -> None:
        """Make a cursor's new position a part of the transaction."""
        offsets = {place: OffsetAndMetadata(position, "", -1)}
        made = self._transaction_manager.send_offsets_to_transaction(
            offsets, ConsumerGroupMetadata(group, -1, "", None)
        )
        self._finish(made, "Moving the cursor")

    def reach(self, group: str, place: TopicPartition) -> None:
        """Return when the brokers know of a cursor all that was ever committed: after a write to it, taken back.

        A coordinator that was just elected answers by what its followers are known to have, which may be less.
        """
        self.begin_transaction()
        self.place(group, place, 0)
        self._finish(self._transaction_manager.begin_abort(), "Taking a transaction back")

    def commit_transaction(self) -> None:
        """Commit; returns when consumers may see it."""
        self._finish(self._transaction_manager.begin_commit(), "A commit")

    def settle(self, sent: Sequence[Sent]) -> None:
        """Wait until the brokers have every record, or have refused it."""
        for future in sent:

            def settled(seconds: float, future: Sent = future) -> bool:
                with suppress(KafkaError):
                    future.get(seconds)
                return future.is_done

            self._patience.wait(settled, "Sending")

    def leave(self) -> None:
        """Close, and wait for nobody who does not answer."""
        with suppress(KafkaError):  # a transaction that was given up may hold records that never went
            self.close(timeout=GRACE_SECONDS)
        self._sender.force_close()
        self._closed = True

    def _finish(self, result: Result, what: str) -> None:
        self._sender.wakeup()
        self._patience.wait(lambda seconds: result.wait(seconds * 1000), what)


def connect(arguments: Mapping[str, object], patience: Patience, identity: str) -> TransactionalProducer:
    """Return a producer that writes as `identity`; raises KafkaError when the cluster does not answer."""
    step = int(patience.seconds * 1000)
    return TransactionalProducer(
        patience,
        **arguments,
        transactional_id=identity,
        transaction_timeout_ms=min(max(LEAST_TRANSACTION_MS, 2 * step), MOST_TRANSACTION_MS),
        delivery_timeout_ms=max(DELIVERY_MS, 2 * step),
        max_block_ms=step,
        retry_backoff_ms=RETRY_MS,
        max_request_size=LARGEST_REQUEST,
        allow_auto_create_topics=False,
    )
