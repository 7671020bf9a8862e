"""A process like a warm worker: torch imported, never used, and a fork for every attempt; ranks that fail on order."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Reads {folder, fault} a line. An attempt leads its own session, as a worker's child does, and how it ended is
# written to `ended`. A fault [rank, step, what] strikes that rank before the gradients of that step.
WORKER = """
import json, os, signal, sys
from pathlib import Path
import stages.train
import stages.training.parallel.agent
import torch
from stages.execute import execute
from stages.training.engine.step import Stepper

backward = Stepper.backward
fault = []

def struck(self, step, parts, rows):
    if fault and fault[:2] == [int(os.environ["RANK"]), step]:
        if fault[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault[2] == "halt":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault[2] == "parent":
            os.kill(os.getsid(0), signal.SIGKILL)
        if fault[2] == "stop":
            (Path(self.folder) / "stop").write_text("preempt")
        if fault[2] == "memory":
            torch.empty(1 << 50)
    return backward(self, step, parts, rows)

Stepper.backward = struck

def attempt(folder):
    os.setsid()
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Stepper.folder = folder
    os._exit(0 if execute(folder) else 75)

for line in sys.stdin:
    order = json.loads(line)
    if os.fork():
        continue
    folder = Path(order["folder"])
    fault[:] = order["fault"]
    child = os.fork()
    if child == 0:
        attempt(folder)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (folder / "ended.new").write_text(str(code))
    (folder / "ended.new").rename(folder / "ended")
    os._exit(0)
"""
PATIENCE = 60.0


@pytest.fixture(scope="session")
def warm() -> Iterator[subprocess.Popen[str]]:
    """Start the worker."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


@pytest.fixture(scope="session")
def forks(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder for all attempts of these tests, filled as the template's."""
    folder = tmp_path_factory.mktemp("forks") / "state"
    shutil.copytree(template / "state", folder)
    return folder


@pytest.fixture
def state(forks: Path) -> Path:
    """The one that all share; the runs are told apart by name."""
    return forks


@pytest.fixture
def trained_state(forks: Path) -> Path:
    """The same: it has a base model, and code has arrived."""
    return forks


@pytest.fixture
def begin(warm: subprocess.Popen[str]) -> Callable[..., Path]:
    """Begin an attempt that is placed: (folder, fault) → folder."""

    def begin(folder: Path, *fault: object) -> Path:
        assert warm.stdin is not None
        warm.stdin.write(json.dumps({"folder": str(folder), "fault": fault}) + "\n")
        warm.stdin.flush()
        return folder

    return begin


@pytest.fixture
def ended() -> Callable[[Path], int]:
    """Wait for an attempt's end: folder → its exit code, below zero for a signal."""

    def wait(folder: Path) -> int:
        deadline = time.monotonic() + PATIENCE
        while not (folder / "ended").exists():
            assert time.monotonic() < deadline, (folder / "log.txt").read_text()
            time.sleep(0.01)
        return int((folder / "ended").read_text())

    return wait
