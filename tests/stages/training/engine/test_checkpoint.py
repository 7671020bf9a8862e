"""Checkpoints: whole or not at all, also on a full disk; found by wholeness."""

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.data.encoding import BYTES
from stages.training.engine.checkpoint import (
    OPTIMISER,
    Contents,
    Saved,
    copy_checkpoint,
    find_newest,
    load_optimiser,
    prune,
    verify,
    write_checkpoint,
)
from stages.training.engine.optimiser import dump_moments, make_optimiser, set_rate
from stages.training.files import MANIFEST, MODEL, digest
from stages.training.models.llama import Llama
from tests.stages.training.saving import save_checkpoint

PLAN = "0" * 64
ADAPTER = Llama(ModelSettings(preset="micro"), BYTES, 32)
Trained = tuple[nn.Module, torch.optim.AdamW]


@pytest.fixture
def trained() -> Trained:
    """A micro model after one optimiser step."""
    model = ADAPTER.make(0)
    optimiser = make_optimiser(model)
    set_rate(optimiser, 0.01)
    model(torch.arange(10).view(1, 10)).square().mean().backward()
    optimiser.step()
    return model, optimiser


def save(folder: Path, trained: Trained, step: int = 1, plan: str = PLAN) -> str:
    """Save a checkpoint of a step."""
    return save_checkpoint(folder, ADAPTER, *trained, step=step, steps=10, seed=0, plan=plan)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path, trained: Trained) -> None:
    """Weights and moments come back bit by bit, and saving them again gives the same files."""
    sha256 = save(tmp_path / "a", trained)
    verify(tmp_path / "a", sha256)
    model = ADAPTER.load(tmp_path / "a")
    optimiser = make_optimiser(model)
    load_optimiser(tmp_path / "a", model, optimiser)
    before, after = dump_moments(*trained), dump_moments(model, optimiser)

    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert save(tmp_path / "b", (model, optimiser)) == sha256


@pytest.mark.parametrize("name", [MODEL, OPTIMISER, "config.json", MANIFEST])
@pytest.mark.parametrize("data", [b"", b"{}", None])
def test_damage_is_seen(tmp_path: Path, trained: Trained, name: str, data: bytes | None) -> None:
    """A file that is gone, empty or of other content makes the checkpoint unusable."""
    sha256 = save(tmp_path / "a", trained)
    if data is None:
        (tmp_path / "a" / name).unlink()
    else:
        (tmp_path / "a" / name).write_bytes(data)

    with pytest.raises(StageError) as caught:
        verify(tmp_path / "a", sha256)
    assert caught.value.failure == "bad_checkpoint"


def test_one_flipped_bit_is_seen(tmp_path: Path, trained: Trained) -> None:
    """The size alone proves nothing."""
    save(tmp_path / "a", trained)
    data = bytearray((tmp_path / "a" / MODEL).read_bytes())
    data[-1] ^= 1
    (tmp_path / "a" / MODEL).write_bytes(data)

    with pytest.raises(StageError, match="sha256"):
        verify(tmp_path / "a")


