"""Attempts of stages as tests and benches use them: arrivals that they are given, and what they told."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from daemon.core.encoding import decode
from daemon.core.events import AnyEvent, DataIngested
from stages.run_folder import Arrival, Shard, lines


def told(folder: Path) -> list[AnyEvent]:
    """Return what an attempt has told."""
    found = [json.loads(line) for line in lines(folder)]
    return [decode(line["kind"], line["version"], json.dumps(line["data"])) for line in found]


def shards_of(events: Iterable[AnyEvent]) -> tuple[Shard, ...]:
    """Return the shards that an ingest attempt told of."""
    return tuple(
        Shard(position=event.arrival, domain=event.domain, manifest=event.manifest)
        for event in events
        if isinstance(event, DataIngested)
    )


def arrived(path: Path, domain: str, documents: int, position: int = 1) -> Arrival:
    """Return a file of JSON lines as an arrival."""
    size = path.stat().st_size
    return Arrival(
        position=position, path=str(path), format="jsonl", domain=domain, bytes=size, tokens=size, documents=documents
    )


def write_arrival(path: Path, texts: Sequence[str], domain: str, position: int = 1) -> Arrival:
    """Write texts as JSON lines and return them as an arrival."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return arrived(path, domain, len(texts), position)
