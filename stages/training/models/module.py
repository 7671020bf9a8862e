"""Any module with a loss: what the user's factory returns, as the engine sees it. One example is one row."""

import contextlib
import importlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.engine.device import precision
from stages.training.files import MODEL
from stages.training.models.base import Row
from stages.training.task import Record, Task

MODEL_TYPE = "rewarm-module"
ROWS = 64
SHOWN = 5
"""Most names that a message lists."""


class ModuleConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What config.json says beside a module's weights."""

    model_type: str = MODEL_TYPE
    version: int = 1
    factory: str


class Collated(msgspec.Struct, frozen=True):
    """What the user's `collate` made of so many records, on the device."""

    count: int
    inputs: object


class Module:
    """Makes modules by the user's factory, which is called once for every model."""

    windows = False

    def __init__(self, settings: ModelSettings) -> None:
        if settings.factory is None:
            raise StageError("user_error", "A model of kind module needs a `factory`, such as 'package.module:make'.")
        self.settings = settings
        self._factory = settings.factory
        self._task: Task[Any] | None = None

    def make(self, seed: int) -> nn.Module:
        """Return a new module of the factory's; the same for the same seed, whatever was drawn before.

        Raises StageError (user_error) for a factory that fails, or makes what cannot be trained or kept.
        """
        with _seeded(seed):
            task = _call(self._factory)
        self._named(task.model)  # raises for what could not be kept
        self._task = task
        return task.model

    def load(self, folder: Path) -> nn.Module:
        """Return the module of a verified checkpoint; raises StageError (bad_checkpoint) when it is of another shape.

        The factory is the configuration's: what a checkpoint names is never called.
        """
        model = self.make(0)
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=ModuleConfig)
            tensors = load_file(folder / MODEL)
        except (OSError, msgspec.MsgspecError, SafetensorError) as error:
            message = f"The model at {folder} cannot be loaded as a module ({error})."
            raise StageError("bad_checkpoint", message) from error
        if config.model_type != MODEL_TYPE or config.version != 1:
            message = (
                f"The model at {folder} is of type {config.model_type!r}, version {config.version}, "
                f"and not {MODEL_TYPE!r}, version 1: name the right `model` in the configuration."
            )
            raise StageError("bad_checkpoint", message)
        self._fill(model, tensors, folder)
        return model

    def _fill(self, model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
        wanted = self._named(model)
        differing = [f"{name} is missing" for name in wanted if name not in tensors]
        differing += [f"{name} is not in the module" for name in tensors if name not in wanted]
        differing += [
            f"{name} is {_shape(tensors[name])} and the module's is {_shape(tensor)}"
            for name, tensor in wanted.items()
            if name in tensors and _shape(tensors[name]) != _shape(tensor)
        ]
        if differing:
            message = (
                f"The weights at {folder} do not fit what {self._factory} makes: {_some(differing)}. "
                "Go back to the factory that they were trained with, or begin a pipeline of another name."
            )
            raise StageError("bad_checkpoint", message)
        with torch.no_grad():
            for name, tensor in wanted.items():
                tensor.copy_(tensors[name])

    def files(self, model: nn.Module) -> Mapping[str, bytes]:
        """Return the configuration."""
        return {"config.json": msgspec.json.format(msgspec.json.encode(ModuleConfig(factory=self._factory)))}

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return parameters and persistent buffers; of names for one and the same tensor the first."""
        found = self._named(model)
        storages: set[int] = set()
        for name, tensor in found.items():
            if hasattr(tensor, "placements"):
                continue  # in parts over processes, which share none
            storage = tensor.untyped_storage().data_ptr()
            if storage in storages:
                found[name] = tensor.clone()  # a part of another one: safetensors refuses what overlaps
            storages.add(storage)
        return found

    def _named(self, model: nn.Module) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        seen: set[tuple[object, ...]] = set()
        first = {name for name, _ in model.named_parameters()}
        for name, tensor in model.state_dict().items():
            if not isinstance(tensor, Tensor) or is_lazy(tensor):
                message = (
                    f"{self._factory}: {name!r} in the module's state is a {type(tensor).__name__}; only tensors can "
                    "be kept. Give the module its sizes in the factory, and keep other state in buffers."
                )
                raise StageError("user_error", message)
            if hasattr(tensor, "placements"):
                if name in first:
                    found[name] = tensor
                continue
            identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if tensor.numel() and identity in seen:
                continue
            seen.add(identity)
            found[name] = tensor
        return found

    def recompute(self, model: nn.Module) -> None:
        """Refuse: only the module itself can know what of it to compute again."""
        message = (
            f"{self._factory}: `recompute` is not for models of kind module; leave it off, and where memory is short "
            "use torch.utils.checkpoint in the module."
        )
        raise StageError("user_error", message)

    def collate(self, rows: Sequence[Row], device: torch.device) -> object:
        """Return what the task's `collate` makes of the records; raises StageError (bad_sample) for one it refuses."""
        task = self._known()
        records = [_record(row) for row in rows]
        try:
            inputs = task.collate(records)
        except (MemoryError, StageError):
            raise
        except Exception as error:
            raise StageError("bad_sample", _refusal(task, records, rows, error)) from error
        return Collated(len(rows), _moved(inputs, device))

    def row_losses(self, model: nn.Module, inputs: object) -> Tensor:
        """Return each record's loss, (rows,); raises StageError (user_error) when the task gives anything else."""
        collated = cast("Collated", inputs)
        losses: object = self._known().losses(model, collated.inputs)
        if not isinstance(losses, Tensor) or losses.shape != (collated.count,) or not losses.is_floating_point():
            message = (
                f"{self._factory}: of {collated.count} records `losses` gave {_what(losses)}; it must give a floating "
                f"point number for each, ({collated.count},): compute it with reduction='none', and average over all "
                "but the first dimension."
            )
            raise StageError("user_error", message)
        if torch.is_grad_enabled() and not losses.requires_grad:
            message = (
                f"{self._factory}: no gradient flows through what `losses` gives: let it call the module that it is "
                "given, with no detach() and outside of no_grad()."
            )
            raise StageError("user_error", message)
        return losses.float()

    def document_nats(
        self, model: nn.Module, documents: Sequence[Row], *, context: int, beat: Callable[[], None]
    ) -> npt.NDArray[np.float64]:
        """Return each example's loss, measured in evaluation mode."""
        device = next(model.parameters()).device
        found = np.zeros(len(documents))
        model.eval()
        with torch.no_grad():  # what a module keeps of a pass in inference mode could not be trained with afterwards
            for first in range(0, len(documents), ROWS):
                group = documents[first : first + ROWS]
                inputs = self.collate(group, device)
                with precision(device):
                    losses = self.row_losses(model, inputs)
                found[first : first + len(group)] = losses.double().cpu().numpy()
                beat()
        if not np.isfinite(found).all():
            example = _beginning(documents[int(np.flatnonzero(~np.isfinite(found))[0])])
            message = f"{self._factory}: the loss on held-out data is no finite number, first on {example}."
            raise StageError("not_finite", message)
        return found

    def _known(self) -> Task[Any]:
        if self._task is None:
            raise RuntimeError("a model is made or loaded before it is fed")
        return self._task


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # Whatever a factory draws from: afterwards every generator goes on as if there had been none.
    plain, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the one that a user's code may draw from
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _call(factory: str) -> Task[Any]:
    module, _, function = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except Exception as error:
        message = (
            f"The factory {factory!r} cannot be imported ({type(error).__name__}: {error}): install its package beside "
            "rewarm, or start the daemon in the folder that holds it or with that folder on PYTHONPATH."
        )
        raise StageError("user_error", message) from error
    try:
        task = make()
    except (MemoryError, torch.OutOfMemoryError, StageError):
        raise
    except Exception as error:
        message = f"The factory {factory!r} raised {type(error).__name__}: {error}. It is called without arguments."
        raise StageError("user_error", message) from error
    if not isinstance(task, Task):
        made = type(task).__name__
        message = f"The factory {factory!r} returned a value of type {made}, not a stages.training.task.Task."
        raise StageError("user_error", message)
    model: object = task.model
    if not isinstance(model, nn.Module) or not any(each.requires_grad for each in model.parameters()):
        message = f"The factory {factory!r}: `model` must be an nn.Module with parameters that can be trained."
        raise StageError("user_error", message)
    return task


def _record(row: Row) -> Record:
    try:
        return msgspec.json.decode(row.tobytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        message = f"An example is no JSON object ({error}): {_beginning(row)}. Let its arrival be ingested again."
        raise StageError("bad_sample", message) from error


def _refusal(task: Task[Any], records: Sequence[Record], rows: Sequence[Row], error: Exception) -> str:
    for record, row in zip(records, rows, strict=True):
        try:
            task.collate([record])
        except Exception as alone:  # noqa: BLE001 - whatever the user's code raises, it is about this record
            return (
                f"The task's `collate` refuses a record ({type(alone).__name__}: {alone}); its fields are "
                f"{', '.join(record) or 'none'}, and it begins {_beginning(row)}. Mend the data and send it anew, or "
                "let `collate` take it."
            )
    return (
        f"The task's `collate` takes each of {len(records)} records alone and not together "
        f"({type(error).__name__}: {error}): pad what differs in size."
    )


def _beginning(row: Row) -> str:
    return repr(row.tobytes()[:160].decode(errors="replace"))


def _moved(inputs: object, device: torch.device) -> object:
    match inputs:
        case Tensor():
            return inputs.to(device)
        case dict():
            return {key: _moved(value, device) for key, value in inputs.items()}
        case list():
            return [_moved(value, device) for value in inputs]
        case tuple():
            moved = (_moved(value, device) for value in inputs)
            return type(inputs)._make(moved) if hasattr(inputs, "_make") else tuple(moved)
        case _:
            return inputs


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _what(found: object) -> str:
    return f"a tensor of {_shape(found)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _some(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
    return "; ".join(sentences[:SHOWN]) + more
