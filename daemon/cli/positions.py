"""Where a Kafka source stands in its topics: what the journal has read beside what the cluster has, and what to set."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from daemon.broker.positions import cursor_of
from daemon.broker.report import Condition
from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.core.errors import RewarmError
from daemon.core.events import Position
from daemon.core.state import Topic
from daemon.journal.base import Reader
from daemon.sources.kafka.judge import Judgement, Known, Place, judge, name_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMS = "SOURCE/TOPIC/PARTITION=beginning, =end, =OFFSET or =TIME (2026-03-01T12:00:00Z)"


class PartitionView(msgspec.Struct, frozen=True, kw_only=True):
    """A partition from `begin` to `end`; `position` is what the journal reads next, `lost` what is gone before it."""

    partition: int
    condition: Condition
    position: int | None
    begin: int
    end: int
    lag: int | None = None
    lost: int = 0


class TopicView(msgspec.Struct, frozen=True, kw_only=True):
    """A topic of a source; one that cannot be seen has no partitions."""

    source: str
    cluster: str
    topic: str
    topic_id: str
    partitions: tuple[PartitionView, ...] = ()


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """A source's topics, and what is wrong by the name that the daemon tells it under, with what to do."""

    topics: tuple[TopicView, ...]
    troubles: dict[str, str]


Cursors = Callable[[str], int | None]


def cursors(reader: Reader | None) -> Cursors:
    """Return what tells the input cursors of a journal, or of none."""
    return (lambda _name: None) if reader is None else reader.cursor


def survey(source: str, topics: Sequence[str], sight: Sight, known: Mapping[str, Topic], cursor: Cursors) -> Survey:
    """Return how the topics of a source stand, as the source itself judges it.

    `known` is what the state says of which topic a name means.
    """
    judged = judge(source, topics, sight, Known(topics=known, cursor=cursor))
    return Survey(
        topics=tuple(_topic(source, topic, sight, judged, cursor) for topic in topics),
        troubles={name: trouble.reason for name, trouble in judged.troubles.items()},
    )


def _topic(source: str, topic: str, sight: Sight, judged: Judgement, cursor: Cursors) -> TopicView:
    seen = sight.topics.get(topic) or TopicSight(topic_id="", partitions={})
    partitions = []
    for number, extent in sorted(seen.partitions.items()):
        condition, _ = judged.conditions[Place(topic, number)]
        position = cursor(cursor_of(sight.cluster, seen.topic_id or topic, number))
        partitions.append(_partition(number, extent, position, condition))
    return TopicView(
        source=source, cluster=sight.cluster, topic=topic, topic_id=seen.topic_id, partitions=tuple(partitions)
    )


def _partition(number: int, extent: Extent, position: int | None, condition: Condition) -> PartitionView:
    return PartitionView(
        partition=number,
        condition=condition,
        position=position,
        begin=extent.begin,
        end=extent.end,
        lag={"reading": extent.end - (position or 0), "waiting": extent.end - extent.begin}.get(condition),
        lost=max(0, extent.begin - position) if position is not None else 0,
    )


Target = Literal["beginning", "end"] | int | datetime


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants to be set: one partition of a topic, or all of them (None)."""

    source: str
    topic: str
    partition: int | None
    target: Target


def topic_named(text: str, known: Mapping[str, Collection[str]]) -> tuple[str, str]:
    """Return source and topic of `SOURCE/TOPIC`, or of `TOPIC` where one source alone has it; raises RewarmError."""
    source, slash, topic = text.partition("/")
    if slash and topic in known.get(source, ()):
        return source, topic
    having = [name for name, topics in known.items() if not slash and text in topics]
    if len(having) == 1:
        return having[0], text
    if having:
        raise RewarmError(f"{' and '.join(having)} have a topic {text!r} each: write {having[0]}/{text}.")
    listed = ", ".join(f"{name}/{topic}" for name, topics in known.items() for topic in sorted(topics))
    raise RewarmError(f"No Kafka source has a topic {text!r}. Configured: {listed or 'no Kafka source'}.")


def wanted(text: str, known: Mapping[str, Collection[str]]) -> Wanted:
    """Return what `--set` asks for; raises RewarmError."""
    place, equals, value = text.partition("=")
    if not equals or not value:
        raise RewarmError(f"{text!r} says not what to set where: {FORMS}.")
    name, _, last = place.rpartition("/")
    is_partition = bool(name) and last.isdecimal() and not _names(place, known)
    source, topic = topic_named(name if is_partition else place, known)
    partition = int(last) if is_partition else None
    return Wanted(source=source, topic=topic, partition=partition, target=_target(value, text))


def _names(place: str, known: Mapping[str, Collection[str]]) -> bool:
    source, _, topic = place.partition("/")
    return topic in known.get(source, ())


def _target(value: str, text: str) -> Target:
    if value in {"beginning", "end"}:
        return "beginning" if value == "beginning" else "end"
    if value.isdecimal():
        return int(value)
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise RewarmError(f"{text!r} names neither an offset nor an instant: {FORMS}.") from error
    if at.tzinfo is None:
        raise RewarmError(f"The instant {value!r} has no zone; add Z or an offset such as +01:00.")
    return at


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A position that is to be set: `again` records are read a second time, `skipped` ones never."""

    source: str
    cluster: str
    topic: str
    topic_id: str
    partition: int
    before: int | None
    after: int
    again: int
    skipped: int
    lost: int

    def position(self) -> Position:
        """Return the same as a request carries it."""
        return Position(
            source=self.source,
            cluster=self.cluster,
            topic=self.topic,
            topic_id=self.topic_id,
            partition=self.partition,
            offset=self.after,
        )


