"""A folder with a model from elsewhere: opened safely, copied, and only then believed, by looking at the copy.

Everything that is wrong with it is the person's to mend: a StageError (user_error) that says what and how.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from safetensors import SafetensorError
from torch import nn

from daemon.core.errors import StageError
from stages.training.engine.checkpoint import ENGINE, OPTIMISER, Saved
from stages.training.files import MANIFEST, MODEL, Stamp, new_folder, stamp, write_file
from stages.training.models.hf import BESIDE, CONFIG, INDEX
from stages.training.models.parts import check_moments, merge

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(json|safetensors|txt|model|jinja)")
SMALL = 1 << 20
SMALL_INDEX = 64 << 20
CHUNK = 16 << 20
OTHER = (
    "What can be adopted is a folder as rewarm publishes them, such as models/<pipeline>/v3 of another state folder, "
    f"or a Hugging Face model's: {CONFIG}, tokenizer.json and {MODEL}."
)
AGAIN = "Copy it again, whole, and adopt it again."
Beat = Callable[[int, int], None]
Load = Callable[[Path], nn.Module]
T = TypeVar("T")


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """In which file of several each tensor is."""

    weight_map: dict[str, str]


class Foreign:
    """A folder outside of the state folder, below one of the roots; `load` is how the pipeline reads its copy."""

    def __init__(self, folder: Path, roots: Sequence[str], load: Load, beat: Beat) -> None:
        self.folder = folder
        self.roots = roots
        self._load = load
        self._beat = beat

    def take(self, target: Path, *, moments: bool) -> tuple[Saved, nn.Module]:
        """Copy the model, with `moments` its training's state too, to a checkpoint at `target`.

        Returns the checkpoint's manifest and its model. Weights in several files become one. Raises StageError
        (user_error), and OSError when the disk is full.
        """
        self._beat(0, 1)
        there = self._there()
        told = self._told()
        with new_folder(target) as aside:
            files = {name: self._copy(name, aside / name) for name in self._names(there, told, moments=moments)}
            if told is not None and (wrong := [name for name in files if files[name] != told.files[name]]):
                raise _unfit(f"{self.folder} is damaged: {', '.join(wrong)} does not fit its {MANIFEST}", AGAIN)
            if MODEL not in there:
                files[MODEL] = self._merged(aside)
            model = self._check(aside)
            made = msgspec.structs.replace(told or Saved(step=0, steps=0, seed=0, plan="", files={}), files=files)
            write_file(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(made)))
        return made, model

    def _there(self) -> set[str]:
        try:
            there = {path.name for path in self.folder.iterdir()}
        except OSError as error:
            raise _unfit(
                f"{self.folder} cannot be read ({error.strerror})", "Put it back, and adopt it again."
            ) from error
        if there & {MODEL, INDEX}:
            return there
        if pickles := sorted(name for name in there if name.endswith(PICKLES)):
            reads = "rewarm reads none, since reading one may run any code"
            raise _unfit(f"{self.folder} holds {pickles[0]}, a pickle: {reads}", f"Save the weights as {MODEL}.")
        raise _unfit(f"{self.folder} has no {MODEL}")

    def _told(self) -> Saved | None:
        """Return the manifest, if there is one."""
        if not os.path.lexists(self.folder / MANIFEST):
            return None
        told = self._read(MANIFEST, SMALL, Saved)
        for name in told.files:
            if not PLAIN.fullmatch(name) or name in {MANIFEST, INDEX}:
                raise _unfit(f"{self.folder / MANIFEST} names {name!r}, which is not part of a model")
            if not os.path.lexists(self.folder / name):
                raise _unfit(f"{self.folder} is damaged: {name} is not there, and its {MANIFEST} names it", AGAIN)
        if MODEL not in told.files:
            raise _unfit(f"{self.folder / MANIFEST} names no {MODEL}")
        return told

    @staticmethod
    def _names(there: set[str], told: Saved | None, *, moments: bool) -> tuple[str, ...]:
        """Return what is copied as it is."""
        if told is not None:
            # In the manifest's order: the copy of a version then has the very sha256 of the version.
            return tuple(name for name in told.files if moments or name not in {OPTIMISER, ENGINE})
        known = (CONFIG, *BESIDE, MODEL, *((OPTIMISER,) if moments else ()))
        return tuple(name for name in known if name in there)

    def _read(self, name: str, most: int, kind: type[T]) -> T:
        with os.fdopen(self._open(name), "rb") as file:
            data = file.read(most)  # what is longer does not parse
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _unfit(f"{self.folder / name} does not fit ({error})") from error

    def _open(self, name: str) -> int:
        # What counts is where the bytes really lie; a pipe would block for ever on opening.
        path = self.folder / name
        real = os.path.realpath(path)
        if not any(Path(real).is_relative_to(os.path.realpath(root)) for root in self.roots):
            known = ", ".join(self.roots) or "none is configured"
            raise _unfit(f"{path} leads to {real}, outside of the roots ({known})", "Copy it into one of them.")
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unfit(f"{path} cannot be opened ({error.strerror})", "Put it back, and adopt it again.") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _unfit(f"{path} is no regular file")
        return descriptor

    def _copy(self, name: str, target: Path) -> Stamp:
        """Copy a file, flushed; return what it is."""
        sha256, size = hashlib.sha256(), 0
        with os.fdopen(self._open(name), "rb") as source, target.open("xb") as copy:
            total = os.fstat(source.fileno()).st_size
            while chunk := source.read(CHUNK):
                sha256.update(chunk)
                copy.write(chunk)
                size += len(chunk)
                self._beat(size, max(size, total))
            copy.flush()
            os.fsync(copy.fileno())
        return Stamp(sha256=sha256.hexdigest(), bytes=size)

    def _merged(self, aside: Path) -> Stamp:
        """Copy the files that the index names, and make them one."""
        index = self._read(INDEX, SMALL_INDEX, _Index)
        parts = sorted(set(index.weight_map.values()))
        for name in parts:
            if not PLAIN.fullmatch(name) or not name.endswith(".safetensors") or name in {MODEL, OPTIMISER}:
                raise _unfit(f"{self.folder / INDEX} names {name!r}, which is not part of a model")
            if not os.path.lexists(self.folder / name):
                raise _unfit(f"{self.folder} is not whole: {name} is not there, and its {INDEX} names it", AGAIN)
            self._copy(name, aside / name)
        try:
            merge([aside / name for name in parts], aside / MODEL, set(index.weight_map))
        except (SafetensorError, ValueError) as error:
            raise _unfit(f"The weights in {self.folder} do not fit its {INDEX} ({error})", AGAIN) from error
        for name in parts:
            (aside / name).unlink()
        self._beat(1, 1)
        return stamp(aside / MODEL)

    def _check(self, copied: Path) -> nn.Module:
        """Return the copy's model; raise unless it can be gone on from."""
        try:
            model = self._load(copied)
            if (copied / OPTIMISER).exists():
                check_moments(copied, model)
        except StageError as error:
            message = str(error).replace(str(copied), str(self.folder))
            raise StageError("user_error", message) from error
        self._beat(1, 1)
        return model


def _unfit(what: str, then: str = OTHER) -> StageError:
    return StageError("user_error", f"{what}. {then}")
