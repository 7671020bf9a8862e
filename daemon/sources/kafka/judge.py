"""What is to become of each partition: from what the cluster shows and what the journal knows. Pure.

A topic is what its id says, not its name: records of another one under the same name are not read until a person
says so. Nothing is ever read from where nobody put it: a partition without a position gets its beginning, journaled
first; one whose position is no longer there waits for a person.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from daemon.broker.positions import cursor_of
from daemon.broker.report import Condition
from daemon.broker.sight import Extent, Sight, TopicSight
from daemon.core.events import Position
from daemon.core.state import Topic, topic_key


class Place(NamedTuple):
    """A partition of a topic, by the topic's name."""

    topic: str
    partition: int


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that may be read: under which cursor, from which offset."""

    cursor: str
    topic_id: str
    offset: int


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is not read, and what to do; it is told anew when the condition changes, not the words."""

    condition: str
    reason: str


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a sight: where to read, which first positions to journal, what is wrong with the rest.

    `doubted` names the cursors that lie beyond an end which may have moved since: another look will tell. Those that
    do lie beyond it are `beyond`, with the reason: when the end has come up to them, that is no less wrong.
    """

    cluster: str
    starts: dict[Place, Start] = {}
    firsts: dict[str, Position] = {}
    troubles: dict[str, Trouble] = {}
    conditions: dict[Place, tuple[Condition, int | None]] = {}
    doubted: set[str] = set()
    beyond: dict[str, str] = {}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What we know ourselves: which topic each name means, where the journal stands, what was found out by reading.

    `reading` are the cursors of what is being read: the brokers themselves tell when their positions are gone.
    `moved` are those that have moved since the sight began: an end that it shows may be older than they are.
    `faults` are cursors that reading has shown to be unreadable, with the reason.
    """

    topics: Mapping[str, Topic]
    cursor: Callable[[str], int | None]
    reading: Mapping[str, int] = {}
    moved: Collection[str] = ()
    faults: Mapping[str, str] = {}


def judge(source: str, topics: Sequence[str], sight: Sight, known: Known) -> Judgement:
    """Return what is to become of the partitions of a source's topics."""
    found = Judgement(cluster=sight.cluster)
    meant = {topic: known.topics.get(topic_key(source, topic)) for topic in topics}
    foreign = [topic for topic, before in meant.items() if before is not None and before.cluster != sight.cluster]
    settled = any(before is not None and before.cluster == sight.cluster for before in meant.values())
    if foreign:
        clusters = ", ".join(sorted({before.cluster for before in meant.values() if before} - {sight.cluster}))
        found.troubles[name_of(source)] = Trouble(
            condition="another_cluster",
            reason=(
                f"The brokers belong to the cluster {sight.cluster}, "
                f"what was read of {', '.join(foreign)} to {clusters}. "
                "Nothing of it is read here: mend bootstrap_servers, or, if this is the one to read, `rewarm align "
                f"{' '.join(f'--set {source}/{topic}=beginning' for topic in foreign)}`."
            ),
        )
    for topic in topics:
        seen = sight.topics.get(topic)
        if seen is None:
            found.troubles[name_of(source, topic)] = _missing(source, topic, sight, was_read=meant[topic] is not None)
        elif topic in foreign or (foreign and not settled):
            _wait(found, topic, seen, "another_cluster")
        elif (before := meant[topic]) is not None and before.topic_id != seen.topic_id:
            _wait(found, topic, seen, "another_topic")
            found.troubles[name_of(source, topic)] = Trouble(
                condition="another_topic",
                reason=(
                    f"Topic {topic} was deleted and created again: its id was {before.topic_id}, and is "
                    f"{seen.topic_id}. Nothing of it is read until you say from where: "
                    f"`rewarm align --set {source}/{topic}=beginning`."
                ),
            )
        else:
            if topic in sight.troubles:
                found.troubles[name_of(source, topic)] = Trouble(condition="partly", reason=sight.troubles[topic])
            for number, extent in sorted(seen.partitions.items()):
                _partition(found, source, Place(topic, number), seen.topic_id, extent, known)
    return found


def name_of(source: str, *parts: str | int) -> str:
    """Return the name under which a source tells of its trouble, or that of a topic or a partition of it."""
    return "/".join([f"kafka:{source}", *map(str, parts)])


def _missing(source: str, topic: str, sight: Sight, *, was_read: bool) -> Trouble:
    if topic in sight.troubles:
        return Trouble(condition="missing", reason=sight.troubles[topic])
    gone = f"Topic {topic} is not there any more" if was_read else f"There is no topic {topic}"
    return Trouble(
        condition="missing",
        reason=f"{gone}: create it, or take it from the topics of the source {source}.",
    )


def _wait(found: Judgement, topic: str, seen: TopicSight, condition: Condition) -> None:
    for number in seen.partitions:
        found.conditions[Place(topic, number)] = condition, None


def _partition(found: Judgement, source: str, place: Place, topic_id: str, extent: Extent, known: Known) -> None:
    name = cursor_of(found.cluster, topic_id or place.topic, place.partition)
    if name in known.reading:
        found.starts[place] = Start(cursor=name, topic_id=topic_id, offset=known.reading[name])
        found.conditions[place] = "reading", known.reading[name]
        return
    offset = known.cursor(name)
    if offset is None:
        found.conditions[place] = "waiting", None
        found.firsts[name] = Position(
            source=source,
            cluster=found.cluster,
            topic=place.topic,
            topic_id=topic_id,
            partition=place.partition,
            offset=extent.begin,
        )
        return
    why = known.faults.get(name) or _out_of_range(offset, extent)
    if not why:
        found.starts[place] = Start(cursor=name, topic_id=topic_id, offset=offset)
        found.conditions[place] = "reading", offset
    elif offset > extent.end and name in known.moved and name not in known.faults:
        found.conditions[place] = "waiting", offset
        found.doubted.add(name)
    else:
        if offset > extent.end:
            found.beyond[name] = why
        found.conditions[place] = "out_of_range", offset
        found.troubles[name_of(source, *place)] = Trouble(
            condition="out_of_range",
            reason=f"{place.topic}/{place.partition} is not read: {why} Say from where to read on: "
            f"`rewarm align --set {source}/{place.topic}/{place.partition}=beginning` (or =end, or an offset).",
        )


def _out_of_range(offset: int, extent: Extent) -> str:
    if offset < extent.begin:
        lost = extent.begin - offset
        return (
            f"its position {offset} is gone, the first record that is left is {extent.begin}: "
            f"{lost} offset{'s' * (lost != 1)} {'were' if lost != 1 else 'was'} removed unread."
        )
    if offset > extent.end:
        return f"its position {offset} lies beyond its end, {extent.end}: what was read there is not there any more."
    return ""
