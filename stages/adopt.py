"""Adopt: a model that was trained elsewhere, copied and looked at from end to end, in the place of a trained one.

Leaves `candidate/` and `trunk/` as train does: the folder's own files, and those of its `trunk/` where it has one.
"""

import logging
import os
from pathlib import Path

from daemon.core.errors import StageError
from daemon.core.events import Artefact
from stages.base import Context, Result
from stages.training.checkpoint import OPTIMISER, Saved
from stages.training.files import MANIFEST, MODEL, digest
from stages.training.foreign import Foreign, read_config
from stages.training.models.decoder import ModelConfig, preset

TRUNK = "trunk"
logger = logging.getLogger("rewarm.stage")


class Adopt:
    """Takes files of rewarm's own layout, never a pickle; done again it leaves the same bytes."""

    def run(self, context: Context) -> Result:
        """Copy the model and the trunk behind it.

        Raises StageError (user_error) when the folder is not a model that the pipeline can go on from, and OSError
        when the disk is full.
        """
        folder = context.specification.plan.start.folder
        if folder is None:
            raise StageError("user_error", "The plan names no folder to adopt a model from.")
        source = Foreign(Path(folder), context.specification.roots, context.beat)
        behind = Foreign(Path(folder) / TRUNK, source.roots, context.beat)
        if not os.path.lexists(behind.folder):
            behind = source
        candidate = source.take(context.folder / "candidate", moments=False)
        trunk = behind.take(context.folder / TRUNK, moments=True)
        config = read_config(context.folder / "candidate")
        _check_pair(context, candidate, trunk, same=behind is source)
        usual = _as_configured(context, config)
        sizes = {"width": config.width, "layers": config.layers, "heads": config.heads}
        return Result(
            metrics={
                **{name: float(value) for name, value in sizes.items()},
                "bytes": float(candidate.files[MODEL].bytes),
                "optimiser_kept": float(OPTIMISER in trunk.files),
                "size_as_configured": float(usual),
            },
            artefacts=tuple(_artefact(context, name) for name in ("candidate", TRUNK)),
        )


def _check_pair(context: Context, candidate: Saved, trunk: Saved, *, same: bool) -> None:
    folder = context.specification.plan.start.folder
    if same and candidate.files[MODEL] != trunk.files[MODEL]:
        raise StageError("user_error", f"{folder} changed while it was copied: adopt it when it is whole.")
    if read_config(context.folder / "candidate") != read_config(context.folder / TRUNK):
        message = (
            f"The model in {folder} and the one in its {TRUNK}/ have different sizes: they do not belong together."
        )
        raise StageError("user_error", message)


def _as_configured(context: Context, config: ModelConfig) -> bool:
    """Return whether the pipeline would make a model of this size from scratch."""
    wanted = context.specification.plan.model
    try:
        usual = config == preset(wanted.kind, wanted.preset)
    except StageError:
        usual = False
    if not usual:
        logger.warning(
            "The adopted model has another size than the pipeline's preset: increments keep its size, a retraining "
            "from scratch makes one of the preset's.",
            extra={"preset": wanted.preset, "width": config.width, "layers": config.layers},
        )
    return usual


def _artefact(context: Context, name: str) -> Artefact:
    path = context.folder / name / MANIFEST
    return Artefact(name=name, path=context.state_path(path), sha256=digest(path), bytes=path.stat().st_size)
