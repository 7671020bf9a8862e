"""Documents that stay out of every later training: what champions were trained without, for it spoiled a step."""

from collections.abc import Collection
from pathlib import Path

from daemon.core.commands import RunStage
from daemon.core.events import DataCurated, DataIngested, DecisionMade, RunSucceeded
from daemon.core.plans import Document
from daemon.journal.base import Reader, scan_where
from stages.run_folder import Shard


def quarantined(reader: Reader, pipeline: str, state: Path, shards: Collection[Shard]) -> tuple[Document, ...]:
    """Return the documents of these shards that runs which were promoted had left out in the end.

    A document is known by its number in a shard: in another shard of the same arrival, as another cut of it or what
    the stage `curate` keeps, the number is another document's.
    """
    here = {(shard.position, shard.manifest) for shard in shards}
    found: dict[Document, None] = {}
    for record in scan_where(reader, 0, pipeline=pipeline, kinds=("run.succeeded",)):
        event = record.event
        if isinstance(event, RunSucceeded) and event.outcome == "promoted":
            without, manifests = _left_out(reader, event.run)
            for each in without:
                if each.arrival in manifests and (each.arrival, str(state / manifests[each.arrival])) in here:
                    found[each] = None
    return tuple(found)


def _left_out(reader: Reader, run: str) -> tuple[tuple[Document, ...], dict[int, str]]:
    """Return what a run left out, and the manifests of its shards by arrival.

    What the training of a curated run left out is numbered in what `curate` kept, and is nothing of these shards.
    """
    without: dict[str, tuple[Document, ...]] = {}
    for record in scan_where(reader, 0, run=run, kinds=("decision.made",)):
        event = record.event
        for command in event.commands if isinstance(event, DecisionMade) and not event.shadow else ():
            if isinstance(command, RunStage) and command.remedy.without:
                without[command.stage] = command.remedy.without
    stage, manifests = "train", dict[int, str]()
    for record in scan_where(reader, 0, run=run, kinds=("data.ingested", "data.curated")) if without else ():
        if isinstance(record.event, DataCurated):
            stage = "curate"
        elif isinstance(record.event, DataIngested):
            manifests[record.event.arrival] = record.event.manifest
    return without.get(stage, ()), manifests
