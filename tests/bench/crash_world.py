"""A small world to kill daemons in: a producer with a ledger, three pipelines of stages that take no time.

Facts come by files in a spool, or as another feed brings them.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.core.errors import JournalBusy
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.dispatch.fingerprint import read_card
from daemon.journal.base import Reader, scan
from daemon.journal.lock import holder, release, take
from daemon.journal.sqlite import open_reader
from daemon.restore import restore
from daemon.testing import BOUNDARIES, FATAL, Life
from tests.bench.crash_counter import Count, count
from tests.bench.crash_daemons import Daemon, DaemonEndedError, Nursery
from tests.bench.crash_feeds import Feed, SpoolFeed
from tests.bench.targets import ROOT

SNAPSHOT_RECORDS = 40
LOOK = 0.005
WARM_SECONDS = 60.0
CONFIGURATION = """
journal: sqlite:///journal.db
mlflow: {tracking_uri: null}     # the bench runs one recorder over all lives of the daemon
state: state
http: {enabled: false}
roots: [inbox]
executor: {kind: local, slots: 2, warm_workers: 1}
pipelines:
  one: &pipeline
    stages: ["daemon.testing:NoteStage", "daemon.testing:SecondNoteStage"]
    policies:
      - {kind: rewarm_replay, after_tokens: 1}
      - &recovery {kind: stage_recovery, retries: 100000, ceiling: 100000, backoff: PT0.05S, max_backoff: PT0.2S}
  two: *pipeline
  three:
    stages: ["daemon.testing:NoteStage", "daemon.testing:SecondNoteStage"]
    policies:
      - {kind: rewarm_replay, after_tokens: 1000000000, max_age: PT0.3S}
      - *recovery
