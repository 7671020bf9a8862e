"""The recorder as a process: killed at random it loses and repeats nothing; only one follows a journal."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from daemon.core.events import Record
from daemon.journal.lock import release, take
from ops import mlflow_recorder
from ops.comparison import behind
from ops.recording import store as recording_store
from ops.recording.cursor import sqlite_file

MakeJournal = Callable[[Path, Sequence[Record]], Path]


def arguments(journal: Path, uri: str, state: Path, *more: str) -> list[str]:
    """Return a recorder's command line."""
    return ["--journal", str(journal), "--tracking-uri", uri, "--state", str(state), "--poll", "0.05", *more]


def cursor_moved(uri: str, state: Path, head: int, before: int | None) -> bool:
    """Return whether the cursor is further than it was."""
    now = behind(head, uri, state)
    return now is not None and now != before


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


def test_a_store_of_an_older_release_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded store that MLflow calls out of date goes through MLflow's own upgrade; a remote one is left alone."""
    opened: list[str] = []
    commands: list[list[str]] = []

    def store(uri: str, _state: Path) -> str:
        opened.append(uri)
        if len(commands) == 0:
            raise MlflowException("Detected out-of-date database schema (found version 1, but expected 2).")
        return "the store"

    def run(command: list[str], **_: object) -> None:
        commands.append(command)

    monkeypatch.setattr(recording_store, "Store", store)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MlflowException):
        mlflow_recorder.open_store("postgresql://host/db", tmp_path)
    (tmp_path / "m.db").touch()
    uri = f"sqlite:///{tmp_path}/m.db"
    found: object = mlflow_recorder.open_store(uri, tmp_path)
    assert found == "the store"
    assert commands == [[sys.executable, "-m", "mlflow", "db", "upgrade", uri]]
    assert opened[-2:] == [uri, uri]
