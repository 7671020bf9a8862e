"""Facts by Kafka for a daemon that is killed: producers that are not ours, a ledger, and what the topics hold.

The producers are librdkafka's: idempotent, acks=all, and they try until the broker has every record. What was sent,
and which dead letters were told, is read from the topics themselves, by the same client.
"""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.bench.crash_counter import POISON, Sent, produced, text_of
from tests.bench.crash_feeds import Ledger

AGAIN = 0.10
BURST = 400
PATIENCE = 60.0
REASON = "rewarm.errors.reason"


class KafkaFeed:
    """Producers of one topic, whose dead letters are told to `<topic>.dlq`; both topics are there already."""

    def __init__(self, folder: Path, *, address: str, topic: str, partitions: int, poison: float) -> None:
        self._topic = topic
        self._dead = f"{topic}.dlq"
        self._partitions = partitions
        self._address = address
        self.sources = (
            f"[{{kind: kafka, bootstrap_servers: [{address}], topics: [{topic}], group_id: {topic}, "
            "look_every: 1, request_timeout: 5}]"
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(folder / "ledger", again=AGAIN, poison=poison, sorts=tuple(POISON))
        self._unsent: list[bytes] = []
        self._producers = [self._producer(number) for number in range(2)]

    def _producer(self, number: int) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._address,
                "client.id": f"bench-{number}",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": 0,  # for ever
                "reconnect.backoff.max.ms": 1000,
                "error_cb": _let_it_retry,
                "log_level": 0,
            }
        )

    def deliver(self, rng: random.Random) -> None:
        """Hand a few events, now and then many, to one of the producers; the ledger knows them first."""
        count = rng.randint(BURST // 4, BURST) if rng.random() < 0.1 else rng.randint(1, 5)
        entries = self._ledger.draw(rng, count)
        self._ledger.write("kafka", entries)
        which = rng.randrange(len(self._producers))
        for entry in entries:
            self._produce(which, text_of(entry))
        self._serve()

    def _produce(self, which: int, text: bytes) -> None:
        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._unsent.append(text)

        while True:
            try:
                self._producers[which].produce(self._topic, text, on_delivery=told)
                return
            except BufferError:
                self._producers[which].poll(0.1)
            except KafkaException:  # a fatal error: this producer is done, another one takes its place
                self._producers[which] = self._producer(which)

    def _serve(self, seconds: float = 0.0) -> int:
        """Let the producers work; send again what they gave up; return what is not with the broker yet."""
        for producer in self._producers:
            producer.poll(seconds)
        again, self._unsent = self._unsent, []
        for text in again:
            self._produce(0, text)
        return sum(map(len, self._producers))

    def flush(self, patience: float = PATIENCE) -> None:
        """Wait until the broker has everything; raises TimeoutError."""
        until = time.monotonic() + patience
        while self._serve(0.02):
            if time.monotonic() > until:
                message = f"the broker does not take what is produced within {patience:g} s"
                raise TimeoutError(message)

    def delivered(self, journal: Path, state: Path) -> bool:
        """Return whether the journal has every record, and the topic of dead letters every refusal."""
        self.flush()
        ends = sum(end for _, end in self._extents(self._topic))
        letters = _ask(journal, "SELECT count(*) FROM record WHERE kind = 'input.rejected'")
        return self.taken(journal) == ends and self.dead_letters().total() >= letters

    def taken(self, journal: Path) -> int:
        """Return how many records a journal has taken in."""
        return _ask(journal, "SELECT total(next) FROM cursor WHERE name LIKE 'kafka:%'")

    def sent(self) -> Sent:
        """Return what the ledger says and the topic holds."""
        self.flush()
        return produced(self._ledger.path, Counter(message.value() or b"" for message in self._read(self._topic)))

    def dead_letters(self) -> Counter[tuple[bytes, str]]:
        """Return the committed dead letters in the topic, with the reason that each gives."""
        return Counter((message.value() or b"", _header(message, REASON)) for message in self._read(self._dead))

    def faults(self) -> tuple[list[str], list[str]]:
        """Return which poison is missing among the dead letters in the topic, and what is there too often."""
        told = self.dead_letters()
        expected = {(text, each.reason): each for text, each in self.sent().poison.items()}
        lost = [f"no dead letter tells of {each.entry}" for key, each in expected.items() if told[key] < each.times]
        repeated = [
            f"{times} dead letters tell of {text!r} ({reason})"
            for (text, reason), times in told.items()
            if times > (expected[text, reason].times if (text, reason) in expected else 0)
        ]
        return lost, repeated

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._address,
                "group.id": "bench-counter",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,  # so long the broker waits before it says that there is no more
                "error_cb": _let_it_retry,
                "log_level": 0,
            }
        )

    def _extents(self, topic: str) -> list[tuple[int, int]]:
        with closing(self._consumer()) as consumer:
            return [
                consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE)
                for partition in range(self._partitions)
            ]

    def _read(self, topic: str) -> Iterator[Message]:
        """Yield what is committed in a topic, from its beginning to its end."""
        with closing(self._consumer()) as consumer:
            parts = [TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(self._partitions)]
            consumer.assign(parts)
            left = {part.partition for part in parts}
            until = time.monotonic() + PATIENCE
            while left:
                if time.monotonic() > until:
                    trouble = f"{topic} cannot be read to its end within {PATIENCE:g} s"
                    raise TimeoutError(trouble)
                for message in consumer.consume(500, timeout=0.1):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name for it
                        left.discard(message.partition())


def _ask(journal: Path, query: str) -> int:
    """Return the one number that a query gives; 0 while there is no journal."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _header(message: Message, wanted: str) -> str:
    """Return a header of a message, "" without it."""
    headers = message.headers()
    found = [content for name, content in headers if name == wanted] if isinstance(headers, list) else []
    return found[0].decode() if found and isinstance(found[0], bytes) else ""


def _let_it_retry(error: KafkaError) -> None:
    """Say nothing: brokers are killed all the time, and the client goes on trying."""
