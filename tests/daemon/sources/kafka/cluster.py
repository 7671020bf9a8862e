"""A cluster in memory, and a consumer and a looker of it: what the source relies on, and no more."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.core.errors import BrokerError
from daemon.sources.kafka.consumer import Fault, Haul, Unreadable
from daemon.sources.kafka.judge import Place, Start
from daemon.sources.kafka.messages import Headers, Message


class Sent(NamedTuple):
    """A record, with the names that kafka-python has."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    timestamp: int = 1_764_000_000_000
    key: bytes | None = None
    headers: Headers = ()


class Log:
    """A partition: records by their offsets; an offset without one is a transaction's marker."""

    def __init__(self) -> None:
        self.begin = 0
        self.end = 0
        self.records: dict[int, Sent] = {}


class Topic:
    """A topic: its id, and its partitions."""

    def __init__(self, topic_id: str, partitions: int) -> None:
        self.topic_id = topic_id
        self.logs = [Log() for _ in range(partitions)]


class MemoryCluster:
    """Topics in memory; `down` makes every call fail, `forbidden` topics are refused, `odd` places unreadable.

    Of places in `taken_back` the brokers say, once, that they took back what was read last.
    """

    def __init__(self, cluster: str = "C") -> None:
        self.cluster = cluster
        self.topics: dict[str, Topic] = {}
        self.troubles: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.odd: set[Place] = set()
        self.taken_back: set[Place] = set()
        self.down = False
        self.stalled = False
        self.consumers: list[MemoryConsumer] = []
        self.hints: dict[Place, int] = {}
        self.hints_refused = False
        self.looks = 0
        self.changed = threading.Condition()
        self._ids = 0

    def create(self, name: str, partitions: int = 1) -> None:
        """Create a topic, with an id that no topic had before."""
        self._ids += 1
        with self.changed:
            self.topics[name] = Topic(f"{self.cluster}{self._ids}", partitions)
            self.changed.notify_all()

    def delete(self, name: str) -> None:
        """Delete a topic."""
        with self.changed:
            del self.topics[name]

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        logs = self.topics[name].logs
        with self.changed:
            logs += [Log() for _ in range(partitions - len(logs))]

    def send(self, name: str, *values: bytes, partition: int = 0) -> None:
        """Append records."""
        with self.changed:
            log = self.topics[name].logs[partition]
            for value in values:
                log.records[log.end] = Sent(name, partition, log.end, value)
                log.end += 1
            self.changed.notify_all()

    def mark(self, name: str, partition: int = 0) -> None:
        """Append an offset that has no record."""
        with self.changed:
            self.topics[name].logs[partition].end += 1
            self.changed.notify_all()

    def trim(self, name: str, before: int, partition: int = 0) -> None:
        """Remove the records before an offset."""
        with self.changed:
            log = self.topics[name].logs[partition]
            log.begin = before
            log.records = {offset: each for offset, each in log.records.items() if offset >= before}

    def cut(self, name: str, end: int, partition: int = 0) -> None:
        """Take back what was appended from an offset on."""
        with self.changed:
            log = self.topics[name].logs[partition]
            log.end = end
            log.records = {offset: each for offset, each in log.records.items() if offset < end}

    def sight(self) -> Sight:
        """Return what is to be seen."""
        return Sight(
            cluster=self.cluster,
            topics={
                name: TopicSight(
                    topic_id=topic.topic_id,
                    partitions={n: Extent(begin=log.begin, end=log.end) for n, log in enumerate(topic.logs)},
                )
                for name, topic in self.topics.items()
            },
            troubles=dict(self.troubles),
        )

    def look(self, topics: Collection[str]) -> Sight:
        """Return what is to be seen of some topics."""
        self.looks += 1
        if self.down:
            raise BrokerError("nobody answers")
        seen = self.sight()
        return Sight(
            cluster=seen.cluster,
            topics={name: each for name, each in seen.topics.items() if name in topics},
            troubles=seen.troubles,
        )

    def leave(self, positions: Mapping[Place, int]) -> None:
        """Take a hint."""
        if self.hints_refused or self.down:
            raise BrokerError("the group has members")
        self.hints.update(positions)

    def close(self) -> None:
        """Do nothing."""

    def connect(self, cluster: str) -> "MemoryConsumer":
        """Return a consumer."""
        if self.down:
            raise BrokerError("nobody answers")
        self.consumers.append(MemoryConsumer(self, cluster))
        return self.consumers[-1]


class MemoryConsumer:
    """Reads a cluster in memory by the names of its topics, as kafka-python does."""

    def __init__(self, cluster: MemoryCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._places: dict[Place, Start] = {}
        self._stands: dict[Place, int] = {}
        self.fetched: list[tuple[Place, int]] = []
        self.closed = threading.Event()

    def read(self, places: Mapping[Place, Start], seeks: Mapping[Place, int]) -> None:
        """Read these places and no others."""
        self._places = dict(places)
        self._stands = {place: at for place, at in self._stands.items() if place in places} | dict(seeks)
        assert self._stands.keys() == places.keys(), "a place without a position"

    def poll(self, timeout: float, most: int) -> Haul:
        """Return what has come."""
        deadline = time.monotonic() + timeout
        with self._cluster.changed:
            while not self.closed.is_set():
                haul = Haul() if self._cluster.down or self._cluster.stalled else self._fetch(most)
                left = deadline - time.monotonic()
                if haul != Haul() or left <= 0:
                    return haul
                self._cluster.changed.wait(min(left, 0.05))
        raise BrokerError("closed")

    def close(self) -> None:
        """Let go of nothing."""
        self.closed.set()

    def abort(self) -> None:
        """Do the same from another thread."""
        self.closed.set()

    def _fetch(self, most: int) -> Haul:
        records: dict[Place, list[Message]] = {}
        passed: dict[Place, int] = {}
        for place, start in self._places.items():
            topic = self._cluster.topics.get(place.topic)
            if topic is None:
                continue
            if place.topic in self._cluster.forbidden:
                return Haul(fault=Fault(what="refused", places=frozenset({place}), message="We may not read it."))
            log, at = topic.logs[place.partition], self._stands[place]
            if not log.begin <= at <= log.end:
                return Haul(fault=Fault(what="out_of_range", places=frozenset({place})))
            if at < log.end and topic.topic_id != start.topic_id:
                return Haul(fault=Fault(what="changed", places=frozenset({place})))
            if place in self._cluster.taken_back:
                self._cluster.taken_back.remove(place)
                return Haul(fault=Fault(what="truncated", places=frozenset({place}), message="It was taken back."))
            if place in self._cluster.odd and at < log.end:
                raise Unreadable(place, "It is packed oddly.")
            found = [log.records[offset] for offset in range(at, log.end) if offset in log.records][:most]
            most -= len(found)
            if found:
                records[place] = list(found)
                self._stands[place] = found[-1].offset + 1
                self.fetched += [(place, each.offset) for each in found]
            elif at < log.end and most:
                passed[place] = log.end
        if records:
            return Haul(records=records)
        self._stands |= passed
        return Haul(passed=passed)


def cluster(partitions: int = 1, *topics: str, name: str = "C") -> MemoryCluster:
    """Return a cluster with topics, `t` where none is named."""
    made = MemoryCluster(name)
    for topic in topics or ("t",):
        made.create(topic, partitions)
    return made


def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.005)
