"""A stage that leaves what training and promotion leave, in no time: a checkpoint, a trunk and a version."""

from daemon.core.events import CheckpointSaved, ModelPromoted
from daemon.core.plans import Checkpoint
from stages.base import Context, Result
from stages.training.files import MANIFEST, digest

PUBLISH = "tests.acceptance.publishing:PublishStage"


class PublishStage:
    """Publishes a model that is nothing but its manifest."""

    def run(self, context: Context) -> Result:
        """Write the files, tell of the checkpoint and of the model."""
        specification = context.specification
        saved = context.folder / "checkpoints" / "step-000000001"
        target = context.resolve(f"models/{specification.pipeline}/v{specification.model_version}")
        for folder in (saved, context.folder / "trunk", target, target / "trunk"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MANIFEST).write_text(f'{{"of": "{specification.run}"}}\n', encoding="utf-8")
        sha256 = digest(target / MANIFEST)
        checkpoint = Checkpoint(path=context.state_path(saved), sha256=sha256)
        context.emit(CheckpointSaved(**context.names, step=1, checkpoint=checkpoint))
        context.emit(
            ModelPromoted(
                **context.names,
                model_version=specification.model_version,
                path=context.state_path(target),
                sha256=sha256,
                trunk=Checkpoint(path=context.state_path(target / "trunk"), sha256=sha256),
                parent=specification.plan.parent,
                spans=specification.plan.spans,
                losses={},
            )
        )
        return Result()
