"""Opening a topic: it is made where it is missing, we become its one writer, and the cursor is read after that."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    InvalidProducerEpochError,
    KafkaError,
    NoError,
    ProducerFencedError,
    RetriableError,
    TopicAlreadyExistsError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from daemon.broker.access import Access
from daemon.broker.causes import explain
from daemon.broker.client import arguments
from daemon.core.errors import BrokerError
from ops.publishing.patience import Patience
from ops.publishing.producer import connect
from ops.publishing.sink import KafkaSink

FENCED = (ProducerFencedError, InvalidProducerEpochError)


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that is told of journals; transactions and cursors go by `name` and the journal's identity.

    Without the identity two installations that share a group would fence each other for ever.
    """

    access: Access
    topic: str
    name: str
    boundary: Callable[[str], None]

    def open(self, journal: str, ancestors: Sequence[str], stop: threading.Event) -> KafkaSink:
        """Fence whoever told this topic of the journal before, and undo what they began.

        `ancestors` are journals whose cursors are read as well. Raises BrokerError.
        """
        patience = Patience(stop, self.access.request_timeout)
        client = arguments(self.access) | {"client_id": f"{self.access.client_id}-{self.topic}"}
        with self._told():
            admin = KafkaAdminClient(**client)
            try:
                self._provide(admin)
                producer = connect(client, patience, self._identity(journal))
                try:
                    producer.init_transactions()  # no transaction that could still move the cursor is left
                    producer.reach(self._identity(journal), self._place)
                    cursors = {each: self._cursor(admin, each) for each in (journal, *ancestors)}
                except BaseException:
                    producer.leave()
                    raise
            finally:
                admin.close()
        return KafkaSink(
            producer,
            topic=self.topic,
            place=self._place,
            group=self._identity(journal),
            cursors={each: at for each, at in cursors.items() if at is not None},
            boundary=self.boundary,
            told=self._told,
        )

    @property
    def _place(self) -> TopicPartition:
        """What the cursor is kept for: any partition that is there would do."""
        return TopicPartition(self.topic, 0)

    def _identity(self, journal: str) -> str:
        return f"{self.name}.{journal}"

    def _provide(self, admin: KafkaAdminClient) -> None:
        """See that the topic is there."""
        (found,) = admin.describe_topics([self.topic])
        error = for_code(found["error_code"])
        if error is not UnknownTopicOrPartitionError:
            if error is NoError or issubclass(error, RetriableError):  # a partition without a leader may get one
                return
            raise error(found["name"])
        try:
            admin.create_topics({self.topic: {}}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            return
        except KafkaError as error:
            if isinstance(error, RetriableError):
                raise
            why = f"Topic {self.topic} does not exist (or must not be seen by us), and making it failed: {error}."
            raise BrokerError(f"{why} Make it, or allow Create and Describe on it.") from error

    def _cursor(self, admin: KafkaAdminClient, journal: str) -> int | None:
        group = self._identity(journal)
        at = int(admin.list_group_offsets({group: [self._place]})[group][self._place].offset)
        return at if at >= 0 else None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise BrokerError for what the client raises, with words that help."""
        try:
            yield
        except TransactionalIdAuthorizationFailedError as error:
            what = f"Describe and Write on transactional ids that begin with {self.name}."
            raise BrokerError(f"The cluster does not let us write transactions: allow {what}") from error
        except GroupAuthorizationFailedError as error:
            what = f"Describe and Read on groups that begin with {self.name}."
            raise BrokerError(f"The cluster does not let us keep a cursor: allow {what}") from error
        except AuthorizationError as error:
            what = f"Describe and Write on topic {self.topic}"
            raise BrokerError(f"The cluster does not let us write to the topic: allow {what}.") from error
        except FENCED as error:
            why = "somebody else tells it of this journal now, or we took longer than the brokers grant a transaction"
            raise BrokerError(f"Topic {self.topic} is not ours to tell: {why}.") from error
        except KafkaError as error:
            at = f"{self.topic} at {', '.join(self.access.bootstrap_servers)}"
            raise BrokerError(f"Topic {at} cannot be told: {explain(self.access, error)}") from error
