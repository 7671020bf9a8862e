"""Backup, wipe, restore, go on: with a daemon that never stops for it, and a stage in the middle of its work."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.core.events import DaemonStarted, DataArrived, DriftDetected, RunSucceeded, StageInterrupted, StageStarted
from daemon.core.state import dump, fingerprint
from daemon.journal.base import scan
from daemon.journal.sqlite import open_reader
from daemon.replay import replay
from tests.acceptance.home import SLOW, Home, alive, event

pytestmark = pytest.mark.slow


def wipe(home: Home) -> None:
    """Lose the journal and the state folder."""
    home.state.rename(home.folder / "lost")
    for path in home.folder.glob("journal.db*"):
        path.unlink()


def folded(home: Home, upto: int) -> str:
    """Return the state hash at a position, as the journal's records give it."""
    with open_reader(home.journal) as reader:
        return replay(scan(reader, upto=upto), whole=False).hash


def test_backup_wipe_restore_go_on(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """While facts stream in a copy is taken; everything is lost; the restored daemon has the same state and goes on.

    The attempt that was running at the copy counts as died: it is buried and tried again, its arrival is used once.
    """
    home.configure(SLOW)
    copy = tmp_path / "copy"
    first = home.start()
    home.arrive()
    stage = home.wait_for(StageStarted)
    stop = threading.Event()

    def stream() -> None:
        number = 0
        while not stop.wait(0.005):
            number += 1
            home.send(event("drift.detected", {"metric": "psi", "value": number}, f"drift {number}"), f"d{number}.json")

    streaming = threading.Thread(target=stream)
    streaming.start()
    home.wait_for(DriftDetected, 20)
    assert main(["--config", str(home.configuration), "backup", str(copy), "--json"]) == 0
    taken = json.loads(capsys.readouterr().out)
    home.wait_for(DriftDetected, 20 + len(home.events(DriftDetected)))
    stop.set()
    streaming.join()
    home.wait(home.read_out, "the end of the stream")
    known = folded(home, taken["position"])
    assert known == taken["state_hash"]
    assert len(home.records()) > taken["position"]
    first.kill()
    first.wait()

    wipe(home)
    assert main(["--config", str(home.configuration), "restore", str(copy), "--json"]) == 0
    restored = json.loads(capsys.readouterr().out)
    assert (restored["position"], restored["state_hash"]) == (taken["position"], known)
    assert len(home.records()) == taken["position"]
    assert any("spool file" in hint for hint in restored["hints"])

    second = home.start()
    home.wait_for(DaemonStarted, 2)
    for path in (home.spool / "processed").iterdir():
        path.rename(home.spool / path.name)  # as the hint says
    home.wait_for(RunSucceeded)
    home.wait(home.read_out, "what came after the copy")
    assert not alive(stage.pid)
    assert [e.attempt for e in home.events(StageStarted)] == [1, 2]
    assert [e.reason for e in home.events(StageInterrupted)] == ["died"]
    assert len(home.events(DataArrived)) == 1
    values = [e.value for e in home.events(DriftDetected)]
    assert sorted(values) == [float(number) for number in range(1, len(values) + 1)]
    assert home.stop(second) == 0
    assert folded(home, taken["position"]) == known
    assert fingerprint(dump(home.fold())) == folded(home, len(home.records()))


def test_a_daemon_does_not_start_on_half_a_restore(home: Home, tmp_path: Path) -> None:
    """Where a restore was killed the daemon ends with one clear line; the next restore makes it right."""
    first = home.start()
    home.arrive()
    home.wait_for(RunSucceeded)
    assert main(["--config", str(home.configuration), "backup", str(tmp_path / "copy")]) == 0
    assert home.stop(first) == 0
    head = len(home.records())
    wipe(home)
    home.state.mkdir()
    shutil.copy(tmp_path / "copy" / "journal.db", home.journal)
    (home.folder / "journal.db.restoring").touch()  # what a kill between two renames leaves
    refused = home.serve()
    assert refused.returncode == 2
    assert "run `rewarm restore` again" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert main(["--config", str(home.configuration), "restore", str(tmp_path / "copy")]) == 0
    second = home.start()
    home.arrive("2", uri=home.data(name="more.jsonl"))
    home.wait_for(RunSucceeded, 2)
    assert home.stop(second) == 0
    assert len(home.records()) > head
