"""How far a target has been told: one small file each below `<state>/notify`, written after the answer."""

from pathlib import Path

import msgspec

from daemon.files import write_atomically
from daemon.journal.base import Reader
from ops.notify.message import Target

FOLDER = "notify"


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """The last position that a target needs not be told any more, and of which journal."""

    journal: str
    position: int


def cursor_file(state: Path, name: str) -> Path:
    """Return where a target's cursor lies."""
    return state / FOLDER / f"{name}.json"


def read_cursor(file: Path) -> Cursor | None:
    """Return a cursor, None where there is none or it cannot be read as one; raises OSError for other troubles."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Cursor)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_cursor(file: Path, cursor: Cursor) -> None:
    """Keep a cursor: a reader sees the old one or the new, also after a power loss."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, msgspec.json.encode(cursor) + b"\n")


def behind(reader: Reader, state: Path, target: Target) -> int:
    """Return how many records lie before a target: from the first that it is still to be told of to the head.

    0 when there is none, and while the target has no cursor: its first daemon begins at the head.
    """
    cursor = read_cursor(cursor_file(state, target.name))
    head = reader.head()
    if cursor is None or cursor.journal != reader.identity() or cursor.position >= head:
        return 0
    waiting = reader.records(cursor.position, 1, upto=head, kinds=target.on)
    return head - waiting[0].position + 1 if waiting else 0
