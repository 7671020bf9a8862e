"""The daemon as a process: one writer, drain and adoption, what it finds when it starts, a disk that is full."""

import itertools
import os
import socket
import sqlite3
from contextlib import closing

import pytest

from daemon.core.events import (
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    DataArrived,
    RunCancelled,
    RunStarted,
    RunSucceeded,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
)
from daemon.core.state import dump, fingerprint
from daemon.journal.sqlite import open_journal, open_reader
from daemon.restore import restore
from daemon.testing import PAGES, Life
from tests.acceptance.home import NOTE, SLOW, Home, alive

pytestmark = pytest.mark.slow


def test_a_second_daemon_is_told_who_holds_the_journal(home: Home) -> None:
    """It ends with status 3 and one line that names host and pid; the first goes on."""
    first = home.start()
    home.wait_for(DaemonStarted)
    second = home.serve()
    assert second.returncode == 3
    assert f"process {first.pid} on host {socket.gethostname()}" in second.stderr
    assert "Traceback" not in second.stderr
    assert len(home.events(DaemonStarted)) == 1
    home.arrive()
    home.wait_for(RunSucceeded)
    assert home.stop(first) == 0


def test_a_drained_daemon_leaves_a_stage_running_and_the_next_one_adopts_it(home: Home) -> None:
    """SIGTERM ends the daemon with status 0 and a last record; the stage ends under its successor, once."""
    home.configure(SLOW)
    first = home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    assert home.stop(first) == 0
    assert isinstance(home.records()[-1].event, DaemonStopped)
    assert alive(stage.pid)
    second = home.start()
    home.wait_for(DaemonStarted, 2)
    home.release()
    home.wait_for(RunSucceeded)
    assert [event.attempt for event in home.events(StageStarted)] == [1]
    assert home.notes() == home.notes("starts") == [stage.command]
    assert home.stop(second) == 0


def test_a_stage_that_outlives_a_killed_daemon_is_adopted(home: Home) -> None:
    """After SIGKILL of the daemon its stage ends by itself, and the next daemon reads what it left."""
    home.configure(SLOW)
    first = home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    first.kill()
    first.wait()
    home.release()
    home.wait(lambda: not alive(stage.pid), "the stage's end")
    home.start()
    home.wait_for(RunSucceeded)
    assert home.events(StageInterrupted) == []
    assert home.notes() == [stage.command]


def test_a_configuration_that_changed_under_a_run_is_a_fact(home: Home) -> None:
    """A daemon with another configuration records it; the run that it found keeps its plan and is finished."""
    home.configure(SLOW)
    first = home.start()
    home.arrive()
    home.wait_for(StageStarted)
    home.stop(first)
    home.configure(NOTE, after_tokens=5)
    second = home.start()
    home.wait_for(ConfigurationChanged, 2)
    home.release()
    home.wait_for(RunSucceeded)
    home.arrive("2")
    home.wait_for(RunSucceeded, 2)
    assert [run.plan.stages for run in home.events(RunStarted)] == [(SLOW,), (NOTE,)]
    home.stop(second)
    home.start()
    home.wait_for(DaemonStarted, 3)
    assert len(home.events(ConfigurationChanged)) == 2


def test_a_run_whose_pipeline_is_no_longer_configured_is_cancelled(home: Home) -> None:
    """The stage is asked to stop, the run ends as cancelled, and the other pipeline works."""
    home.configure(SLOW)
    first = home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    home.stop(first)
    home.configure(NOTE, pipelines=("two",))
    home.start()
    home.wait_for(RunCancelled)
    home.wait(lambda: not alive(stage.pid), "the stage's end")
    home.arrive("2", pipeline="two")
    home.wait_for(RunSucceeded)


