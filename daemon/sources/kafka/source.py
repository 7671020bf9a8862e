"""A Kafka source."""

from collections.abc import Callable, Mapping, Sequence

from daemon.broker.access import Access
from daemon.broker.report import SourceReport
from daemon.core.events import Record
from daemon.core.state import Topic
from daemon.door import Door
from daemon.settings.kafka import KafkaSettings
from daemon.sources.queue import Inbox


class KafkaSource:
    """Feeds an inbox from the topics of a cluster until stopped."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        access: Access,
        door: Door,
        inbox: Inbox,
        cursor: Callable[[str], int | None],
        topics: Callable[[], Mapping[str, Topic]],
        report: Callable[[str, str | None], None],
        boundary: Callable[[str], None],
    ) -> None:
        self.name = f"kafka:{settings.name}"

    def prepare(self) -> None:
        """Do nothing: the cluster may be down."""

    def run(self) -> None:
        """Read until `stop`."""

    def stop(self) -> None:
        """End `run` soon."""

    def committed(self, records: Sequence[Record]) -> None:
        """Take note of positions that were set."""

    def forget(self) -> None:
        """Read again from where the journal stands."""

    def standing(self) -> SourceReport:
        """Return how the source is doing."""
        return SourceReport(name=self.name)
