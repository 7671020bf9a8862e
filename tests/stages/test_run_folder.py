"""The folder of an attempt: one writer, whole lines, the first specification."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.core.events import AnyEvent, StageProgressed, StageSucceeded
from stages.run_folder import (
    Outcome,
    finished,
    held,
    hold,
    holder,
    is_terminal,
    known_kind,
    lines,
    myself,
    place_specification,
    read_specification,
    sign,
)

ROOT = Path(__file__).parents[2]
PROGRESSED = StageProgressed(run="p-9", stage="train", attempt=1, step=1, steps=2)
SUCCEEDED = StageSucceeded(run="p-9", stage="train", attempt=1, seconds=1.0)
NOTE = """
import os
from stages.base import Result


class Note:
    def run(self, context):
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{os.getpid()}\\n")
        return Result()
"""
START = """
import sys
from pathlib import Path
from stages.execute import execute

sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
sys.exit(0 if execute(Path(sys.argv[1])) else 75)
"""


def test_of_many_starters_one_wins(place: Callable[..., Path], tmp_path: Path) -> None:
    """Six processes begin the same attempt at once: it is done once, and the losers leave no trace."""
    (tmp_path / "note.py").write_text(NOTE)
    folder = place("train", implementation="note:Note")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "NOTES": str(tmp_path / "notes")}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        for _ in range(6)
    ]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    codes = [starter.wait(60) for starter in starters]
    for starter in starters:
        starter.communicate()
    assert sorted(codes) == [0, 75, 75, 75, 75, 75]
    winner = starters[codes.index(0)].pid
    assert (tmp_path / "notes").read_text().split() == [str(winner)]
    assert [json.loads(line)["kind"] for line in lines(folder)] == ["stage.started", "stage.succeeded"]
    signed = holder(folder)
    assert signed is not None
    assert signed.pid == winner


def test_the_first_specification_counts(place: Callable[..., Path]) -> None:
    """A second one for the same attempt is not written, and no temporary file stays."""
    folder = place("train", implementation="first:Stage")
    first = read_specification(folder)
    place("train", implementation="second:Stage")
    assert read_specification(folder) == first
    place_specification(folder, first)
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json"]


def written(folder: Path, *events: AnyEvent) -> None:
    """Write events and close."""
    outcome = Outcome(folder, now=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    for event in events:
        outcome.write(event)
    outcome.close()


def test_a_line_is_an_event_with_its_time(tmp_path: Path) -> None:
    """Kind, version, time and data, one line each."""
    written(tmp_path, PROGRESSED, SUCCEEDED)
    first, second = (json.loads(line) for line in lines(tmp_path))
    assert (first["kind"], first["version"], first["time"]) == ("stage.progressed", 1, "2026-03-01T00:00:00+00:00")
    assert second["data"]["seconds"] == 1.0


@pytest.mark.parametrize("tail", [b"{", b'{"kind":"stage.succeeded"}', b'{"kind":"stage.succeeded","version":1'])
def test_a_torn_tail_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    """What a killed writer left without its newline never counts, and the next line is a line of its own."""
    written(tmp_path, PROGRESSED)
    with (tmp_path / "outcome.jsonl").open("ab") as file:
        file.write(tail)
    assert len(lines(tmp_path)) == 1
    assert not finished(tmp_path)
    written(tmp_path, SUCCEEDED)
    assert [json.loads(line)["kind"] for line in lines(tmp_path)] == ["stage.progressed", "stage.succeeded"]
    assert finished(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk half a line is taken back; once there is room the line goes in whole."""
    outcome = Outcome(tmp_path)
    outcome.write(PROGRESSED)
    before = (tmp_path / "outcome.jsonl").read_bytes()
    real = os.pwrite
    calls: list[int] = []

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(1)
        if len(calls) == 1:
            return real(descriptor, data[:10], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space"):
        outcome.write(SUCCEEDED)
    assert (tmp_path / "outcome.jsonl").read_bytes() == before
    monkeypatch.setattr(os, "pwrite", real)
    outcome.write(SUCCEEDED)
    outcome.close()
    assert len(lines(tmp_path)) == 2
    assert finished(tmp_path)


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a part only is asked again for the rest."""
    outcome = Outcome(tmp_path)
    real = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", real)
        return real(descriptor, data[:7], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    outcome.write(SUCCEEDED)
    outcome.close()
    assert finished(tmp_path)


@pytest.mark.parametrize(
    ("line", "terminal"),
    [
        (b'{"kind":"stage.succeeded"}', True),
        (b'{"kind":"stage.failed"}', True),
        (b'{"kind":"stage.interrupted"}', True),
        (b'{"kind":"stage.progressed"}', False),
        (b"{", False),
        (b"[]", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_what_ends_an_attempt(line: bytes, terminal: bool) -> None:
    """Three kinds of line, and nothing that cannot be read."""
    assert is_terminal(line) == terminal


def test_the_lock_is_free_once_its_holder_let_go(tmp_path: Path) -> None:
    """One holder at a time; looking does not make a lock file."""
    assert not held(tmp_path)
    assert not (tmp_path / "lock").exists()
    with hold(tmp_path) as mine:
        assert mine
        assert held(tmp_path)
        with hold(tmp_path) as second:
            assert not second
        sign(tmp_path)
    assert not held(tmp_path)
    assert holder(tmp_path) == myself()


def test_who_may_tell_what() -> None:
    """Stages tell stages' events only."""
    assert known_kind("stage.succeeded")
    assert known_kind("data.ingested")
    for kind in ("data.arrived", "decision.made", "run.started", "operator.requested", "nonsense"):
        assert not known_kind(kind)


def test_an_outcome_file_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again and again, the file is read anew only after it has grown."""
    reads: list[Path] = []
    read = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    path = tmp_path / "outcome.jsonl"
    path.write_bytes(b"one\n")
    assert [lines(tmp_path) for _ in range(3)] == [[b"one"]] * 3
    with path.open("ab") as file:
        file.write(b"two\nthr")
    assert [lines(tmp_path) for _ in range(3)] == [[b"one", b"two"]] * 3
    assert reads == [path, path]
