"""What an idle daemon costs: memory and processor time over a minute, after a minute without input.

The daemon runs with the example's configuration: MLflow recorder and warm worker are there, and reported beside it.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from daemon.dispatch.fingerprint import read_card
from tests.bench import processes
from tests.bench.targets import ROOT, report

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
    """Measure a daemon in a folder of its own."""
    port = processes.free_port()
    text = (ROOT / "rewarm.yaml").read_text(encoding="utf-8")
    configuration = folder / "rewarm.yaml"
    configuration.write_text(text.replace("port: 8420", f"port: {port}"), encoding="utf-8")
    command = [sys.executable, "-m", "daemon", "--config", str(configuration), "serve"]
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, cwd=ROOT, stderr=log)
    try:
        processes.wait(lambda: processes.status(port, "/readyz") == 200, "readiness")
        processes.wait(lambda: read_card(folder / "var") is not None, "the warm worker")
        processes.wait(lambda: recorder_of(daemon.pid), "the recorder")
        print(f"The daemon is ready; numbers in {SETTLE + WATCH:.0f} s.", flush=True)
        time.sleep(SETTLE)
        card = read_card(folder / "var")
        recorder = recorder_of(daemon.pid)
        assert card is not None
        assert recorder is not None
        pids = {"daemon": daemon.pid, "recorder": recorder, "worker": card.holder.pid}
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
        heavy = processes.mapped(daemon.pid, HEAVY)
    finally:
        daemon.terminate()
        daemon.wait()
    rows.append({"process": "sum", **{key: total(rows, key) for key in ("resident_mb", "share_mb", "cpu_percent")}})
    by_name = {str(row["process"]): row for row in rows}
    details = {f"{name}_{key}": by_name[name][key] for name in ("recorder", "worker", "sum") for key in KEYS}
    held = report(
        "idle",
        float(by_name["daemon"]["resident_mb"] or 0),
        {"cpu_percent": by_name["daemon"]["cpu_percent"], "mapped": ", ".join(heavy) or None, **details},
        rows,
    )
    return 0 if held and not heavy else 1


KEYS = ("resident_mb", "cpu_percent")


def recorder_of(pid: int) -> int | None:
    """Return the pid of a daemon's recorder."""
    return next((child for child, line in processes.children(pid).items() if "mlflow_recorder" in line), None)


def total(rows: list[dict[str, str | int | float | bool | None]], key: str) -> float:
    """Return the sum of a column."""
    return round(sum(float(row[key] or 0) for row in rows), 2)


if __name__ == "__main__":
    sys.exit(main())