@pytest.mark.parametrize("fault", ["corrupted", "of another reducer", "beyond the journal's end"])
def test_a_snapshot_that_does_not_fit_is_skipped(home: Home, fault: str) -> None:
    """The daemon folds the journal instead, starts as always, and goes on with the same state."""
    home.arrive()
    first = home.start(Life(config=str(home.configuration), snapshot_records=5))
    home.wait_for(RunSucceeded)
    home.stop(first)
    before = fingerprint(dump(home.fold()))
    with closing(sqlite3.connect(home.journal, isolation_level=None)) as connection:
        damage = {
            "corrupted": "UPDATE snapshot SET state = substr(state, 1, 40)",
            "of another reducer": "UPDATE snapshot SET reducer = reducer + 1, state = '{}'",
            "beyond the journal's end": "UPDATE snapshot SET position = position + 100000",
        }
        assert connection.execute(damage[fault]).rowcount > 0
    with open_reader(home.journal) as reader:
        restored = restore(reader)
    assert (restored.snapshot, fingerprint(dump(restored.state))) == (0, before)
    home.start()
    home.wait_for(DaemonStarted, 2)
    home.arrive("2")
    home.wait_for(RunSucceeded, 2)
    assert (home.logged("A snapshot was skipped.") > 0) is (fault != "of another reducer")


def test_a_full_disk_pauses_intake_and_loses_nothing(home: Home) -> None:
    """While the journal cannot grow the daemon is alive, not ready, and takes no more; with room again all arrives."""
    home.configure(http=True)
    limit = home.folder / PAGES
    limit.write_text("1000000", encoding="utf-8")
    process = home.start()
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness")
    home.arrive("0")
    home.wait_for(RunSucceeded)
    limit.write_text("1", encoding="utf-8")  # SQLite takes the size that the file has
    numbers = itertools.count(1)

    def refused() -> bool:
        for _ in range(10):
            home.arrive(f"{next(numbers)}")
        return home.get("/readyz")[0] == 503

    home.wait(refused, "unreadiness")
    sent = next(numbers)
    assert "journal" in home.get("/readyz?verbose")[1]
    assert home.get("/livez")[0] == 200
    assert process.poll() is None
    assert len(home.events(DataArrived)) < sent
    limit.write_text("1000001", encoding="utf-8")
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness again")
    home.wait(lambda: len(home.events(DataArrived)) == sent, "all facts")
    home.wait(home.read_out, "an empty spool")
    home.wait(lambda: home.pipeline().active is None and not home.pipeline().pending, "rest")
    assert len(set(home.notes())) == len(home.notes()) == len(home.events(StageSucceeded))
    assert home.stop(process) == 0


def test_a_journal_of_a_newer_release_is_refused(home: Home) -> None:
    """One line says so and what to do; nothing is written."""
    open_journal(home.journal).close()
    with closing(sqlite3.connect(home.journal)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    refused = home.serve()
    assert refused.returncode == 2
    assert "schema 99" in refused.stderr
    assert "upgrade rewarm" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_corrupted_page_is_told_in_one_line(home: Home) -> None:
    """A journal that cannot be read ends the daemon with a clear error, without a traceback."""
    home.arrive()
    process = home.start()
    home.wait_for(RunSucceeded)
    process.kill()
    process.wait()
    with closing(sqlite3.connect(home.journal, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("DELETE FROM snapshot")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'record'").fetchone()
    with home.journal.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(os.urandom(4096))
    refused = home.serve()
    assert refused.returncode == 2
    assert "restore it from a backup" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [line for line in refused.stderr.splitlines() if not line.startswith("{")] == [
        refused.stderr.strip().splitlines()[-1]
    ]


def test_readers_in_other_processes_always_work(home: Home) -> None:
    """Before, during and after a daemon's life the journal can be read, and its head never goes back."""
    heads = []

    def look() -> None:
        with open_reader(home.journal) as reader:
            heads.append(reader.head())

    process = home.start()
    home.wait_for(DaemonStarted)
    for number in range(20):
        home.arrive(f"{number}")
        look()
    home.wait(lambda: len(home.events(DataArrived)) == 20, "all facts")
    look()
    process.kill()
    process.wait()
    look()
    assert heads == sorted(heads)
    assert heads[-1] > heads[0] > 0
