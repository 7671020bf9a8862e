"""The followers that a Kafka source brings along."""

import random
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from daemon.broker.access import Access
from daemon.journal.base import Reader
from ops.followers import Follower
from ops.publishing.cursor import cursor_file
from ops.publishing.dead_letters import DeadLetters
from ops.publishing.messages import Content
from ops.publishing.ports import Sink
from ops.publishing.publisher import Publisher
from ops.publishing.transitions import Transitions


def publishers(
    *,
    source: str,
    group: str,
    access: Access,
    dead_letters: str | None,
    transitions: tuple[str, Collection[str]] | None,
    state: Path,
    reader: Callable[[], Reader],
    boundary: Callable[[str], None],
) -> list[Follower]:
    """Return the follower of a source's dead letters and that of transitions, as far as they are wanted."""

    def follower(what: str, topic: str, content: Content, new: Literal["beginning", "head"]) -> Publisher:
        def opened(journal: str, ancestors: Sequence[str], stop: threading.Event) -> Sink:
            from ops.publishing.topic import Topic  # with the client: a topic that is told nothing does without

            name = f"{group}.{source}.{what}"
            return Topic(access=access, topic=topic, name=name, boundary=boundary).open(journal, ancestors, stop)

        return Publisher(
            content,
            label=f"{what}:{source}",
            open=opened,
            reader=reader(),
            file=cursor_file(state, f"{source}.{what}"),
            new=new,
            random=random.random,
        )

    found: list[Follower] = []
    if dead_letters is not None:
        found.append(follower("dlq", dead_letters, DeadLetters(source=source, group=group), "beginning"))
    if transitions is not None:
        topic, kinds = transitions
        found.append(follower("transitions", topic, Transitions(on=frozenset(kinds)), "head"))
    return found
