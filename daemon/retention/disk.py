"""The state folder's files: found, measured, set aside by one rename, put back or removed. Nothing outside it.

A folder that goes is first renamed to `.NAME.PID.expired`, which may be undone, then to `.NAME.PID.removed`,
which may not: whoever is killed in between leaves something that the next sweep can tell apart.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.run_folder import hold

EXPIRED, REMOVED = "expired", "removed"
ORPHAN = re.compile(r"\.(?P<name>.+)\.[0-9]+\.(?P<suffix>tmp|gone|expired|removed)")
PLACES = ("", "notify", "tokenizers", "shards/*", "models/*", "runs", "runs/*/*/*", "runs/*/*/*/checkpoints")
"""Where rewarm writes aside before it renames."""
ORPHAN_SECONDS = 86_400.0
LOGS = ("worker.log", "recorder.log")
LOG_BYTES = 16 << 20
logger = logging.getLogger("rewarm.retention")


def find(state: Path, pattern: str) -> list[Path]:
    """Return what is there under a path that counts from the state folder; a `*` is any name that is not hidden.

    Left out is what lies behind a symbolic link: it is somebody else's, or not where it seems to be.
    """
    parts = pattern.split("/") if pattern else []
    if any(part in {"", ".", ".."} for part in parts):
        return []
    found = [state]
    for part in parts:
        found = [path for place in found for path in (_visible(place) if part == "*" else [place / part])]
        found = [path for path in found if os.path.lexists(path) and not path.is_symlink()]
    return found


def _visible(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; links are not followed."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total or (path.lstat().st_size if path.is_file() else 0)


@contextlib.contextmanager
def quiet(state: Path, run: str | None) -> Iterator[bool]:
    """Hold the locks of a run's attempts for the block; yields False when a process of one is still alive."""
    with contextlib.ExitStack() as stack:
        attempts = find(state, f"runs/{run}/*/*") if run is not None else []
        locked = [attempt for attempt in attempts if (attempt / "lock").exists()]
        yield all(stack.enter_context(hold(attempt)) for attempt in locked)


def set_aside(path: Path) -> Path | None:
    """Take a folder out of its place; returns where it is now, None when it was not there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{EXPIRED}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def put_back(aside: Path) -> None:
    """Undo `set_aside`; where another has come into its place, that one stays."""
    matched = ORPHAN.fullmatch(aside.name)
    place = aside.with_name(matched["name"] if matched else aside.name)
    if os.path.lexists(place):
        remove(aside)
    else:
        aside.rename(place)


def remove(aside: Path) -> None:
    """Remove what was set aside, for good; raises OSError where the system does not let us."""
    doomed = aside.with_suffix(f".{REMOVED}")
    aside.rename(doomed)
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def clear(state: Path, now: float) -> None:
    """Put away what killed writers left: undo half a removal, finish a begun one, remove aside files a day old.

    `now` is in seconds since 1970. Only names that rewarm itself gives are touched, in places where it gives them.
    """
    for folder in (folder for place in PLACES for folder in find(state, place)):
        try:
            matches = [(path, matched) for path in folder.iterdir() if (matched := ORPHAN.fullmatch(path.name))]
            for path, matched in matches:
                _clear(folder, path, matched["suffix"], now)
        except OSError as error:
            logger.warning("Left-overs cannot be removed.", extra={"folder": str(folder), "error": str(error)})


def _clear(folder: Path, path: Path, suffix: str, now: float) -> None:
    if path.is_symlink():
        return
    if suffix == EXPIRED:
        put_back(path)
    elif suffix == REMOVED:
        remove(path)
    elif now - path.lstat().st_mtime > ORPHAN_SECONDS:
        attempt = folder.parent if folder.name == "checkpoints" else folder
        with hold(attempt) if (attempt / "lock").exists() else contextlib.nullcontext(enter_result=True) as free:
            if free:
                logger.info("A dead writer's left-over is removed.", extra={"path": str(path)})
                remove(path)


def shorten(state: Path, names: Sequence[str] = LOGS, most: int = LOG_BYTES) -> None:
    """Keep what the worker and the recorder log to twice `most` bytes: a full file's content moves to NAME.1.

    Their processes keep the file open for appending, so it is copied and emptied, not renamed.
    """
    for log in (state / name for name in names):
        try:
            if log.is_symlink() or log.stat().st_size <= most:
                continue
            aside = log.with_name(f".{log.name}.1.{os.getpid()}.tmp")
            shutil.copyfile(log, aside)
            aside.replace(log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("A log cannot be shortened.", extra={"file": str(log), "error": str(error)})
