"""What several producers send to one topic: CloudEvents of about 300 bytes, every kind that comes from outside.

Mostly arrivals, each with a file of its own under the root; the rest is what monitors and hosts report. The busiest
of rewarm's made-up histories has 98 arrivals of 100 facts, and an arrival costs most of all kinds, so a mix with
more of the others would flatter us.
"""

import json
import os
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

PRODUCER = "https://data.example/crawler"
MONITOR = "https://monitor.example/live"
PIPELINES = ("docs-lm", "code-lm", "chat-lm", "news-lm")
DOMAINS = ("news", "manuals", "letters", "code")
MIX = {
    "data.arrived": 0.85,
    "evaluation.reported": 0.08,
    "label.arrived": 0.04,
    "drift.detected": 0.01,
    "failure.reported": 0.02,
}
FILES_A_FOLDER = 1000
BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def prepared(count: int, inbox: Path, *, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of so many events, and make the files that they name: the same ones for the same seed."""
    rng = random.Random(seed)
    kinds, shares = list(MIX), list(MIX.values())
    for number in range(count):
        pipeline = rng.choice(PIPELINES)
        (kind,) = rng.choices(kinds, shares)
        own = kind == "data.arrived"
        event = {
            "specversion": "1.0",
            "type": f"io.rewarm.{kind}.v1",
            "id": f"{pipeline}/{number:09d}" if own else str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "source": PRODUCER if own else MONITOR,
            "subject": pipeline,
            "time": (BEGIN + timedelta(milliseconds=137 * number)).isoformat(timespec="milliseconds"),
            "datacontenttype": "application/json",
            "data": _arrival(rng, number, pipeline, inbox) if own else _report(rng, kind),
        }
        yield pipeline.encode(), json.dumps(event, separators=(",", ":")).encode()


def _arrival(rng: random.Random, number: int, pipeline: str, inbox: Path) -> dict[str, object]:
    """Return an arrival, half of them with what only the producer knows; its file has a size and no blocks."""
    name = f"{pipeline}/{number // FILES_A_FOLDER:05d}/part-{number:09d}.jsonl"
    path = inbox / name
    if number % FILES_A_FOLDER == 0 or not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.ftruncate(descriptor, rng.randrange(1_000, 9_000))
    finally:
        os.close(descriptor)
    told: dict[str, object] = {"uri": name, "domain": rng.choice(DOMAINS), "format": "jsonl"}
    if rng.random() < 0.5:
        told |= {"documents": rng.randrange(1, 40), "tokens": rng.randrange(300, 3_000)}
    return told


def _report(rng: random.Random, kind: str) -> dict[str, object]:
    if kind == "failure.reported":
        host = f"node-{rng.randrange(9)}"
        return {"failure": "worker_lost", "host": host, "worker": f"{host}/3", "evidence": "no answer for 30 s"}
    metric = "psi" if kind == "drift.detected" else "accuracy"
    value = round(rng.uniform(0.2, 0.5) if kind == "drift.detected" else rng.gauss(0.9, 0.02), 4)
    return {"metric": metric, "value": value, "window": "15m", "model_version": 7}
