"""From an event that is sent, over HTTP or Kafka, to the first line of stage code.

The producer's clock is read before it connects (for the spool: before the rename; for Kafka: before the client is
handed the record), the stage's as its first act. 300 events at one a second with a warm worker, each on a connection
of its own; a burst of 100 at once, for as many pipelines; 10 events whose stages are started as fresh processes; 60 at
one a second by the spool. By Kafka 300 events at two a second, and a burst of 100, from librdkafka's producer with
linger 0 and acks=all to one broker. EVENTS= makes it shorter; then nothing is kept.
"""

import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import Producer

from daemon.dispatch.fingerprint import read_card
from tests.bench import processes
from tests.bench.brokers import broker, need
from tests.bench.targets import ROOT, Figure, report
from tests.brokers.broker import Broker

STAGE = "daemon.testing:NoteStage"
STEADY, BURST, FRESH, SPOOLED = 300, 100, 10, 60
SLOTS = 64
INTERVAL = 1.0
KAFKA_INTERVAL = 0.5
PARTITIONS = 4
ACCEPTED = 202


class Place:
    """A daemon with as many pipelines as events come at once."""

    def __init__(self, folder: Path, *, warm: bool = True, broker: Broker | None = None) -> None:
        self._folder = folder
        self._broker = broker
        self._topic = ""
        sources: list[dict[str, object]] = [{"kind": "spool", "path": "spool"}]
        if broker is not None:
            sources.append(self._kafka(broker))
        self._state = folder / "state"
        self._sent: dict[int, int] = {}
        self._port = processes.free_port()
        for path in (self._state, folder / "spool", folder / "inbox"):
            path.mkdir(parents=True)
        (folder / "inbox" / "data.jsonl").write_text('{"text": "Some words."}\n', encoding="utf-8")
        policies = [{"kind": "rewarm_replay", "after_tokens": 1}, {"kind": "stage_recovery"}]
        content = {
            "journal": "sqlite:///journal.db",
            "mlflow": {"tracking_uri": None},
            "state": "state",
            "http": {"port": self._port},
            "roots": ["inbox"],
            "sources": sources,
            "executor": {"slots": SLOTS, "warm_workers": int(warm)},
            "pipelines": {f"p{n}": {"stages": [STAGE], "policies": policies} for n in range(BURST)},
        }
        file = folder / "rewarm.yaml"
        file.write_text(json.dumps(content), encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []
        if warm:
            self._start("worker.log", "-m", "daemon.testing", "full-worker", str(self._state))
            processes.wait(lambda: read_card(self._state), "the warm worker")
        self._start("daemon.log", "-m", "daemon", "--config", str(file), "serve")
        processes.wait(lambda: processes.status(self._port, "/readyz") == 200, "readiness")

    def _start(self, log: str, *arguments: str) -> None:
        with (self._folder / log).open("wb") as output:
            process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=output)
        self._processes.append(process)

    def _kafka(self, broker: Broker) -> dict[str, object]:
        """Make a topic, a producer that is connected, and the source that reads the topic."""
        self._topic = broker.topic(PARTITIONS, prefix="bench-latency")
        broker.create(f"{self._topic}.dlq")
        self._producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, "acks": "all"})
        self._producer.list_topics(self._topic, timeout=30)
        servers = broker.address.split(",")
        return {"kind": "kafka", "bootstrap_servers": servers, "topics": [self._topic], "group_id": self._topic}

    def produce(self, count: int = 1) -> None:
        """Produce so many events, each for the next pipeline in turn; wait until the broker has them."""
        numbers = range(len(self._sent), len(self._sent) + count)
        events = [_event(number) for number in numbers]
        for number, event in zip(numbers, events, strict=True):
            self._sent[number] = time.time_ns()
            self._producer.produce(self._topic, event, _pipeline(number))
        if self._producer.flush(30):
            raise RuntimeError("the broker does not take the events")

    def send(self, count: int = 1) -> None:
        """Send so many events at once over HTTP, each for the next pipeline in turn; wait for their answers."""
        numbers = range(len(self._sent), len(self._sent) + count)
        together = threading.Barrier(count)
        with ThreadPoolExecutor(count) as threads:
            for sent in threads.map(lambda number: self._post(number, together), numbers):
                self._sent.update(sent)

    def spool(self) -> None:
        """Rename one event into the spool, for the next pipeline in turn."""
        number = len(self._sent)
        hidden = self._folder / "spool" / f".{number:04d}.json"
        hidden.write_bytes(_event(number))
        self._sent[number] = time.time_ns()
        hidden.rename(hidden.with_name(hidden.name[1:]))

    def _post(self, number: int, together: threading.Barrier) -> dict[int, int]:
        content = _event(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        together.wait()
        began = time.time_ns()
        connection.request("POST", "/events", content, {"content-type": "application/cloudevents+json"})
        answer = connection.getresponse()
        if answer.status != ACCEPTED:
            raise RuntimeError(f"event {number} was answered {answer.status}: {answer.read().decode()}")
        answer.read()
        connection.close()
        return {number: began}

    def done(self) -> int:
        """Return how many stages have ended."""
        path = self._state / "effects"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def settle(self) -> None:
        """Wait until every event has had its stage."""
        processes.wait(lambda: self.done() == len(self._sent), "the stages")

    def milliseconds(self) -> list[float]:
        """Return how long each event took, in the order of sending: a pipeline's runs begin in that order."""
        begun: dict[str, list[int]] = {}
        for line in (self._state / "starts").read_text(encoding="utf-8").splitlines():
            _, attempt, instant = line.split()
            begun.setdefault(attempt.partition("/")[0].rpartition("-")[0], []).append(int(instant))
        return [(begun[_pipeline(number)].pop(0) - sent) / 1e6 for number, sent in self._sent.items()]

    def close(self) -> None:
        """End daemon and worker, and remove the topics."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if self._broker is not None:
            for topic in (self._topic, f"{self._topic}.dlq"):
                self._broker.delete(topic)


def _pipeline(number: int) -> str:
    return f"p{number % BURST}"


def _event(number: int) -> bytes:
    """Return the text of an arrival."""
    content = {
        "specversion": "1.0",
        "id": f"{number}",
        "source": "/bench",
        "type": "io.rewarm.data.arrived.v1",
        "subject": _pipeline(number),
        "data": {"uri": "data.jsonl", "domain": "words"},
    }
    return json.dumps(content).encode()


def steady(place: Place, send: Callable[[], None], events: int, interval: float = INTERVAL) -> list[float]:
    """Send one event after the other, once a first one has come through: a daemon that is ready may yet connect."""
    try:
        send()
        place.settle()
        for _ in range(events):
            send()
            time.sleep(interval)
        place.settle()
        return place.milliseconds()[1:]
    finally:
        place.close()


def burst(place: Place, send: Callable[[int], None]) -> list[float]:
    """Send one, then all at once."""
    try:
        send(1)
        place.settle()
        send(BURST)
        place.settle()
        return place.milliseconds()[1:]
    finally:
        place.close()


def fresh(folder: Path) -> list[float]:
    """Send one after the other, each stage in a process of its own from the interpreter's start on."""
    place = Place(folder, warm=False)
    try:
        for _ in range(FRESH):
            place.send()
            place.settle()
        return place.milliseconds()
    finally:
        place.close()


def main() -> int:
    """Measure all cases; the value is the median of the steady one over HTTP."""
    events = max(2, int(os.environ.get("EVENTS") or STEADY))
    spooled = max(2, SPOOLED * events // STEADY)
    need()
    parent = Path(os.environ.get("DATA") or ROOT / "var")
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-latency-", dir=parent))
    seconds = (events + spooled) * INTERVAL + events * KAFKA_INTERVAL
    print(f"This takes about {seconds + 80:.0f} s.", flush=True)
    try:
        place = Place(folder / "steady")
        measured = {"one a second": steady(place, place.send, events)}
        place = Place(folder / "burst")
        measured["burst"] = burst(place, place.send)
        measured["fresh process"] = fresh(folder / "fresh")
        place = Place(folder / "spooled")
        measured["one a second by the spool"] = steady(place, place.spool, spooled)
        with broker(folder / "broker") as cluster:
            place = Place(folder / "kafka", broker=cluster)
            measured["two a second by Kafka"] = steady(place, place.produce, events, KAFKA_INTERVAL)
            place = Place(folder / "kafka-burst", broker=cluster)
            measured["burst by Kafka"] = burst(place, place.produce)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows: list[dict[str, Figure]] = [
        {
            "case": name,
            "events": len(times),
            "p50_ms": round(statistics.median(times), 1),
            "p99_ms": round(statistics.quantiles(times, n=100, method="inclusive")[98], 1),
            "most_ms": round(max(times), 1),
        }
        for name, times in measured.items()
    ]
    one, many, slow, spool, kafka, kafka_burst = rows
    details = {
        "p99_ms": one["p99_ms"],
        "burst_p50": many["p50_ms"],
        "burst_p99": many["p99_ms"],
        "fresh_p50": slow["p50_ms"],
        "fresh_p99": slow["p99_ms"],
        "spool_p50": spool["p50_ms"],
        "spool_p99": spool["p99_ms"],
        "kafka_p50": kafka["p50_ms"],
        "kafka_p99": kafka["p99_ms"],
        "kafka_burst_p50": kafka_burst["p50_ms"],
        "kafka_burst_p99": kafka_burst["p99_ms"],
    }
    return 0 if report("latency", float(one["p50_ms"] or 0), details, rows, keep=events >= STEADY) else 1


if __name__ == "__main__":
    sys.exit(main())
