"""Checkpoints beside the training: what is saved is what was there when it was asked for."""

import errno
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.training.engine.checkpoint import Contents, verify, write_checkpoint
from stages.training.engine.saving import Writer
from stages.training.files import MODEL

DEADLINE = 10.0


def contents(tensors: dict[str, torch.Tensor], step: int = 1) -> Contents:
    """Return a checkpoint of some tensors."""
    return Contents(small={"config.json": b"{}"}, tensors={MODEL: tensors}, step=step, steps=9, seed=0, plan="p")


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is made at once: what the weights become while the thread writes does not matter."""
    gate = threading.Event()

    def slowly(folder: Path, given: Contents) -> str:
        assert gate.wait(DEADLINE)
        return write_checkpoint(folder, given)

    monkeypatch.setattr("stages.training.engine.saving.write_checkpoint", slowly)
    writer = Writer()
    weights = {"w": torch.arange(4.0)}
    done: list[str] = []
    writer.write(tmp_path / "a", contents(weights), lambda: done.append("pruned"))
    weights["w"].fill_(7.0)
    assert writer.busy
    assert writer.collect(wait=False) is None
    assert not (tmp_path / "a").exists()
    gate.set()
    written = writer.collect(wait=True)

    assert written is not None
    assert (written.folder, written.step, done) == (tmp_path / "a", 1, ["pruned"])
    verify(tmp_path / "a", written.sha256)
    assert load_file(tmp_path / "a" / MODEL)["w"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert writer.collect(wait=True) is None
    writer.close()


def test_the_memory_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint is copied to where the first one was."""
    seen: list[int] = []

    def look(folder: Path, given: Contents) -> str:
        seen.append(given.tensors[MODEL]["w"].data_ptr())
        return write_checkpoint(folder, given)

    monkeypatch.setattr("stages.training.engine.saving.write_checkpoint", look)
    writer = Writer()
    for step in (1, 2):
        writer.write(tmp_path / str(step), contents({"w": torch.full((8,), float(step))}, step))
        writer.collect(wait=True)
    writer.close()

    assert seen[0] == seen[1]
    assert load_file(tmp_path / "2" / MODEL)["w"].tolist() == [2.0] * 8


def test_what_hinders_the_thread_is_raised_in_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is met where the training asks next, once."""

    def full(folder: Path, given: Contents) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stages.training.engine.saving.write_checkpoint", full)
    writer = Writer()
    writer.write(tmp_path / "a", contents({"w": torch.zeros(1)}))
    with pytest.raises(OSError, match="No space left"):
        writer.collect(wait=True)
    assert writer.collect(wait=True) is None
    writer.close()
