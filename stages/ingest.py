"""Ingest: validate new arrivals, count them exactly, drop duplicates, tokenise them once.

What cannot be used becomes `data.rejected` with its reason, and the run goes on without it.
"""

import logging
from pathlib import Path

from daemon.core.errors import StageError
from daemon.core.events import Artefact, DataIngested, DataRejected
from daemon.core.plans import Amount
from stages.base import Context, Result
from stages.run_folder import Arrival
from stages.training.documents import Unusable, read_arrival
from stages.training.files import MANIFEST, digest
from stages.training.shards import read_hashes, read_manifest, write_shard

logger = logging.getLogger("rewarm.stage")


class Ingest:
    """Arrivals → shards below `<state>/shards`; the same file is tokenised once, whoever asks again."""

    def run(self, context: Context) -> Result:
        """Tell of every arrival what it holds or why it cannot be used.

        Raises StageError (bad_sample) when none of them can be used.
        """
        specification = context.specification
        arrivals = specification.arrivals
        seen = read_hashes(context.resolve(shard.manifest) for shard in specification.past)
        ingested: list[DataIngested] = []
        for number, arrival in enumerate(arrivals):
            context.beat(number, len(arrivals))
            try:
                event = _ingest(context, arrival, seen)
            except Unusable as error:
                logger.warning("Arrival rejected.", extra={"arrival": arrival.position, "reason": error.reason})
                context.emit(
                    DataRejected(
                        **context.names,
                        arrival=arrival.position,
                        domain=arrival.domain,
                        estimate=_estimate(arrival),
                        reason=error.reason,
                        message=str(error)[:4000],
                    )
                )
                continue
            seen |= read_hashes([context.resolve(event.manifest)])
            context.emit(event)
            ingested.append(event)
        if arrivals and not ingested:
            message = f"None of the {len(arrivals)} arrivals can be used; the reasons are in data.rejected."
            raise StageError("bad_sample", message)
        return Result(
            metrics={
                "arrivals": float(len(ingested)),
                "rejected": float(len(arrivals) - len(ingested)),
                "documents": float(sum(event.amount.documents for event in ingested)),
                "tokens": float(sum(event.amount.tokens for event in ingested)),
                "duplicates": float(sum(event.duplicates for event in ingested)),
            },
            artefacts=tuple(_artefact(context, event) for event in ingested),
        )


def _ingest(context: Context, arrival: Arrival, seen: set[bytes]) -> DataIngested:
    source = read_arrival(arrival, context.specification.roots)
    folder = write_shard(
        Path(context.specification.state) / "shards",
        source_sha256=source.sha256,
        domain=arrival.domain,
        documents=source.documents,
        seen=seen,
    )
    if folder is None:
        message = f"All {len(source.documents)} documents of {arrival.path} were trained on before."
        raise Unusable("all_duplicates", message)
    manifest = read_manifest(folder / MANIFEST)
    return DataIngested(
        **context.names,
        arrival=arrival.position,
        domain=arrival.domain,
        estimate=_estimate(arrival),
        amount=Amount(
            arrivals=1,
            documents=manifest.train_documents + manifest.held_out_documents,
            bytes=manifest.text_bytes,
            tokens=manifest.train_tokens,
        ),
        duplicates=manifest.duplicates,
        manifest=context.state_path(folder / MANIFEST),
        sha256=digest(folder / MANIFEST),
    )


def _estimate(arrival: Arrival) -> Amount:
    return arrival.counted or Amount(
        arrivals=1, documents=arrival.documents, bytes=arrival.bytes, tokens=arrival.tokens
    )


def _artefact(context: Context, event: DataIngested) -> Artefact:
    size = context.resolve(event.manifest).stat().st_size
    return Artefact(name=f"shard-{event.arrival}", path=event.manifest, sha256=event.sha256, bytes=size)
