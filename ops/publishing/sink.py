"""An open topic: what is told to it and the cursor move in one transaction of Kafka, or neither does."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from kafka import TopicPartition
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from ops.publishing.messages import Message
from ops.publishing.ports import Refused
from ops.publishing.producer import TransactionalProducer

BEFORE_SEND, AFTER_SEND = "publishing.before_send", "publishing.after_send"
AFTER_CURSOR, AFTER_COMMIT = "publishing.after_cursor", "publishing.after_commit"
FOR_EVER = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError, InvalidRecordError)


class KafkaSink:
    """Write boundaries, in order: publishing.before_send, .after_send, .after_cursor, .after_commit."""

    def __init__(
        self,
        producer: TransactionalProducer,
        *,
        topic: str,
        place: TopicPartition,
        group: str,
        cursors: Mapping[str, int],
        boundary: Callable[[str], None],
        told: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Take over a producer that is the one writer; `group` and `place` are what the cursor is kept under.

        `told` turns what the client raises into words.
        """
        self.cursors = cursors
        self._producer = producer
        self._topic = topic
        self._place = place
        self._group = group
        self._boundary = boundary
        self._told = told

    def tell(self, messages: Sequence[Message], position: int) -> None:
        """Tell messages and move the cursor, both or neither."""
        with self._told():
            self._tell(messages, position)

    def close(self) -> None:
        """Let go of the connections, within half a second."""
        self._producer.leave()

    def _tell(self, messages: Sequence[Message], position: int) -> None:
        partitions = len(self._producer.partitions_for(self._topic))
        self._producer.begin_transaction()
        self._boundary(BEFORE_SEND)
        try:
            self._send(messages, partitions)
        except KafkaError as error:
            if isinstance(self._producer.last_error, FOR_EVER):
                raise Refused(str(self._producer.last_error)) from error
            raise
        self._boundary(AFTER_SEND)
        self._producer.place(self._group, self._place, position)
        self._boundary(AFTER_CURSOR)
        self._producer.commit_transaction()
        self._boundary(AFTER_COMMIT)

    def _send(self, messages: Sequence[Message], partitions: int) -> None:
        """Return when the brokers have every message.

        Known before the commit is asked for: the client calls a commit done that it did not send, when a message's
        failure made it leave the transaction in between.
        """
        sent = [
            self._producer.send(
                self._topic,
                value=b"" if message.value is None and message.key is None else message.value,  # not both, says kafka
                key=message.key,
                headers=list(message.headers),
                partition=message.partition % partitions if message.key is None else None,
                timestamp_ms=message.timestamp,
            )
            for message in messages
        ]
        self._producer.settle(sent)
        for future in sent:
            if future.exception is not None:
                raise future.exception
