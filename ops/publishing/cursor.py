"""How far a topic has been told, where the brokers need not, or cannot, say it: a file in the state folder.

The cursor in the cluster moves with what is told; the file follows it. It spares us to ask while there is nothing to
tell, and stands in when the brokers have forgotten. They do: a week after the last commit (offsets.retention.minutes),
and for a moment when another broker becomes the group's coordinator.
"""

from collections.abc import Mapping
from pathlib import Path

FOLDER = "publishing"


def cursor_file(state: Path, name: str) -> Path:
    """Return where a follower's file lies."""
    return state / FOLDER / f"{name}.json"


def reached(cursors: Mapping[str, int], journal: str, ancestors: Mapping[str, int], head: int) -> int | None:
    """Return up to where all was told of a journal, by its own cursor or else by those of ancestors, None: unknown.

    A cursor beyond the head is one of a journal that was put back by other means than `restore`: what it is to be
    told of begins at the head. An ancestor's cursor counts as far as both journals are the same.
    """
    if journal in cursors:
        return min(cursors[journal], head)
    common = [min(at, ancestors[each]) for each, at in cursors.items() if each in ancestors]
    return max(common, default=None)
