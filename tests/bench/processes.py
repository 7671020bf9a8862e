"""Watching processes from outside, by /proc and HTTP."""

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, its ended children not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def private_mb(pid: int) -> float:
    """Return a process's proportional share of resident memory in megabytes: shared pages count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def mapped(pid: int, names: tuple[str, ...]) -> list[str]:
    """Return which of these packages a process has files of in its memory."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return [name for name in names if f"/site-packages/{name}/" in maps]


def children(pid: int) -> dict[int, str]:
    """Return a process's children with their command lines."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(child)] = line
    return found


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def status(port: int, path: str) -> int:
    """Return the status of a page on this machine, 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def wait(condition: Callable[[], object], what: str, *, patience: float = 120.0, look: float = 0.05) -> None:
    """Wait until a condition holds; raises TimeoutError saying what did not come."""
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            message = f"waited {patience:g} s in vain for {what}"
            raise TimeoutError(message)
        time.sleep(look)
