"""The folder of one attempt: `runs/<run>/<stage>/<attempt>/`, written by exactly one process ever.

Whoever gets the `flock` on `lock` and finds no terminal line in `outcome.jsonl` is the writer; losers write
nothing. Only lines that end with a newline count. No torch here: the daemon reads these folders too.
"""

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from daemon.core.encoding import encode
from daemon.core.events import EVENTS, TERMINAL, AnyEvent, Comparison, Loss
from daemon.core.plans import NO_REMEDY, Amount, Checkpoint, Plan, Remedy
from daemon.files import lock, write_atomically
from daemon.pids import boot_id, namespace, start_time
from stages.roots import Root

OUTCOME = "outcome.jsonl"
TERMINAL_KINDS = frozenset(cls.kind for cls in TERMINAL)


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A file of new data, as its journal record names it; `counted` is what the state counts it as by now."""

    position: int
    path: str
    format: str
    domain: str
    bytes: int
    tokens: int
    documents: int
    sha256: str | None = None
    counted: Amount | None = None


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """An ingested arrival: where its manifest lies."""

    position: int
    domain: str
    manifest: str


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The model to beat: its published files and the trunk behind it."""

    version: int
    model: Checkpoint
    trunk: Checkpoint


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """An increment that was evaluated: its plan, the champion's losses in its probe, and what became of them.

    `best` are the lowest losses per domain of all champions until then.
    """

    run: str
    plan: Plan
    old: dict[str, Loss]
    new: dict[str, Loss]
    evaluation: dict[str, Comparison]
    best: dict[str, float] = {}


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """All that an attempt needs: it asks nobody anything. Paths are absolute."""

    pipeline: str
    run: str
    stage: str
    attempt: int
    command: str
    implementation: str
    state: str
    roots: tuple[Root, ...]
    plan: Plan
    arrivals: tuple[Arrival, ...] = ()
    new: tuple[Shard, ...] = ()
    past: tuple[Shard, ...] = ()
    champion: Champion | None = None
    model_version: int = 1
    done: dict[str, str] = {}
    resume_from: tuple[str, ...] = ()
    history: tuple[PastRun, ...] = ()
    remedy: Remedy = NO_REMEDY
    threads: int = 0

    @property
    def folders(self) -> tuple[str, ...]:
        """The roots that are folders of this machine."""
        return tuple(root for root in self.roots if isinstance(root, str))


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock: enough to be sure that a pid still is that process."""

    pid: int
    start_time: int
    boot_id: str
    namespace: str = ""


def place_specification(folder: Path, specification: Specification) -> None:
    """Write spec.json unless it is there: the first one written is the one that counts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spec.json"
    if not path.exists():
        write_atomically(path, msgspec.json.encode(specification))


def read_specification(folder: Path) -> Specification:
    """Return the specification of an attempt."""
    return msgspec.json.decode((folder / "spec.json").read_bytes(), type=Specification)


@contextlib.contextmanager
def hold(folder: Path, *, patience: float = 0.0) -> Iterator[bool]:
    """Hold the attempt's lock for the block; yields False when another process has it.

    `patience` seconds of trying keep a start safe from somebody who merely looks whether the lock is free.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield lock(descriptor, patience=patience)
    finally:
        os.close(descriptor)


def sign(folder: Path) -> None:
    """Write into the held lock file who holds it."""
    (folder / "lock").write_bytes(msgspec.json.encode(myself()))


def myself() -> Holder:
    """Return this process as others can recognise it."""
    pid = os.getpid()
    return Holder(pid=pid, start_time=start_time(pid), boot_id=boot_id(), namespace=namespace())


def holder(folder: Path) -> Holder | None:
    """Return who signed the lock file last, if it is readable."""
    try:
        return msgspec.json.decode((folder / "lock").read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def held(folder: Path) -> bool:
    """Return whether a living process holds the attempt's lock."""
    if not (folder / "lock").exists():
        return False
    with hold(folder) as free:
        return not free


def lines(folder: Path) -> list[bytes]:
    """Return the complete lines of the outcome file.

    The dispatcher asks many times a second: a file that has not changed is read once.
    """
    path = folder / OUTCOME
    try:
        stat = path.stat()
        return list(_complete_lines(path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except FileNotFoundError:
        return []


@functools.lru_cache(maxsize=8)
def _complete_lines(path: Path, inode: int, size: int, changed: int) -> tuple[bytes, ...]:  # noqa: ARG001 - the key
    return tuple(path.read_bytes().split(b"\n")[:-1])


def is_terminal(line: bytes) -> bool:
    """Return whether an outcome line ends its attempt."""
    try:
        return json.loads(line).get("kind") in TERMINAL_KINDS
    except (ValueError, AttributeError):
        return False


def finished(folder: Path) -> bool:
    """Return whether the attempt has a terminal line."""
    found = lines(folder)
    return bool(found) and is_terminal(found[-1])


class Outcome:
    """The writer of an attempt's outcome file; only the holder of the lock may make one.

    A torn last line, left by a writer that was killed, is cut off first.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._descriptor = os.open(folder / OUTCOME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = sum(len(line) + 1 for line in lines(folder))
        os.ftruncate(self._descriptor, self._size)

    def write(self, event: AnyEvent, *, durable: bool = True) -> None:
        """Append one event as one line; on failure (a full disk) nothing of it stays."""
        line = b'{"kind":"%s","version":%d,"time":"%s","data":%s}\n' % (
            event.kind.encode(),
            event.version,
            self._now().isoformat().encode(),
            encode(event),
        )
        try:
            written = os.pwrite(self._descriptor, line, self._size)
            if written != len(line):
                written += os.pwrite(self._descriptor, line[written:], self._size + written)
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def kill_session(leader: Holder) -> None:
    """Kill every process of the session that `leader` began, if that still is the same process family.

    The leader itself may be gone; its children keep the session id. A recycled pid is told by its start time.
    """
    if leader.boot_id != boot_id() or leader.namespace != namespace() or leader.pid == os.getpid():
        return
    began = start_time(leader.pid)
    if began not in (0, leader.start_time):
        return
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader.pid and int(fields[19]) >= leader.start_time:
                os.kill(int(entry.parent.name), signal.SIGKILL)


def known_kind(kind: str) -> bool:
    """Return whether a line's kind is one that a stage may write."""
    return kind in EVENTS and EVENTS[kind].origin == "stage"
