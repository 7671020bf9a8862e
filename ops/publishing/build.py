"""The followers that a Kafka source brings along."""

from collections.abc import Callable, Collection

from daemon.broker.access import Access
from daemon.journal.base import Reader
from ops.followers import Follower


def publishers(
    *,
    source: str,
    group: str,
    access: Access,
    dead_letters: str | None,
    transitions: tuple[str, Collection[str]] | None,
    reader: Callable[[], Reader],
    boundary: Callable[[str], None],
) -> list[Follower]:
    """Return the follower of a source's dead letters and that of transitions, as far as they are wanted."""
    return []