@pytest.mark.parametrize("at", range(1, 6))
def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """Whichever file finds no room: the error passes, the older checkpoint stays, no part of the new one does."""
    older = tmp_path / "checkpoints" / "step-000000001"
    save(older, trained, 1)
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save(older.with_name("step-000000002"), trained, 2)
    monkeypatch.undo()

    found = find_newest([tmp_path], PLAN)
    assert found is not None
    assert found[0] == older
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_a_real_limit_on_file_size_is_a_full_disk(tmp_path: Path, trained: Trained) -> None:
    """The system's own refusal in the middle of a file is met the same way."""
    older = tmp_path / "checkpoints" / "step-000000001"
    save(older, trained, 1)
    before = digest(older / MANIFEST)
    program = """
import resource, sys
from pathlib import Path
from daemon.core.plans import ModelSettings
from stages.execute import classify
from stages.training.engine.checkpoint import load_optimiser
from tests.stages.training.saving import save_checkpoint
from stages.training.data.encoding import BYTES
from stages.training.models.llama import Llama
from stages.training.engine.optimiser import make_optimiser
older = Path(sys.argv[1])
adapter = Llama(ModelSettings(preset="micro"), BYTES, 32)
model = adapter.load(older)
optimiser = make_optimiser(model)
load_optimiser(older, model, optimiser)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(older.with_name("step-000000002"), adapter, model, optimiser, step=2, steps=9, seed=0, plan="")
except OSError as error:
    print(classify(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(older)], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "disk_full"
    verify(older, before)
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_the_newest_whole_one_of_the_plan_is_found(tmp_path: Path, trained: Trained) -> None:
    """Higher steps win over all attempts; other plans and damaged ones are passed over."""
    first, second = tmp_path / "1", tmp_path / "2"
    save(first / "checkpoints" / "step-000000007", trained, 7)
    save(second / "checkpoints" / "step-000000005", trained, 5)
    save(second / "checkpoints" / "step-000000008", trained, 8, plan="another")
    save(second / "checkpoints" / "step-000000009", trained, 9)
    (second / "checkpoints" / "step-000000009" / MODEL).unlink()

    def step(*folders: Path, below: int | None = None) -> int | None:
        found = find_newest(folders, PLAN, below=below)
        return found[1].step if found else None

    assert step(second, first) == 7
    assert step(second) == 5
    assert step(second, first, below=7) == 5
    assert step(tmp_path / "3") is None


def test_the_newest_two_are_kept(tmp_path: Path, trained: Trained) -> None:
    """Pruning leaves one to fall back to."""
    for step in (1, 2, 10):
        save(tmp_path / "checkpoints" / f"step-{step:09d}", trained, step)
    prune(tmp_path)

    assert {path.name for path in tmp_path.glob("checkpoints/*")} == {"step-000000002", "step-000000010"}


def test_what_a_kill_left_half_written_goes(tmp_path: Path, trained: Trained) -> None:
    """It is as large as a checkpoint, and nobody else would ever look at it."""
    for name in ("checkpoints/.step-000000001.4711.tmp", ".trunk.4711.tmp", ".candidate.4711.tmp"):
        left = tmp_path / name
        left.mkdir(parents=True)
        (left / MODEL).write_bytes(b"half")
    save(tmp_path / "checkpoints" / "step-000000002", trained, 2)
    prune(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert [path.name for path in tmp_path.glob("checkpoints/*")] == ["step-000000002"]


def test_only_what_is_wanted_is_read_whole(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint may be of many gigabytes: one of another plan, or of a step too far, is known by its manifest."""
    for step, plan in ((5, PLAN), (7, PLAN), (8, "another")):
        save(tmp_path / "checkpoints" / f"step-{step:09d}", trained, step, plan=plan)
    seen: list[Path] = []

    def watched(path: Path, sha256: str | None = None) -> Saved:
        seen.append(path)
        return verify(path, sha256)

    monkeypatch.setattr("stages.training.engine.checkpoint.verify", watched)
    found = find_newest([tmp_path], PLAN, below=7)

    assert found is not None
    assert seen == [found[0]] == [tmp_path / "checkpoints" / "step-000000005"]


def test_a_copy_takes_no_memory(tmp_path: Path) -> None:
    """Whatever the size of its files, and it is the same checkpoint."""
    source, target = tmp_path / "a", tmp_path / "b"
    large = {MODEL: {"w": torch.zeros(1 << 20)}}
    sha256 = write_checkpoint(source, Contents(small={}, tensors=large, step=1, steps=1, seed=0, plan=PLAN))
    target.mkdir()
    tracemalloc.start()
    copied = copy_checkpoint(source, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert copied == sha256
    verify(target, sha256)
    assert peak < 1 << 20


def test_weights_alone_have_no_moments(tmp_path: Path, trained: Trained) -> None:
    """To keep an optimiser's state that was never saved is an error, not a silent reset."""
    model, optimiser = trained
    save_checkpoint(tmp_path / "a", ADAPTER, model, None, step=1, steps=1, seed=0, plan=PLAN)

    with pytest.raises(StageError, match="reset the optimiser") as caught:
        load_optimiser(tmp_path / "a", model, optimiser)
    assert caught.value.failure == "bad_checkpoint"


@pytest.mark.parametrize(
    ("every", "upto", "kept"),
    [
        (1, 127, [126, 127]),
        (1, 200, [128, 199, 200]),
        (1, 256, [128, 255, 256]),
        (1, 1000, [768, 896, 999, 1000]),
        (60, 1200, [900, 1080, 1140, 1200]),
        (600, 3000, [2400, 3000]),
    ],
)
def test_a_way_back_is_kept(tmp_path: Path, every: int, upto: int, kept: list[int]) -> None:
    """However often one is saved: the newest two, and one at least 128 steps behind, which may be the start."""
    for step in range(every, upto + 1, every):
        (tmp_path / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
        prune(tmp_path)
        found = sorted(int(path.name[5:]) for path in tmp_path.glob("checkpoints/*"))
        assert min((step - each for each in (0, *found) if step - each >= min(step, 128)), default=0) < 2 * 128 + every
    assert found == kept
