"""Promote: publish the candidate's files and the trunk behind it as a version of the pipeline's model."""

from pathlib import Path

import msgspec

from daemon.core.errors import StageError
from daemon.core.events import Artefact, ModelEvaluated, ModelPromoted
from daemon.core.plans import Checkpoint
from stages.base import Context, Result
from stages.evaluate import EVALUATION, find_candidate
from stages.training.engine.checkpoint import copy_checkpoint, verify
from stages.training.files import MANIFEST, digest, new_folder


class Promote:
    """Files appear below `<state>/models/<pipeline>/v<version>` by one rename; doing it again changes nothing."""

    def run(self, context: Context) -> Result:
        """Publish and tell `model.promoted`.

        Raises StageError (bad_checkpoint) when the candidate is damaged or not the one that was evaluated.
        """
        specification = context.specification
        recorded = find_candidate(context)
        candidate = context.resolve(recorded.path)
        trunk = candidate.with_name("trunk")
        verify(candidate, recorded.sha256)
        verify(trunk)
        losses = _evaluated_losses(context, recorded)
        name = f"v{specification.model_version}"
        target = Path(specification.state) / "models" / specification.pipeline / name
        context.beat(0, 1)
        if not _is_published(target, candidate, trunk):
            _refuse_to_replace_champion(context, target)
            # What else may lie there was left by a run that died between renaming and telling; nothing names it.
            with new_folder(target) as aside:
                (aside / "trunk").mkdir()
                copy_checkpoint(trunk, aside / "trunk")
                context.live()
                copy_checkpoint(candidate, aside)
                context.live()
        sha256 = digest(target / MANIFEST)
        context.emit(
            ModelPromoted(
                **context.names,
                model_version=specification.model_version,
                path=context.state_path(target),
                sha256=sha256,
                trunk=Checkpoint(path=context.state_path(target / "trunk"), sha256=digest(target / "trunk" / MANIFEST)),
                parent=specification.plan.parent,
                spans=specification.plan.spans,
                losses=losses,
                adopted_from=specification.plan.start.folder,
            )
        )
        size = (target / MANIFEST).stat().st_size
        artefact = Artefact(name="model", path=context.state_path(target / MANIFEST), sha256=sha256, bytes=size)
        return Result(artefacts=(artefact,))


def _evaluated_losses(context: Context, candidate: Checkpoint) -> dict[str, float]:
    attempt = context.specification.done.get("evaluate")
    if attempt is None:
        return {}  # a pipeline may promote what it does not evaluate
    path = context.resolve(attempt) / EVALUATION
    try:
        evaluated = msgspec.json.decode(path.read_bytes(), type=ModelEvaluated)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"The evaluation at {path} cannot be read ({error}): evaluate the candidate again."
        raise StageError("bad_checkpoint", message) from error
    if evaluated.candidate.sha256 != candidate.sha256:
        message = f"The candidate at {candidate.path} is not the one that was evaluated: evaluate it again."
        raise StageError("bad_checkpoint", message)
    return {domain: each.candidate.mean for domain, each in evaluated.domains.items()}


def _is_published(target: Path, candidate: Path, trunk: Path) -> bool:
    try:
        verify(target, digest(candidate / MANIFEST))
        verify(target / "trunk", digest(trunk / MANIFEST))
    except StageError:
        return False
    return True


def _refuse_to_replace_champion(context: Context, target: Path) -> None:
    champion = context.specification.champion
    if champion is not None and context.resolve(champion.model.path).resolve() == target.resolve():
        message = (
            f"Version {context.specification.model_version} at {target} is the champion: a new one needs a new number."
        )
        raise StageError("user_error", message)
