"""One attempt in this process: what becomes of whatever a stage does."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from daemon.core.errors import FailureClass, StageError
from daemon.core.events import AnyEvent, StageFailed, StageInterrupted, StageProgressed, StageStarted, StageSucceeded
from daemon.core.plans import Limits, Plan
from stages.base import PROGRESS_SECONDS, Context, Result, Stopped, load
from stages.execute import classify, execute
from stages.run_folder import Outcome, hold, read_specification

RunStage = Callable[..., list[AnyEvent]]
MakePlan = Callable[..., Plan]


class Behave(Protocol):
    """Make the stage `own:Stage` do something."""

    def __call__(self, behaviour: Callable[[Context], Result | None]) -> None: ...  # noqa: D102


@pytest.fixture
def behave() -> Iterator[Behave]:
    """Register a stage class whose `run` is a function of the test."""

    class Stage:
        """A stage that does what the test says."""

        behaviour: Callable[[Context], Result | None]

        def run(self, context: Context) -> Result:
            """Do it."""
            return type(self).behaviour(context) or Result()

    module = type(sys)("own")
    vars(module)["Stage"] = Stage
    sys.modules["own"] = module

    def set_behaviour(behaviour: Callable[[Context], Result | None]) -> None:
        Stage.behaviour = staticmethod(behaviour)

    yield set_behaviour
    del sys.modules["own"]


class OutOfMemoryError(RuntimeError):
    """Called as torch calls its own."""


ERRORS: list[tuple[Exception, FailureClass]] = [
    (StageError("loss_spike", "it rose"), "loss_spike"),
    (StageError("bad_sample", "no text"), "bad_sample"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
    (OSError(errno.EFBIG, "File too large"), "disk_full"),
    (OSError(errno.EIO, "Input/output error"), "transient"),
    (OSError(errno.ENOTEMPTY, "Directory not empty"), "transient"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
    (ConnectionResetError("peer"), "transient"),
    (TimeoutError("slow"), "transient"),
    (InterruptedError("signal"), "transient"),
    (MemoryError(), "out_of_memory"),
    (OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    (FloatingPointError("nan"), "not_finite"),
    (FileNotFoundError(errno.ENOENT, "none"), "user_error"),
    (ValueError("odd"), "user_error"),
    (KeyError("k"), "user_error"),
]


@pytest.mark.parametrize(("error", "failure"), ERRORS, ids=[f"{type(e).__name__}-{f}" for e, f in ERRORS])
def test_every_error_has_its_failure_class(
    behave: Behave, run_stage: RunStage, error: Exception, failure: FailureClass
) -> None:
    """Whatever a stage raises becomes its terminal line, with the class that recovery decides by."""

    def fail(context: Context) -> None:
        raise error

    behave(fail)
    started, failed = run_stage("train", implementation="own:Stage")
    assert isinstance(started, StageStarted)
    assert isinstance(failed, StageFailed)
    assert failed.failure == failure == classify(error)
    named = f"{type(error).__name__}: "
    assert failed.message == (str(error) if isinstance(error, StageError) else f"{named}{error}")


def test_a_long_message_is_cut(behave: Behave, run_stage: RunStage) -> None:
    """An error of a megabyte does not become an event of a megabyte."""

    def fail(context: Context) -> None:
        raise ValueError("x" * 10**6)

    behave(fail)
    failed = run_stage("train", implementation="own:Stage")[-1]
    assert isinstance(failed, StageFailed)
    assert len(failed.message) == 4000


@pytest.mark.parametrize(
    ("text", "reason"),
    [("cancel", "cancel"), ("preempt\n", "preempt"), ("drain", "drain"), ("", "cancel"), ("odd", "cancel")],
)
def test_a_stop_is_heeded_at_the_next_beat(
    behave: Behave, run_stage: RunStage, place: Callable[..., Path], text: str, reason: str
) -> None:
    """The stage ends as interrupted, with the reason that was written."""
    (place("train", implementation="own:Stage") / "stop").write_text(text)
    behave(lambda context: context.beat(1, 2))
    interrupted = run_stage("train", implementation="own:Stage")[-1]
    assert isinstance(interrupted, StageInterrupted)
    assert interrupted.reason == reason
    assert interrupted.message == ("asked to stop: odd" if text == "odd" else "")


def test_the_time_limit_is_kept_by_the_stage_itself(
    behave: Behave, run_stage: RunStage, make_base_plan: MakePlan
) -> None:
    """Past its limit the next beat raises: nobody has to watch."""
    plan = replace(make_base_plan(), limits=Limits(time_limit=0.0))
    behave(lambda context: context.beat(1, 2))
    failed = run_stage("train", implementation="own:Stage", plan=plan)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "time_limit"


def test_what_a_stage_returns_is_told(behave: Behave, run_stage: RunStage) -> None:
    """Metrics and the seconds it took."""
    behave(lambda context: Result(metrics={"loss": 2.5}))
    succeeded = run_stage("train", implementation="own:Stage")[-1]
    assert isinstance(succeeded, StageSucceeded)
    assert succeeded.metrics == {"loss": 2.5}
    assert succeeded.seconds >= 0


def test_the_kernels_alarm_is_set_while_the_stage_runs(behave: Behave, run_stage: RunStage) -> None:
    """A stage that hangs is ended by SIGALRM after its heartbeat limit; afterwards the alarm is off."""
    seen: list[float] = []
    behave(lambda context: seen.append(signal.getitimer(signal.ITIMER_REAL)[0]))
    run_stage("train", implementation="own:Stage")
    assert 0 < seen[0] <= Limits().heartbeat
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_held_attempt_is_left_alone(place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds the lock: nothing is written."""
    monkeypatch.setattr("stages.execute.LOCK_PATIENCE", 0.0)
    folder = place("train", implementation="own:Stage")
    with hold(folder):
        assert not execute(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "spec.json"]


