"""How many events a second come through Kafka into the journal, beside a bare kafka-python loop on the same topic.

200,000 events of about 300 bytes lie on one partition of a real broker: mostly arrivals, each with a file under the
root, and what monitors report. Ours is the whole daemon, `rewarm serve` in a process of its own: poll, validation,
journal with fsync, fold, and the example's four policies on each of four pipelines, one of which has a run going on.
The bare loop polls and calls json.loads, nothing else, with the same client, fetch settings and isolation, in a
process of its own; the two take turns. Both are measured from before they begin to read until they begin with the
last batch, which does not count. EVENTS= and ROUNDS= make it shorter (then nothing is kept), DATA= names the folder
to work in, REWARM_TEST_KAFKA= a broker that is there.
"""

import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from confluent_kafka import Producer

from tests.bench import processes
from tests.bench.brokers import broker, need
from tests.bench.targets import ROOT, Figure, report
from tests.bench.traffic import MIX, PIPELINES, prepared
from tests.brokers.broker import Broker

EVENTS, ROUNDS = 200_000, 5
ENOUGH = 10_000
SHARE = 0.6
LOOK = 0.1
PATIENCE = 300.0
STAGE = "daemon.testing:SlowStage"
BARE = "bare"
CLOUDEVENT = b"application/cloudevents+json; charset=utf-8"
FIRST = "SELECT recorded_at, 0 FROM record WHERE kind = 'position.set'"
BATCHES = "SELECT recorded_at, count(*) FROM record WHERE text IS NOT NULL GROUP BY recorded_at ORDER BY recorded_at"
READ = "SELECT total(next) FROM cursor WHERE name LIKE 'kafka:%'"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading the topic once came to; processor time is that of one event."""

    per_second: float
    batches: int
    cpu_microseconds: float
    resident_mb: float
    records: int


def bare(address: str, topic: str, count: int) -> Reading:
    """Poll and parse so many records; return how many a second, and what it cost."""
    from kafka import KafkaConsumer, TopicPartition

    from daemon.sources.kafka import consumer
    from daemon.sources.queue import BATCH

    polled = KafkaConsumer(
        bootstrap_servers=address.split(","),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_bytes=consumer.FETCH_BYTES,
        max_partition_fetch_bytes=consumer.PARTITION_BYTES,
        fetch_max_wait_ms=consumer.FETCH_WAIT_MS,
        max_poll_records=BATCH,
        metrics_enabled=False,
    )
    part = TopicPartition(topic, 0)
    polled.assign([part])
    polled.seek(part, 0)
    batches = [(time.perf_counter(), 0.0)]
    cpu, left = time.process_time(), count
    while left > 0:
        for records in polled.poll(timeout_ms=1000).values():
            batches.append((time.perf_counter(), len(records)))
            for record in records:
                json.loads(record.value)
            left -= len(records)
    cpu = time.process_time() - cpu
    polled.close()
    return Reading(
        per_second=rate(batches),
        batches=len(batches) - 1,
        cpu_microseconds=1e6 * cpu / count,
        resident_mb=processes.resident_mb(os.getpid()),
        records=count,
    )


def run_bare(address: str, topic: str, count: int) -> Reading:
    """Let the bare loop read the topic in a process of its own."""
    command = [sys.executable, __file__, BARE, address, topic, str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return Reading(**json.loads(done.stdout))


class Ours:
    """A daemon with a journal of its own, and a stage that goes on until it is let go."""

    def __init__(self, folder: Path, inbox: Path, address: str, topic: str) -> None:
        self._state = folder / "state"
        self._journal = folder / "journal.db"
        self._port = processes.free_port()
        example = yaml.safe_load((ROOT / "rewarm.yaml").read_text(encoding="utf-8"))
        policies = example["pipelines"]["docs-lm"]["policies"]
        kafka = {"kind": "kafka", "bootstrap_servers": address.split(","), "topics": [topic], "group_id": topic}
        content = {
            "journal": "sqlite:///journal.db",
            "mlflow": {"tracking_uri": None},
            "state": "state",
            "http": {"port": self._port},
            "roots": [str(inbox)],
            "sources": [kafka],
            "executor": {"warm_workers": 0},
            "pipelines": {name: {"stages": [STAGE], "policies": policies} for name in PIPELINES},
        }
        self._state.mkdir(parents=True)
        file = folder / "rewarm.yaml"
        file.write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, "-m", "daemon", "--config", str(file), "serve"]
        self._log = folder / "daemon.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def read(self, count: int) -> Reading:
        """Wait until so many events are read; return how many a second, and what it cost."""
        pid = self._process.pid
        processes.wait(self._done(lambda: processes.status(self._port, "/readyz") == 200), "readiness")
        started = processes.cpu_seconds(pid)
        processes.wait(
            self._done(lambda: self._ask(READ)[0][0] >= count), "the last event", patience=PATIENCE, look=LOOK
        )
        cpu, resident = processes.cpu_seconds(pid) - started, processes.resident_mb(pid)
        (events, letters) = self._ask("SELECT total(text IS NOT NULL), total(kind = 'input.rejected') FROM record")[0]
        if (events, letters) != (count, 0):
            raise RuntimeError(f"of {count:,} events {events:,.0f} are in the journal, and {letters:,.0f} dead letters")
        batches = [(instant / 1e6, number) for query in (FIRST, BATCHES) for instant, number in self._ask(query)]
        return Reading(
            per_second=rate(batches),
            batches=len(batches) - 1,
            cpu_microseconds=1e6 * cpu / count,
            resident_mb=resident,
            records=int(self._ask("SELECT count(*) FROM record")[0][0]),
        )

    def _done(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """Return the condition, which raises RuntimeError where the daemon has ended."""

        def holds() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"the daemon has ended: {self._log.read_text(encoding='utf-8')[-3000:]}")
            return condition()

        return holds

    def _ask(self, query: str) -> list[tuple[float, ...]]:
        with closing(sqlite3.connect(f"{self._journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        """Let the stage end, then the daemon."""
        (self._state / "release").touch()
        processes.wait((self._state / "effects").exists, "the stage")
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def kill(self) -> None:
        """End the daemon at once, if it has not ended; its stage ends by itself."""
        (self._state / "release").touch()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def run_ours(folder: Path, inbox: Path, address: str, topic: str, count: int) -> Reading:
    """Let a fresh daemon read the topic."""
    ours = Ours(folder, inbox, address, topic)
    try:
        figures = ours.read(count)
        ours.close()
    finally:
        ours.kill()
    shutil.rmtree(folder, ignore_errors=True)
    return figures


def rate(batches: Sequence[tuple[float, float]]) -> float:
    """Return how many events a second were worked off between the first instant and the last.

    Each instant is that at which work on a batch began, so the last batch does not count.
    """
    (first, _), (last, rest) = batches[0], batches[-1]
    return (sum(number for _, number in batches) - rest) / (last - first)


def fill(broker: Broker, inbox: Path, count: int) -> str:
    """Prepare a topic of one partition; return its name."""
    topic = broker.topic(prefix="bench-kafka")
    broker.create(f"{topic}.dlq")
    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "linger.ms": 20})
    bytes_ = 0
    for key, value in prepared(count, inbox):
        bytes_ += len(value)
        while True:
            try:
                producer.produce(topic, value, key, headers=[("content-type", CLOUDEVENT)])
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    mix = ", ".join(f"{kind} {share:.0%}" for kind, share in MIX.items())
    print(f"{count:,} events of {bytes_ / count:.0f} bytes for {len(PIPELINES)} pipelines: {mix}.", flush=True)
    return topic


def main() -> int:
    """Let both take turns; the value is our median rate, as a share of what it has to reach."""
    count, rounds = int(os.environ.get("EVENTS") or EVENTS), int(os.environ.get("ROUNDS") or ROUNDS)
    need()
    parent = Path(os.environ.get("DATA") or ROOT / "var")
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-kafka-", dir=parent))
    ours: list[Reading] = []
    bares: list[Reading] = []
    try:
        with broker(folder / "broker") as cluster:
            topic = fill(cluster, folder / "inbox", count)
            run_bare(cluster.address, topic, count)  # so that the broker's pages are warm for both
            for number in range(rounds):
                bares.append(run_bare(cluster.address, topic, count))
                ours.append(run_ours(folder / f"round-{number}", folder / "inbox", cluster.address, topic, count))
                print(
                    f"round {number + 1} of {rounds}: {ours[-1].per_second:,.0f} events/s, "
                    f"bare loop {bares[-1].per_second:,.0f}",
                    flush=True,
                )
            for name in (topic, f"{topic}.dlq"):
                cluster.delete(name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [row("rewarm serve", ours), row("bare loop", bares)]
    per_second = statistics.median(each.per_second for each in ours)
    bare_per_second = statistics.median(each.per_second for each in bares)
    pairs = zip(ours, bares, strict=True)
    details: dict[str, Figure] = {
        "events_per_second": round(per_second),
        "bare_per_second": round(bare_per_second),
        "ratio": round(statistics.median(mine.per_second / other.per_second for mine, other in pairs), 3),
        "least": rows[0]["least"],
        "most": rows[0]["most"],
        "rounds": rounds,
        "events": count,
        "records": ours[-1].records,
    }
    value = round(per_second / min(ENOUGH, SHARE * bare_per_second), 3)
    return 0 if report("kafka", value, details, rows, seeds=[1], keep=count >= EVENTS and rounds >= ROUNDS) else 1


def row(who: str, readings: Sequence[Reading]) -> dict[str, Figure]:
    """Return the distribution of one of the two."""
    rates = [each.per_second for each in readings]
    return {
        "who": who,
        "per_second": round(statistics.median(rates)),
        "least": round(min(rates)),
        "most": round(max(rates)),
        "cpu_microseconds": round(statistics.median(each.cpu_microseconds for each in readings), 1),
        "batches": round(statistics.median(each.batches for each in readings)),
        "resident_mb": round(max(each.resident_mb for each in readings), 1),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == [BARE]:
        print(json.dumps(asdict(bare(sys.argv[2], sys.argv[3], int(sys.argv[4])))))
        sys.exit(0)
    sys.exit(main())
