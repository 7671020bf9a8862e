"""A source between a cluster and a journal in memory, with the loop's own thread."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from daemon.broker.access import Access
from daemon.broker.report import PartitionReport
from daemon.broker.sight import Sight
from daemon.completion import completer
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DaemonStarted,
    DriftDetected,
    OperatorRequested,
    PipelineSettings,
    Position,
    PositionSet,
    Record,
    SourceDegraded,
    SourceRecovered,
)
from daemon.core.state import State
from daemon.door import Door, Input, own
from daemon.journal.base import scan
from daemon.journal.memory import MemoryJournal, MemoryStore
from daemon.loop import Loop
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.source import KafkaSource, Tools
from daemon.sources.queue import Inbox
from tests.daemon.sources.kafka.cluster import MemoryCluster, until

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def value(name: str | int, source: str = "") -> bytes:
    """Return an event of this name: plain JSON without an id, or with the id that a source gave it."""
    named = {"source": source, "id": str(name)} if source else {}
    event = {"type": "drift.detected", "subject": "p", **named, "data": {"metric": str(name), "value": 1}}
    return json.dumps(event).encode()


class World:
    """A daemon's life as far as a source takes part in it; a second one on the same store follows the first."""

    def __init__(
        self,
        cluster: MemoryCluster | None = None,
        *,
        topics: Sequence[str] = ("t",),
        store: MemoryStore | None = None,
        inbox: Inbox | None = None,
        using: Tools | None = None,
        sight: Callable[[], Sight] | None = None,
        **settings: float,
    ) -> None:
        self.cluster = cluster or MemoryCluster()
        self.settings = KafkaSettings(
            bootstrap_servers=("memory:1",),
            topics=tuple(topics),
            **{"look_every": 0.05, "watchdog": 60.0, **settings},
        )
        self.store = store or MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.inbox = inbox or Inbox()
        self.door = Door(pipelines={"p": None}, roots=(), topics={"kafka": topics})
        self.loop = Loop(
            journal=self.journal,
            state=State(),
            policies={},
            inbox=self.inbox,
            receive=self.door.receive,
            complete=completer(self.door, self.journal),
            observers=(lambda records, state: self.source.committed(records),),
            now=lambda: NOON,
            forget=self._forget,
            housekeeping=lambda: None,
        )
        self._told = 0
        self._sight = sight or self.cluster.sight
        memory = self.cluster
        self.source = KafkaSource(
            self.settings,
            access=Access(bootstrap_servers=("memory:1",)),
            door=self.door,
            inbox=self.inbox,
            cursor=self.journal.reader().cursor,
            topics=lambda: self.loop.state.topics,
            report=self._report,
            boundary=lambda name: None,
            using=using or Tools(looks=lambda: memory, consumer=memory.connect, hints=lambda: memory),
        )
        self._threads = [
            threading.Thread(target=self.loop.run, name="loop"),
            threading.Thread(target=self.source.run, name="source"),
        ]
        self._fold()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inbox.close()
        self.source.stop()
        self.loop.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} goes on"
        self.loop.turn_away()

    @property
    def records(self) -> list[Record]:
        """What is journaled."""
        return list(scan(self.journal.reader()))

    def events(self, *classes: type[AnyEvent]) -> list[AnyEvent]:
        """Return what is journaled of some classes."""
        return [record.event for record in self.records if isinstance(record.event, classes)]

    @property
    def names(self) -> list[str]:
        """The names of the events that came, in their order."""
        return [event.metric for event in self.events(DriftDetected) if isinstance(event, DriftDetected)]

    @property
    def positions(self) -> list[PositionSet]:
        """The positions that were set."""
        return [event for event in self.events(PositionSet) if isinstance(event, PositionSet)]

    @property
    def degraded(self) -> dict[str, str]:
        """What is wrong, as the state has it."""
        return self.loop.state.degraded

    def report(self, topic: str = "t", partition: int = 0) -> PartitionReport | None:
        """Return how a partition is doing."""
        found = self.source.standing().partitions
        return next((each for each in found if (each.topic, each.partition) == (topic, partition)), None)

    def await_names(self, *names: str | int) -> None:
        """Wait until just these events have come, in any order of partitions."""
        wanted = sorted(map(str, names))
        until(lambda: len(self.names) >= len(wanted), f"{len(wanted)} events; there are {self.names[-5:]}")
        assert sorted(self.names) == wanted

    def await_trouble(self, name: str, words: str = "") -> None:
        """Wait until something is wrong."""
        until(lambda: words in self.degraded.get(name, "\0"), f"trouble with {name}; there is {self.degraded}")

    def await_health(self) -> None:
        """Wait until nothing is wrong."""
        until(lambda: not self.degraded, f"health; there is {self.degraded}")

    def align(self, topic: str, offset: int, partition: int = 0) -> None:
        """Ask, as an operator, to read on from an offset of the topic that there is now."""
        seen = self._sight()
        at = Position(
            source="kafka",
            cluster=seen.cluster,
            topic=topic,
            topic_id=seen.topics[topic].topic_id,
            partition=partition,
            offset=offset,
        )
        self.put(OperatorRequested(verb="align", positions=(at,), by="tester"))

    def put(self, event: AnyEvent) -> None:
        """Journal an event as if somebody had sent it."""
        self._told += 1
        self.inbox.put(Input(offers=(own(event, source="/test", id=f"{time.time_ns()} {self._told}", where="test"),)))

    def _forget(self) -> None:
        self.source.forget()

    def _report(self, name: str, reason: str | None) -> None:
        self.put(SourceRecovered(name=name) if reason is None else SourceDegraded(name=name, reason=reason))

    def _fold(self) -> None:
        from daemon.core.transition import evolve

        state = State()
        for record in self.records:
            state = evolve(state, record)
        self.loop.begin(state, 0)
        known = {"p": PipelineSettings(stages=("train",), policies=())}
        started = DaemonStarted(epoch=self.journal.epoch, release="0", reducer=1, host="h", pid=1)
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known), started)
