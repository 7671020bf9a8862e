"""One writer per journal: a lock that the kernel frees when its holder dies."""

import fcntl
import os
import socket
from pathlib import Path

import msgspec

from daemon.core.errors import JournalBusy, JournalError


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes the journal; start time (clock ticks since boot) and boot id tell a reused pid apart."""

    host: str
    pid: int
    start_time: int | None = None
    boot_id: str | None = None


def lock_path(journal: Path) -> Path:
    """Return the lock file of a journal; it stays when the lock is free."""
    return journal.with_name(f"{journal.name}.lock")


def take(journal: Path) -> int:
    """Lock the journal for this process and return the descriptor that holds the lock.

    Raises JournalBusy naming the holder. The lock holds among the processes of one machine: the journal
    must lie on a local file system.
    """
    path = lock_path(journal)
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"The lock file {path} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise JournalBusy(_refusal(journal, holder(journal))) from error
            raise JournalError(f"The lock file {path} cannot be locked: {error.strerror}.") from error
        if _still_there(path, descriptor):
            break
        os.close(descriptor)  # the file was removed meanwhile: a lock on it keeps nobody out
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(_myself()) + b"\n", 0)
    except OSError as error:  # no room for a few bytes: the lock holds without them
        if os.fstat(descriptor).st_size:
            os.close(descriptor)
            raise JournalError(f"The lock file {path} cannot be written: {error.strerror}.") from error
    return descriptor


def release(descriptor: int) -> None:
    """Free the lock."""
    os.close(descriptor)


def holder(journal: Path) -> Holder | None:
    """Return who took the lock last, None when the file does not say so; it may have died since."""
    try:
        return msgspec.json.decode(lock_path(journal).read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116 - both sides alike
    except FileNotFoundError:
        return False


def _myself() -> Holder:
    return Holder(host=socket.gethostname(), pid=os.getpid(), start_time=_start_time(), boot_id=_boot_id())


def _start_time() -> int | None:
    """Return field 22 of proc(5)'s stat; the name before it may contain blanks and parentheses."""
    try:
        return int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _refusal(journal: Path, who: Holder | None) -> str:
    name = "another process" if who is None else f"process {who.pid} on host {who.host}"
    return f"The journal {journal} is written by {name}. Stop that daemon first, or read without writing."
