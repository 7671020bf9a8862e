"""Putting a backup back: only where nothing is, only what is whole, and never by halves."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.backup.put import check, put, unread
from daemon.core.errors import JournalBusy, JournalError, JournalTooNew
from daemon.core.state import dump, fingerprint
from daemon.journal.base import Cursor
from daemon.journal.sqlite import open_journal, open_reader
from daemon.restore import restore

if TYPE_CHECKING:
    from tests.daemon.backup.conftest import Die, Disk, Take

BOUNDARIES = (
    ("restore.after_file", 0),
    ("restore.after_file", 7),
    ("restore.before_rename", 0),
    ("restore.between_renames", 0),
    ("restore.between_renames", 1),
    ("restore.before_end", 0),
)


@pytest.fixture
def copy(disk: "Disk", take_backup: "Take", tmp_path: Path) -> Path:
    """A backup, whose original is gone."""
    take_backup(tmp_path / "copy")
    shutil.rmtree(disk.folder)
    return tmp_path / "copy"


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_saved_is_there_again(disk: "Disk", copy: Path) -> None:
    """Journal and files, under the same names; the same state hash at the same position; another identity."""
    done = put(copy, disk.journal, disk.state_folder)
    assert content(disk.state_folder) == content(copy / "state")
    with open_reader(disk.journal) as reader:
        state = restore(reader, use_snapshots=False).state
        assert (state.position, fingerprint(dump(state))) == (disk.state.position, disk.hash)
        assert reader.identity() == done.identity != done.manifest.identity
        assert reader.ancestors() == {done.manifest.identity: disk.state.position}
    assert not list(disk.folder.glob("*restoring*"))
    assert not list(disk.folder.glob("**/.*tmp"))


def test_the_journal_goes_on(disk: "Disk", copy: Path) -> None:
    """It takes records behind the last one, and a backup of it can be restored in its turn."""
    put(copy, disk.journal, disk.state_folder)
    disk._stored = len(disk.records)  # noqa: SLF001 - all of them are in the journal
    disk.arrive(7)
    disk.store().close()
    with open_reader(disk.journal) as reader:
        assert reader.head() == disk.state.position


def test_a_second_restore_remembers_all_ancestors(
    disk: "Disk", copy: Path, take_backup: "Take", tmp_path: Path
) -> None:
    """A copy of a restored journal knows both journals that it continues."""
    first = put(copy, disk.journal, disk.state_folder)
    take_backup(tmp_path / "again")
    shutil.rmtree(disk.folder)
    second = put(tmp_path / "again", disk.journal, disk.state_folder)
    with open_reader(disk.journal) as reader:
        assert set(reader.ancestors()) == {first.manifest.identity, first.identity}
        assert reader.identity() == second.identity


def test_a_living_daemon_is_not_disturbed(disk: "Disk", copy: Path) -> None:
    """Whoever holds the journal's lock keeps it."""
    with open_journal(disk.journal), pytest.raises(JournalBusy):
        put(copy, disk.journal, disk.state_folder)


@pytest.mark.parametrize("present", ["journal.db", "state/runs/p-4/x", "state/models/x", "state/shards/x"])
def test_nothing_is_mixed_or_replaced(disk: "Disk", copy: Path, present: str) -> None:
    """A journal, or files of a history that the backup does not know, are in the way."""
    path = disk.folder / present
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(JournalError, match="already there"):
        put(copy, disk.journal, disk.state_folder)
    assert content(disk.folder) == {present: b"mine"} | {
        name: data for name, data in content(disk.folder).items() if name.endswith(".lock")
    }


def test_a_folder_of_another_name_is_not_mixed_either(disk: "Disk", copy: Path) -> None:
    """A stage of somebody's own may publish elsewhere: what the backup has there is not put among other files."""
    (copy / "state" / "own").mkdir()
    (copy / "state" / "own" / "data").write_bytes(b"saved")
    manifest = json.loads((copy / "backup.json").read_bytes())
    saved = {"sha256": hashlib.sha256(b"saved").hexdigest(), "bytes": 5}
    edited(copy, files={**manifest["files"], "state/own/data": saved})
    (disk.state_folder / "own").mkdir(parents=True)
    (disk.state_folder / "own" / "other").write_bytes(b"mine")
    with pytest.raises(JournalError, match="own: already there"):
        put(copy, disk.journal, disk.state_folder)
    assert content(disk.state_folder) == {"own/other": b"mine"}
    (disk.state_folder / "own" / "other").unlink()
    put(copy, disk.journal, disk.state_folder)
    assert (disk.state_folder / "own" / "data").read_bytes() == b"saved"


@pytest.mark.parametrize(("place", "left"), [("state", True), ("elsewhere", False)])
def test_a_stage_that_lives_elsewhere_is_not_named(
    disk: "Disk", take_backup: "Take", tmp_path: Path, place: str, left: bool
) -> None:
    """Put beside the original, a copy says nothing of the original's processes: it would have them killed."""
    (folder,) = disk.state_folder.glob("runs/*/train/1")
    (folder / "spec.json").write_text(json.dumps({"state": str(disk.state_folder), "run": "p-9"}), encoding="utf-8")
    (folder / "lock").write_text('{"pid": 7}', encoding="utf-8")
    take_backup(tmp_path / "copy")
    if left:
        shutil.rmtree(disk.folder)
    put(tmp_path / "copy", disk.folder / place / "journal.db", disk.folder / place)
    found = disk.folder / place / folder.relative_to(disk.state_folder)
    assert (found / "spec.json").exists()
    assert (found / "lock").exists() is left


