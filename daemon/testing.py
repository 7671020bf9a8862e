"""For tests and benches only: daemons that die where they are told to, stages that leave notes, a bad journal.

`python -m daemon.testing LIFE` serves like `rewarm serve`; LIFE is JSON (see `Life`). `python -m daemon.testing`
alone is a nursery: it has everything imported, and forks a daemon for each LIFE that it reads on its input, so
that a thousand daemons can be started and killed without a thousand imports. `python -m daemon.testing worker
STATE` is a warm worker that knows the stages of this module alone, so that it is warm at once; `full-worker
STATE` knows them beside the others.
"""

import contextlib
import hashlib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from sqlite3 import Connection

import msgspec

from daemon.core.errors import RewarmError
from daemon.core.events import CheckpointSaved
from daemon.core.plans import Checkpoint
from daemon.files import write_atomically
from daemon.journal.base import Cursor
from daemon.journal.lock import take
from daemon.journal.sqlite import SqliteJournal, SqliteReader, SqliteTransaction, nothing, open_journal
from daemon.journal.sqlite_file import connect_reader, connect_writer
from stages import STAGES
from stages.base import Context, Result

BOUNDARIES = (
    "journal.before_commit",
    "journal.after_commit",
    "snapshot.before",
    "snapshot.after",
    "spool.before_move",
    "spool.after_move",
    "dispatch.before_place",
    "dispatch.before_send",
    "dispatch.after_send",
    "outcome.after_read",
    "dispatch.before_bury",
    "dispatch.after_bury",
)
FATAL = "fatal"
LOOSE = "cursors.loose"
PAGES = "pages"
RELEASE = "release"
STEP = "step"
LAST_STEP = 3
LOOK_SECONDS = 0.02


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How a daemon lives: it kills itself by SIGKILL at the `count`-th passing of `boundary`.

    `loose` takes the journal whose cursors stand outside the transaction, `snapshot_records` makes snapshots
    more frequent, `log` is where its standard error goes.
    """

    config: str
    log: str | None = None
    boundary: str | None = None
    count: int = 1
    loose: bool = False
    snapshot_records: int = 10_000


def killer(boundary: str, count: int) -> Callable[[str], None]:
    """Return a boundary function that kills this process at the `count`-th passing of `boundary`."""
    left = {boundary: count}

    def pass_by(name: str) -> None:
        if name in left:
            left[name] -= 1
            if left[name] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return pass_by


class NoteStage:
    """Notes its start and its end in `<state>/starts` and `<state>/effects`, one line with its command's id each.

    A file `<state>/fatal` ends one process by SIGKILL: before its effect, or right after it.
    """

    def run(self, context: Context) -> Result:
        """Append the notes; nothing else."""
        now = time.time_ns()
        specification = context.specification
        state = Path(specification.state)
        attempt = f"{specification.run}/{specification.stage}/{specification.attempt}"
        line = f"{specification.command} {attempt} {now}\n"
        append(state / "starts", line)
        self.work(context)
        when = claim(state / FATAL)
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        append(state / "effects", line)
        if when is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Result()

    def work(self, context: Context) -> None:
        """Show a sign of life, once."""
        context.beat(1, 1)


class SecondNoteStage(NoteStage):
    """The same as a second stage of a pipeline."""


class SlowStage(NoteStage):
    """Its first attempt lasts until there is a file `<state>/release`; later ones take no time.

    It shows signs of life meanwhile, unless its first arrival's file begins with the word `silent`.
    """

    def work(self, context: Context) -> None:
        """Wait, the first time."""
        if context.specification.attempt == 1:
            self.wait(context)

    def wait(self, context: Context) -> None:
        """Wait until it is released."""
        specification = context.specification
        silent = Path(specification.arrivals[0].path).read_bytes().startswith(b"silent")
        release = Path(specification.state) / RELEASE
        while not release.exists():
            if not silent:
                context.beat(1, 1)
            time.sleep(LOOK_SECONDS)


class StepStage(SlowStage):
    """Goes step by step up to `LAST_STEP`, with a checkpoint of each, and waits there like a slow one, every time.

    A later attempt goes on from the newest checkpoint; which step it began at stands in `<state>/steps`.
    """

    def work(self, context: Context) -> None:
        """Take the steps that are left, and wait."""
        specification = context.specification
        saved = [Path(folder) / STEP for folder in specification.resume_from]
        step = max((int(path.read_text(encoding="ascii")) for path in saved if path.exists()), default=0)
        append(Path(specification.state) / "steps", f"{specification.attempt} {step}\n")
        while step < LAST_STEP:
            step += 1
            path = context.folder / STEP
            write_atomically(path, f"{step}".encode())
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            checkpoint = Checkpoint(path=context.state_path(path), sha256=sha256)
            context.emit(CheckpointSaved(**context.names, step=step, checkpoint=checkpoint))
        self.wait(context)


def append(path: Path, line: str) -> None:
    """Append one line in one write, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim(path: Path) -> str | None:
    """Return what stands in a file and take the file away: of many, one gets it."""
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(mine)
    except OSError:
        return None
    text = mine.read_text(encoding="utf-8").strip()
    mine.unlink()
    return text


