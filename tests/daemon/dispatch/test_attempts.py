"""Attempts as they lie on disk: seen, stopped, buried."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from daemon.core.events import StageInterrupted, StageStarted, StageSucceeded
from daemon.core.plans import Limits
from daemon.dispatch import attempts
from daemon.dispatch.attempts import Exit, bury, look, overdue, read_exit
from daemon.pids import boot_id, namespace, start_time
from stages.run_folder import (
    Holder,
    Outcome,
    hold,
    kill_session,
    lines,
    myself,
    place_specification,
    sign,
)

Build = Any
NAMES: Any = {"run": "p-9", "stage": "train", "attempt": 1}
STARTED = StageStarted(**NAMES, command="c", host="h", pid=1)
SUCCEEDED = StageSucceeded(**NAMES, seconds=1.0)


def write(folder: Path, *events: StageStarted | StageSucceeded) -> None:
    """Write outcome lines as a stage does."""
    outcome = Outcome(folder)
    for event in events:
        outcome.write(event)
    outcome.close()


def last(folder: Path) -> StageInterrupted:
    """Return the terminal line."""
    line = json.loads(lines(folder)[-1])
    assert line["kind"] == "stage.interrupted"
    return msgspec.convert(line["data"], StageInterrupted)


def exited(folder: Path, code: int | None = None, signal_: int | None = None) -> None:
    """Write how the process ended, as the worker does."""
    (folder / "exit.json").write_bytes(msgspec.json.encode(Exit(pid=1, code=code, signal=signal_)))


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own that waits for input."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def as_holder(process: subprocess.Popen[bytes]) -> Holder:
    """Return how the process would have signed a lock."""
    return Holder(pid=process.pid, start_time=start_time(process.pid), boot_id=boot_id(), namespace=namespace())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is placed, held, started or finished, and looking leaves no trace."""
    seen = look(tmp_path / "none", 0.0)
    assert (seen.placed, seen.held, seen.started, seen.finished) == (False,) * 4
    assert seen.exit is None
    assert seen.silent_for == 0.0
    assert not (tmp_path / "none").exists()


def test_what_a_folder_shows(build: Build, tmp_path: Path) -> None:
    """Step by step: placed, held, started, silent, ended."""
    place_specification(tmp_path, build.specification(build.order(), tmp_path))
    assert look(tmp_path, 0.0).placed
    with hold(tmp_path) as mine:
        assert mine
        assert look(tmp_path, 0.0).held
        write(tmp_path, STARTED)
        (tmp_path / "heartbeat").touch()
        os.utime(tmp_path / "heartbeat", (1000.0, 1000.0))
        seen = look(tmp_path, 1007.5)
        assert (seen.held, seen.started, seen.finished, seen.silent_for) == (True, True, False, 7.5)
        assert look(tmp_path, 900.0).silent_for == 0.0
        write(tmp_path, SUCCEEDED)
    exited(tmp_path, code=0)
    seen = look(tmp_path, 1000.0)
    assert (seen.held, seen.finished, seen.exit) == (False, True, Exit(pid=1, code=0, signal=None))


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}'])
def test_an_unreadable_exit_is_none(tmp_path: Path, content: bytes) -> None:
    """A file that is half written tells nothing yet."""
    (tmp_path / "exit.json").write_bytes(content)
    assert read_exit(tmp_path) is None


def test_asking_to_stop(tmp_path: Path) -> None:
    """The first reason stands, also for an attempt that was never placed."""
    folder = tmp_path / "a" / "1"
    attempts.ask_to_stop(folder, "preempt")
    attempts.ask_to_stop(folder, "cancel")
    assert (folder / "stop").read_text() == "preempt"


@pytest.mark.parametrize(
    ("silent", "stopped_for", "why"),
    [(0.0, None, None), (19.9, None, None), (20.1, None, "hang"), (0.0, 100.0, None), (0.0, 121.0, "will not stop")],
)
def test_when_an_attempt_must_be_killed(
    build: Build, tmp_path: Path, silent: float, stopped_for: float | None, why: str | None
) -> None:
    """After twice its heartbeat limit without a sign of life, or when it does not heed a stop."""
    plan = build.plan(limits=Limits(heartbeat=10.0))
    place_specification(tmp_path, build.specification(build.order(), tmp_path, plan=plan))
    if stopped_for is not None:
        attempts.ask_to_stop(tmp_path, "cancel")
        os.utime(tmp_path / "stop", (1000.0 - stopped_for, 1000.0 - stopped_for))
    seen = replace(look(tmp_path, 1000.0), silent_for=silent)
    assert overdue(tmp_path, seen, plan.limits, 1000.0) == why


def test_the_dead_are_buried_once(build: Build, tmp_path: Path) -> None:
    """A started attempt without a holder gets its terminal line; a second burial does nothing."""
    write(tmp_path, STARTED)
    assert bury(tmp_path, "p-9", "train", 1)
    assert last(tmp_path).reason == "died"
    before = lines(tmp_path)
    assert not bury(tmp_path, "p-9", "train", 1)
    assert lines(tmp_path) == before


