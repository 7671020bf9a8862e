"""What the doctor asks a Kafka source's cluster; bounded in time, however many sources there are."""

import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from daemon.broker.access import Access
from daemon.cli.checks import Check
from daemon.cli.cluster import asking, look, servers
from daemon.cli.output import count, short
from daemon.cli.positions import Cursors, TopicView, survey
from daemon.config import Configuration, Kafka
from daemon.core.errors import BrokerError
from daemon.core.state import State

MOST_PARTITIONS = 8
"""Partitions whose lag is told one by one."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at a source: the checks, and which cluster it is, if it answers."""

    source: str
    checks: tuple[Check, ...]
    cluster: str | None = None


def kafka_checks(configuration: Configuration, state: State, cursor: Cursors) -> list[Check]:
    """Return how each Kafka source is; all clusters are asked at once."""
    if not configuration.kafka:
        return []
    with ThreadPoolExecutor(max_workers=len(configuration.kafka)) as pool:
        found = list(pool.map(lambda each: _examine(each, state, cursor), configuration.kafka))
    return [*(check for each in found for check in each.checks), *_together(configuration.kafka, found)]


def _examine(each: Kafka, state: State, cursor: Cursors) -> Found:
    settings, access = each.settings, each.access
    name = f"kafka {settings.name}"
    topics = [topic.name for topic in settings.topics]
    checks = list(_open_files(name, access))
    began = time.monotonic()
    try:
        sight = look(access, [*topics, *settings.written])
    except BrokerError as error:
        advice = "until then nothing is read; what is sent meanwhile is read afterwards"
        return Found(
            source=settings.name, checks=(*checks, Check(name=name, level="wrong", message=str(error), advice=advice))
        )
    seconds = time.monotonic() - began
    message = f"cluster {sight.cluster} at {servers(access)} answers in {seconds:.2f} s"
    checks.append(Check(name=name, level="ok", message=message))
    surveyed = survey(settings.name, topics, sight, state.topics, cursor)
    checks += [
        Check(name=name, level="wrong", message=reason)  # which names the topic, and what to do
        for reason in surveyed.troubles.values()
    ]
    rights: dict[str, frozenset[str] | None] = {}
    members: list[str] = []
    try:
        with asking(access) as desk:
            rights = desk.rights([*topics, *settings.written])
            members = desk.members(settings.group_id)
    except BrokerError as error:
        missed = "who else subscribes was" if rights else "rights, and who else subscribes, were"
        checks.append(Check(name=name, level="note", message=str(error), advice=f"{missed} not looked at"))
    for view in surveyed.topics:
        checks += _topic(name, view, rights.get(view.topic))
    for topic in sorted(settings.written):
        checks.append(_written(name, topic, there=topic in sight.topics, why=sight.troubles.get(topic), rights=rights))
    if members:
        checks.append(_shared(name, settings.group_id, members))
    return Found(source=settings.name, checks=tuple(checks), cluster=sight.cluster)


def _open_files(name: str, access: Access) -> Iterator[Check]:
    """Yield which secrets everybody on this machine can read."""
    oauth = access.oauth
    secrets = [access.password_file, access.key_file, access.key_password_file]
    secrets += [oauth.token_file, oauth.secret_file] if oauth is not None else []
    for path in secrets:
        if path is not None and _is_open(path):
            message = f"everybody on this machine can read {short(path)}"
            yield Check(name=name, level="wrong", message=message, advice=f"chmod 600 {short(path)}")


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False  # whoever reads it will say so


def _topic(name: str, view: TopicView, rights: frozenset[str] | None) -> Iterator[Check]:
    """Yield how far a topic was read, where it is read at all."""
    if rights is not None and "READ" not in rights:
        message = f"{view.topic}: we may see it, and not read it"
        yield Check(name=name, level="wrong", message=message, advice=f"grant us Read on {view.topic}")
    elif any(each.lag is not None for each in view.partitions):
        yield Check(name=name, level="ok", message=f"{view.topic}: {_lag(view)}")


def _lag(view: TopicView) -> str:
    """Return how far a topic's reading is behind its end, with the partitions that are."""
    behind = {each.partition: each.lag for each in view.partitions if each.lag}
    read, there = sum(each.lag is not None for each in view.partitions), count(len(view.partitions), "partition")
    those = there if read == len(view.partitions) else f"{read} of {there} read"
    told = f"{those}, {count(sum(behind.values()), 'record')} behind"
    if len(behind) > MOST_PARTITIONS:
        worst = sorted(behind, key=lambda number: behind[number], reverse=True)[:MOST_PARTITIONS]
        return f"{told}, most of them {_each({number: behind[number] for number in worst})}"
    return f"{told}: {_each(behind)}" if behind and len(view.partitions) > 1 else told


def _each(behind: dict[int, int]) -> str:
    return ", ".join(f"{lag:,} in {number}" for number, lag in behind.items())


def _written(name: str, topic: str, *, there: bool, why: str | None, rights: dict[str, frozenset[str] | None]) -> Check:
    """Return whether a topic that rewarm writes to is there."""
    granted = rights.get(topic)
    if why is not None:
        advice = "nothing is told there until that is mended"
        return Check(name=name, level="wrong", message=f"{topic}: {why}", advice=advice)
    if not there:
        message = f"{topic}, which rewarm writes to, is not there yet: rewarm makes it"
        return Check(
            name=name, level="note", message=message, advice="where it may not create topics, make it yourself"
        )
    if granted is not None and "WRITE" not in granted:
        message = f"{topic}: we may not write to it"
        return Check(name=name, level="wrong", message=message, advice=f"grant us Write on {topic}")
    return Check(name=name, level="ok", message=f"{topic}, which rewarm writes to, is there")


def _shared(name: str, group: str, members: Sequence[str]) -> Check:
    """Return what follows when others subscribe with the group that our positions are told under."""
    message = (
        f"{count(len(members), 'other subscribes', 'others subscribe')} with group_id {group!r} "
        f"({', '.join(members[:3])}): while they do, "
        "the brokers refuse our positions as hints for lag tools, and without them they would go on from ours"
    )
    advice = "give this source a group_id of its own; what it reads does not depend on it"
    return Check(name=name, level="note", message=message, advice=advice)


def _together(kafka: Sequence[Kafka], found: Sequence[Found]) -> Iterator[Check]:
    """Yield which sources turn out to read one topic of one cluster, by whatever addresses."""
    readers: dict[tuple[str, str], list[str]] = {}
    for each, answer in zip(kafka, found, strict=True):
        for topic in each.settings.topics:
            if answer.cluster is not None:
                readers.setdefault((answer.cluster, topic.name), []).append(each.settings.name)
    for (_, shared), names in readers.items():
        if len(names) > 1:
            message = (
                f"sources {' and '.join(names)} read the same topic {shared} of one cluster: they disturb each other"
            )
            yield Check(name="kafka", level="wrong", message=message, advice="take it out of all but one of them")
