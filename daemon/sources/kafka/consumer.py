"""Reading a cluster: the port, and kafka-python behind it.

Records are handed out with proof. kafka-python fetches by a topic's name, and what it knows of the topic's id may be
old: a topic that is deleted and created again while nobody fetches is read on as if nothing had been. So the broker
that gave the records is asked afterwards which id the topic has: ids are never used twice, so they are of that topic.
"""

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from daemon.broker.access import Access
from daemon.broker.client import arguments
from daemon.core.errors import BrokerError
from daemon.sources.kafka.judge import Place, Start
from daemon.sources.kafka.lenient import read_any_header
from daemon.sources.kafka.messages import Message

if TYPE_CHECKING:
    from daemon.broker.connections import Client

FETCH_BYTES = 4 << 20
PARTITION_BYTES = 1 << 20
FETCH_WAIT_MS = 500
SOON_MS = 5
"""How long a poll waits that follows records: while the next fetch is not on its way, kafka-python sleeps 100 ms."""
IDLE_MS = 540_000
CONFIRMED_SECONDS = 0.05
"""For how long a confirmed id counts: less than it takes to delete a topic, create it again and fill it."""

What = Literal["out_of_range", "truncated", "refused", "changed"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Some places cannot be read, the others can: what is the matter with them."""

    what: What
    places: frozenset[Place]
    message: str = ""


class Unreadable(BrokerError):
    """A place has records that cannot be read; the others can, by another consumer."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


class Haul(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll brought, each partition's records in order, or else how far each partition was read.

    `passed` lies behind the last record where transactions or compaction left offsets without one.
    """

    records: dict[Place, list[Message]] = {}
    passed: dict[Place, int] = {}
    fault: Fault | None = None


class Consumer(Protocol):
    """Reads partitions. Used by one thread, but for `abort`."""

    def read(self, places: Mapping[Place, Start], seeks: Mapping[Place, int]) -> None:
        """Read these places and no others: those in `seeks` from there on, the others from where they are."""

    def poll(self, timeout: float, most: int) -> Haul:
        """Return what has come, at most `most` records, as soon as there is any, or after `timeout` seconds.

        Raises BrokerError, or Unreadable where one place is to blame; after either it can only be closed, and what it
        may have taken by then is lost with it.
        """

    def close(self) -> None:
        """Let go of the connections."""

    def abort(self) -> None:
        """Do the same from another thread, whatever the first one is at."""


def connect(
    access: Access, cluster: str, *, refresh: float = 5.0, idle_ms: int = IDLE_MS, wait_ms: int = FETCH_WAIT_MS
) -> "KafkaPython":
    """Return a consumer of a cluster; raises BrokerError after the request time-out when nobody answers.

    Its metadata is renewed every `refresh` seconds, which keeps connections open that nothing is fetched by.
    """
    from kafka import KafkaConsumer

    timeout_ms = int(access.request_timeout * 1000)
    given = arguments(access) | {
        "group_id": None,  # with one, nothing is fetched while the group's coordinator is away or forbidden
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_bytes": FETCH_BYTES,
        "max_partition_fetch_bytes": PARTITION_BYTES,
        "fetch_max_wait_ms": min(wait_ms, timeout_ms // 2),
        "metadata_max_age_ms": int(refresh * 1000),
        "connections_max_idle_ms": max(idle_ms, timeout_ms + 1000),
        "metrics_enabled": False,
    }
    read_any_header()
    consumer = KafkaConsumer(**given)
    consumer._client.cluster.config["allow_auto_create_topics"] = False  # noqa: SLF001 - its own option does not get there
    return KafkaPython(consumer, cluster, access)


class KafkaPython:
    """kafka-python's consumer, without a group."""

    def __init__(self, consumer: Any, cluster: str, access: Access) -> None:  # noqa: ANN401 - the library has no types
        self._consumer = consumer
        self._client: Client = consumer._client  # noqa: SLF001 - by it the brokers are asked what the consumer cannot
        self._cluster = cluster
        self._access = access
        self._places: dict[Place, Start] = {}
        self._ids: dict[str, str] = {}
        self._passed: dict[Place, int] = {}
        self._confirmed: dict[tuple[object, str], float] = {}
        self._fetched = False

    def read(self, places: Mapping[Place, Start], seeks: Mapping[Place, int]) -> None:
        """Read these places and no others."""
        from kafka import TopicPartition

        self._places = dict(places)
        self._ids = {place.topic: start.topic_id for place, start in places.items()}
        self._consumer.assign([TopicPartition(*place) for place in places])  # keeps the state of those that stay
        for place, offset in seeks.items():
            self._consumer.seek(TopicPartition(*place), offset)
            self._passed[place] = offset

    def poll(self, timeout: float, most: int) -> Haul:
        """Return what has come."""
        from kafka import errors

        from daemon.broker.causes import explain

        try:
            timeout_ms = min(SOON_MS, int(timeout * 1000)) if self._fetched else int(timeout * 1000)
            found = self._consumer.poll(timeout_ms=timeout_ms, max_records=most)
            self._fetched = bool(found)
            records: dict[Place, list[Message]] = {Place(*at): each for at, each in found.items()}
            passed = {} if records else self._stands()
            changed = self._changed(records or passed)
        except errors.OffsetOutOfRangeError as error:
            return Haul(fault=Fault(what="out_of_range", places=_places(error.args[0])))
        except errors.LogTruncationError as error:
            message = "what was read last was taken back by the brokers (an unclean leader election)."
            return Haul(fault=Fault(what="truncated", places=_places(error.divergent_offsets), message=message))
        except errors.TopicAuthorizationFailedError as error:
            return Haul(fault=self._fault("refused", set(error.args[0]), "We are not authorised to read it."))
        except BrokerError:
            raise
        except Exception as error:
            # One that came out of a partition's records makes the consumer turn in circles if it is polled again.
            part = self._consumer._fetcher._next_partition_records  # noqa: SLF001 - the only one who knows
            if part and not isinstance(error, errors.RetriableError):
                raise Unreadable(Place(*part.topic_partition), f"{_words(error)}.") from error
            raise BrokerError(f"Reading failed: {explain(self._access, error)}") from error
        if changed:
            records = {place: each for place, each in records.items() if place.topic not in changed}
            passed = {place: at for place, at in passed.items() if place.topic not in changed}
        self._passed.update((place, each[-1].offset + 1) for place, each in records.items())
        self._passed.update(passed)
        fault = self._fault("changed", changed, "It is not the topic that was to be read.") if changed else None
        return Haul(records=records, passed=passed, fault=fault)

    def close(self) -> None:
        """Let go of the connections."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=0)
        except Exception:  # noqa: BLE001 - whatever it is, nothing more can be done
            self.abort()

    def abort(self) -> None:
        """End the client under the consumer: who waits for an answer gets an error."""
        with contextlib.suppress(Exception):  # the other thread may be about to do the same
            self._client.close()

    def _stands(self) -> dict[Place, int]:
        """Return where the consumer has come to without a record, for the places where that is news."""
        from kafka import TopicPartition

        moved = {}
        for place in self._places:
            at = self._consumer._subscription.position(TopicPartition(*place))  # noqa: SLF001 - position() walks over all of them
            if at is not None and at.offset != self._passed.get(place):
                moved[place] = int(at.offset)
        return moved

    def _changed(self, places: Iterable[Place]) -> set[str]:
        """Return which topics are not those that are to be read; asks whoever has just given something of them."""
        cluster = self._client.cluster
        now = time.monotonic()
        due: dict[object, set[str]] = {}
        changed = set()
        for place in places:
            leader = cluster.leader_for_partition(place)
            if leader is None or _text(cluster.topic_id(place.topic)) != self._ids[place.topic]:
                changed.add(place.topic)
            elif now - self._confirmed.get((leader, place.topic), 0.0) >= CONFIRMED_SECONDS:
                due.setdefault(leader, set()).add(place.topic)
        if not due:
            return changed
        answers = self._client.run(partial(self._ask, due))
        for leader, response in answers.items():
            ids = {each.name: _text(each.topic_id) for each in response.topics if each.error_code == 0}
            same_cluster = response.cluster_id == self._cluster
            for topic in due[leader]:
                if same_cluster and ids.get(topic) == self._ids[topic]:
                    self._confirmed[leader, topic] = time.monotonic()
                else:
                    changed.add(topic)
        return changed

    async def _ask(self, due: Mapping[object, Collection[str]]) -> dict[object, Any]:
        from kafka.protocol.metadata import CoordinatorType, MetadataRequest

        deadline = time.monotonic() + self._access.request_timeout
        sent = {}
        for leader, topics in due.items():
            broker = self._client.cluster.broker_metadata(leader)
            if broker is None:
                raise BrokerError("The leader of a partition is not known.")
            # By a connection of its own: on the fetches' one the answer would wait until the next fetch ends.
            found = SimpleNamespace(error_code=0, node_id=broker.node_id, host=broker.host, port=broker.port)
            side = self._client.cluster.add_coordinator(found, CoordinatorType.GROUP, f"confirm-{broker.node_id}")
            request = MetadataRequest(
                topics=[MetadataRequest.MetadataRequestTopic(name=topic) for topic in sorted(topics)],
                allow_auto_topic_creation=False,
                include_cluster_authorized_operations=False,
                include_topic_authorized_operations=False,
            )
            sent[leader] = self._client.ask(request, deadline, side)
        return {leader: await self._client.within(future, deadline) for leader, future in sent.items()}

    def _fault(self, what: What, topics: Collection[str], message: str) -> Fault:
        return Fault(what=what, places=frozenset(p for p in self._places if p.topic in topics), message=message)


def _places(partitions: Iterable[Sequence[Any]]) -> frozenset[Place]:
    return frozenset(Place(*partition) for partition in partitions)


def _text(topic_id: object) -> str:
    return "" if topic_id is None else str(topic_id)


def _words(error: Exception) -> str:
    """Return an error of the library in one line, without the request that it repeats."""
    text = str(error).partition("(version=")[0].strip().rstrip(".")
    return text or type(error).__name__
