"""The keeper of the recorder's process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.recorder import RESTART_SECONDS, Recorder


class Process:
    """A process that ends when it is told to, or not."""

    def __init__(self, command: list[str], **options: object) -> None:
        self.command = command
        self.options = options
        self.returncode: int | None = None
        self.calls: list[str] = []
        self.stubborn = False

    def poll(self) -> int | None:
        """Return the exit status, if it has ended."""
        return self.returncode

    def terminate(self) -> None:
        """End, unless it is stubborn."""
        self.calls.append("terminate")
        if not self.stubborn:
            self.returncode = -15

    def kill(self) -> None:
        """End."""
        self.calls.append("kill")
        self.returncode = -9

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, or raise as the real one does."""
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self.returncode


class Clock:
    """A monotonic clock that is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        """Return what was set."""
        return self.seconds


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Start processes of ours instead of real ones; return them as they come."""
    processes: list[Process] = []

    def start(command: list[str], **options: object) -> Process:
        processes.append(Process(command, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the keeper a clock that is set."""
    made = Clock()
    monkeypatch.setattr("daemon.recorder.time", made)
    return made


@pytest.fixture
def recorder(tmp_path: Path, started: list[Process], clock: Clock) -> Recorder:
    """A keeper that has started nothing yet."""
    return Recorder(journal=tmp_path / "j.db", tracking_uri="sqlite:///m.db", state=tmp_path / "state")


def test_it_starts_once(recorder: Recorder, started: list[Process], tmp_path: Path) -> None:
    """The command line has all that the recorder needs; while it runs, nothing is started."""
    recorder.keep()
    recorder.keep()
    (process,) = started
    assert process.command[:3] == [sys.executable, "-m", "ops.mlflow_recorder"]
    given = dict(zip(process.command[3::2], process.command[4::2], strict=True))
    assert given == {
        "--journal": str(tmp_path / "j.db"),
        "--tracking-uri": "sqlite:///m.db",
        "--state": str(tmp_path / "state"),
        "--with-parent": str(os.getpid()),
    }
    assert process.options["stdin"] == subprocess.DEVNULL
    assert (tmp_path / "state" / "recorder.log").exists()


def test_it_is_started_again_but_not_in_a_hurry(recorder: Recorder, started: list[Process], clock: Clock) -> None:
    """A recorder that ended is started again, at most once in a few seconds."""
    recorder.keep()
    started[0].returncode = 1
    clock.seconds += RESTART_SECONDS / 2
    recorder.keep()
    assert len(started) == 1
    clock.seconds += RESTART_SECONDS
    recorder.keep()
    assert len(started) == 2


def test_it_is_let_go_with_the_daemon(recorder: Recorder, started: list[Process]) -> None:
    """A stop terminates it, kills it if it does not end, and is harmless when there is none."""
    recorder.stop()
    recorder.keep()
    recorder.stop()
    assert started[0].calls == ["terminate"]
    recorder.stop()
    assert started[0].calls == ["terminate"]


def test_a_stubborn_one_is_killed(recorder: Recorder, started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end within its time is killed."""
    recorder.keep()
    started[0].stubborn = True
    recorder.stop()
    assert started[0].calls == ["terminate", "kill"]
