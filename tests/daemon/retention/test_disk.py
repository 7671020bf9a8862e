"""Files of the state folder: found without leaving it, removed in steps that can be told apart, left-overs put away."""

import fcntl
import time
from pathlib import Path

import pytest

from daemon.retention import disk

DAY = 86_400.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a run of two attempts."""
    folder = tmp_path / "state"
    for attempt in (1, 2):
        path = folder / "runs" / "p-1" / "train" / str(attempt) / "checkpoints" / "step-1"
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"x" * 1000)
        (path.parent.parent / "lock").touch()
    return folder


def names(state: Path, pattern: str) -> list[str]:
    """Return what is found, relative to the state folder."""
    return [str(path.relative_to(state)) for path in disk.find(state, pattern)]


def test_what_a_pattern_finds(state: Path) -> None:
    """A star is any one name that is not hidden; what is not there is not found."""
    (state / "runs" / "p-1" / ".hidden").mkdir()
    assert names(state, "runs/p-1/*/*/checkpoints") == [f"runs/p-1/train/{n}/checkpoints" for n in (1, 2)]
    assert names(state, "runs/p-1/*") == ["runs/p-1/train"]
    assert names(state, "runs/p-2") == []
    assert names(state, "runs/p-1/train/1/lock/*") == []


@pytest.mark.parametrize("pattern", ["../secret", "runs/../../secret", "/etc/passwd", "runs//p-1", "./runs"])
def test_nothing_outside_is_found(state: Path, pattern: str) -> None:
    """A path that leaves the state folder, or might, finds nothing."""
    (state.parent / "secret").touch()
    assert disk.find(state, pattern) == []


def test_links_are_not_followed(state: Path, tmp_path: Path) -> None:
    """Neither a link in the way nor one at the end is gone through, and removing a folder leaves what links name."""
    outside = tmp_path / "outside"
    (outside / "train" / "1").mkdir(parents=True)
    (outside / "kept").touch()
    (state / "runs" / "p-2").symlink_to(outside)
    (state / "runs" / "p-1" / "train" / "1" / "link").symlink_to(outside)
    assert names(state, "runs/p-2") == names(state, "runs/p-2/train/1") == names(state, "runs/p-2/*") == []
    (found,) = disk.find(state, "runs/p-1")
    aside = disk.set_aside(found)
    assert aside is not None
    disk.remove(aside)
    assert (outside / "kept").exists()
    assert not (state / "runs" / "p-1").exists()


def test_sizes(state: Path, tmp_path: Path) -> None:
    """The bytes of all files below; of a link its own."""
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    assert disk.size(state / "runs" / "p-1") == 2000
    (state / "runs" / "p-1" / "link").symlink_to(tmp_path / "big")
    assert disk.size(state / "runs" / "p-1") < 3000
    assert disk.size(state / "runs" / "p-1" / "train" / "1" / "checkpoints" / "step-1" / "model.safetensors") == 1000
    assert disk.size(state / "none") == 0


def test_a_living_process_is_told(state: Path) -> None:
    """A run one of whose attempts is locked is not quiet; without a run there is nobody to ask."""
    with disk.quiet(state, "p-1") as free:
        assert free
    with (state / "runs/p-1/train/2/lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with disk.quiet(state, "p-1") as free:
            assert not free
    with disk.quiet(state, None) as free:
        assert free
    assert not (state / "runs/p-1/train/lock").exists()


def test_put_back(state: Path) -> None:
    """What was set aside comes back whole; where another has come meanwhile, that one stays."""
    run = state / "runs" / "p-1"
    aside = disk.set_aside(run)
    assert aside is not None
    assert not run.exists()
    disk.put_back(aside)
    assert disk.size(run) == 2000
    aside = disk.set_aside(run)
    assert aside is not None
    run.mkdir()
    disk.put_back(aside)
    assert list(run.iterdir()) == []
    assert not aside.exists()
    assert disk.set_aside(state / "none") is None


def test_left_overs_of_a_removal(state: Path) -> None:
    """Half a removal is undone, a begun one is finished, whoever was killed and whenever."""
    run = state / "runs" / "p-1"
    run.rename(state / "runs" / ".p-1.77.expired")
    shard = state / "shards" / "ab"
    (shard / ".half.77.removed").mkdir(parents=True)
    disk.clear(state, time.time())
    assert disk.size(run) == 2000
    assert list(shard.iterdir()) == []


def test_left_overs_of_writers(state: Path) -> None:
    """What killed writers left goes a day later; names of others, links and what is locked stay."""
    attempt = state / "runs" / "p-1" / "train" / "1"
    ours = [
        state / ".worker.json.12.tmp",
        state / "notify" / ".team.json.12.tmp",
        state / "models" / "p" / ".v2.12.tmp",
        state / "models" / "p" / ".v1.12.gone",
        state / "shards" / "ab" / ".abc-prose.12.tmp",
        attempt / ".trunk.12.tmp",
        attempt / "checkpoints" / ".step-000000002.12.tmp",
    ]
    others = [
        state / ".hidden",
        state / "file.tmp",
        state / ".file.tmp",
        state / "inbox" / ".data.12.tmp",
        state / "models" / "p" / "v1",
    ]
    for path in (*ours, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.mkdir if path.suffix != ".tmp" or "json" not in path.name else path.touch)()
    link = state / ".link.12.tmp"
    link.symlink_to(state / "inbox")
    now = time.time()
    disk.clear(state, now + DAY - 60)
    assert [path for path in ours if not path.exists()] == []
    with (attempt / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        disk.clear(state, now + DAY + 60)
    assert [path for path in ours if path.exists()] == ours[-2:]
    disk.clear(state, now + DAY + 60)
    assert [path for path in ours if path.exists()] == []
    assert [path for path in (*others, link) if not path.exists()] == []


def test_one_folder_that_cannot_be_read_keeps_no_other(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trouble in one place is told, and the others are cleared all the same."""
    (state / "models" / "p" / ".v1.9.removed").mkdir(parents=True)
    (state / "notify").write_bytes(b"no folder")
    disk.clear(state, time.time())
    assert list((state / "models" / "p").iterdir()) == []
    assert "Left-overs cannot be removed." in caplog.text


def test_logs_are_kept_short(state: Path) -> None:
    """A full log moves aside and is emptied under its writer, who goes on at its beginning."""
    log = state / "worker.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        disk.shorten(state, ["worker.log", "none.log"], 100)
        assert not (state / "worker.log.1").exists()
        writer.write(b"b" * 100)
        disk.shorten(state, ["worker.log"], 100)
        writer.write(b"c")
    assert log.read_bytes() == b"c"
    assert (state / "worker.log.1").read_bytes() == b"a" * 100 + b"b" * 100
    assert [path for path in state.iterdir() if path.name.endswith(".tmp")] == []
