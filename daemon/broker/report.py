"""How a Kafka source is doing, for metrics and health; a frozen value that any thread may read."""

from typing import Literal

import msgspec

Condition = Literal["reading", "waiting", "missing", "another_topic", "another_cluster", "out_of_range"]
"""A partition is read; its first position is on its way into the journal; or what keeps it from being read."""


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A partition: the position that the journal has, and how far behind its end that is.

    `lag_seconds` is the age of the oldest record that is not journaled, None while it is not known.
    """

    topic: str
    partition: int
    condition: Condition
    position: int | None = None
    lag: int | None = None
    lag_seconds: float | None = None


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A source: whether its cluster answers, whether it pauses, what was counted since the start."""

    name: str
    connected: bool = False
    paused: bool = False
    connects: int = 0
    rebuilds: int = 0
    records: int = 0
    partitions: tuple[PartitionReport, ...] = ()
