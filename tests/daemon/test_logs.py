"""Logs as lines of JSON."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from daemon.logs import JsonLines, configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Configure logging to a stream, and put everything back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("rewarm")
    before = root.handlers[:], root.level, ours.level
    text = io.StringIO()
    configure(text)
    yield text
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return what was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_a_sentence_and_keys(stream: io.StringIO) -> None:
    """Time, level, logger and message, then what the caller gave; nothing of logging's own."""
    logging.getLogger("rewarm.test").info("Stage %s started.", "train", extra={"run": "p-1", "path": Path("a")})
    (line,) = lines(stream)
    time = line.pop("time")
    assert datetime.fromisoformat(str(time)).utcoffset() is not None
    assert line == {
        "level": "info",
        "logger": "rewarm.test",
        "message": "Stage train started.",
        "run": "p-1",
        "path": "a",
    }


def test_what_happens_in_one_line_stays_in_one_line(stream: io.StringIO) -> None:
    """Newlines, quotes, other scripts and an exception's traceback are inside the one JSON object."""
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("rewarm").exception('Größe "€"\nfailed.', extra={"odd": object()})
    (line,) = lines(stream)
    assert line["message"] == 'Größe "€"\nfailed.'
    assert "ValueError: invalid literal" in str(line["exception"])
    assert "Größe" in stream.getvalue()


def test_others_are_heard_when_they_warn(stream: io.StringIO) -> None:
    """Our own info passes, others' does not; debug is off."""
    logging.getLogger("rewarm.a").debug("no")
    logging.getLogger("other").info("no")
    logging.getLogger("rewarm.a").info("yes")
    logging.getLogger("other").warning("yes")
    assert [line["message"] for line in lines(stream)] == ["yes", "yes"]


def test_the_caller_cannot_hide_the_sentence() -> None:
    """A key of the caller's is added beside the standard ones."""
    record = logging.LogRecord("rewarm", logging.INFO, "f", 1, "A sentence.", None, None)
    record.event = "data.arrived"
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["event"]) == ("A sentence.", "data.arrived")
