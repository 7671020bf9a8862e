"""One writer per journal: a lock that the kernel frees when its holder dies, and a sign of life while it lives.

The lock's file names its holder; its time of change is the heartbeat. Only whether that time moves is looked at,
never by how much: no clock of one process is compared with that of another.
"""

import contextlib
import os
import socket
from pathlib import Path

import msgspec

from daemon import files, pids
from daemon.core.errors import JournalBusy, JournalError


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes the journal; start time (clock ticks since boot) and boot id tell a reused pid apart.

    `namespace` is the pid namespace in which the pid counts. `lease` is the seconds within which the holder shows
    a sign of life; None: it promises none.
    """

    host: str
    pid: int
    start_time: int | None = None
    boot_id: str | None = None
    namespace: str | None = None
    lease: float | None = None


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a lock's file shows; two equal signs mean that its holder has shown no life in between."""

    inode: int
    beat: int
    holder: Holder | None


def lock_path(journal: Path) -> Path:
    """Return the lock file of a journal; it stays when the lock is free."""
    return journal.with_name(f"{journal.name}.lock")


def standby_path(journal: Path) -> Path:
    """Return the file that the first standby of a journal locks, so that others see it."""
    return journal.with_name(f"{journal.name}.standby")


def take(journal: Path, *, lease: float | None = None) -> int:
    """Lock the journal for this process and return the descriptor that holds the lock.

    Raises JournalBusy naming the holder. The lock holds among the processes of one machine: the journal
    must lie on a local file system. Who promises a `lease` has to `beat`.
    """
    path = lock_path(journal)
    descriptor = _lock(path)
    if descriptor is None:
        raise JournalBusy(_refusal(journal, holder(journal)))
    try:
        _sign(descriptor, lease)
    except OSError as error:  # no room for a few bytes: the lock holds without them
        if os.fstat(descriptor).st_size:
            os.close(descriptor)
            raise JournalError(f"The lock file {path} cannot be written: {error.strerror}.") from error
    return descriptor


def enrol(journal: Path) -> int | None:
    """Return the descriptor that shows this process as the journal's standby, None when another one is shown.

    Nothing but what people see depends on it: what a full disk refuses is left out.
    """
    try:
        descriptor = _lock(standby_path(journal))
    except JournalError:
        return None
    if descriptor is not None:
        with contextlib.suppress(OSError):
            _sign(descriptor, None)
    return descriptor


def release(descriptor: int) -> None:
    """Free the lock."""
    os.close(descriptor)


def beat(descriptor: int) -> None:
    """Show a sign of life of the lock's holder; it needs no room on the disk."""
    with contextlib.suppress(OSError):
        os.utime(descriptor)


def look(journal: Path) -> Sign | None:
    """Return what the lock's file shows now, None when there is none."""
    try:
        with lock_path(journal).open("rb") as file:
            status, content = os.fstat(file.fileno()), file.read()
    except OSError:
        return None
    return Sign(inode=status.st_ino, beat=status.st_mtime_ns, holder=_read(content))


def holder(journal: Path) -> Holder | None:
    """Return who took the lock last, None when the file does not say so; it may have died since."""
    return _holder(lock_path(journal))


def locked_by(path: Path) -> Holder | None:
    """Return who holds a lock file now; without host and pid when the file does not say. None: nobody.

    Only the kernel's lock counts: a dead holder's file says nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        free = files.lock(descriptor, shared=True)
    except OSError:
        free = False
    finally:
        os.close(descriptor)
    return None if free else _holder(path) or Holder(host="", pid=0)


def myself(lease: float | None = None) -> Holder:
    """Return this process as others can recognise it."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        start_time=pids.start_time(os.getpid()) or None,
        boot_id=pids.boot_id() or None,
        namespace=pids.namespace() or None,
        lease=lease,
    )


def _lock(path: Path) -> int | None:
    """Return the descriptor of the file, locked; None when another process has it. Raises JournalError."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"The lock file {path} cannot be opened: {error.strerror}.") from error
        try:
            free = files.lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise JournalError(f"The lock file {path} cannot be locked: {error.strerror}.") from error
        if free and _still_there(path, descriptor):
            return descriptor
        os.close(descriptor)
        if not free:
            return None  # else the file was removed meanwhile: a lock on it keeps nobody out


def _sign(descriptor: int, lease: float | None) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, msgspec.json.encode(myself(lease)) + b"\n", 0)


def _holder(path: Path) -> Holder | None:
    try:
        return _read(path.read_bytes())
    except OSError:
        return None


def _read(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.MsgspecError:
        return None


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116 - both sides alike
    except FileNotFoundError:
        return False


def _refusal(journal: Path, who: Holder | None) -> str:
    name = "another process" if who is None else f"process {who.pid} on host {who.host}"
    return f"The journal {journal} is written by {name}. Stop that daemon first, or read without writing."
