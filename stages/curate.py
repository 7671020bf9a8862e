"""Curate: which of its documents a run trains on, a band of them by their loss under the champion.

After BFS-Prover-V2 (arXiv 2509.06493): what the champion finds trivial teaches nothing, what it finds hardest is noise.
Which cut that is, short trainings find out.
"""

import logging

from daemon.core.errors import StageError
from daemon.core.events import DataCurated
from stages.base import Context, Result
from stages.training.curating.kept import keep, kept_shard
from stages.training.curating.round import Round
from stages.training.data.shards import Part

logger = logging.getLogger("rewarm.stage")


class Curate:
    """Scores, cuts, tries, and writes what is kept as shards that `train` reads as any other."""

    def run(self, context: Context) -> Result:
        """Keep a band and tell `data.curated`; without a champion nothing can be scored, and everything is kept.

        Raises StageError: user_error for a curation that leaves less than a batch, or nothing to develop on, and for a
        callable that fails; bad_checkpoint, bad_sample, not_finite and out_of_memory as probe and train do.
        """
        specification = context.specification
        curation = specification.plan.curation
        if curation is None:
            message = "The plan has no curation: take `curate` out of the pipeline's `stages`, a policy asks for it."
            raise StageError("user_error", message)
        if specification.champion is None:
            return keep_everything(context)
        return Round(context, curation).run()


def keep_everything(context: Context) -> Result:
    """Keep all that the run could train on, and say so."""
    specification = context.specification
    logger.warning("There is no champion to score by: everything is kept.", extra=dict(context.names))
    shards = (*specification.past, *specification.new)
    artefact = keep(context, [kept_shard(context, shard, context.resolve(shard.manifest)) for shard in shards])
    parts = [Part(context.resolve(shard.manifest), "train") for shard in shards]
    documents, tokens = sum(map(len, parts)), sum(part.manifest.train_tokens for part in parts)
    context.emit(
        DataCurated(
            **context.names,
            documents=documents,
            tokens=tokens,
            kept=documents,
            kept_tokens=tokens,
            manifest=artefact.path,
            sha256=artefact.sha256,
        )
    )
    return Result(artefacts=(artefact,))
