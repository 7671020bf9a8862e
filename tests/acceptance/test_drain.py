"""SIGTERM: what a daemon finishes, what becomes of its stages, and how the next one goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from daemon import app
from daemon.config import load
from daemon.core.events import (
    DaemonStarted,
    DaemonStopped,
    DataArrived,
    DecisionMade,
    RunSucceeded,
    StageInterrupted,
    StageStarted,
)
from daemon.journal.base import Reader
from daemon.restore import Restored
from daemon.testing import PAGES
from tests.acceptance.home import SLOW, Home, alive

pytestmark = pytest.mark.slow
CHECKPOINT = {"on_drain": "checkpoint", "drain_seconds": 30}


def test_a_stage_is_told_to_checkpoint_and_goes_on_with_the_next_daemon(home: Home) -> None:
    """Its end and the order to go on are recorded before the daemon's own; it counts as no failure."""
    home.configure(SLOW, executor=CHECKPOINT)
    first = home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    assert home.stop(first) == 0
    assert not alive(stage.pid)
    told, decided, stopped = (record.event for record in home.records()[-3:])
    assert isinstance(told, StageInterrupted)
    assert told.reason == "drain"
    assert isinstance(decided, DecisionMade)
    assert (decided.policy, decided.verdict) == ("sequence", "resume")
    assert isinstance(stopped, DaemonStopped)
    active = home.pipeline().active
    assert active is not None
    assert (active.failures.total, active.order is not None) == (0, True)
    home.start()
    home.wait_for(RunSucceeded)
    assert [event.attempt for event in home.events(StageStarted)] == [1, 2]
    assert len(home.notes()) == 1


def test_a_stage_that_does_not_stop_in_time_is_left_and_adopted(home: Home) -> None:
    """The drain ends when its time is over; the stage goes on, and the next daemon hears of its end."""
    home.configure(SLOW, executor={**CHECKPOINT, "drain_seconds": 0.2})
    first = home.start()
    home.arrive(uri=home.data("silent"))
    stage = home.wait_for(StageStarted)
    assert home.stop(first) == 0
    assert alive(stage.pid)
    assert home.logged("A stage did not stop in time") == 1
    home.start()
    home.wait_for(DaemonStarted, 2)
    home.release()
    home.wait_for(RunSucceeded)
    assert [event.attempt for event in home.events(StageStarted)] == [1]


def test_a_second_signal_ends_the_daemon_at_once(home: Home) -> None:
    """While it drains it is not ready and takes nothing; the second signal is not waited for by anybody."""
    home.configure(SLOW, executor=CHECKPOINT, http=True)
    process = home.start()
    home.arrive(uri=home.data("silent"))
    home.wait_for(StageStarted)
    process.terminate()
    home.wait(lambda: "drain: draining" in home.get("/readyz")[1], "the drain")
    assert home.get("/readyz")[0] == 503
    assert home.get("/livez")[0] == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 128 + signal.SIGINT
    assert home.events(DaemonStopped) == []


def test_a_daemon_whose_journal_is_full_can_be_stopped(home: Home) -> None:
    """It ends with status 0, whether or not its last words find room; with room again the next has every fact."""
    home.configure(http=True)
    limit = home.folder / PAGES
    limit.write_text("1000000", encoding="utf-8")
    first = home.start()
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness")
    limit.write_text("1", encoding="utf-8")
    for number in range(60):
        home.arrive(f"{number}")
    home.wait(lambda: "journal: There is no room" in home.get("/readyz")[1], "the full journal")
    assert home.stop(first) == 0
    limit.write_text("1000000", encoding="utf-8")
    home.start()
    home.wait(lambda: len(home.events(DataArrived)) == 60, "all facts")


def test_a_daemon_can_be_stopped_while_it_folds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with status 0, and has written nothing but its epoch."""
    first = home.start()
    home.wait_for(DaemonStarted)
    home.stop(first)
    head = len(home.records())

    def fold(_reader: Reader, *, tick: Callable[[], None]) -> Restored:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            tick()

    monkeypatch.setattr(app, "restore", fold)
    monkeypatch.setattr("daemon.logs.configure", lambda stream: None)
    handler = signal.getsignal(signal.SIGTERM)
    assert app.serve(load(home.configuration)) == 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(home.records()) == head


def test_a_hanging_main_thread_does_not_keep_the_second_signal_waiting() -> None:
    """The signals are read in a thread of their own: one that never returns to Python ends like any other."""
    code = """
import os, sqlite3
from daemon.service.signals import Asked
with Asked() as asked:
    asked.then(lambda: os.write(1, b"asked\\n"))
    os.write(1, b"ready\\n")
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    sqlite3.connect(":memory:").execute(endless).fetchall()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "asked\n"
        process.terminate()
        assert process.wait(5) == 128 + signal.SIGTERM
