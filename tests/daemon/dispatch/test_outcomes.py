"""Outcome files as a source."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.core.encoding import encode
from daemon.core.events import AnyEvent, DataArrived, StageFailed, StageProgressed, StageStarted, StageSucceeded
from daemon.dispatch import outcomes
from daemon.door import REJECTED_SOURCE
from stages.run_folder import Outcome

Build = Any
NAMES: Any = {"run": "p-9", "stage": "train", "attempt": 1}
STARTED = StageStarted(**NAMES, command="c", host="h", pid=1)
PROGRESSED = StageProgressed(**NAMES, step=1, steps=2)
SUCCEEDED = StageSucceeded(**NAMES, seconds=1.0)


def write(folder: Path, *events: AnyEvent) -> None:
    """Write an outcome file as a stage does."""
    outcome = Outcome(folder)
    for event in events:
        outcome.write(event)
    outcome.close()


def line(event: AnyEvent, **fields: object) -> bytes:
    """Make a line by hand."""
    whole = {"kind": event.kind, "version": 1, "time": "2026-03-01T12:00:00Z", "data": json.loads(encode(event))}
    return json.dumps({**whole, **fields}).encode() + b"\n"


def test_each_line_is_a_fact(build: Build, tmp_path: Path) -> None:
    """Its number is its id, the attempt its source; the cursor steps over what was read."""
    write(tmp_path, STARTED, PROGRESSED)
    item = outcomes.read(tmp_path, build.order(), "p", 0)
    assert item is not None
    assert [(offer.source, offer.id, offer.event) for offer in item.offers] == [
        ("/rewarm/runs/p-9/train/1", "1", STARTED),
        ("/rewarm/runs/p-9/train/1", "2", PROGRESSED),
    ]
    assert {offer.pipeline for offer in item.offers} == {"p"}
    assert all(offer.time is not None for offer in item.offers)
    assert item.cursor is not None
    assert (item.cursor.name, item.cursor.expected, item.cursor.next) == ("outcome:p-9/train/1", None, 2)
    write(tmp_path, SUCCEEDED)
    rest = outcomes.read(tmp_path, build.order(), "p", 2)
    assert rest is not None
    assert rest.cursor is not None
    assert [offer.id for offer in rest.offers] == ["3"]
    assert (rest.cursor.expected, rest.cursor.next) == (2, 3)


def test_nothing_new_is_nothing(build: Build, tmp_path: Path) -> None:
    """No folder, no file, no line beyond the cursor."""
    assert outcomes.read(tmp_path / "none", build.order(), "p", 0) is None
    assert outcomes.read(tmp_path, build.order(), "p", 0) is None
    write(tmp_path, STARTED)
    assert outcomes.read(tmp_path, build.order(), "p", 1) is None
    assert outcomes.read(tmp_path, build.order(), "p", 9) is None


def test_what_is_offered_is_flushed_first(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that the journal has must not vanish from the file with the machine's power."""
    outcome = Outcome(tmp_path)
    outcome.write(STARTED, durable=False)
    outcome.close()
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    assert outcomes.read(tmp_path, build.order(), "p", 0) is not None
    assert flushed == [(tmp_path / "outcome.jsonl").stat().st_ino]
    assert outcomes.read(tmp_path, build.order(), "p", 1) is None
    assert len(flushed) == 1


def test_a_torn_line_does_not_count(build: Build, tmp_path: Path) -> None:
    """Without its newline a line is not written yet, even if it could be parsed."""
    (tmp_path / "outcome.jsonl").write_bytes(line(STARTED) + line(SUCCEEDED)[:-1])
    item = outcomes.read(tmp_path, build.order(), "p", 0)
    assert item is not None
    assert [offer.event for offer in item.offers] == [STARTED]


def test_many_lines_come_in_steps(build: Build, tmp_path: Path) -> None:
    """A transaction takes a bounded number of them."""
    (tmp_path / "outcome.jsonl").write_bytes(line(PROGRESSED) * (outcomes.BATCH + 5))
    first = outcomes.read(tmp_path, build.order(), "p", 0)
    assert first is not None
    assert len(first.offers) == outcomes.BATCH
    second = outcomes.read(tmp_path, build.order(), "p", outcomes.BATCH)
    assert second is not None
    assert len(second.offers) == 5


OTHERS = {
    "another run": StageProgressed(run="p-8", stage="train", attempt=1, step=1, steps=2),
    "another stage": StageProgressed(run="p-9", stage="probe", attempt=1, step=1, steps=2),
    "another attempt": StageProgressed(run="p-9", stage="train", attempt=2, step=1, steps=2),
}


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\n",
        b"\n",
        b"[]\n",
        b"\xff\xfe\n",
        line(PROGRESSED, version=99),
        line(PROGRESSED, time="yesterday"),
        line(PROGRESSED, data={"run": "p-9"}),
        line(PROGRESSED, kind="decision.made"),
        line(DataArrived(uri="a", domain="d")),
        *(line(event) for event in OTHERS.values()),
    ],
)
def test_lines_that_a_stage_may_not_write_become_dead_letters(build: Build, tmp_path: Path, bad: bytes) -> None:
    """Each keeps its text and its place; the lines beside it count, and the cursor passes it."""
    (tmp_path / "outcome.jsonl").write_bytes(line(STARTED) + bad + line(SUCCEEDED))
    item = outcomes.read(tmp_path, build.order(), "p", 0)
    assert item is not None
    assert [offer.event for offer in item.offers] == [STARTED, None, SUCCEEDED]
    letter = item.offers[1]
    assert letter.refusal is not None
    assert letter.refusal[0] == "bad_outcome_line"
    assert (letter.source, letter.id) == (REJECTED_SOURCE, "/rewarm/runs/p-9/train/1#2")
    assert letter.text == bad[:-1]
    assert item.cursor is not None
    assert item.cursor.next == 3


@pytest.mark.parametrize(
    "end",
    [
        line(SUCCEEDED, data={"run": "p-9"}),
        line(SUCCEEDED, data={**NAMES, "seconds": 1.0, "metrics": {"loss": None}}),
        line(SUCCEEDED, version=99),
        line(StageSucceeded(run="p-8", stage="train", attempt=1, seconds=1.0)),
    ],
)
def test_a_last_line_that_cannot_be_read_is_a_failure(build: Build, tmp_path: Path, end: bytes) -> None:
    """The attempt is over, so its run must not wait for ever: the line stands for a failure, its text is kept."""
    (tmp_path / "outcome.jsonl").write_bytes(line(STARTED) + end)
    item = outcomes.read(tmp_path, build.order(), "p", 0)
    assert item is not None
    failed = item.offers[1]
    assert isinstance(failed.event, StageFailed)
    assert (failed.event.run, failed.event.stage, failed.event.attempt) == ("p-9", "train", 1)
    assert failed.event.failure == "user_error"
    assert "cannot be read" in failed.event.message
    assert (failed.source, failed.id, failed.text) == ("/rewarm/runs/p-9/train/1", "2", end[:-1])