class LooseReader(SqliteReader):
    """A reader whose input cursors come from a file beside the journal."""

    def cursor(self, name: str) -> int | None:
        """Return what the file says of an input cursor."""
        return loose_cursors(self._path).get(name)


class LooseTransaction(SqliteTransaction):
    """A transaction that moves input cursors at once, in a file of their own: what a journal must not do."""

    def __init__(self, path: Path, journal: SqliteJournal, connection: Connection) -> None:
        super().__init__(journal, connection)
        self._cursors = path

    def move(self, cursor: Cursor) -> None:
        """Move a cursor before its records are committed."""
        append(self._cursors.with_name(LOOSE), f"{cursor.next} {cursor.name}\n")

    def cursor(self, name: str) -> int | None:
        """Return what the file says of an input cursor."""
        return loose_cursors(self._cursors).get(name)


class LooseJournal(SqliteJournal):
    """The negative control of the crash bench: its input cursors are kept outside of the transaction."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        """Commit records as always; cursors are moved in their own file before."""
        with super().transaction():
            yield LooseTransaction(self._path, self, self._connection)


def loose_cursors(journal: Path) -> dict[str, int]:
    """Return the input cursors that stand in the file beside a journal."""
    try:
        text = journal.with_name(LOOSE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    pairs = [line.partition(" ") for line in text.splitlines()]
    return {name: int(number) for number, _, name in pairs}


def open_loose(path: Path, *, boundary: Callable[[str], None] = nothing, lease: float | None = None) -> SqliteJournal:
    """Open a journal whose cursors are loose."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = take(path, lease=lease)
    return LooseJournal(path, connect_writer(path), lock, boundary)


def open_loose_reader(path: Path) -> SqliteReader:
    """Open a reader whose cursors are loose."""
    return LooseReader(path, connect_reader(path))


def open_limited(path: Path, *, boundary: Callable[[str], None] = nothing, lease: float | None = None) -> SqliteJournal:
    """Open a journal that may have as many pages as the file `pages` beside it says, also while it is open."""
    journal = open_journal(path, boundary=boundary, lease=lease)

    def follow() -> None:
        known = ""
        while True:
            text = path.with_name(PAGES).read_text(encoding="utf-8").strip()
            if text and text != known:
                journal.limit_pages(int(text))
                known = text
            time.sleep(LOOK_SECONDS)

    threading.Thread(target=follow, name="pages", daemon=True).start()
    return journal


def serve(life: Life) -> int:
    """Serve, and die where asked; returns the exit status. The process has no other use afterwards."""
    from daemon import app, loop  # a stage process that finds its class in this module needs none of it
    from daemon.config import load
    from daemon.service import edges

    boundary = killer(life.boundary, life.count) if life.boundary else nothing
    loop.SNAPSHOT_RECORDS = life.snapshot_records
    try:
        configuration = load(Path(life.config))
        if life.loose:
            vars(app).update(open_journal=open_loose, open_reader=open_loose_reader)
            vars(edges).update(open_reader=open_loose_reader)
        elif configuration.journal.with_name(PAGES).exists():
            vars(app).update(open_journal=open_limited)
        return app.serve(configuration, boundary=boundary)
    except RewarmError as error:
        sys.stderr.write(f"{error}\n")
        return 3


def nursery() -> int:
    """Fork a daemon for each line of standard input; tell its pid, and how it ended, on standard output."""
    for name in ("daemon.app", "daemon.broker.look", "ops.publishing.topic"):  # with kafka, which takes half a second
        importlib.import_module(name)
    for line in iter(sys.stdin.buffer.readline, b""):
        life = msgspec.json.decode(line, type=Life)
        child = os.fork()
        if child == 0:
            os._exit(_born(life))
        with contextlib.suppress(BrokenPipeError):  # whoever asked is gone: then there is no next line either
            _tell(child)
            _, status = os.waitpid(child, 0)
            _tell(os.waitstatus_to_exitcode(status))
    return 0


def _born(life: Life) -> int:
    """Live as a daemon of its own, apart from the nursery's session and files."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(life.log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        return serve(life)
    except BaseException:  # noqa: BLE001 - the traceback goes into the log
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def work(state: Path, others: Mapping[str, str]) -> int:
    """Serve a state folder's attempts; this module's stages are loaded beforehand, and those of `others`."""
    from daemon.dispatch import worker

    vars(worker).update(STAGES={**others, "note": "daemon.testing:NoteStage"})
    return worker.main(state)


def main(arguments: list[str]) -> int:
    """Work, serve the life that is given, or nurse."""
    match arguments:
        case ["worker", state]:
            return work(Path(state), {})
        case ["full-worker", state]:
            return work(Path(state), STAGES)
        case [life]:
            return serve(msgspec.json.decode(life, type=Life))
        case _:
            return nursery()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
