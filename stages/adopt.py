"""Adopt: a model that was trained elsewhere, copied and looked at from end to end, in the place of a trained one.

Leaves `candidate/` and `trunk/` as train does: the folder's own files, and those of its `trunk/` where it has one.
"""

import json
import logging
import os
from pathlib import Path

import msgspec
from torch import nn

from daemon.core.errors import StageError
from daemon.core.events import Artefact
from stages.base import Context, Result
from stages.training.engine.checkpoint import OPTIMISER, Saved
from stages.training.files import MANIFEST, MODEL, digest
from stages.training.foreign import Foreign
from stages.training.models import adapter_of
from stages.training.models.base import Adapter
from stages.training.models.decoder import Decoder
from stages.training.models.llama import Llama

TRUNK = "trunk"
CONFIG = "config.json"
logger = logging.getLogger("rewarm.stage")


class Adopt:
    """Takes a folder as rewarm or Hugging Face lays it out, never a pickle; done again it leaves the same bytes."""

    def run(self, context: Context) -> Result:
        """Copy the model and the trunk behind it.

        Raises StageError (user_error) when the folder is not a model that the pipeline can go on from, and OSError
        when the disk is full.
        """
        folder = context.specification.plan.start.folder
        if folder is None:
            raise StageError("user_error", "The plan names no folder to adopt a model from.")
        adapter = adapter_of(context)
        source = Foreign(Path(folder), context.specification.folders, adapter.load, context.beat)
        behind = Foreign(Path(folder) / TRUNK, context.specification.folders, adapter.load, context.beat)
        if not os.path.lexists(behind.folder):
            behind = source
        candidate, model = source.take(context.folder / "candidate", moments=False)
        metrics = _measures(context, adapter, model)
        del model  # one at a time is enough in memory
        trunk, _ = behind.take(context.folder / TRUNK, moments=True)
        _check_pair(context, candidate, trunk, same=behind is source)
        return Result(
            metrics={
                **metrics,
                "bytes": float(candidate.files[MODEL].bytes),
                "optimiser_kept": float(OPTIMISER in trunk.files),
            },
            artefacts=tuple(_artefact(context, name) for name in ("candidate", TRUNK)),
        )


def _check_pair(context: Context, candidate: Saved, trunk: Saved, *, same: bool) -> None:
    folder = context.specification.plan.start.folder
    if same and candidate.files[MODEL] != trunk.files[MODEL]:
        raise StageError("user_error", f"{folder} changed while it was copied: adopt it when it is whole.")
    if _told(context.folder / "candidate") != _told(context.folder / TRUNK):
        message = (
            f"The model in {folder} and the one in its {TRUNK}/ have different sizes: they do not belong together."
        )
        raise StageError("user_error", message)


def _told(folder: Path) -> object:
    """Return what config.json says, where the model's kind has one."""
    path = folder / CONFIG
    return json.loads(path.read_bytes()) if path.exists() else None


def _measures(context: Context, adapter: Adapter, model: nn.Module) -> dict[str, float]:
    """Return how large the model is and, of the built-in decoder, whether one from scratch would be of its size."""
    measures = {"parameters": float(sum(weight.numel() for weight in model.parameters()))}
    if not (isinstance(adapter, Llama) and isinstance(model, Decoder)):
        return measures
    adopted = model.config
    try:
        wanted = adapter.config
        usual = adopted == msgspec.structs.replace(wanted, vocabulary=adopted.vocabulary, positions=adopted.positions)
    except StageError:
        usual = False
    if not usual:
        logger.warning(
            "The adopted model has another size than the pipeline's preset: increments keep its size, a retraining "
            "from scratch makes one of the preset's.",
            extra={
                "preset": context.specification.plan.model.preset,
                "width": adopted.width,
                "layers": adopted.layers,
            },
        )
    return {**measures, "size_as_configured": float(usual)}


def _artefact(context: Context, name: str) -> Artefact:
    path = context.folder / name / MANIFEST
    return Artefact(name=name, path=context.state_path(path), sha256=digest(path), bytes=path.stat().st_size)
