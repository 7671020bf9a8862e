"""A daemon's folder on the disk: a journal, and the models, shards and run folders that it tells of."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.backup.files import Manifest
from daemon.backup.take import take
from daemon.core.state import dump, fingerprint
from daemon.dispatch.outcomes import cursor_of
from daemon.dispatch.specification import attempt_folder
from daemon.journal.base import Cursor
from daemon.journal.sqlite import SqliteJournal, open_journal
from tests.golden.scenarios import GROW, HEAL, JUDGE, one
from tests.golden.tape import Tape

NOW = datetime(2026, 3, 2, tzinfo=UTC)


class Disk(Tape):
    """A tape whose stages leave files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.state_folder = folder / "state"
        self._stored = 0
        self._cursors: dict[str, int] = {}
        super().__init__(one(GROW, HEAL, JUDGE))

    def written(self, path: str) -> str:
        """Write a folder whose manifest names its one file; return the manifest's hash."""
        target = self.state_folder / path
        target.mkdir(parents=True, exist_ok=True)
        data = f"weights of {path}".encode()
        (target / "model.safetensors").write_bytes(data)
        files = {"model.safetensors": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
        manifest = json.dumps({"format": 1, "files": files}).encode()
        (target / "manifest.json").write_bytes(manifest)
        return hashlib.sha256(manifest).hexdigest()

    def attempt(self, lines: int, *, read: int) -> Path:
        """Leave the folder of the ordered attempt with so many outcome lines, of which the journal has read some."""
        order = self.order()
        folder = attempt_folder(self.state_folder, order.run, order.stage, order.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "outcome.jsonl").write_text("".join(f'{{"line": {n}}}\n' for n in range(lines)), encoding="utf-8")
        (folder / "spec.json").write_text("{}", encoding="utf-8")
        (folder / "exit.json").write_text("{}", encoding="utf-8")
        (folder / ".spec.json.1.tmp").write_text("{", encoding="utf-8")
        for step in (100, 200):
            self.written(str((folder / "checkpoints" / f"step-{step:09d}").relative_to(self.state_folder)))
        self._cursors[cursor_of(order)] = read
        return folder

    def store(self) -> SqliteJournal:
        """Return the journal with everything that was told, open for writing."""
        journal = open_journal(self.journal)
        with journal.transaction() as transaction:
            transaction.append(self.records[self._stored :])
            for name, read in self._cursors.items():
                transaction.move(Cursor(name=name, expected=None, next=read))
        self._stored = len(self.records)
        self._cursors = {}
        return journal

    @property
    def hash(self) -> str:
        """The state's hash."""
        return fingerprint(dump(self.state))


Take = Callable[..., Manifest]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: on a disk these tests would mostly wait for its flushes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A folder with two promoted models, and a third training going on whose journal is closed."""
    made = Disk(tmp_path / "home")
    for _ in range(2):
        made.arrive(120)
        made.finish()
    made.arrive(120)
    made.until("train")
    made.attempt(5, read=2)
    made.store().close()
    return made


@pytest.fixture
def take_backup(disk: Disk) -> Take:
    """Take a backup of the folder."""

    def run(target: Path, boundary: Callable[[str], None] = lambda _name: None) -> Manifest:
        return take(disk.journal, disk.state_folder, target, release="0", now=lambda: NOW, boundary=boundary)

    return run


Die = Callable[..., int]


@pytest.fixture(scope="module")
def die() -> Iterator[Die]:
    """Let a process take or put a backup, and be killed at a boundary; returns its wait status (9: killed)."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.daemon.backup.dying"]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(do: str, *paths: Path, at: str, after: int = 0) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            told = {"do": do, "paths": [str(path) for path in paths], "at": at, "after": after}
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
