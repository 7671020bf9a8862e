"""What a warm worker has loaded: when it changes, the worker is replaced."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from stages.run_folder import Holder

PACKAGES = ("daemon", "stages", "kernels", "policies")
VARIABLES = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TRITON_INTERPRET")
PREFIXES = ("CUDA_", "OMP_", "GOMP_", "MKL_", "TORCH", "NCCL_", "PYTORCH_", "REWARM_")
BESIDE = "REWARM_HTTP__"
"""Says nothing to a stage, and differs between a leader and a standby with an address of its own."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself in worker.json."""

    holder: Holder
    fingerprint: str


def fingerprint(environment: Mapping[str, str] = os.environ) -> str:
    """Return a hash of the code that a stage runs, of the interpreter, and of what changes its behaviour."""
    root = Path(__file__).resolve().parents[2]
    seen = hashlib.sha256(f"{sys.executable} {sys.version}".encode())
    for package in PACKAGES:
        seen.update("".join(sorted(_sources(root / package))).encode())
    for installed in sorted(Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        seen.update(f"{installed}:{installed.stat().st_mtime_ns};".encode() if installed.exists() else b"")
    for name in sorted(environment):
        if name in VARIABLES or (name.startswith(PREFIXES) and not name.startswith(BESIDE)):
            seen.update(f"{name}={environment[name]};".encode())
    return seen.hexdigest()


def _sources(folder: str | Path) -> Iterator[str]:
    """Yield each module below a folder with its time and size; a stage waits for it, so pathlib is too slow."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sources(entry.path)
            elif entry.name.endswith(".py"):
                stat = entry.stat()
                yield f"{entry.path}:{stat.st_mtime_ns}:{stat.st_size};"


def read_card(state: Path) -> Card | None:
    """Return the card of the worker of this state folder, whether it still lives or not."""
    try:
        return msgspec.json.decode((state / "worker.json").read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError):
        return None
