"""What tells a process from a later one that was given the same pid: its start time, the boot, and the namespace."""

import contextlib
from pathlib import Path


def start_time(pid: int) -> int:
    """Return a process's start time in clock ticks since boot, 0 where it is gone or unknown."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        # Field 22 of proc(5)'s stat; the name before it may contain blanks and parentheses.
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return 0


def boot_id() -> str:
    """Return the identity of this boot of the machine ("" where the system has none)."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def namespace() -> str:
    """Return in which pid namespace this process lives: pids of another one mean nothing here ("": not known)."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
