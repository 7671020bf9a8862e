"""Hints: the journal's positions as the offsets of a consumer group, for tools that show a group's lag.

Nobody reads them back. A group that others subscribe with refuses them, and so may the brokers' access rules.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from daemon.broker.access import Access
from daemon.broker.client import arguments
from daemon.core.errors import BrokerError
from daemon.sources.kafka.judge import Place

LONGEST_SECONDS = 5.0
"""A hint is not worth waiting for longer."""


class GroupHints:
    """Sets the offsets of a group without members."""

    def __init__(self, access: Access, group: str) -> None:
        self._access = replace(access, request_timeout=min(access.request_timeout, LONGEST_SECONDS))
        self._group = group
        self._admin: Any = None

    def leave(self, positions: Mapping[Place, int]) -> None:
        """Leave word; raises BrokerError."""
        from kafka import TopicPartition
        from kafka.errors import NoError
        from kafka.structs import OffsetAndMetadata

        offsets = {TopicPartition(*place): OffsetAndMetadata(at, "", -1) for place, at in positions.items()}
        try:
            if self._admin is None:
                self._admin = self._connect()
            answers = self._admin.alter_group_offsets(self._group, offsets)
        except Exception as error:
            self.close()
            raise BrokerError(f"The offsets of group {self._group} cannot be set: {type(error).__name__}.") from error
        refused = sorted({each.__name__ for each in answers.values() if each is not NoError})
        if refused:
            self.close()  # it may have been the wrong coordinator
            raise BrokerError(f"The offsets of group {self._group} are refused: {', '.join(refused)}.")

    def close(self) -> None:
        """Let go of the connections."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def _connect(self) -> Any:  # noqa: ANN401 - the library has no types
        from kafka import KafkaAdminClient

        return KafkaAdminClient(**arguments(self._access))
