"""What the doctor finds."""

import json
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli import doctor
from daemon.cli.checks import Check
from daemon.cli.doctor import degraded_checks, examine, filesystem, gpu_check
from daemon.core.events import InputRejected, SourceDegraded
from daemon.core.state import dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.journal.sqlite import open_journal

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command


def levels(configuration: "Configuration") -> dict[str, str]:
    """Return each check's level."""
    return {check.name: check.level for check in examine(configuration).checks}


def test_nothing_is_wrong_before_the_first_daemon(rewarm: "Command") -> None:
    """An empty folder is no fault."""
    code, out, _ = rewarm("doctor")

    assert code == 0
    assert "All is well." in out


def test_a_sound_history_is_well(rewarm: "Command", trained: "Chronicle") -> None:
    """Journal, snapshots and disks are looked at; MLflow, which has nothing yet, is only behind."""
    code, out, _ = rewarm("doctor", "--json")

    report = json.loads(out)
    assert code == 0
    assert report["wrong"] == 0
    assert report["mlflow"] == {
        "transitions": trained.state.position,
        "recorded": 0,
        "missing": 0,
        "differing": 0,
        "behind": trained.state.position,
        "examples": [],
    }


def test_a_damaged_journal_is_found(rewarm: "Command", trained: "Chronicle") -> None:
    """A page that was overwritten makes the exit code 1, with what to do."""
    path = trained.configuration.journal
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    path.write_bytes(data)

    code, out, _ = rewarm("doctor")

    assert code == 1
    assert "restore the file from a backup" in out


@pytest.mark.parametrize("fault", ["", "hash", "state"])
def test_snapshots_are_folded_again(trained: "Chronicle", configuration: "Configuration", fault: str) -> None:
    """A snapshot must match its own hash, and the state that the records give."""
    state = trained.state
    data = dump(state) if fault != "state" else dump(state).replace(b'"slots":1', b'"slots":2')
    told = fingerprint(data) if fault != "hash" else "0" * 64
    journal = open_journal(configuration.journal)
    journal.save_snapshot(position=state.position, reducer=REDUCER_VERSION, hash=told, state=data)
    journal.close()

    assert levels(configuration)["snapshots"] == ("wrong" if fault else "ok")


def test_refused_inputs_and_degraded_sources_are_told(chronicle: "Chronicle") -> None:
    """Dead letters are a note, a source that cannot be read is a fault."""
    chronicle.tell(InputRejected(reason="malformed", message="no JSON", where="x.json:1"), pipeline=None)
    chronicle.tell(SourceDegraded(name="var/spool", reason="permission denied"), pipeline=None)

    found = levels(chronicle.configuration)

    assert found["dead letters"] == "note"
    assert found["source"] == "wrong"
    assert found["daemon"] == "ok"
    assert found["mlflow"] == "note", "it is looked at all the same"


def test_what_is_found_here_is_not_told_again(chronicle: "Chronicle") -> None:
    """What the daemon says of a source counts once; of a daemon that has ended it is what was, and no fault."""
    degraded = {"kafka:kafka": "The brokers are down.", "kafka:kafka/events": "There is no topic events."}
    found = [Check(name="kafka kafka", level="wrong", message="There is no topic events.")]

    now = list(degraded_checks(degraded, found, running=True))
    then = list(degraded_checks(degraded, found, running=False))

    assert [(check.level, check.message) for check in now] == [("wrong", "kafka:kafka: The brokers are down.")]
    assert [(check.level, check.message) for check in then] == [
        ("note", "kafka:kafka, when the last daemon ended: The brokers are down.")
    ]


def test_mlflow_that_does_not_answer_is_a_fault(
    trained: "Chronicle", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever MLflow raises is told, not thrown."""
    import ops.comparison

    def unreachable(*_: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(ops.comparison, "compare", unreachable)

    assert levels(configuration)["mlflow"] == "wrong"


def test_differing_transitions_are_a_fault(
    trained: "Chronicle", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow has otherwise than the journal is counted, with positions."""
    import ops.comparison

    found = ops.comparison.Comparison(transitions=9, recorded=7, missing=1, differing=1, behind=0, examples=(4, 5))
    monkeypatch.setattr(ops.comparison, "compare", lambda *_: found)

    report = examine(configuration)

    assert report.mlflow == found
    told = next(check for check in report.checks if check.name == "mlflow")
    assert told.level == "wrong"
    assert "at 4, 5" in told.message


def test_a_networked_disk_is_a_fault(configuration: "Configuration", monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks do not hold on a network file system."""
    monkeypatch.setattr(doctor, "filesystem", lambda _: "nfs4")

    assert levels(configuration)["journal's disk"] == "wrong"


def test_a_full_disk_is_a_fault(configuration: "Configuration", monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost no room left is told before the journal notices."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))

    assert levels(configuration)["state's disk"] == "wrong"


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    """Of all mounts that hold a path the longest one counts."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path.resolve()} nfs4 rw 0 0\n", encoding="utf-8")

    assert filesystem(tmp_path / "journal.db", mounts) == "nfs4"
    assert filesystem(Path("/etc"), mounts) == "ext4"
    assert filesystem(Path("/etc"), tmp_path / "missing") == ""


def test_the_driver_is_asked_for_gpus() -> None:
    """nvidia-smi names the devices; when it fails that is a note."""

    def fail(command: list[str]) -> str:
        raise subprocess.CalledProcessError(9, command)

    assert gpu_check(lambda _: "NVIDIA H200, 143771 MiB\n").message == "NVIDIA H200, 143771 MiB"
    assert gpu_check(fail).level == "note"


def test_a_spool_that_cannot_be_written_is_a_fault(
    configuration: "Configuration", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to write nobody can deliver."""
    configuration.spools[0].mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda *_: False)

    assert levels(configuration)["spool"] == "wrong"