@pytest.mark.parametrize("name", ["nowhere:Stage", "stages.base:Nothing", "no_colon", ""])
def test_a_stage_that_cannot_be_loaded(run_stage: RunStage, name: str) -> None:
    """It fails as an error of the configuration, and the message names what there is."""
    failed = run_stage("train", implementation=name)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert "known stages: ingest" in failed.message


def test_our_stages_are_loaded_by_name() -> None:
    """A short name stands for a class."""
    assert type(load("ingest")).__name__ == "Ingest"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return what was set."""
        return self.seconds


def test_progress_is_told_now_and_then(
    place: Callable[..., Path], read_outcome: Callable[[Path], list[AnyEvent]]
) -> None:
    """At most one line in five seconds, with the curve written beside it; a heartbeat once a second."""
    folder = place("train")
    clock = Clock()
    context = Context(read_specification(folder), folder, Outcome(folder), clock)
    os.utime(folder / "heartbeat", (1.0, 1.0))
    try:
        for step in range(1, 24):
            clock.seconds = step / 2
            context.curve(step, {"loss": 1.0})
            context.beat(step, 23, {"loss": 1.0})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    told = read_outcome(folder)
    assert [event.step for event in told if isinstance(event, StageProgressed)] == [
        2 * PROGRESS_SECONDS,
        4 * PROGRESS_SECONDS,
    ]
    assert (folder / "heartbeat").stat().st_mtime > 1.0
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == 20
    context.flush_curve()
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == 23


def test_paths_are_told_below_the_state_folder(place: Callable[..., Path], state: Path) -> None:
    """Events name files relative to it, and what lies elsewhere is an error."""
    folder = place("train")
    context = Context(read_specification(folder), folder, Outcome(folder), Clock())
    assert context.state_path(folder / "x") == "runs/p-9/train/1/x"
    assert context.resolve("runs/p-9") == state / "runs" / "p-9"
    with pytest.raises(ValueError, match="subpath"):
        context.state_path(Path("/etc/passwd"))
    assert str(Stopped("drain")) == "asked to stop: drain"
