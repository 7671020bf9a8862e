"""The edges of a daemon, made from its configuration: what it takes in from, and whom it tells."""

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from daemon.config import Configuration
from daemon.core.state import Topic
from daemon.door import Door
from daemon.journal.sqlite_reader import SqliteReader, open_reader
from daemon.sources.queue import Inbox
from daemon.sources.spool import Spool
from ops.followers import Follower
from ops.notify.notifier import Notifier

if TYPE_CHECKING:
    from daemon.sources.kafka.source import KafkaSource


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """Makes sources and followers; each has a reader of the journal of its own.

    `report` is told of a source's trouble by its name, and of its end (None); `topics` is what the state knows;
    `delivered` counts what became of a webhook.
    """

    configuration: Configuration
    door: Door
    inbox: Inbox
    report: Callable[[str, str | None], None]
    topics: Callable[[], Mapping[str, Topic]]
    delivered: Callable[[str, str], None]
    boundary: Callable[[str], None]

    def spools(self) -> list[Spool]:
        """Return the spool folders."""
        return [
            Spool(
                folder,
                door=self.door,
                inbox=self.inbox,
                cursor=self._reader().cursor,
                report=self.report,
                boundary=self.boundary,
            )
            for folder in self.configuration.spools
        ]

    def kafka(self) -> "list[KafkaSource]":
        """Return the Kafka sources; without one its client is not even loaded."""
        if not self.configuration.kafka:
            return []
        from daemon.sources.kafka.source import KafkaSource

        return [
            KafkaSource(
                each.settings,
                access=each.access,
                door=self.door,
                inbox=self.inbox,
                cursor=self._reader().cursor,
                topics=self.topics,
                report=self.report,
                boundary=self.boundary,
            )
            for each in self.configuration.kafka
        ]

    def followers(self) -> list[Follower]:
        """Return whoever tells others what happens: webhooks, and topics of Kafka."""
        found: list[Follower] = [
            Notifier(
                each.target,
                reader=self._reader(),
                state=self.configuration.state,
                random=random.random,
                tell=self.delivered,
                boundary=self.boundary,
            )
            for each in self.configuration.notify
        ]
        if not self.configuration.kafka:
            return found
        from ops.publishing.build import publishers

        for each in self.configuration.kafka:
            wanted = each.settings.transitions
            found += publishers(
                source=each.settings.name,
                group=each.settings.group_id,
                access=each.access,
                dead_letters=each.settings.dead_letter_topic,
                transitions=(wanted.topic, wanted.on) if wanted else None,
                state=self.configuration.state,
                reader=self._reader,
                boundary=self.boundary,
            )
        return found

    def _reader(self) -> SqliteReader:
        return open_reader(self.configuration.journal)