Times = Callable[[Mapping[tuple[str, int], int]], Mapping[tuple[str, int], int | None]]
"""Asks a cluster for the first offset at or after an instant (ms since 1970) in partitions; None: there is none."""


def changes(asked: Sequence[Wanted], surveyed: Survey, times: Times) -> list[Change]:
    """Return what is to be set in one cluster, without what stands there already; raises RewarmError."""
    found: dict[tuple[str, int], tuple[Wanted, TopicView, PartitionView]] = {}
    for each in asked:
        view = next(view for view in surveyed.topics if (view.source, view.topic) == (each.source, each.topic))
        for partition in _chosen(each, view, surveyed.troubles):
            key = (view.topic, partition.partition)
            if key in found:
                raise RewarmError(f"{view.source}/{key[0]}/{key[1]} is set twice: say once where it is to stand.")
            found[key] = each, view, partition
    instants = {
        key: max(0, (each.target.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1))
        for key, (each, _, _) in found.items()
        if isinstance(each.target, datetime)
    }
    offsets = times(instants) if instants else {}
    made = []
    for key, (each, view, partition) in sorted(found.items(), key=lambda item: item[0]):
        change = _change(view, partition, _offset(each, view, partition, offsets.get(key)))
        if change.after != change.before or partition.condition in {"another_topic", "another_cluster"}:
            made.append(change)
    return made


def _chosen(each: Wanted, view: TopicView, troubles: Mapping[str, str]) -> Sequence[PartitionView]:
    """Return the partitions that are meant; raises RewarmError where there are none."""
    place = f"{view.source}/{view.topic}"
    if not view.partitions:
        why = troubles.get(name_of(view.source, view.topic)) or "None of its partitions has a leader."
        raise RewarmError(f"{place} cannot be aligned: {why}")
    if each.partition is None:
        return view.partitions
    chosen = [partition for partition in view.partitions if partition.partition == each.partition]
    if not chosen:
        there = ", ".join(str(partition.partition) for partition in view.partitions)
        raise RewarmError(f"{place} has no partition {each.partition} that has a leader; there are: {there}.")
    return chosen


def _offset(each: Wanted, view: TopicView, partition: PartitionView, found: int | None) -> int:
    """Return where a partition is to stand; raises RewarmError for an offset that it does not have."""
    match each.target:
        case "beginning":
            return partition.begin
        case "end":
            return partition.end
        case int() as offset:
            if not partition.begin <= offset <= partition.end:
                place = f"{view.source}/{view.topic}/{partition.partition}"
                reach = f"{partition.begin} to {partition.end}"
                raise RewarmError(f"{place} has no offset {offset}: it can stand at {reach} (its end).")
            return offset
        case _:  # an instant
            return partition.end if found is None else min(max(found, partition.begin), partition.end)


def _change(view: TopicView, partition: PartitionView, after: int) -> Change:
    before = partition.position
    # What a partition that was never read has, is skipped from its beginning on.
    stood = partition.begin if before is None else max(before, partition.begin)
    return Change(
        source=view.source,
        cluster=view.cluster,
        topic=view.topic,
        topic_id=view.topic_id,
        partition=partition.partition,
        before=before,
        after=after,
        again=0 if before is None else max(0, min(before, partition.end) - after),
        skipped=max(0, after - stood),
        lost=partition.lost,
    )
