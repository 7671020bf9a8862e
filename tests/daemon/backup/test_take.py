"""Taking a backup: what is in it, what keeps it from being taken, and that it is whole or not there."""

import fcntl
import hashlib
import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.backup.files import copy, read_manifest
from daemon.backup.put import check
from daemon.backup.take import take
from daemon.core.errors import JournalError
from daemon.core.transition import REDUCER_VERSION
from daemon.journal.sqlite import open_journal, open_reader, verify
from tests.daemon.backup.conftest import Disk

if TYPE_CHECKING:
    from tests.daemon.backup.conftest import Die, Take

BOUNDARIES = ("backup.before_journal", "backup.after_journal", "backup.after_files", "backup.before_rename")


def names(folder: Path) -> set[str]:
    """Return the files of a backup without the journal's."""
    return set(read_manifest(folder).files) - {"journal.db"}


def test_a_backup_holds_what_the_state_needs(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """Both models, their trunks, the shards, the attempt that is going on, curves of ended runs; nothing else."""
    for path in ("models/p/v9", "runs/p-4/train/1", "runs/p-999/train/1", "shards/999"):
        disk.written(path)
        (disk.state_folder / path / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    (disk.state_folder / "recorder.log").write_text("x", encoding="utf-8")
    manifest = take_backup(tmp_path / "copy")
    run = disk.run().run
    shards = [record.position for record in disk.records if record.event.kind == "data.arrived"]
    folders = {name.rpartition("/")[0] for name in names(tmp_path / "copy")}
    attempt = f"state/runs/{run}/train/1"
    assert folders == {
        *(f"state/models/p/v{n}{trunk}" for n in (1, 2) for trunk in ("", "/trunk")),
        *(f"state/shards/{position}" for position in shards),
        *(attempt, f"{attempt}/checkpoints/step-000000100", f"{attempt}/checkpoints/step-000000200"),
        "state/runs/p-4/train/1",
    }
    assert {name for name in names(tmp_path / "copy") if "p-4/" in name} == {"state/runs/p-4/train/1/metrics.jsonl"}
    assert {name.rpartition("/")[2] for name in names(tmp_path / "copy") if name.startswith(attempt + "/")} == {
        *("outcome.jsonl", "spec.json", "model.safetensors", "manifest.json"),
    }
    assert (manifest.position, manifest.state_hash) == (disk.state.position, disk.hash)
    assert manifest.reducer == REDUCER_VERSION
    assert manifest == read_manifest(tmp_path / "copy")
    assert check(tmp_path / "copy") == (manifest, [])


def test_tokenizers_are_saved_as_their_names_say(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """Shards are nothing without the tokenizer that they were made with; a damaged one is told."""
    folder = disk.state_folder / "tokenizers"
    folder.mkdir()
    name = f"{hashlib.sha256(b'{}').hexdigest()}.json"
    (folder / name).write_bytes(b"{}")
    (folder / f".{name}.1.tmp").write_bytes(b"{")
    take_backup(tmp_path / "copy")
    assert {each for each in names(tmp_path / "copy") if "tokenizers" in each} == {f"state/tokenizers/{name}"}
    (folder / name).write_bytes(b"[]")
    with pytest.raises(JournalError, match="is damaged"):
        take_backup(tmp_path / "other")


def test_outcome_lines_beyond_the_journal_are_left_out(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """What an attempt told after the copy has not happened in it: five lines lie there, two were read."""
    take_backup(tmp_path / "copy")
    (outcome,) = (tmp_path / "copy").rglob("outcome.jsonl")
    assert outcome.read_text(encoding="utf-8") == '{"line": 0}\n{"line": 1}\n'


def test_an_attempt_that_never_spoke_is_left_out(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """It is dispatched anew after a restore, with the paths that hold then."""
    disk.succeed()
    disk.attempt(0, read=0)
    disk.store().close()
    take_backup(tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("evaluate"))


def test_the_journal_is_copied_as_it_is_at_one_instant(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """Facts that are recorded while files are copied are not in it; its writer is never refused."""
    writer = disk.store()
    before = disk.state.position

    def meanwhile(name: str) -> None:
        if name == "backup.after_journal":
            disk.arrive(1)
            with writer.transaction() as transaction:
                transaction.append(disk.records[before:])

    manifest = take_backup(tmp_path / "copy", meanwhile)
    writer.close()
    assert manifest.position == before
    with open_reader(tmp_path / "copy" / "journal.db") as reader, open_reader(disk.journal) as original:
        assert reader.head() == before < original.head()
        assert reader.identity() == original.identity()
    assert verify(tmp_path / "copy" / "journal.db") == []
    assert not list((tmp_path / "copy").glob("journal.db-*"))


def test_an_empty_journal_can_be_saved(tmp_path: Path) -> None:
    """A daemon that has just begun needs no files."""
    open_journal(tmp_path / "journal.db").close()
    manifest = take(tmp_path / "journal.db", tmp_path, tmp_path / "copy", release="0", now=lambda: datetime.now(UTC))
    assert (manifest.position, set(manifest.files)) == (0, {"journal.db"})
    assert check(tmp_path / "copy")[1] == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("models/p/v2", "is damaged"),
        ("models/p/v1/trunk", "is damaged"),
        ("shards/4", "is damaged"),
    ],
)
def test_damage_is_found(disk: Disk, take_backup: "Take", tmp_path: Path, path: str, told: str) -> None:
    """A file that does not fit its sha256 is no backup; nothing is left of the try."""
    (disk.state_folder / path / "model.safetensors").write_bytes(b"rotten")
    with pytest.raises(JournalError, match=told):
        take_backup(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_another_model_than_the_recorded_one_is_found(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """A champion that is whole, but not the one that the journal names."""
    champion = disk.state_folder / "models" / "p" / "v2"
    manifest = champion / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(JournalError, match="is not what the journal recorded"):
        take_backup(tmp_path / "copy")


@pytest.mark.parametrize("path", ["models/p/v2", "models/p/v1", "shards/4"])
def test_what_is_missing_is_named(disk: Disk, take_backup: "Take", tmp_path: Path, path: str) -> None:
    """Without the champion or a shard the copy would be worth nothing."""
    shutil.rmtree(disk.state_folder / path)
    with pytest.raises(JournalError, match=f"{path} is missing"):
        take_backup(tmp_path / "copy")


def test_an_outcome_file_that_was_cut_is_named(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """The journal has read more lines than there are."""
    (outcome,) = disk.state_folder.rglob("outcome.jsonl")
    outcome.write_text('{"line": 0}\n{"li', encoding="utf-8")
    with pytest.raises(JournalError, match="fewer than the 2 lines"):
        take_backup(tmp_path / "copy")


def test_checkpoints_that_go_while_they_are_copied(
    disk: Disk, take_backup: "Take", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living stage prunes the older ones: what vanished is left out whole, and the newer one is taken."""
    done: list[Path] = []
    (folder,) = disk.state_folder.rglob("checkpoints")

    def pruned(source: Path, target: Path, *, most: int | None = None) -> object:
        if "step-000000100" in str(source) and not done:
            done.append(source)
            stamp = copy(source, target, most=most)
            shutil.rmtree(folder / "step-000000100")
            disk.written(str((folder / "step-000000300").relative_to(disk.state_folder)))
            return stamp
        return copy(source, target, most=most)

    monkeypatch.setattr("daemon.backup.take.copy", pruned)
    take_backup(tmp_path / "copy")
    saved = {path.name for path in (tmp_path / "copy").rglob("step-*")}
    assert saved == {"step-000000200", "step-000000300"}
    assert check(tmp_path / "copy")[1] == []


def test_a_checkpoint_that_is_being_removed_is_left_out(
    disk: Disk, take_backup: "Take", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed when its first file had gone already, no copy of it fails; what is left of it is no checkpoint."""
    (step,) = disk.state_folder.rglob("step-000000100")
    (step / "model.safetensors").unlink()
    outcome = next(disk.state_folder.rglob("outcome.jsonl"))
    (outcome.parent / "log.txt").write_text("x", encoding="utf-8")
    lstat = Path.lstat

    def gone(path: Path) -> os.stat_result:
        if path.name == "log.txt":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", gone)
    take_backup(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").rglob("step-*")} == {"step-000000200"}
    assert check(tmp_path / "copy")[1] == []


def test_a_state_folder_below_any_name(tmp_path: Path) -> None:
    """Also below one called checkpoints: what an attempt has left is saved all the same."""
    disk = Disk(tmp_path / "checkpoints")
    disk.arrive(120)
    disk.until("train")
    disk.attempt(5, read=2)
    disk.store().close()
    take(disk.journal, disk.state_folder, tmp_path / "copy", release="0", now=lambda: datetime.now(UTC))
    assert len([name for name in names(tmp_path / "copy") if name.endswith("train/1/spec.json")]) == 1


def test_a_target_that_is_there_is_refused(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """Also an empty one: nobody's folder is replaced."""
    (tmp_path / "copy").mkdir()
    with pytest.raises(JournalError, match="is there already"):
        take_backup(tmp_path / "copy")


def test_a_full_disk_leaves_nothing(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """Whatever the system refuses, the message says so and the target is not there."""

    def full(name: str) -> None:
        if name == "backup.after_files":
            raise OSError(28, "No space left on device")

    with pytest.raises(JournalError, match="nothing of it is kept"):
        take_backup(tmp_path / "copy", full)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_killed_backup_is_none(disk: Disk, take_backup: "Take", die: "Die", tmp_path: Path, boundary: str) -> None:
    """Killed anywhere: nothing has the backup's name, and the next one clears away what was left."""
    target = tmp_path / "copy"
    assert die("take", disk.journal, disk.state_folder, target, at=boundary) == signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.glob(".copy.*.tmp"))) == 1
    take_backup(target)
    assert check(target)[1] == []
    assert not list(tmp_path.glob(".copy.*.tmp"))


def test_a_living_backup_to_the_same_name_is_left_alone(disk: Disk, take_backup: "Take", tmp_path: Path) -> None:
    """What a backup that still works has written aside is not cleared away; the first to end has the name."""
    target = tmp_path / "copy"
    other = tmp_path / ".copy.0.tmp"
    other.mkdir()

    def meanwhile(name: str) -> None:
        if name == "backup.before_rename":
            target.mkdir()
            (target / "file").touch()

    descriptor = os.open(other, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(JournalError, match="came into being meanwhile"):
        take_backup(target, meanwhile)
    os.close(descriptor)
    assert other.exists()
    assert [path.name for path in target.iterdir()] == ["file"]