def test_the_living_are_not_buried(tmp_path: Path) -> None:
    """Whoever holds the lock lives."""
    write(tmp_path, STARTED)
    with hold(tmp_path):
        assert not bury(tmp_path, "p-9", "train", 1)
    assert len(lines(tmp_path)) == 1


def test_what_ended_by_itself_is_not_buried(tmp_path: Path) -> None:
    """Its own terminal line stands."""
    write(tmp_path, STARTED, SUCCEEDED)
    assert not bury(tmp_path, "p-9", "train", 1, "cancel")
    assert len(lines(tmp_path)) == 2


def test_the_terminal_line_comes_after_a_torn_tail(tmp_path: Path) -> None:
    """What a killed writer left of a line is cut off, so that ours is a line of its own."""
    write(tmp_path, STARTED)
    with (tmp_path / "outcome.jsonl").open("ab") as file:
        file.write(b'{"kind":"stage.succeeded","vers')
    assert bury(tmp_path, "p-9", "train", 1)
    assert len(lines(tmp_path)) == 2
    assert last(tmp_path).attempt == 1


@pytest.mark.parametrize(
    ("code", "signal_", "asked", "reason", "words"),
    [
        (None, None, None, "died", "worker that could tell"),
        (1, None, None, "died", "exit code 1"),
        (None, signal.SIGKILL, None, "died", "SIGKILL"),
        (None, signal.SIGSEGV, None, "died", "SIGSEGV"),
        (None, signal.SIGALRM, None, "hang", "heartbeat limit"),
        (None, None, "cancel", "cancel", "asked to stop. Its process is gone"),
        (None, signal.SIGKILL, "preempt", "preempt", "asked to stop. Its process was ended by SIGKILL."),
        (1, None, "odd", "died", "asked to stop. Its process ended with exit code 1."),
    ],
)
def test_how_it_ended(
    tmp_path: Path, code: int | None, signal_: int | None, asked: str | None, reason: str, words: str
) -> None:
    """The worker's note tells the cause; a stop that was asked for goes before it."""
    write(tmp_path, STARTED)
    if code is not None or signal_ is not None:
        exited(tmp_path, code, signal_)
    assert bury(tmp_path, "p-9", "train", 1, asked)
    assert last(tmp_path).reason == reason
    assert words in last(tmp_path).message


@pytest.mark.parametrize(
    ("code", "signal_", "reason"),
    [(None, None, "drain"), (None, signal.SIGKILL, "drain"), (None, signal.SIGALRM, "hang"), (1, None, "died")],
)
def test_who_went_with_its_machine_while_it_drained_has_not_failed(
    tmp_path: Path, code: int | None, signal_: int | None, reason: str
) -> None:
    """An attempt that was told to stop for a drain and was killed ends as drained; one that hung or broke does not."""
    write(tmp_path, STARTED)
    attempts.ask_to_stop(tmp_path, "drain")
    if code is not None or signal_ is not None:
        exited(tmp_path, code, signal_)
    assert bury(tmp_path, "p-9", "train", 1)
    assert last(tmp_path).reason == reason


def test_an_attempt_that_never_began_can_be_ended(tmp_path: Path) -> None:
    """Its folder is made for the line, so that no late starter begins what is over."""
    folder = tmp_path / "p-9" / "train" / "1"
    assert bury(folder, "p-9", "train", 1, "cancel")
    assert (last(folder).reason, last(folder).message) == ("cancel", "It was stopped before it ran.")


def test_a_burial_ends_what_the_attempt_left_running(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    """A grandchild that outlived the stage is killed before the terminal line is written."""
    (tmp_path / "lock").write_bytes(msgspec.json.encode(as_holder(victim)))
    write(tmp_path, STARTED)
    assert bury(tmp_path, "p-9", "train", 1)
    assert victim.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("field", ["start_time", "boot_id", "namespace"])
def test_a_pid_that_means_somebody_else_is_not_killed(
    tmp_path: Path, victim: subprocess.Popen[bytes], field: str
) -> None:
    """A recycled pid, one of before the reboot, and one of another container are left alone."""
    other: dict[str, object] = {"start_time": 1, "boot_id": "another", "namespace": "pid:[1]"}
    (tmp_path / "lock").write_bytes(msgspec.json.encode(replace(as_holder(victim), **{field: other[field]})))
    attempts.kill(tmp_path)
    assert victim.poll() is None
    kill_session(as_holder(victim))
    assert victim.wait(10) == -signal.SIGKILL


def test_nobody_kills_himself(tmp_path: Path) -> None:
    """An attempt that ran in this very process is buried without ending it."""
    with hold(tmp_path):
        sign(tmp_path)
    assert myself().pid == os.getpid()
    attempts.kill(tmp_path)


def test_a_lock_that_nobody_signed_kills_nobody(tmp_path: Path) -> None:
    """Empty or unreadable, it names no process."""
    for content in (b"", b"{", b'{"pid": 1}'):
        (tmp_path / "lock").write_bytes(content)
        attempts.kill(tmp_path)
