"""What shall be true in MLflow after a batch of records: values only, nothing is sent here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from ops.recording.targets import Target

Draw = Callable[[], bytes | None]
"""Draws a picture's file, None where there is nothing to see; called once, at the end of a batch."""
RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a metric; `timestamp` in milliseconds since 1970. The same point sent twice is one point."""

    key: str
    value: float
    timestamp: int
    step: int


class StatusChange(msgspec.Struct, frozen=True, kw_only=True):
    """A status that an MLflow run takes; `ended` in milliseconds, None while it may go on."""

    status: RunStatus
    ended: int | None = None


class DatasetUse(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a run read."""

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass
class Content:
    """What a batch adds to one MLflow run."""

    target: Target
    started: int
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    statuses: list[StatusChange] = field(default_factory=list)
    datasets: list[DatasetUse] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    pictures: dict[str, Draw] = field(default_factory=dict)


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version in the registry: the candidate of one run. `path` is set once it has been promoted."""

    run: str
    tags: dict[str, str]
    path: str | None = None
    sha256: str = ""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline's registered model: versions in the order of their making, and aliases by run."""

    pipeline: str
    versions: tuple[ModelVersion, ...]
    aliases: dict[str, str | None]
    champion: str | None


@dataclass
class Batch:
    """All effects of the records up to position `upto`."""

    upto: int
    contents: dict[Target, Content] = field(default_factory=dict)
    models: list[Models] = field(default_factory=list)

    def content(self, target: Target, at: datetime) -> Content:
        """Return the content for a target, begun with the instant of its first record."""
        found = self.contents.get(target)
        if found is None:
            found = self.contents[target] = Content(target=target, started=milliseconds(at))
        return found


def milliseconds(at: datetime) -> int:
    """Return an instant in milliseconds since 1970, as MLflow counts."""
    return round(at.timestamp() * 1000)
