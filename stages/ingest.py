"""Ingest: validate new arrivals, count them exactly, drop duplicates, tokenise them once.

What cannot be used becomes `data.rejected` with its reason, and the run goes on without it.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from daemon.core.errors import StageError
from daemon.core.events import Artefact, DataIngested, DataRejected
from daemon.core.plans import Amount
from stages.base import Context, Result
from stages.run_folder import Arrival
from stages.training.data.manifests import Manifest, read_manifest
from stages.training.data.seen import Seen
from stages.training.data.tokenizers import tokenizer_of
from stages.training.data.writing import Making, Named, write_shard
from stages.training.files import MANIFEST, digest
from stages.training.reading import Unusable, documents, open_arrival

LEAST_TOKENS = 2
"""What one can be learned from: a token, and the next one."""
logger = logging.getLogger("rewarm.stage")


class Ingest:
    """Arrivals → shards below `<state>/shards`; the same file is tokenised once, whoever asks again."""

    def run(self, context: Context) -> Result:
        """Tell of every arrival what it holds or why it cannot be used.

        Raises StageError: bad_sample when none of them can be used, user_error when there is no tokenizer for them.
        """
        specification = context.specification
        arrivals = specification.arrivals
        making = Making(
            tokenizer=None if specification.plan.model.kind == "module" else tokenizer_of(context),
            data=specification.plan.data,
        )
        past = [context.resolve(shard.manifest) for shard in specification.past]
        seen = Seen(_shards(context), past, lambda: context.beat(0, len(arrivals)))
        ingested: list[DataIngested] = []
        for number, arrival in enumerate(arrivals):

            def beat(done: int = number) -> None:
                context.beat(done, len(arrivals))

            beat()
            try:
                event, manifest = _ingest(context, arrival, seen, making, beat)
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
            if manifest.near_leaks:
                extra = {"arrival": arrival.position, "documents": manifest.near_leaks}
                logger.warning("Held-out documents nearly are ones that are trained on.", extra=extra)
            seen.add(context.resolve(event.manifest))
            context.emit(event)
            ingested.append(event)
        if arrivals and not ingested:
            message = "No arrival of this run can be used; `rewarm dead-letters list` has the reasons."
            raise StageError("bad_sample", message)
        return Result(
            metrics={
                "arrivals": float(len(ingested)),
                "rejected": float(len(arrivals) - len(ingested)),
                "documents": float(sum(event.amount.documents for event in ingested)),
                "tokens": float(sum(event.amount.tokens for event in ingested)),
                "duplicates": float(sum(event.duplicates for event in ingested)),
                "near_duplicates": float(sum(event.near_duplicates for event in ingested)),
            },
            artefacts=tuple(_artefact(context, event) for event in ingested),
        )


def _shards(context: Context) -> Path:
    return Path(context.specification.state) / "shards"


def _ingest(
    context: Context, arrival: Arrival, seen: Seen, making: Making, beat: Callable[[], None]
) -> tuple[DataIngested, Manifest]:
    records = making.tokenizer is None
    with open_arrival(arrival, context.specification.roots, context.folder, beat) as source:
        folder = write_shard(
            _shards(context),
            Named(source_sha256=source.sha256, domain=arrival.domain, format=arrival.format),
            documents=lambda: documents(source, arrival.format, making.data, records=records),
            seen=seen,
            making=making,
            beat=beat,
        )
    if folder is None:
        raise Unusable("all_duplicates", f"All documents of {arrival.path} were seen before.")
    manifest = read_manifest(folder / MANIFEST)
    if not records:
        _check_size(arrival, manifest)
    event = DataIngested(
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
        near_duplicates=manifest.near_duplicates or 0,
        manifest=context.state_path(folder / MANIFEST),
        sha256=digest(folder / MANIFEST),
    )
    return event, manifest


def _check_size(arrival: Arrival, manifest: Manifest) -> None:
    """Raise Unusable for a text of which nothing can be learned."""
    ends = manifest.train_documents + manifest.held_out_documents
    tokens = manifest.train_tokens + manifest.held_out_tokens - ends
    if tokens < LEAST_TOKENS:
        raise Unusable("too_short", f"{arrival.path} holds {tokens} token: nothing follows it that could be learned.")


def _estimate(arrival: Arrival) -> Amount:
    return arrival.counted or Amount(
        arrivals=1, documents=arrival.documents, bytes=arrival.bytes, tokens=arrival.tokens
    )


def _artefact(context: Context, event: DataIngested) -> Artefact:
    size = context.resolve(event.manifest).stat().st_size
    return Artefact(name=f"shard-{event.arrival}", path=event.manifest, sha256=event.sha256, bytes=size)
