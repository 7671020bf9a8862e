"""How far the recorder has come: read without importing MLflow, so that `rewarm status` stays fast."""

import contextlib
import os
import sqlite3
from pathlib import Path

from ops.recording.targets import HOME

CURSOR = "rewarm.cursor"
JOURNAL = "rewarm.journal"
HINT = "mlflow.cursor"
_QUERY = """
SELECT tag.value FROM experiment_tags AS tag JOIN experiments AS e ON e.experiment_id = tag.experiment_id
WHERE e.name = ? AND tag.key = ?
"""


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file of an embedded store, None for any other."""
    scheme, found, rest = tracking_uri.partition(":///")
    if not found or scheme.partition("+")[0] != "sqlite":
        return None
    return Path(rest.partition("?")[0])


def read_cursor(tracking_uri: str, state: Path) -> int | None:
    """Return the recorder's position; None while there is no store.

    Other than embedded stores are not asked: for them the recorder leaves its position in the state folder.
    """
    file = sqlite_file(tracking_uri)
    if file is None:
        return _read_hint(state)
    if not file.is_file():
        return None
    address = f"{file.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0.5)) as connection:
            row = connection.execute(_QUERY, (HOME, CURSOR)).fetchone()
    except sqlite3.Error:
        return _read_hint(state)  # locked at this very moment, or its tables are just being made
    return int(row[0]) if row else 0


def write_hint(state: Path, position: int) -> None:
    """Leave the position in the state folder; a hint for people and `status`, never read by the recorder."""
    temporary = state / f".{HINT}.{os.getpid()}.tmp"
    temporary.write_text(f"{position}\n", encoding="ascii")
    temporary.replace(state / HINT)


def _read_hint(state: Path) -> int | None:
    try:
        return int((state / HINT).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
