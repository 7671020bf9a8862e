"""What an idle daemon costs: memory and processor time over a minute, after a minute without input.

The daemon runs with the example's configuration: MLflow recorder and warm worker are there, and reported beside it.
So is a second daemon at the same time, whose source is a topic of Kafka on which nothing comes.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from daemon.dispatch.fingerprint import read_card
from tests.bench import processes
from tests.bench.brokers import broker
from tests.bench.targets import ROOT, report
from tests.brokers.broker import Broker
from tests.brokers.jars import NoBroker

SETTLE = 60.0
WATCH = 60.0
HEAVY = ("torch", "mlflow", "numpy")


def main() -> int:
    """Start the daemon, let it settle, watch it, report."""
    parent = ROOT / "var"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-idle-", dir=parent))
    try:
        return watch(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(folder: Path) -> int:
    """Measure the daemons in a folder of their own."""
    with ExitStack() as stack:
        try:
            other = start(stack, folder / "kafka", with_kafka(stack.enter_context(broker(folder / "broker"))))
        except NoBroker as error:
            other = None
            print(f"Without a daemon that reads from Kafka: {error}.", flush=True)
        daemon = start(stack, folder, example())
        processes.wait(lambda: read_card(folder / "var") is not None, "the warm worker")
        processes.wait(lambda: recorder_of(daemon), "the recorder")
        print(f"The daemons are ready; numbers in {SETTLE + WATCH:.0f} s.", flush=True)
        time.sleep(SETTLE)
        card = read_card(folder / "var")
        recorder = recorder_of(daemon)
        assert card is not None
        assert recorder is not None
        pids = {"daemon": daemon, "recorder": recorder, "worker": card.holder.pid}
        pids |= {"daemon with kafka": other} if other is not None else {}
        before = {name: processes.cpu_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        time.sleep(WATCH)
        seconds = time.monotonic() - began
        rows: list[dict[str, str | int | float | bool | None]] = [
            {
                "process": name,
                "resident_mb": round(processes.resident_mb(pid), 1),
                "share_mb": round(processes.private_mb(pid), 1),
                "cpu_percent": round(100 * (processes.cpu_seconds(pid) - before[name]) / seconds, 2),
            }
            for name, pid in pids.items()
        ]
        heavy = processes.mapped(daemon, HEAVY)
    sums = {key: total(rows[:3], key) for key in ("resident_mb", "share_mb", "cpu_percent")}
    rows.insert(3, {"process": "sum", **sums})
    by_name = {str(row["process"]).replace(" ", "_"): row for row in rows}
    details = {f"{name}_{key}": by_name[name][key] for name in BESIDE if name in by_name for key in KEYS}
    held = report(
        "idle",
        float(by_name["daemon"]["resident_mb"] or 0),
        {"cpu_percent": by_name["daemon"]["cpu_percent"], "mapped": ", ".join(heavy) or None, **details},
        rows,
    )
    return 0 if held and not heavy else 1


def example() -> tuple[str, int]:
    """Return the example's configuration, and the port at which its daemon answers."""
    port = processes.free_port()
    return (ROOT / "rewarm.yaml").read_text(encoding="utf-8").replace("port: 8420", f"port: {port}"), port


def with_kafka(cluster: Broker) -> tuple[str, int]:
    """Return a configuration without recorder and worker that reads a topic, and the port."""
    topic, port = cluster.topic(prefix="bench-idle"), processes.free_port()
    cluster.create(f"{topic}.dlq")
    servers = cluster.address.split(",")
    content = {
        "mlflow": {"tracking_uri": None},
        "http": {"port": port},
        "sources": [{"kind": "kafka", "bootstrap_servers": servers, "topics": [topic], "group_id": topic}],
        "executor": {"warm_workers": 0},
        "pipelines": {"docs-lm": {"policies": [{"kind": "rewarm_replay"}]}},
    }
    return json.dumps(content), port


def start(stack: ExitStack, folder: Path, given: tuple[str, int]) -> int:
    """Start a daemon that ends with the stack, wait until it is ready; return its pid."""
    text, port = given
    folder.mkdir(exist_ok=True)
    configuration = folder / "rewarm.yaml"
    configuration.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "daemon", "--config", str(configuration), "serve"]
    with (folder / "daemon.log").open("wb") as log:
        daemon = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stderr=log))
    stack.callback(daemon.terminate)
    processes.wait(lambda: processes.status(port, "/readyz") == 200, "readiness")
    return daemon.pid


KEYS = ("resident_mb", "cpu_percent")
BESIDE = ("recorder", "worker", "sum", "daemon_with_kafka")


def recorder_of(pid: int) -> int | None:
    """Return the pid of a daemon's recorder."""
    return next((child for child, line in processes.children(pid).items() if "mlflow_recorder" in line), None)


def total(rows: list[dict[str, str | int | float | bool | None]], key: str) -> float:
    """Return the sum of a column."""
    return round(sum(float(row[key] or 0) for row in rows), 2)


if __name__ == "__main__":
    sys.exit(main())