def test_other_files_of_the_state_folder_stay(disk: "Disk", copy: Path) -> None:
    """Logs, cursors and empty folders are in nobody's way."""
    (disk.state_folder / "notify").mkdir(parents=True)
    (disk.state_folder / "notify" / "default.json").write_bytes(b"{}")
    (disk.state_folder / "runs").mkdir()
    put(copy, disk.journal, disk.state_folder)
    assert (disk.state_folder / "notify" / "default.json").read_bytes() == b"{}"
    assert list((disk.state_folder / "runs").iterdir())


# ------------------------------------------------------------------------------------------- what is not whole


def spoil_byte(copy: Path) -> None:
    """Change one byte of a model."""
    path = next(copy.rglob("model.safetensors"))
    path.write_bytes(b"x" + path.read_bytes()[1:])


def spoil_journal(copy: Path) -> None:
    """Cut the journal."""
    with (copy / "journal.db").open("r+b") as file:
        file.truncate(20_000)


def lose_file(copy: Path) -> None:
    """Remove a file."""
    next(copy.rglob("manifest.json")).unlink()


def link_file(copy: Path) -> None:
    """Put a link in a file's place."""
    path = next(copy.rglob("manifest.json"))
    path.rename(copy / "elsewhere")
    path.symlink_to(copy / "elsewhere")


def edited(copy: Path, **changes: object) -> None:
    """Change what the backup says of itself."""
    path = copy / "backup.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_byte, "has another content"),
        (spoil_journal, "journal.db has another content"),
        (lose_file, "cannot be read"),
        (link_file, "is no file"),
        (lambda copy: edited(copy, state_hash="0" * 64), "folds to another state"),
        (lambda copy: edited(copy, position=3), "is another journal"),
        (lambda copy: edited(copy, files={}), "journal.db is missing"),
    ],
)
def test_what_is_not_whole_is_not_restored(disk: "Disk", copy: Path, spoil: Callable[[Path], None], told: str) -> None:
    """Every fault is told by `check`, and nothing is put anywhere."""
    spoil(copy)
    _, problems = check(copy)
    assert any(told in problem for problem in problems)
    with pytest.raises(JournalError, match="is not whole, nothing was restored"):
        put(copy, disk.journal, disk.state_folder)
    assert not disk.journal.exists()
    assert not disk.state_folder.exists()


@pytest.mark.parametrize(
    ("spoil", "told", "error"),
    [
        (lambda copy: (copy / "backup.json").unlink(), "is no backup, or was never finished", JournalError),
        (lambda copy: (copy / "backup.json").write_text("{"), "is damaged", JournalError),
        (lambda copy: edited(copy, format=9), "upgrade rewarm", JournalTooNew),
        (lambda copy: edited(copy, files={"state/../../etc/x": {}}), "is damaged", JournalError),
        (
            lambda copy: edited(copy, files={"state/../../etc/x": {"sha256": "", "bytes": 0}}),
            "which has no place in a backup",
            JournalError,
        ),
        (
            lambda copy: edited(copy, files={"state": {"sha256": "", "bytes": 0}}),
            "which has no place in a backup",
            JournalError,
        ),
        (
            lambda copy: edited(copy, files={"/etc/x": {"sha256": "", "bytes": 0}}),
            "which has no place in a backup",
            JournalError,
        ),
    ],
)
def test_what_is_no_backup_is_told(
    copy: Path, spoil: Callable[[Path], object], told: str, error: type[Exception]
) -> None:
    """A folder without its list of files, a list that cannot be read, one from the future, or one that leads out."""
    spoil(copy)
    with pytest.raises(error, match=told):
        check(copy)


# ------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize(("boundary", "after"), BOUNDARIES)
def test_a_killed_restore_is_no_journal(disk: "Disk", copy: Path, die: "Die", boundary: str, after: int) -> None:
    """Killed anywhere: no daemon opens what is there by halves, and the next restore makes it whole."""
    assert die("put", copy, disk.journal, disk.state_folder, at=boundary, after=after) == signal.SIGKILL
    placed = any((disk.state_folder / name).exists() for name in ("models", "runs", "shards"))
    if placed or disk.journal.exists():
        with pytest.raises(JournalError, match="was broken off"):
            open_journal(disk.journal)
    put(copy, disk.journal, disk.state_folder)
    assert content(disk.state_folder) == content(copy / "state")
    with open_reader(disk.journal) as reader:
        assert fingerprint(dump(restore(reader).state)) == disk.hash
    assert not list(disk.folder.glob("**/.*tmp"))
    open_journal(disk.journal).close()


def test_a_full_disk_puts_nothing_in_place(disk: "Disk", copy: Path) -> None:
    """What the system refuses is told, and the staged files are gone."""

    def full(name: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(JournalError, match="No space left"):
        put(copy, disk.journal, disk.state_folder, boundary=full)
    assert not disk.journal.exists()
    assert not list(disk.folder.glob("**/.*tmp"))


def test_files_that_the_journal_never_read_are_found(disk: "Disk", copy: Path) -> None:
    """Of the files in processed/, those that came after the copy are named."""
    processed = disk.folder / "spool" / "processed"
    processed.mkdir(parents=True)
    (processed / "old.json").write_bytes(b"old")
    (processed / "new.json").write_bytes(b"new")
    put(copy, disk.journal, disk.state_folder)
    name = f"spool:{hashlib.sha256(b'old').hexdigest()}"
    with open_journal(disk.journal) as journal, journal.transaction() as transaction:
        transaction.move(Cursor(name=name, expected=None, next=1))
    assert unread(disk.journal, [disk.folder / "spool"]) == [processed / "new.json"]
