"""Put a backup back where nothing is: everything is checked and staged first, then renamed into place.

A marker beside the journal stands while names are changed: no daemon opens the journal then, and the next
restore begins anew. The journal goes on under a new identity, for the old one may have said more.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from daemon.backup.files import JOURNAL, MANIFEST, STATE, Manifest, copy, faults, read_manifest, sync_tree
from daemon.core.errors import JournalError
from daemon.core.state import dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.files import sync
from daemon.journal.lock import release, take
from daemon.journal.sqlite import open_reader, verify
from daemon.journal.sqlite_copy import branch_off
from daemon.journal.sqlite_file import restore_marker
from daemon.restore import restore

OURS = ("models", "runs", "shards")
"""What belongs to a history whatever a backup holds of it; nothing of that may lie in the state folder."""
LOCK = PurePosixPath(STATE, "runs/*/*/*/lock")
"""An attempt's lock names its process: whoever finds it free ends what is left of that."""


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an attempt's specification that tells in which state folder its process works."""

    state: str


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back: the journal's new identity, and the manifest of the backup."""

    identity: str
    manifest: Manifest


def check(folder: Path) -> tuple[Manifest, list[str]]:
    """Return what a backup holds, and everything that is wrong with it.

    Raises JournalError when it is no backup at all, or a newer rewarm made it.
    """
    manifest = read_manifest(folder)
    found = faults(folder, manifest)
    if not any(problem.startswith(JOURNAL) for problem in found):
        found += [f"{JOURNAL}: {problem}" for problem in verify(folder / JOURNAL)]
    if not found:
        found += _contradictions(folder, manifest)
    return manifest, found


def put(folder: Path, journal: Path, state: Path, *, boundary: Callable[[str], None] = lambda _name: None) -> Restored:
    """Put a backup where a configuration says that journal and state lie.

    Raises JournalBusy when a daemon has the journal, JournalError when there is one already, when the state folder
    holds files of another history, when the backup is not whole, or the disk is full.
    """
    manifest, found = check(folder)
    if found:
        raise JournalError("\n".join([f"{folder} is not whole, nothing was restored:", *found]))
    try:
        with _alone(journal):
            _clear(journal, state, {PurePosixPath(name).parts[1] for name in manifest.files if name != JOURNAL})
            return Restored(identity=_put(folder, manifest, journal, state, boundary), manifest=manifest)
    except OSError as error:
        raise JournalError(f"The restore to {journal} failed: {error}. Run it again when that is mended.") from error


def unread(journal: Path, spools: Iterable[Path]) -> list[Path]:
    """Return the spool files that were read once, and of which the journal knows nothing: they came after the copy."""
    found = []
    with open_reader(journal) as reader:
        for spool in spools:
            for path in sorted((spool / "processed").glob("*")):
                with contextlib.suppress(OSError), path.open("rb") as file:
                    name = hashlib.file_digest(file, "sha256").hexdigest()
                    if reader.cursor(f"spool:{name}") is None:
                        found.append(path)
    return found


def _contradictions(folder: Path, manifest: Manifest) -> Iterator[str]:
    with open_reader(folder / JOURNAL) as reader:
        if (reader.identity(), reader.head()) != (manifest.identity, manifest.position):
            yield f"{JOURNAL} is another journal than {MANIFEST} names."
        elif manifest.reducer == REDUCER_VERSION:
            state = restore(reader, use_snapshots=False).state
            if fingerprint(dump(state)) != manifest.state_hash:
                yield f"{JOURNAL} folds to another state than was saved."


@contextlib.contextmanager
def _alone(journal: Path) -> Iterator[None]:
    """Keep daemons out for the block; raises JournalBusy when one is there."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = take(journal)
    try:
        yield
    finally:
        release(lock)


def _clear(journal: Path, state: Path, tops: Iterable[str]) -> None:
    """See that there is nothing in the way; what a restore that was broken off has left is removed."""
    marker = restore_marker(journal)
    present = [path for path in (journal, *(state / name for name in sorted({*OURS, *tops}))) if _occupied(path)]
    if present and not marker.exists():
        named = ", ".join(map(str, present))
        raise JournalError(
            f"{named}: already there. Files of another history must not be mixed with those of the backup: "
            "move them away, or name another `journal` and `state` in the configuration."
        )
    for path in present:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (*state.glob(".restore.*.tmp"), *journal.parent.glob(f".{journal.name}.*.tmp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for suffix in ("-wal", "-shm", "-journal"):  # of a journal that is gone
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)


def _occupied(path: Path) -> bool:
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def _put(folder: Path, manifest: Manifest, journal: Path, state: Path, boundary: Callable[[str], None]) -> str:
    state.mkdir(parents=True, exist_ok=True)
    staged = state / f".restore.{os.getpid()}.tmp"
    fresh = journal.with_name(f".{journal.name}.{os.getpid()}.tmp")
    staged.mkdir()
    try:
        for name, wanted in manifest.files.items():
            if PurePosixPath(name).match(str(LOCK)) and not _works_in(folder / name, state):
                continue
            target = fresh if name == JOURNAL else staged / PurePosixPath(name).relative_to(STATE)
            if copy(folder / name, target) != wanted:
                raise JournalError(f"{folder / name} changed while it was restored: nothing was put in place.")
            boundary("restore.after_file")
        identity, _ = branch_off(fresh)
        sync_tree(staged)
        marker = restore_marker(journal)
        marker.touch()
        sync(journal.parent)
        boundary("restore.before_rename")
        for path in sorted(staged.iterdir()):
            target = state / path.name
            if target.exists():
                target.rmdir()  # an empty one: `_clear` looked
            path.rename(target)
            boundary("restore.between_renames")
        sync(state)
        fresh.rename(journal)
        sync(journal.parent)
        boundary("restore.before_end")
        marker.unlink()
        sync(journal.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        fresh.unlink(missing_ok=True)
    return identity


def _works_in(lock: Path, state: Path) -> bool:
    """Return whether a lock's process, if it is still there, writes into this state folder by its path.

    Restored beside the original (to try a backup out, say), the lock would have the living original's stage killed.
    """
    try:
        told = msgspec.json.decode(lock.with_name("spec.json").read_bytes(), type=_Told)
    except (OSError, msgspec.MsgspecError):
        return False
    return Path(told.state) == state
