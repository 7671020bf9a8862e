"""Checkpoints: weights and moments as safetensors, everything else as JSON, no pickle anywhere.

A checkpoint is a folder {what the adapter adds (config.json, tokenizer.json), model.safetensors, where kept
optimiser.safetensors and engine.safetensors, manifest.json}; the manifest names every other file's sha256 and size,
and the sha256 of the manifest names the checkpoint. It appears by one rename: a full disk or a kill leaves the
previous one whole.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from daemon.core.errors import StageError
from daemon.core.plans import NO_REMEDY, Remedy
from daemon.files import sync
from stages.training.engine.optimiser import load_moments
from stages.training.files import MANIFEST, Stamp, digest, fits, new_folder, stamp, write_file
from stages.training.models import legacy

OPTIMISER = "optimiser.safetensors"
ENGINE = "engine.safetensors"
"""What the loop itself goes on from: the average of the weights, the guard's last losses and norms."""
KEPT = 2
BACK = 128
"""Steps: the way back from which a training may have to go on is at least so long."""
HALF = ("checkpoints/.step-*", ".trunk.*", ".candidate.*")
"""What a kill leaves of a checkpoint that was being written."""
SYSTEM = re.compile(r"\(os error (\d+)\)")
logger = logging.getLogger("rewarm.stage")


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's manifest: how far the training was, of which plan and remedies, and what the files must be."""

    format: int = 1
    step: int
    steps: int
    seed: int
    plan: str
    files: dict[str, Stamp]
    remedy: Remedy | msgspec.UnsetType = msgspec.UNSET
    """Without one it is left out: the manifest is then what the first release wrote, to the byte."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is of: small files as bytes, files of tensors by name, and how far the training was."""

    small: Mapping[str, bytes]
    tensors: Mapping[str, Mapping[str, Tensor]]
    step: int
    steps: int
    seed: int
    plan: str
    remedy: Remedy = NO_REMEDY


def write_checkpoint(folder: Path, contents: Contents) -> str:
    """Write a checkpoint and return its manifest's sha256; raises OSError when the disk is full."""
    with new_folder(folder) as aside:
        for name, data in contents.small.items():
            write_file(aside / name, data)
        for name, tensors in contents.tensors.items():
            _write_tensors(aside / name, tensors)
        files = {name: stamp(aside / name) for name in (*contents.small, *contents.tensors)}
        saved = Saved(
            step=contents.step,
            steps=contents.steps,
            seed=contents.seed,
            plan=contents.plan,
            files=files,
            remedy=contents.remedy if contents.remedy != NO_REMEDY else msgspec.UNSET,
        )
        write_file(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(saved)))
    return digest(folder / MANIFEST)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of tensors, flushed; from where they lie, without a copy of the whole in memory."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:
        found = SYSTEM.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors leaves it readable by its owner alone
    with path.open("rb") as file:
        os.fsync(file.fileno())


def verify(folder: Path, sha256: str | None = None) -> Saved:
    """Return a checkpoint's manifest after every file fits it; raises StageError (bad_checkpoint).

    Where `sha256` is given, the manifest itself must have it.
    """
    saved = _read(folder)
    if sha256 is not None and digest(folder / MANIFEST) != sha256:
        message = f"The checkpoint at {folder} is not the one recorded (sha256 {sha256}): restore it."
        raise StageError("bad_checkpoint", message)
    if not fits(folder, saved.files):
        message = f"The checkpoint at {folder} is damaged, a file does not fit its sha256: restore it."
        raise StageError("bad_checkpoint", message)
    return saved


def _read(folder: Path) -> Saved:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Saved)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"The checkpoint at {folder} cannot be read ({error}): restore it or go back to an older one."
        raise StageError("bad_checkpoint", message) from error


def load_optimiser(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Load the moments of a verified checkpoint; raises StageError (bad_checkpoint) when it kept none."""
    try:
        tensors = load_file(folder / OPTIMISER)
        load_moments(model, optimiser, legacy.renamed(tensors) if legacy.is_old(folder) else tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        message = f"The checkpoint at {folder} has no usable optimiser state ({error}): reset the optimiser instead."
        raise StageError("bad_checkpoint", message) from error


def load_engine(folder: Path) -> dict[str, Tensor]:
    """Return what the loop itself goes on from, nothing where none was kept; raises StageError (bad_checkpoint)."""
    if not (folder / ENGINE).exists():
        return {}
    try:
        return load_file(folder / ENGINE)
    except (OSError, SafetensorError) as error:
        message = f"The checkpoint at {folder} has no usable state of the loop ({error}): go back to an older one."
        raise StageError("bad_checkpoint", message) from error


def find_newest(
    folders: Iterable[Path],
    plan: str,
    *,
    pattern: str = "checkpoints/step-*",
    below: int | None = None,
    fits: Callable[[Saved], bool] = lambda _: True,
) -> tuple[Path, Saved] | None:
    """Return the checkpoint with the highest step, of this plan and whole, in these attempts' folders.

    A damaged one is passed over for the next older; of equal ones the folder named first wins. `below` leaves
    out that step and later ones, `fits` whatever it is false of.
    """
    found = [path for folder in folders for path in folder.glob(pattern)]
    for path in sorted(found, key=lambda each: each.name, reverse=True):
        try:
            saved = _read(path)
            if saved.plan == plan and (below is None or saved.step < below) and fits(saved):
                return path, verify(path)  # reads every byte, so only of one that is wanted
        except StageError as error:
            logger.warning("Checkpoint passed over.", extra={"path": str(path), "error": str(error)})
    return None


def copy_checkpoint(source: Path, target: Path) -> str:
    """Copy a verified checkpoint's own files into an empty folder, flushed; returns its manifest's sha256."""
    for name in (*verify(source).files, MANIFEST):
        shutil.copyfile(source / name, target / name)
        sync(target / name)
    sync(target)
    return digest(target / MANIFEST)


def prune(folder: Path) -> None:
    """Keep an attempt's newest two checkpoints, and one or two a way back; call it while none is being written.

    Of those a way back one is `BACK` steps or more behind the newest, and another will be: what lies between them
    goes, and so does whatever is half written.
    """
    found = {int(path.name.removeprefix("step-")): path for path in sorted(folder.glob("checkpoints/step-*"))}
    kept = {*list(found)[-KEPT:], *_way_back(list(found))}
    old = [path for step, path in found.items() if step not in kept]
    for path in (*old, *(half for pattern in HALF for half in folder.glob(pattern))):
        shutil.rmtree(path, ignore_errors=True)


def _way_back(steps: Sequence[int]) -> tuple[int, ...]:
    """Return which steps, of some in order, are kept to go a way back: the start, which is step 0, always is there."""
    behind, ahead = 0, None
    for step in steps:
        if step - behind >= BACK and ahead is None:
            ahead = step
        if ahead is not None and step - ahead >= BACK:
            behind, ahead = ahead, step
    return (behind,) if ahead is None else (behind, ahead)