"""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """How one life of a daemon is to end."""

    boundary: str | None = None
    count: int = 1
    delay: float = 0.0
    early: bool = False
    patience: float = 20.0
    exec: bool = False
    loose: bool = False


@dataclass(frozen=True, kw_only=True)
class Killed:
    """How it ended: `reached` tells whether a named boundary did it."""

    boundary: str | None
    reached: bool
    seconds: float


class World:
    """A folder with everything in it; opened again, it goes on where it was left."""

    def __init__(self, folder: Path, feed: Feed | None = None, *, more: str = "") -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.state = folder / "state"
        self.ledger = folder / "ledger"
        self.log = folder / "daemon.log"
        for path in (folder, folder / "inbox", self.state):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "inbox" / "data.jsonl").write_text('{"text": "Some words."}\n', encoding="utf-8")
        self._worker: subprocess.Popen[bytes] | None = None
        end_leftover(self.journal)
        self.feed = feed or SpoolFeed(folder)
        text = f"{CONFIGURATION}sources: {self.feed.sources}\n{more}"
        (folder / "rewarm.yaml").write_text(text, encoding="utf-8")

    def deliver(self, rng: random.Random) -> None:
        """Let the producer send something."""
        self.feed.deliver(rng)

    def life(self, *, kill: Kill | None = None) -> Life:
        """Return how the next daemon is to live."""
        kill = kill or Kill()
        return Life(
            config=str(self.folder / "rewarm.yaml"),
            log=str(self.log),
            boundary=kill.boundary,
            count=kill.count,
            loose=kill.loose,
            snapshot_records=SNAPSHOT_RECORDS,
        )

    def kill(self, nursery: Nursery, kill: Kill, rng: random.Random) -> Killed:
        """Let a daemon live and die once, with facts coming all the time."""
        began = time.monotonic()
        self.log.write_bytes(b"")
        for _ in range(rng.randint(0, 2)):
            self.deliver(rng)
        if (kill.boundary or "").endswith("_bury") or rng.random() < 0.03:
            self._condemn(rng)
        reached = self.end(Daemon(nursery, self.life(kill=kill), exec_=kill.exec), kill, rng)
        return Killed(boundary=kill.boundary, reached=reached, seconds=time.monotonic() - began)

    def end(self, daemon: Daemon, kill: Kill, rng: random.Random) -> bool:
        """Let a daemon that was born live on, and die as is said; return whether a named boundary did it."""
        try:
            self._wait_for_end(daemon, kill, rng)
        finally:
            daemon.kill()
        status = daemon.wait()
        if status != -signal.SIGKILL:
            message = f"exit status {status}: {self.log.read_text(encoding='utf-8')[-3000:]}"
            raise DaemonEndedError(message)
        return not daemon.by_us

    def _wait_for_end(self, daemon: Daemon, kill: Kill, rng: random.Random) -> None:
        until = time.monotonic() + (kill.patience if kill.boundary else kill.delay)
        next_file = time.monotonic() + 0.1
        ready = kill.early or kill.boundary is not None
        while daemon.alive():
            now = time.monotonic()
            if not ready and self._ready():
                ready, until = True, now + kill.delay
            if ready and now >= until:
                return
            if now >= next_file:
                self.deliver(rng)
                next_file = now + rng.uniform(0.05, 0.3)
                if (kill.boundary or "").endswith("_bury"):
                    self._condemn(rng)
            time.sleep(LOOK)

    def _ready(self) -> bool:
        return b"The daemon is ready" in self.log.read_bytes()

    def _condemn(self, rng: random.Random) -> None:
        """Let the next stage process end by SIGKILL, before or after its effect."""
        (self.state / FATAL).write_text(rng.choice(["before", "after"]), encoding="utf-8")

    def warm_up(self) -> None:
        """Start a worker that is warm at once; without it the first daemon starts one that imports torch."""
        with (self.state / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "daemon.testing", "worker", str(self.state)]
            self._worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: read_card(self.state) is not None, WARM_SECONDS)

    def kill_worker(self) -> None:
        """Kill the warm worker, if there is one."""
        card = read_card(self.state)
        if card is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(card.holder.pid, signal.SIGKILL)

    def drain(self, nursery: Nursery, *, patience: float = 120.0, loose: bool = False) -> bool:
        """Let a daemon live until nothing is left to do; returns whether that came to pass."""
        (self.state / FATAL).unlink(missing_ok=True)
        self.log.write_bytes(b"")
        daemon = Daemon(nursery, self.life(kill=Kill(loose=loose)))
        try:
            done = wait_for(lambda: self._ready() and self._idle(), patience)
            daemon.stop()
            if daemon.wait() != 0:
                raise DaemonEndedError(self.log.read_text(encoding="utf-8")[-3000:])
        finally:
            daemon.kill()
        return done

    def _idle(self) -> bool:
        if not self.journal.exists() or not self.feed.delivered(self.journal, self.state):
            return False
        with open_reader(self.journal) as reader:
            state = restore(reader).state
        return all(
            pipeline.active is None and not pipeline.wishes and not pipeline.timers and not pipeline.pending
            for pipeline in state.pipelines.values()
        )

    def count(self) -> Count:
        """Count what was lost and repeated so far; after a drain that is all there is."""
        return count(self.journal, self.state, self.feed.sent())

    def retire(self) -> None:
        """End the worker."""
        self.kill_worker()
        if self._worker is not None:
            self._worker.wait()
            self._worker = None


def end_leftover(journal: Path) -> None:
    """Kill a daemon that outlived a bench which was killed itself."""

    def free() -> bool:
        try:
            release(take(journal))
        except JournalBusy:
            return False
        return True

    who = holder(journal)
    if who is not None and not free():
        os.kill(who.pid, signal.SIGKILL)
        wait_for(free, WARM_SECONDS)


@contextlib.contextmanager
def recorder(world: World) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one MLflow recorder over all lives of the daemon."""
    command = [sys.executable, "-m", "ops.mlflow_recorder", "--journal", str(world.journal)]
    command += ["--tracking-uri", tracking_uri(world), "--state", str(world.state)]
    command += ["--with-parent", str(os.getpid())]
    with (world.folder / "recorder.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def tracking_uri(world: World) -> str:
    """Return where the recorder writes."""
    return f"sqlite:///{world.folder.absolute() / 'mlflow.db'}"


def choose(rng: random.Random, number: int) -> Kill:
    """Return the `number`-th kill: every named boundary in turn, and a random instant between each two."""
    if number % 2:
        return Kill(early=rng.random() < 0.15, delay=rng.uniform(0.0, 0.5), exec=number % 50 == 1)
    boundary = BOUNDARIES[number // 2 % len(BOUNDARIES)]
    most = {"journal": 8, "snapshot": 1}.get(boundary.partition(".")[0], 2)
    return Kill(boundary=boundary, count=rng.randint(1, most), exec=number % 50 == 0)


def same_hashes(journal: Path) -> list[str]:
    """Return which snapshots are not what folding the journal from its start gives."""
    with open_reader(journal) as reader:
        expected = {snapshot.position: snapshot.hash for snapshot in reader.snapshots(REDUCER_VERSION)}
        return [
            f"the snapshot at {position} has {expected[position][:8]}, the fold {got[:8]}"
            for position, got in _fold(reader, set(expected))
            if got != expected[position]
        ]


def _fold(reader: Reader, positions: set[int]) -> Iterator[tuple[int, str]]:
    state = State()
    for record in scan(reader, upto=max(positions, default=0)):
        state = evolve(state, record)
        if record.position in positions:
            yield record.position, fingerprint(dump(state))


def wait_for(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until a condition holds; returns whether it did in time."""
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
