"""What tests do with a cluster, whoever started it: topics, records in, records out."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from daemon.broker.access import Access
from daemon.broker.client import arguments

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.consumer.fetcher import ConsumerRecord

_NUMBERS = itertools.count()
Value = str | bytes | None


class Broker:
    """A cluster at an address ("host:port", several joined by commas)."""

    def __init__(self, address: str, replicas: int = 1) -> None:
        self.address = address
        self._replicas = replicas
        self._producers: dict[str | None, KafkaProducer] = {}
        self._made: set[str] = set()

    def topic(self, partitions: int = 1, prefix: str = "t", **configs: str) -> str:
        """Return the name of a new topic; a config's name is written with _ for the dots."""
        name = f"{prefix}-{os.getpid()}-{time.time_ns() % 10**9}-{next(_NUMBERS)}"
        self.create(name, partitions, **configs)
        return name

    def create(self, name: str, partitions: int = 1, **configs: str) -> None:
        """Create a topic of this name."""
        wanted = {key.replace("_", "."): value for key, value in configs.items()}
        options = {"num_partitions": partitions, "replication_factor": self._replicas, "configs": wanted}
        with self.admin() as admin:
            admin.create_topics({name: options})
            admin.wait_for_topics([name])

    def delete(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        with self.admin() as admin:
            admin.delete_topics([topic])
            deadline = time.monotonic() + 20
            while topic in admin.list_topics():
                assert time.monotonic() < deadline, f"{topic} is still there"
                time.sleep(0.02)

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions, `partitions` in all."""
        with self.admin() as admin:
            admin.create_partitions({topic: partitions})
            admin.wait_for_topics([topic])
            deadline = time.monotonic() + 20
            while len(admin.describe_topics([topic])[0]["partitions"]) != partitions:
                assert time.monotonic() < deadline, f"{topic} has not grown"
                time.sleep(0.02)

    def produce(
        self,
        topic: str,
        *values: Value,
        key: Value = None,
        headers: Iterable[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp: int | None = None,
        compression: str | None = None,
    ) -> list[int]:
        """Write records, wait until they are there, and return their offsets; `timestamp` in milliseconds."""
        if compression not in self._producers:
            self._producers[compression] = self._producer(compression)
        producer = self._producers[compression]
        sent = [
            producer.send(
                topic,
                value=_bytes(value),
                key=_bytes(key),
                headers=list(headers),
                partition=partition,
                timestamp_ms=timestamp,
            )
            for value in values
        ]
        return [future.get(timeout=30).offset for future in sent]

    def read(self, topic: str, count: int, timeout: float = 20) -> "list[ConsumerRecord]":
        """Return the topic's first `count` committed records, in order within each partition."""
        from kafka import KafkaConsumer, TopicPartition

        found: list[ConsumerRecord] = []
        deadline = time.monotonic() + timeout
        consumer = KafkaConsumer(
            **self._arguments(),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            metrics_enabled=False,
        )
        try:
            partitions = consumer.partitions_for_topic(topic) or set()
            consumer.assign([TopicPartition(topic, partition) for partition in sorted(partitions)])
            while len(found) < count:
                assert time.monotonic() < deadline, f"{topic} has {len(found)} of {count} records: {found}"
                for records in consumer.poll(timeout_ms=100).values():
                    found += records
        finally:
            consumer.close()
        return found[:count]

    @contextlib.contextmanager
    def admin(self, timeout: float = 20.0) -> "Iterator[KafkaAdminClient]":
        """Give an admin client, for what has no method here; `timeout` in seconds."""
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(**self._arguments(timeout))
        try:
            yield admin
        finally:
            admin.close()

    def close(self) -> None:
        """Let go of the connections."""
        for producer in self._producers.values():
            producer.close(timeout=2)
        self._producers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _producer(self, compression: str | None) -> "KafkaProducer":
        from kafka import KafkaProducer

        return KafkaProducer(**self._arguments(), compression_type=compression, linger_ms=5, metrics_enabled=False)

    def _arguments(self, timeout: float = 20.0) -> dict[str, object]:
        # As rewarm connects: a client as the library makes it leaves sockets behind while a node is down.
        found = arguments(Access(bootstrap_servers=tuple(self.address.split(",")), request_timeout=timeout))
        return found | {"reconnect_backoff_max_ms": 200}


def _bytes(value: Value) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
