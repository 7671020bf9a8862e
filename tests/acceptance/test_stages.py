"""Stages as processes: they die, hang, stop and are stopped, and every end comes in through the same door."""

import os
import signal

import pytest

from daemon.core.events import (
    DaemonStarted,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageStarted,
    TimerFired,
)
from daemon.dispatch.fingerprint import Card, read_card
from tests.acceptance.home import NOTE, SLOW, Home, alive, kill

pytestmark = pytest.mark.slow


def test_a_killed_stage_is_interrupted_and_retried(home: Home) -> None:
    """SIGKILL becomes `stage.interrupted` in the attempt's own file; the next attempt succeeds."""
    home.configure(SLOW)
    home.start()
    home.arrive()
    kill(home.wait_for(StageStarted).pid)
    interrupted = home.wait_for(StageInterrupted)
    assert (interrupted.attempt, interrupted.reason) == (1, "died")
    assert "SIGKILL" in interrupted.message
    home.wait_for(RunSucceeded)
    record = next(record for record in home.records() if isinstance(record.event, StageInterrupted))
    assert record.source == f"/rewarm/runs/{interrupted.run}/{SLOW}/1"
    assert [event.attempt for event in home.events(StageStarted)] == [1, 2]
    assert len(home.notes()) == 1


def test_a_stage_killed_again_and_again_waits_longer_each_time(home: Home) -> None:
    """The second loss is waited for by a wake-up, which becomes a fact when it is due."""
    (home.state / "fatal").write_text("before", encoding="utf-8")
    home.start()
    home.arrive()
    home.wait_for(StageInterrupted)
    (home.state / "fatal").write_text("after", encoding="utf-8")
    home.wait_for(RunSucceeded)
    deaths = len(home.events(StageInterrupted))
    assert len(home.events(TimerFired)) == deaths - 1
    assert len(home.notes("starts")) == deaths + 1


def test_a_stopped_stage_is_found_by_its_silence_and_killed(home: Home) -> None:
    """SIGSTOP stops the stage's own alarm too: the daemon sees the heartbeat stand still."""
    home.configure(SLOW, limits={"heartbeat": 1.0})
    home.start()
    home.arrive()
    pid = home.wait_for(StageStarted).pid
    os.kill(pid, signal.SIGSTOP)
    assert home.wait_for(StageInterrupted).attempt == 1
    home.wait(lambda: not alive(pid), "the stage's end")
    home.wait_for(RunSucceeded)


def test_a_silent_stage_ends_by_its_own_alarm(home: Home) -> None:
    """A stage that shows no sign of life is ended by the kernel, with or without a daemon, and counts as hung."""
    home.configure(SLOW, limits={"heartbeat": 1.0})
    home.start()
    home.arrive(uri=home.data("silent"))
    assert home.wait_for(StageInterrupted).reason == "hang"
    home.wait_for(RunSucceeded)


def test_a_stage_ends_at_its_time_limit(home: Home) -> None:
    """It fails as `time_limit`, which no retry mends: the run fails and its data waits for something new."""
    home.configure(SLOW, limits={"time_limit": 0.3})
    home.start()
    home.arrive()
    assert home.wait_for(StageFailed).failure == "time_limit"
    assert home.wait_for(RunFailed).failure == "time_limit"
    home.release()
    home.arrive("2")
    home.wait_for(RunSucceeded)


def test_an_operator_cancels_a_running_stage(home: Home) -> None:
    """The request comes by the spool; the stage stops when asked, the run is cancelled, the pipeline goes on."""
    home.configure(SLOW)
    home.start()
    home.arrive()
    pid = home.wait_for(StageStarted).pid
    home.request("cancel", reason="not now")
    assert home.wait_for(StageInterrupted).reason == "cancel"
    home.wait_for(RunCancelled)
    home.wait(lambda: not alive(pid), "the stage's end")
    assert home.notes() == []
    home.release()
    home.arrive("2")
    home.wait_for(RunSucceeded)


def worker(home: Home) -> Card:
    """Return the card of a living worker."""

    def look() -> Card | None:
        card = read_card(home.state)
        return card if card is not None and alive(card.holder.pid) else None

    return home.wait(look, "a worker")


def test_a_killed_worker_is_replaced(home: Home) -> None:
    """The stage that it had forked goes on; the next run finds another worker."""
    home.configure(SLOW, warm=True)
    home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    first = worker(home)
    kill(first.holder.pid)
    home.wait(lambda: not alive(first.holder.pid), "the worker's end")
    assert alive(stage.pid)
    home.release()
    home.wait_for(RunSucceeded)
    home.arrive("2")
    home.wait_for(RunSucceeded, 2)
    assert worker(home).holder.pid != first.holder.pid
    assert home.events(StageInterrupted) == []


def test_a_worker_survives_the_daemon_and_is_replaced_when_its_environment_changes(home: Home) -> None:
    """The next daemon keeps the worker; one whose stages would see another environment lets it go, once."""
    home.configure(NOTE, warm=True)
    first = home.start(environment={"TORCH_TEST": "1"})
    before = worker(home)
    first.kill()
    first.wait()
    second = home.start(environment={"TORCH_TEST": "1"})
    home.arrive()
    home.wait_for(RunSucceeded)
    assert worker(home).holder == before.holder
    second.kill()
    second.wait()
    home.start(environment={"TORCH_TEST": "2"})
    home.wait_for(DaemonStarted, 3)
    home.arrive("2")
    home.wait_for(RunSucceeded, 2)
    home.wait(lambda: worker(home).fingerprint != before.fingerprint, "another worker")
    home.wait(lambda: not alive(before.holder.pid), "the old worker's end")
    assert home.logged("The worker is replaced") == 1
