"""Keep what the present release writes: `python tests/golden/release.py`; once for each release, never again.

A daemon of this release trains a tiny model and an increment of it, meets bad input and an operator, is started
twice, and stops; its journal (with a snapshot) and its configuration become `releases/VERSION/`. The weights stay
behind: a later release has to read what was recorded, not what was trained.
"""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from daemon.journal.sqlite import open_reader
from daemon.restore import restore

ROOT = Path(__file__).parents[2]
RELEASES = Path(__file__).with_name("releases")
PATIENCE = 180.0
CONFIGURATION = """\
journal: sqlite:///journal.db
mlflow: {tracking_uri: null}
state: state
http: {enabled: false}
roots: [inbox]
sources: [{kind: spool, path: spool}]
executor: {slots: 1, warm_workers: 0, threads: 1}
pipelines:
  docs-lm:
    policies:
      - kind: rewarm_replay
        after_tokens: 2000
        max_age: PT1H
        training: {batch: 2, context: 32, max_tokens: 2000}
      - {kind: periodic_retraining, after_increments: 8, every: P30D}
      - {kind: stage_recovery}
      - {kind: promotion, max_forgetting: 10, min_gain: -10}
"""


class Folder:
    """A daemon's folder while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configuration = path / "rewarm.yaml"
        self.configuration.write_text(CONFIGURATION, encoding="utf-8")
        for name in ("inbox", "spool", "state"):
            (path / name).mkdir()
        self._sent = 0

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """Let a daemon run."""
        command = [sys.executable, "-m", "daemon", "--config", str(self.configuration), "serve"]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)

    def send(self, text: str) -> None:
        """Put a file into the spool."""
        self._sent += 1
        hidden = self.path / "spool" / f".{self._sent}.json"
        hidden.write_text(text, encoding="utf-8")
        hidden.rename(self.path / "spool" / f"{self._sent}.json")

    def event(self, kind: str, **data: object) -> None:
        """Send an event."""
        head = {"specversion": "1.0", "source": "/release", "type": f"io.rewarm.{kind}.v1", "subject": "docs-lm"}
        self.send(json.dumps({**head, "id": str(self._sent), "data": data}))

    def arrive(self, domain: str) -> None:
        """Let data arrive."""
        name = f"{domain}.jsonl"
        lines = [
            json.dumps({"text": f"{domain} number {n}: some words that are worth to be learnt."}) for n in range(60)
        ]
        (self.path / "inbox" / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
        self.event("data.arrived", uri=name, domain=domain)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it is so."""
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"waited in vain for {what}")
            time.sleep(0.2)

    def recorded(self, kind: str, count: int = 1) -> Callable[[], bool]:
        """Return whether so many events of a kind are recorded."""

        def there() -> bool:
            if not (self.path / "journal.db").exists():
                return False
            with open_reader(self.path / "journal.db") as reader:
                return len(reader.records(0, 1000, kinds=[kind])) >= count

        return there


def main() -> int:
    """Write the folder of the installed version; returns 1 where there is one already."""
    target = RELEASES / version("rewarm")
    if target.exists():
        sys.stderr.write(f"{target} is there already: a release is kept as it was.\n")
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        with folder.daemon():
            folder.arrive("prose")
            folder.wait(folder.recorded("run.succeeded"), "the first model")
            folder.send("this is no JSON")
            folder.event("drift.detected", metric="psi", value=0.2)
            folder.event("data.arrived", uri="nowhere.jsonl", domain="prose")
            folder.wait(folder.recorded("input.rejected", 2), "two dead letters")
            folder.event("operator.requested", verb="pause", reason="to show it")
            folder.wait(folder.recorded("operator.requested"), "a request")
        with folder.daemon():
            folder.arrive("manuals")
            folder.event("operator.requested", verb="resume")
            folder.wait(folder.recorded("run.succeeded", 2), "an increment")
            folder.event("operator.requested", verb="rollback", reason="to show it")
            folder.wait(folder.recorded("model.rolled_back"), "the rollback")
        target.mkdir(parents=True)
        with open_reader(folder.path / "journal.db") as reader:
            state = restore(reader).state
        with contextlib.closing(sqlite3.connect(folder.path / "journal.db")) as connection:
            connection.execute("VACUUM INTO ?", [str(target / "journal.db")])
        shutil.copy(folder.configuration, target / "rewarm.yaml")
    sys.stdout.write(f"{target.relative_to(ROOT)}: {state.position} records\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
