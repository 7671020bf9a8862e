"""From the start of the process to `readyz`, with a million records in the journal: from a snapshot, and without.

The journal is made once, by the real core (`history.py`), and kept in var/ under the version of what makes it.
The snapshot lies 10,000 records before the end: as far back as the daemon ever leaves it. RECORDS= makes a
smaller one for a trial.
"""

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from daemon.config import Configuration, load
from daemon.core.events import EVENTS
from daemon.core.state import dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.journal.base import Snapshot
from daemon.journal.sqlite import open_journal, open_reader
from daemon.loop import SNAPSHOT_RECORDS
from tests.bench import processes
from tests.bench.history import CONFIGURATION, VERSION, History
from tests.bench.targets import ROOT, report

BATCH = 2000
SEED = 1
FROM_SNAPSHOT, WITHOUT = 5, 3


def main() -> None:
    """Make the journal, start daemons on it, report."""
    wanted = int(os.environ.get("RECORDS") or 1_000_000)
    folder = Path(os.environ.get("DATA") or ROOT / "var") / f"bench-startup-{wanted}-v{VERSION}.{REDUCER_VERSION}"
    configuration, port = configure(folder)
    if not (folder / "complete").exists():
        made = time.perf_counter()
        make(configuration, wanted)
        (folder / "complete").touch()
        print(f"The journal was made in {time.perf_counter() - made:.0f} s.", flush=True)
    with open_reader(configuration.journal) as reader:
        (snapshot, *_) = reader.snapshots(REDUCER_VERSION)
        missing = set(EVENTS) - {name for name in EVENTS if reader.records(0, 1, kinds=[name])}
        head = reader.head()
    start(configuration, port, snapshot)  # fills the file cache
    from_snapshot = [start(configuration, port, snapshot) for _ in range(FROM_SNAPSHOT)]
    without = [start(configuration, port, None) for _ in range(WITHOUT)]
    restore_snapshot(configuration, snapshot)
    rows: list[dict[str, str | int | float | bool | None]] = [
        {"start": name, "median": round(statistics.median(times), 3), "least": min(times), "most": max(times)}
        for name, times in (("from a snapshot", from_snapshot), ("without", without))
    ]
    report(
        "startup",
        round(statistics.median(from_snapshot), 3),
        {
            "seconds_without_snapshot": round(statistics.median(without), 2),
            "records": head,
            "records_after_snapshot": head - snapshot.position,
            "kinds_missing": ", ".join(sorted(missing)) or None,
            "megabytes": round(configuration.journal.stat().st_size / 1e6),
        },
        rows,
        seeds=[SEED],
        keep=wanted >= 1_000_000,
    )


def configure(folder: Path) -> tuple[Configuration, int]:
    """Write the configuration with a free port; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    port = processes.free_port()
    file = folder / "rewarm.yaml"
    file.write_text(CONFIGURATION.replace("PORT", str(port)), encoding="utf-8")
    return load(file), port


def make(configuration: Configuration, wanted: int) -> None:
    """Write the journal and its one snapshot."""
    for path in configuration.journal.parent.glob(f"{configuration.journal.name}*"):
        path.unlink()
    policies = {name: pipeline.policies for name, pipeline in configuration.settings.pipelines.items()}
    history = History(policies, configuration.changed(), SEED)
    kept = None
    with closing(open_journal(configuration.journal)) as journal:
        waiting = []
        for records in history.records(wanted):
            waiting += records
            if len(waiting) >= BATCH:
                with journal.transaction() as transaction:
                    transaction.append(waiting)
                waiting = []
                if kept is None and journal.head() >= wanted - SNAPSHOT_RECORDS:
                    kept = (journal.head(), dump(history.state))
        with journal.transaction() as transaction:
            transaction.append(waiting)
        position, state = kept or (history.state.position, dump(history.state))
        journal.save_snapshot(position=position, reducer=REDUCER_VERSION, hash=fingerprint(state), state=state)


def restore_snapshot(configuration: Configuration, snapshot: Snapshot | None) -> None:
    """Leave the journal with this snapshot alone, or with none."""
    with closing(sqlite3.connect(configuration.journal, isolation_level=None)) as connection:
        connection.execute("DELETE FROM snapshot")
        if snapshot is not None:
            connection.execute(
                "INSERT INTO snapshot (position, reducer, hash, state) VALUES (?, ?, ?, ?)",
                (snapshot.position, snapshot.reducer, snapshot.hash, snapshot.state),
            )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def start(configuration: Configuration, port: int, snapshot: Snapshot | None) -> float:
    """Return the seconds from the start of the process to readiness."""
    restore_snapshot(configuration, snapshot)
    command = [sys.executable, "-m", "daemon", "--config", str(configuration.file), "serve"]
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        try:
            processes.wait(lambda: processes.status(port, "/readyz") == 200, "readiness", look=0.005)
            return round(time.perf_counter() - began, 3)
        finally:
            process.send_signal(signal.SIGKILL)  # a drain would leave a snapshot
            process.wait()


if __name__ == "__main__":
    main()
