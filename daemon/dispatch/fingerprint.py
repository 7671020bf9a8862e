"""What a warm worker has loaded: when it changes, the worker is replaced."""

import hashlib
import os
import sys
from collections.abc import Mapping
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
        for path in sorted((root / package).rglob("*.py")):
            stat = path.stat()
            seen.update(f"{path}:{stat.st_mtime_ns}:{stat.st_size};".encode())
    for installed in sorted(Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        seen.update(f"{installed}:{installed.stat().st_mtime_ns};".encode() if installed.exists() else b"")
    for name in sorted(environment):
        if name in VARIABLES or (name.startswith(PREFIXES) and not name.startswith(BESIDE)):
            seen.update(f"{name}={environment[name]};".encode())
    return seen.hexdigest()


def read_card(state: Path) -> Card | None:
    """Return the card of the worker of this state folder, whether it still lives or not."""
    try:
        return msgspec.json.decode((state / "worker.json").read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError):
        return None
