"""Getting stages started, and knowing what a worker has loaded."""

import contextlib
import fcntl
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from daemon.core.errors import WorkerError
from daemon.dispatch.fingerprint import Card, fingerprint, read_card
from daemon.dispatch.launcher import Launcher, worker_alive
from daemon.dispatch.worker import FIFO, RETIRE
from stages.run_folder import myself


class Process:
    """A process that was started, and runs."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.ended: int | None = None
        self.terminated = False

    def poll(self) -> int | None:
        """Return the exit status, if it has ended."""
        return self.ended

    def terminate(self) -> None:
        """Note it."""
        self.terminated = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Start processes of ours instead of real ones; return them as they come."""
    processes: list[Process] = []

    def start(command: list[str], **options: object) -> Process:
        assert options["start_new_session"]
        processes.append(Process(command))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


class Worker:
    """What a worker shows: its lock, its card, its fifo."""

    def __init__(self, state: Path, print_: str) -> None:
        self.lock = os.open(state / "worker.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkfifo(state / FIFO)
        self.fifo = os.open(state / FIFO, os.O_RDWR | os.O_NONBLOCK)
        card = Card(holder=myself(), fingerprint=print_)
        (state / "worker.json").write_bytes(msgspec.json.encode(card))

    def heard(self) -> bytes:
        """Return what was sent to it."""
        try:
            return os.read(self.fifo, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Let go of everything."""
        os.close(self.fifo)
        os.close(self.lock)


def attempt(state: Path) -> Path:
    """Make an attempt's folder."""
    folder = state / "runs" / "p-9" / "train" / "1"
    folder.mkdir(parents=True)
    return folder


def test_without_a_warm_worker_each_stage_is_a_fresh_process(state: Path, started: list[Process]) -> None:
    """One process an attempt, its output in the attempt's folder; ended ones are collected."""
    launcher = Launcher(state, warm=False)
    launcher.warm_up()
    assert not started
    folder = attempt(state)
    assert launcher.launch(folder)
    (process,) = started
    assert process.command[1:] == ["-m", "daemon.dispatch.worker", str(state), str(folder)]
    assert (folder / "log.txt").exists()
    process.ended = 0
    launcher.reap()
    launcher.retire()
    assert not process.terminated


def test_a_worker_is_started_where_there_is_none(state: Path, started: list[Process]) -> None:
    """Until it listens, launching says that it is not ready; a second one is not started meanwhile."""
    launcher = Launcher(state, warm=True)
    folder = attempt(state)
    assert not launcher.launch(folder)
    assert not launcher.launch(folder)
    assert len(started) == 1
    assert started[0].command[3:] == [str(state)]
    started[0].ended = 1
    assert not launcher.launch(folder)
    assert len(started) == 2


def test_a_living_worker_is_sent_the_attempt(state: Path, started: list[Process]) -> None:
    """By its path below the state folder, one a line; no process is started."""
    worker = Worker(state, fingerprint())
    try:
        assert worker_alive(state)
        launcher = Launcher(state, warm=True)
        assert launcher.launch(attempt(state))
        assert worker.heard() == b"runs/p-9/train/1\n"
        assert not started
    finally:
        worker.close()
    assert not worker_alive(state)


def test_a_worker_of_other_code_is_replaced(state: Path, started: list[Process]) -> None:
    """It is asked to retire, once; when it has let go, another one is started."""
    worker = Worker(state, "other")
    launcher = Launcher(state, warm=True)
    launcher.warm_up()
    assert worker.heard() == RETIRE + b"\n"
    launcher._checked = 0.0  # noqa: SLF001 - a second has passed
    launcher.warm_up()
    assert not worker.heard()
    assert not started
    worker.close()
    launcher.warm_up()
    assert len(started) == 1


def test_a_worker_that_is_still_warming_up_is_waited_for(state: Path, started: list[Process]) -> None:
    """It holds the lock but shows no card yet."""
    worker = Worker(state, "x")
    try:
        (state / "worker.json").unlink()
        Launcher(state, warm=True).warm_up()
        assert not worker.heard()
        assert not started
    finally:
        worker.close()


def test_a_fifo_that_nobody_reads_is_not_ready(state: Path, started: list[Process]) -> None:
    """What a dead worker left behind takes nothing, and keeps nobody waiting."""
    os.mkfifo(state / FIFO)
    assert not Launcher(state, warm=True).launch(attempt(state))


def test_a_fifo_that_is_full_is_not_ready(state: Path, started: list[Process]) -> None:
    """The order is sent again later."""
    worker = Worker(state, fingerprint())
    try:
        with contextlib.suppress(BlockingIOError):
            while os.write(worker.fifo, b"x" * 4096):
                pass
        assert not Launcher(state, warm=True).launch(attempt(state))
    finally:
        worker.close()


def test_a_fifo_that_cannot_be_opened_is_an_error(state: Path, started: list[Process]) -> None:
    """A folder in its place is told with its path."""
    (state / FIFO).mkdir()
    with pytest.raises(WorkerError, match=FIFO):
        Launcher(state, warm=True).launch(attempt(state))


def test_the_worker_that_was_started_here_is_let_go(state: Path, started: list[Process]) -> None:
    """With the daemon goes the worker that it started, not somebody else's."""
    launcher = Launcher(state, warm=True)
    launcher.retire()
    launcher.warm_up()
    launcher.retire()
    assert started[0].terminated


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH", "TORCH_HOME", "REWARM_X"])
def test_the_fingerprint_follows_the_environment(name: str) -> None:
    """What changes how a stage behaves changes it; the rest does not, and the order of names does not."""
    base = fingerprint({"A": "1", "B": "2"})
    assert fingerprint({"B": "3", "HOME": "/x", "REWARM_HTTP__PORT": "8421"}) == base
    assert fingerprint({name: "1"}) != base
    assert fingerprint({name: "1"}) != fingerprint({name: "2"})


def test_the_fingerprint_follows_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is changed, added or removed changes it."""
    module_path = tmp_path / "daemon" / "dispatch" / "fingerprint.py"
    module_path.parent.mkdir(parents=True)
    module_path.write_text("1")
    monkeypatch.setattr("daemon.dispatch.fingerprint.__file__", str(module_path))
    seen = [fingerprint({})]
    module_path.write_text("22")
    seen.append(fingerprint({}))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "new.py").write_text("")
    seen.append(fingerprint({}))
    assert len(set(seen)) == 3
    (tmp_path / "stages" / "new.py").unlink()
    assert fingerprint({}) == seen[1]


def test_an_unreadable_card_is_none(state: Path) -> None:
    """No file, half a file, another shape."""
    assert read_card(state) is None
    for content in (b"", b"{", b'{"holder": 1}'):
        (state / "worker.json").write_bytes(content)
        assert read_card(state) is None
