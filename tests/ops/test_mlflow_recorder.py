"""The recorder as a process: killed at random it loses and repeats nothing; only one follows a journal."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from daemon.core.events import Record
from daemon.journal.lock import release, take
from ops import mlflow_recorder
from ops.comparison import behind
from ops.recording.cursor import sqlite_file

MakeJournal = Callable[[Path, Sequence[Record]], Path]


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that have MLflow imported when they begin, so that a kill can come early."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ops.mlflow_recorder", "ops.recording.store", "ops.recording.plots"])
    return context


def arguments(journal: Path, uri: str, state: Path, *more: str) -> list[str]:
    """Return a recorder's command line."""
    return ["--journal", str(journal), "--tracking-uri", uri, "--state", str(state), "--poll", "0.05", *more]


def cursor_moved(uri: str, state: Path, head: int, before: int | None) -> bool:
    """Return whether the cursor is further than it was."""
    now = behind(head, uri, state)
    return now is not None and now != before


def test_killed_at_random_it_writes_what_an_uninterrupted_one_writes(
    forks: ForkServerContext,
    history: Sequence[Record],
    state: Path,
    tmp_path: Path,
    make_journal: MakeJournal,
    make_store: Callable[[], str],
    dump: Callable[[str], dict[str, Any]],
) -> None:
    """SIGKILL after random times, again and again; in the end both stores hold the same."""
    records = history[:190]
    journal = make_journal(tmp_path / "journal.db", records)
    killed, whole = make_store(), make_store()
    chance = random.Random(5)
    kills = 0
    for attempt in range(7):
        process = forks.Process(target=mlflow_recorder.main, args=(arguments(journal, killed, state),))
        process.start()
        process.join(chance.uniform(0.3, 1.0 + 0.3 * attempt))
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    for uri in (killed, whole):
        process = forks.Process(target=mlflow_recorder.main, args=(arguments(journal, uri, state, "--once"),))
        process.start()
        process.join()
        assert behind(len(records), uri, state) == 0
    assert kills >= 4
    assert dump(killed) == dump(whole)


def test_a_second_recorder_ends_with_3(
    history: Sequence[Record], tmp_path: Path, make_journal: MakeJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """While one follows a journal another one says who does and ends."""
    journal = make_journal(tmp_path / "journal.db", history[:3])
    held = take(tmp_path / "journal.db.mlflow")
    try:
        code = mlflow_recorder.main(arguments(journal, f"sqlite:///{tmp_path}/m.db", tmp_path / "state"))
    finally:
        release(held)
    assert code == 3
    assert (tmp_path / "journal.db.mlflow.lock").exists()
    refusal = next(record for record in caplog.records if "Another recorder" in record.getMessage())
    assert refusal.__dict__["pid"] == os.getpid()
    assert not (tmp_path / "m.db").exists()


def test_the_command_line_makes_the_store_and_stops_when_asked(
    history: Sequence[Record], state: Path, tmp_path: Path, make_journal: MakeJournal
) -> None:
    """As a process of its own it makes the store, logs JSON lines alone, and ends with 0 on SIGTERM."""
    journal = make_journal(tmp_path / "journal.db", history[:20])
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mlflow.db.new").write_bytes(b"what a killed recorder left")
    command = [sys.executable, "-m", "ops.mlflow_recorder", *arguments(journal, uri, state)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not cursor_moved(uri, state, 20, 20) and time.monotonic() < deadline and process.poll() is None:
            process.poll()
            time.sleep(0.1)
        process.terminate()
        output, log = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, log
    assert output == ""
    assert behind(20, uri, state) == 0
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert messages[0] == "Recorder started."
    assert messages[-1] == "Recorder ended."
    file = sqlite_file(uri)
    assert file is not None
    assert not file.with_name("mlflow.db.new").exists()
    assert sqlite3.connect(file).execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_usage_errors_end_with_2() -> None:
    """Settings come as arguments alone; a missing one is named."""
    with pytest.raises(SystemExit) as ended:
        mlflow_recorder.main(["--journal", "j.db"])
    assert ended.value.code == 2
