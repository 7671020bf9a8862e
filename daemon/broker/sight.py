"""What can be seen of a cluster at one moment: its id, its topics by their ids, and how far each partition reaches."""

from collections.abc import Collection
from typing import Protocol

import msgspec


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's first offset that is still there, and the one after its last committed record."""

    begin: int
    end: int


class TopicSight(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that exists; `topic_id` is "" where the brokers know none. A partition without a leader is missing."""

    topic_id: str
    partitions: dict[int, Extent]


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster; `topics` by name, without those that do not exist; `troubles` says why one cannot be looked at."""

    cluster: str
    topics: dict[str, TopicSight]
    troubles: dict[str, str] = {}


class Looks(Protocol):
    """Looks at a cluster, apart from whoever reads it."""

    def look(self, topics: Collection[str]) -> Sight:
        """Return what is to be seen now, within the request time-out; raises BrokerError when nobody answers."""

    def close(self) -> None:
        """Let go of the connections."""
