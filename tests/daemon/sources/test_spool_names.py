"""A file's name decides nothing: what counts is its content."""

import json
from pathlib import Path

from daemon.door import Door
from daemon.journal.base import Cursor
from daemon.sources.queue import Inbox
from daemon.sources.spool import Spool


def event(number: int) -> dict[str, object]:
    """Make an event in plain JSON."""
    return {"type": "drift.detected", "subject": "p", "data": {"metric": "m", "value": number}}


def make(folder: Path, inbox: Inbox, cursors: dict[str, int]) -> Spool:
    """Make a spool whose journal is a dictionary of cursors."""
    spool = Spool(
        folder,
        door=Door(pipelines={"p": None}, roots=(folder,)),
        inbox=inbox,
        cursor=cursors.get,
        report=lambda name, reason: None,
        boundary=lambda name: None,
    )
    spool.prepare()
    return spool


def commit(inbox: Inbox, cursors: dict[str, int]) -> int:
    """Take what waits into the journal; returns the number of events."""
    taken = inbox.take(0)
    for item in taken:
        assert isinstance(item.cursor, Cursor)
        cursors[item.cursor.name] = item.cursor.next
    return sum(len(item.offers) for item in taken)


def test_lines_are_lines_under_every_name(tmp_path: Path) -> None:
    """The same two lines as .json and as .jsonl are the same two events: the second file is only moved out."""
    inbox, cursors = Inbox(), dict[str, int]()
    spool = make(tmp_path / "spool", inbox, cursors)
    lines = "\n".join(json.dumps(event(n)) for n in (1, 2))
    (tmp_path / "spool" / "a.json").write_text(lines)
    (tmp_path / "spool" / "b.jsonl").write_text(lines)
    spool.scan()
    assert commit(inbox, cursors) == 2
    spool.scan()
    assert inbox.depth() == 0
    assert sorted(p.name for p in (tmp_path / "spool" / "processed").iterdir()) == ["a.json", "b.jsonl"]


def test_a_file_renamed_over_one_that_was_sent_is_read_too(tmp_path: Path) -> None:
    """What lies under the name when it would be moved out is not what was read: it is read first."""
    inbox, cursors = Inbox(), dict[str, int]()
    spool = make(tmp_path / "spool", inbox, cursors)
    path = tmp_path / "spool" / "a.json"
    path.write_text(json.dumps(event(1)))
    spool.scan()
    other = tmp_path / "other"
    other.write_text(json.dumps(event(2)))
    other.replace(path)
    assert commit(inbox, cursors) == 1
    spool.scan()
    assert commit(inbox, cursors) == 1
    spool.scan()
    assert [p.name for p in (tmp_path / "spool" / "processed").iterdir()] == ["a.json"]
