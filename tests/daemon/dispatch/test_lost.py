"""An attempt that was reported as lost: its process is killed, and it is buried once its lock is free."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from daemon.core.errors import WorkerError
from daemon.core.events import StageStarted, StageSucceeded
from daemon.dispatch import attempts
from daemon.dispatch.dispatcher import Dispatcher
from daemon.dispatch.launcher import Launcher
from daemon.dispatch.specification import attempt_folder
from daemon.journal.memory import MemoryJournal
from daemon.sources.queue import Inbox
from stages.run_folder import Outcome, finished, held, hold, holder, lines, sign

Build = Any
NAMES: Any = {"run": "p-9", "stage": "train", "attempt": 1}
STARTED = StageStarted(**NAMES, command="9/p/x/1", host="h", pid=1)
HOLDER = """
import sys
from pathlib import Path
from stages.run_folder import hold, sign

with hold(Path(sys.argv[1])) as mine:
    assert mine
    sign(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
"""


class Scene:
    """A dispatcher in memory, and the folder of an attempt that has begun."""

    def __init__(self, build: Build, state: Path) -> None:
        self.build, self.state = build, state
        self.boundaries: list[str] = []
        self.inbox = Inbox()
        self.order = build.order()
        self.folder = attempt_folder(state, "p-9", "train", 1)
        self.folder.mkdir(parents=True)
        self.tell(STARTED)
        self.dispatcher = self.begin()
        self.attend("")  # its first line is read

    def begin(self) -> Dispatcher:
        """Begin a daemon's life: a dispatcher that remembers nothing."""
        return Dispatcher(
            reader=MemoryJournal(),
            inbox=self.inbox,
            launcher=Launcher(self.state, warm=False),
            state=self.state,
            roots=(),
            threads=1,
            boundary=self.boundaries.append,
        )

    def tell(self, event: StageStarted | StageSucceeded) -> None:
        """Write an outcome line as the stage does."""
        outcome = Outcome(self.folder)
        outcome.write(event)
        outcome.close()

    def attend(self, lost: str = "worker_lost", **fields: object) -> None:
        """Attend once to the order, reported as lost."""
        order = replace(self.order, started=True, host="h", pid=1, lost=lost)
        run = self.build.run(order, **fields)
        self.dispatcher.attend(self.build.pipeline(run), run, order)

    def attend_until(self, condition: Callable[[], bool]) -> None:
        """Attend again and again."""
        until = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < until
            self.attend()

    def last(self) -> dict[str, Any]:
        """Return the last line's data."""
        line = json.loads(lines(self.folder)[-1])
        return {"kind": line["kind"], **line["data"]}


@pytest.fixture
def scene(build: Build, state: Path) -> Scene:
    """An attempt that has begun, and whose lock nobody holds."""
    return Scene(build, state)


@pytest.fixture
def worker(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own that holds the attempt's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(scene.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_living_process_is_killed_and_buried(scene: Scene, worker: "subprocess.Popen[str]", *, stopped: bool) -> None:
    """At work or stopped by SIGSTOP, it dies; only then the attempt gets its last line."""
    if stopped:
        os.kill(worker.pid, signal.SIGSTOP)
    scene.attend()
    assert not finished(scene.folder)
    assert worker.wait(10) == -signal.SIGKILL
    scene.attend_until(lambda: finished(scene.folder))
    assert scene.boundaries[-2:] == ["dispatch.before_bury", "dispatch.after_bury"]
    last = scene.last()
    assert (last["kind"], last["reason"]) == ("stage.interrupted", "died")
    assert last["message"] == "It was reported as worker_lost, and its process is gone."
    scene.attend()
    assert [[offer.id for offer in item.offers] for item in scene.inbox.take(0)] == [["1"], ["2"]]


def test_the_next_daemon_finishes_what_the_last_one_began(scene: Scene, worker: "subprocess.Popen[str]") -> None:
    """A dispatcher that was killed at any point has no memory that would be missed."""
    scene.attend()
    worker.wait(10)
    scene.dispatcher = scene.begin()
    scene.attend_until(lambda: finished(scene.folder))
    scene.dispatcher = scene.begin()
    scene.attend()
    assert len(lines(scene.folder)) == 2


def test_whoever_is_dead_already_needs_no_wait(scene: Scene) -> None:
    """Nobody waits for a note of how the process ended: the report is what there is to say."""
    scene.attend("hang")
    assert (scene.last()["reason"], scene.last()["attempt"]) == ("hang", 1)


def test_what_ended_by_itself_is_not_touched(scene: Scene) -> None:
    """Its own last line stands, and is read."""
    scene.tell(StageSucceeded(**NAMES, seconds=1.0))
    for _ in range(3):
        scene.attend()
    assert scene.last()["kind"] == "stage.succeeded"


def test_a_run_that_is_stopped_meanwhile_ends_as_stopped(scene: Scene) -> None:
    """The reason of the last line is the stop's; how it ended is told beside it, once that is noted."""
    scene.attend(stop="cancel")
    assert not finished(scene.folder)
    exited = attempts.Exit(pid=1, code=None, signal=signal.SIGKILL)
    (scene.folder / "exit.json").write_bytes(msgspec.json.encode(exited))
    scene.attend(stop="cancel")
    assert scene.last()["reason"] == "cancel"
    assert scene.last()["message"] == "It was asked to stop. Its process was ended by SIGKILL."


@pytest.mark.parametrize(
    ("changed", "words"), [({"namespace": "pid:[1]"}, "in another container"), ({"boot_id": "x"}, "on another machine")]
)
def test_a_process_out_of_reach_is_waited_for(
    scene: Scene, worker: "subprocess.Popen[str]", changed: dict[str, Any], words: str
) -> None:
    """It is neither killed nor buried while it holds its lock; what to do is said; once it is gone all goes on."""
    who = holder(scene.folder)
    assert who is not None
    (scene.folder / "lock").write_bytes(msgspec.json.encode(replace(who, **changed)))
    with pytest.raises(WorkerError, match=f"its process {worker.pid} runs {words}: end it there"):
        scene.attend()
    assert worker.poll() is None
    assert not finished(scene.folder)
    worker.kill()
    worker.wait()
    scene.attend_until(lambda: finished(scene.folder))


def test_a_process_that_will_not_die_is_told_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sleeps in the kernel holds its lock on: after five seconds the trouble says so, and nothing is begun."""
    passed = [100.0]
    killed: list[Path] = []
    monkeypatch.setattr(attempts, "kill", killed.append)
    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    with hold(scene.folder):
        sign(scene.folder)
        scene.attend()
        passed[0] += 5.1
        with pytest.raises(WorkerError, match="has not died for 5 s"):
            scene.attend()
    assert killed == [scene.folder] * 2
    assert not finished(scene.folder)
    assert not held(scene.folder)


def test_a_lock_that_says_nothing_is_told_of(scene: Scene) -> None:
    """Whose it is cannot be known: nobody is killed."""
    with hold(scene.folder):
        (scene.folder / "lock").write_bytes(b"?")
        with pytest.raises(WorkerError, match="does not say whose it is"):
            scene.attend()
