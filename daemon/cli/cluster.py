"""A Kafka cluster as the command line asks it: each answer is waited for so long, and a failure is a sentence."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from daemon.broker.access import Access
from daemon.broker.sight import Sight
from daemon.core.errors import BrokerError

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

SECONDS = 5.0
"""Longest that one answer is waited for: whoever asks sits in front of it."""


def hurried(access: Access, seconds: float = SECONDS) -> Access:
    """Return the access with a time-out for somebody who waits."""
    return replace(access, request_timeout=min(access.request_timeout, seconds))


def servers(access: Access) -> str:
    """Return the addresses of a cluster in one line."""
    return ", ".join(access.bootstrap_servers)


def look(access: Access, topics: Collection[str]) -> Sight:
    """Return what is to be seen of a cluster; raises BrokerError when nobody answers."""
    from daemon.broker.look import AdminLooks

    looks = AdminLooks(hurried(access))
    try:
        return looks.look(topics)
    finally:
        looks.close()


NOBODY = frozenset({"Empty", "Dead"})
"""States of a group that has no members."""


class Desk:
    """Answers what `Looks` does not: instants, rights, and who else is there."""

    def __init__(self, admin: "KafkaAdminClient") -> None:
        self._admin = admin

    def times(self, wanted: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int | None]:
        """Return the first offset at or after an instant (ms since 1970) in each partition; None: there is none."""
        from kafka import TopicPartition

        asked = {TopicPartition(*place): at for place, at in wanted.items()}
        found = self._admin.list_partition_offsets(asked, isolation_level="read_committed")
        return {(place.topic, place.partition): at.offset if at.offset >= 0 else None for place, at in found.items()}

    def rights(self, topics: Collection[str]) -> dict[str, frozenset[str] | None]:
        """Return what we may do with each topic that there is; None where the brokers do not say."""
        told = {topic["name"]: topic for topic in self._admin.describe_topics(sorted(topics))}
        return {
            name: None if topic["authorized_operations"] is None else frozenset(topic["authorized_operations"])
            for name, topic in told.items()
            if not topic["error_code"]
        }

    def members(self, group: str) -> list[str]:
        """Return who subscribes as a member of a group; of KIP-848's groups this client sees only that there is one.

        Raises BrokerError where we may not know.
        """
        from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError

        try:
            told = self._admin.describe_groups([group])[group]
        except CoordinatorNotAvailableError:
            return []  # a young cluster: nobody has been in any group, and its coordinators are only being made
        except GroupAuthorizationFailedError as error:
            message = (
                f"We may not look at the group {group!r}: allow our user Describe on it, and Read to tell it of lag."
            )
            raise BrokerError(message) from error
        found = sorted(f"{member['client_id']} at {member['client_host']}" for member in told["members"])
        if found:
            return found
        listed = (each for each in self._admin.list_groups() if each["group_id"] == group)
        return [f"a group of type {each['group_type']}" for each in listed if each["group_state"] not in NOBODY]


@contextlib.contextmanager
def asking(access: Access) -> Iterator[Desk]:
    """Yield a desk; raises BrokerError for whatever the cluster does not answer in the block."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from daemon.broker.causes import explain
    from daemon.broker.client import arguments

    access = hurried(access)
    try:
        admin = KafkaAdminClient(**arguments(access))
        try:
            yield Desk(admin)
        finally:
            admin.close()
    except KafkaError as error:
        raise BrokerError(f"The Kafka cluster at {servers(access)} cannot be used: {explain(access, error)}") from error
