"""From an event that is sent, over HTTP, to the first line of stage code.

The producer's clock is read before it connects (for the spool: before the rename), the stage's as its first act.
300 events at one a second with a warm worker, each on a connection of its own; a burst of 100 at once, for as many
pipelines; 10 events whose stages are started as fresh processes; 60 at one a second by the spool. EVENTS= makes it
shorter; then nothing is kept.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemon.dispatch.fingerprint import read_card
from tests.bench import processes
from tests.bench.targets import ROOT, Figure, report

STAGE = "daemon.testing:NoteStage"
STEADY, BURST, FRESH, SPOOLED = 300, 100, 10, 60
SLOTS = 64
INTERVAL = 1.0
ACCEPTED = 202


class Place:
    """A daemon with as many pipelines as events come at once."""

    def __init__(self, folder: Path, *, warm: bool) -> None:
        self._folder = folder
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
            "sources": [{"kind": "spool", "path": "spool"}],
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
        """End daemon and worker."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


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


def steady(folder: Path, events: int, *, spooled: bool = False) -> list[float]:
    """Send one event a second."""
    place = Place(folder, warm=True)
    try:
        for _ in range(events):
            if spooled:
                place.spool()
            else:
                place.send()
            time.sleep(INTERVAL)
        place.settle()
        return place.milliseconds()
    finally:
        place.close()


def burst(folder: Path) -> list[float]:
    """Send all at once."""
    place = Place(folder, warm=True)
    try:
        place.send()
        place.settle()
        place.send(BURST)
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
    """Measure the four cases; the value is the median of the steady one."""
    events = max(2, int(os.environ.get("EVENTS") or STEADY))
    spooled = max(2, SPOOLED * events // STEADY)
    parent = Path(os.environ.get("DATA") or ROOT / "var")
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-latency-", dir=parent))
    print(f"This takes about {(events + spooled) * INTERVAL + 40:.0f} s.", flush=True)
    try:
        measured = {
            "one a second": steady(folder / "steady", events),
            "burst": burst(folder / "burst"),
            "fresh process": fresh(folder / "fresh"),
            "one a second by the spool": steady(folder / "spooled", spooled, spooled=True),
        }
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
    one, many, slow, spool = rows
    details = {
        "p99_ms": one["p99_ms"],
        "burst_p50": many["p50_ms"],
        "burst_p99": many["p99_ms"],
        "fresh_p50": slow["p50_ms"],
        "fresh_p99": slow["p99_ms"],
        "spool_p50": spool["p50_ms"],
        "spool_p99": spool["p99_ms"],
    }
    return 0 if report("latency", float(one["p50_ms"] or 0), details, rows, keep=events >= STEADY) else 1


if __name__ == "__main__":
    sys.exit(main())
