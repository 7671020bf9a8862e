"""Looking at a cluster by a client of its own: what there is, and how far each partition reaches.

After a failure it begins anew, with secrets as they are then: brokers may have got other addresses, and kafka-python
asks those that it learned of for ever. Extents are asked for by a topic's name: a topic whose id is another one
afterwards was created again meanwhile, and nothing is said of its partitions.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.broker.access import Access
from daemon.broker.client import arguments
from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.core.errors import BrokerError

if TYPE_CHECKING:
    from daemon.broker.connections import Client

EARLIEST, LATEST = -2, -1
READ_COMMITTED = 1
NO_LEADER = -1
OLD_SHARE = 0.6
"""Of the time-out, for a client that has answered before; the rest is for a new one."""
FIRST_SHARE = 0.4
"""Of the time that is left, for the broker that is asked first: if it hangs, there is time for another one."""


class AdminLooks:
    """Looks at a cluster; used by one thread at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: Client | None = None

    def look(self, topics: Collection[str]) -> Sight:
        """Return what is to be seen now; raises BrokerError when nobody answers."""
        begun = time.monotonic()
        timeout = self._access.request_timeout
        if self._client is not None:
            try:
                return self._look(self._client, topics, begun + timeout * OLD_SHARE)
            except Exception:  # noqa: BLE001 - what it is, beginning anew will tell
                self.close()
        try:
            self._client = _connected(self._access, begun + timeout)
            return self._look(self._client, topics, begun + timeout)
        except BrokerError:
            self.close()
            raise
        except Exception as error:
            from daemon.broker.causes import explain

            self.close()
            named = ", ".join(self._access.bootstrap_servers)
            raise BrokerError(f"The Kafka cluster at {named} cannot be used: {explain(self._access, error)}") from error

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _look(self, client: "Client", topics: Collection[str], deadline: float) -> Sight:
        return client.run(partial(sighted, client, sorted(topics), deadline))


def _connected(access: Access, deadline: float) -> "Client":
    configuration: dict[str, Any] = arguments(access)
    client: Client = configuration.pop("kafka_client")(**configuration)
    client.open(deadline)
    return client


async def sighted(client: "Client", topics: list[str], deadline: float) -> Sight:
    """Return what a client sees until the deadline (of the monotonic clock); raises a KafkaError."""
    seen = await _metadata(client, topics, deadline)
    found = {topic.name: topic for topic in seen.topics if not _absent(topic) and not _barred(topic)}
    troubles = {topic.name: barred for topic in seen.topics if (barred := _barred(topic))}
    leaders: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for topic in found.values():
        for partition in topic.partitions:
            leaders[partition.leader_id].append((topic.name, partition.partition_index))
    for name, number in leaders.pop(NO_LEADER, []):
        troubles[name] = f"Partition {number} of topic {name} has no leader: too few of its brokers are up."
    extents, silent = await _extents(client, leaders, deadline)
    for leader in silent:
        for name, number in leaders[leader]:
            troubles[name] = f"Partition {number} of topic {name} is led by broker {leader}, which does not answer."
    topics_seen = {}
    for topic in (await _metadata(client, list(found), deadline)).topics if found else ():
        same = topic.topic_id == found[topic.name].topic_id
        if not _absent(topic):
            partitions = {number: it for (name, number), it in sorted(extents.items()) if name == topic.name and same}
            topics_seen[topic.name] = TopicSight(topic_id=str(topic.topic_id or ""), partitions=partitions)
    return Sight(cluster=seen.cluster_id or "", topics=topics_seen, troubles=troubles)


async def _metadata(client: "Client", topics: list[str], deadline: float) -> Any:  # noqa: ANN401 - the library has no types
    """Return what any broker says of the topics; one that does not answer is not the last that is asked."""
    from kafka import errors
    from kafka.protocol.metadata import MetadataRequest

    for left in range(len(client.cluster.brokers()), -1, -1):
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=topic) for topic in topics],
            allow_auto_topic_creation=False,
            include_cluster_authorized_operations=False,
            include_topic_authorized_operations=False,
        )
        now = time.monotonic()
        until = deadline if left == 0 else now + (deadline - now) * FIRST_SHARE
        try:
            return await client.within(client.ask(request, until), until)
        except errors.KafkaError:
            if left == 0:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _extents(
    client: "Client", leaders: Mapping[int, Collection[tuple[str, int]]], deadline: float
) -> tuple[dict[tuple[str, int], Extent], list[int]]:
    """Return how far partitions reach, and the leaders that did not answer."""
    from kafka import errors

    asked = {
        leader: [client.ask(_offsets(places, instant), deadline, leader) for instant in (EARLIEST, LATEST)]
        for leader, places in leaders.items()
    }
    extents: dict[tuple[str, int], Extent] = {}
    silent = []
    for leader, futures in asked.items():
        try:
            begins, ends = [_by_place(await client.within(future, deadline)) for future in futures]
        except errors.KafkaError:
            silent.append(leader)
        else:
            extents |= {at: Extent(begin=begins[at], end=ends[at]) for at in begins.keys() & ends.keys()}
    return extents, silent


def _offsets(places: Iterable[tuple[str, int]], instant: int) -> object:
    from kafka.protocol.consumer import ListOffsetsRequest

    asked = ListOffsetsRequest.ListOffsetsTopic
    partitions: dict[str, list[object]] = defaultdict(list)
    for name, number in places:
        partitions[name].append(asked.ListOffsetsPartition(partition_index=number, timestamp=instant))
    topics = [asked(name=name, partitions=each) for name, each in partitions.items()]
    lowest = ListOffsetsRequest.min_version_for_isolation_level(READ_COMMITTED)
    return ListOffsetsRequest(isolation_level=READ_COMMITTED, topics=topics, min_version=lowest)


def _by_place(answer: Any) -> dict[tuple[str, int], int]:  # noqa: ANN401 - the library has no types
    """Return the offsets of an answer; a partition that could not be looked up is left out."""
    return {
        (topic.name, partition.partition_index): partition.offset
        for topic in answer.topics
        for partition in topic.partitions
        if partition.error_code == 0
    }


def _absent(topic: Any) -> bool:  # noqa: ANN401 - as above
    from kafka import errors

    return bool(topic.error_code == errors.UnknownTopicOrPartitionError.errno)


def _barred(topic: Any) -> str:  # noqa: ANN401 - as above
    """Return why nothing can be said of a topic, "" where something can."""
    from kafka import errors

    error = errors.for_code(topic.error_code)
    if error in {errors.NoError, errors.UnknownTopicOrPartitionError, errors.LeaderNotAvailableError}:
        return ""
    if error is errors.TopicAuthorizationFailedError:
        return f"We are not allowed to look at topic {topic.name}: allow our user Describe on it, and Read or Write."
    return f"Topic {topic.name} cannot be looked at: the brokers answer {error.__name__}."
