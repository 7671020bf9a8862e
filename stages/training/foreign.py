"""A folder with a model from elsewhere: opened safely, copied, and only then believed, by looking at the copy.

Everything that is wrong with it is the person's to mend: a StageError (user_error) that says what and how.
"""

import hashlib
import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from daemon.core.errors import StageError
from stages.training.checkpoint import OPTIMISER, Saved
from stages.training.files import MANIFEST, MODEL, Stamp, new_folder, write_file
from stages.training.models.decoder import Decoder, ModelConfig
from stages.training.models.llama import TOKENIZER
from stages.training.shards import VOCABULARY

CONFIG = "config.json"
WORDS = "tokenizer.json"
NEEDED = (CONFIG, WORDS, MODEL)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
FIRST = "blocks.0."
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALL = 1 << 20
CHUNK = 16 << 20
MOST_LAYERS = 10_000
OTHER = (
    "Only rewarm's own layout can be adopted: a folder such as models/<pipeline>/v3 of another state folder, with "
    f"{', '.join(NEEDED)}; Hugging Face's and others' cannot yet."
)
AGAIN = "Copy it again, whole, and adopt it again."
Beat = Callable[[int, int], None]
Shapes = dict[str, tuple[int, ...]]
T = TypeVar("T")


class Foreign:
    """A folder outside of the state folder, below one of the roots."""

    def __init__(self, folder: Path, roots: Sequence[str], beat: Beat) -> None:
        self.folder = folder
        self.roots = roots
        self._beat = beat

    def take(self, target: Path, *, moments: bool) -> Saved:
        """Copy the model, with `moments` its optimiser state too, to a checkpoint at `target`; return its manifest.

        Raises StageError (user_error), and OSError when the disk is full.
        """
        self._beat(0, 1)
        names = self._names(moments=moments)
        told = self._told()
        with new_folder(target) as aside:
            files = {name: self._copy(name, aside / name) for name in names}
            if told is not None and (wrong := [name for name in names if files[name] != told.files.get(name)]):
                raise _unfit(f"{self.folder} is damaged: {', '.join(wrong)} does not fit its {MANIFEST}", AGAIN)
            self._check(aside)
            made = msgspec.structs.replace(told or Saved(step=0, steps=0, seed=0, plan="", files={}), files=files)
            write_file(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(made)))
        return made

    def _names(self, *, moments: bool) -> tuple[str, ...]:
        try:
            there = {path.name for path in self.folder.iterdir()}
        except OSError as error:
            raise _unfit(
                f"{self.folder} cannot be read ({error.strerror})", "Put it back, and adopt it again."
            ) from error
        if MODEL not in there and (pickles := sorted(name for name in there if name.endswith(PICKLES))):
            reads = "rewarm reads none, since reading one may run any code"
            raise _unfit(f"{self.folder} holds {pickles[0]}, a pickle: {reads}", f"Save the weights as {MODEL}.")
        if missing := [name for name in NEEDED if name not in there]:
            raise _unfit(f"{self.folder} has no {' and no '.join(missing)}")
        return (*NEEDED, OPTIMISER) if moments and OPTIMISER in there else NEEDED

    def _told(self) -> Saved | None:
        """Return the manifest, if there is one."""
        if not os.path.lexists(self.folder / MANIFEST):
            return None
        with os.fdopen(self._open(MANIFEST), "rb") as file:
            told = _decode(self.folder / MANIFEST, file.read(SMALL), Saved)
        for name in told.files:
            if name not in {*NEEDED, OPTIMISER}:
                raise _unfit(f"{self.folder / MANIFEST} names {name!r}, which is not part of a model")
            if not os.path.lexists(self.folder / name):
                raise _unfit(f"{self.folder} is damaged: {name} is not there, and its {MANIFEST} names it", AGAIN)
        return told

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

    def _check(self, copied: Path) -> None:
        """Raise unless the copy is a model that can be gone on from."""
        words = _decode(self.folder / WORDS, _small(copied / WORDS), dict[str, object])
        if words != msgspec.json.decode(TOKENIZER):
            raise _unfit(
                f"{self.folder / WORDS} is another tokenizer than the pipeline's, which reads bytes: the pipeline's "
                "text would be other numbers than those that the model was trained on",
                "Adopt a model of the pipeline's own tokenizer.",
            )
        shapes = _shapes(_config(self.folder / CONFIG, _small(copied / CONFIG)))
        self._tensors(copied / MODEL, shapes, DTYPES)
        if (copied / OPTIMISER).exists():
            moments = {f"{name}/{key}": () if key == "step" else s for name, s in shapes.items() for key in MOMENTS}
            self._tensors(copied / OPTIMISER, moments, (torch.float32,))

    def _tensors(self, path: Path, shapes: Shapes, dtypes: Sequence[torch.dtype]) -> None:
        """Raise unless the file holds just these tensors, and only finite numbers; read one after the other."""
        where = self.folder / path.name
        sizes = f"Its sizes must be those in {self.folder / CONFIG}."
        try:
            with safe_open(path, framework="pt") as file:
                names = sorted(file.keys())
                if odd := sorted(set(names) ^ shapes.keys()):
                    raise _unfit(f"{where} {'lacks' if odd[0] in shapes else 'has beyond the model'} {odd[0]}", sizes)
                for number, name in enumerate(names, start=1):
                    tensor, what = file.get_tensor(name), f"{where}: {name}"
                    if tuple(tensor.shape) != shapes[name]:
                        raise _unfit(f"{what} has shape {tuple(tensor.shape)} instead of {shapes[name]}", sizes)
                    if tensor.dtype not in dtypes:
                        raise _unfit(f"{what} holds {tensor.dtype}", f"Save it as {dtypes[0]}.")
                    if not torch.isfinite(tensor).all():
                        raise _unfit(f"{what} holds numbers that are not finite", "Adopt an older, sound model.")
                    self._beat(number, len(names))
        except SafetensorError as error:
            raise _unfit(f"{where} is no whole safetensors file ({error})", AGAIN) from error


def read_config(folder: Path) -> ModelConfig:
    """Return the sizes of a model that was taken."""
    return _config(folder / CONFIG, _small(folder / CONFIG))


def _config(path: Path, data: bytes) -> ModelConfig:
    config = _decode(path, data, ModelConfig)
    counts = (config.vocabulary, config.width, config.heads, config.key_value_heads, config.hidden)
    reals = (config.rope_base, config.norm_epsilon)
    fits = config.kind == "llama" and config.vocabulary >= VOCABULARY and 0 < config.layers <= MOST_LAYERS
    fits = fits and all(0 < count < 1 << 24 for count in counts) and all(math.isfinite(x) and x > 0 for x in reals)
    if not fits or config.width % (2 * config.heads) or config.heads % config.key_value_heads:
        raise _unfit(f"{path} tells of a model that there cannot be here")
    return config


def _shapes(config: ModelConfig) -> Shapes:
    """Return the shape of each tensor of a model; none is made."""
    with torch.device("meta"):
        one = Decoder(msgspec.structs.replace(config, layers=1)).state_dict()
    shapes: Shapes = {}
    for name, tensor in one.items():
        numbers = range(config.layers) if name.startswith(FIRST) else range(1)
        shapes |= {name.replace(FIRST, f"blocks.{number}.", 1): tuple(tensor.shape) for number in numbers}
    return shapes


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SMALL)  # what is longer is no description of a model, and does not parse


def _decode(path: Path, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unfit(f"{path} does not fit ({error})") from error


def _unfit(what: str, then: str = OTHER) -> StageError:
    return StageError("user_error", f"{what}. {then}")
