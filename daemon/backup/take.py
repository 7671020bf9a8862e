"""Take a backup: first the journal as it is at one instant, then the files that its state needs.

Files are written once or only grow, so what is copied afterwards is no older than the journal; what grew beyond
it is left out. The copy appears under its name by one rename, when every file of it was checked.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath

import msgspec

from daemon.backup.contents import Attempt, contents
from daemon.backup.files import JOURNAL, MANIFEST, STATE, Manifest, copy, files_below, sync_tree
from daemon.core.errors import JournalError
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.dispatch.specification import attempt_folder
from daemon.files import lock, sync
from daemon.journal.base import Reader
from daemon.journal.sqlite import open_reader
from daemon.journal.sqlite_copy import copy_journal
from daemon.restore import restore
from stages.run_folder import OUTCOME
from stages.training.files import MANIFEST as FOLDER_MANIFEST
from stages.training.files import Stamp, digest, fits, stamp, write_file

CHECKPOINTS, CURVES, TOKENIZERS = "checkpoints", "metrics.jsonl", "tokenizers"
PASSES = 5
Files = dict[str, Stamp]


class _Stamped(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a folder's manifest that tells what its files must be."""

    files: dict[str, Stamp]


def take(
    journal: Path,
    state: Path,
    target: Path,
    *,
    release: str,
    now: Callable[[], datetime],
    boundary: Callable[[str], None] = lambda _name: None,
) -> Manifest:
    """Make the folder `target` a backup of a journal and its state folder; return what it holds.

    Raises JournalError when `target` is there, a file that the state needs is missing or damaged, or the disk is full.
    """
    if os.path.lexists(target):
        raise JournalError(f"{target} is there already: name a folder that is not, or remove it first.")
    try:
        with _aside(target) as aside:
            boundary("backup.before_journal")
            copy_journal(journal, aside / JOURNAL)
            boundary("backup.after_journal")
            with open_reader(aside / JOURNAL) as reader:
                identity, folded = reader.identity(), restore(reader).state
                files = _collect(reader, folded, state, aside / STATE)
            boundary("backup.after_files")
            manifest = Manifest(
                release=release,
                taken_at=now(),
                identity=identity,
                position=folded.position,
                reducer=REDUCER_VERSION,
                state_hash=fingerprint(dump(folded)),
                files={JOURNAL: stamp(aside / JOURNAL), **files},
            )
            write_file(aside / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            sync_tree(aside)
            boundary("backup.before_rename")
            aside.rename(target)
        sync(target.parent)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise JournalError(f"{target} came into being meanwhile: another backup was as quick.") from error
        raise JournalError(f"The backup to {target} failed, nothing of it is kept: {error}.") from error
    return manifest


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target, which is gone at the end unless it was renamed.

    What killed backups to the same name have left is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{target.name}.*.tmp"):
        with _held(old) as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    aside.mkdir()
    with _held(aside):
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock that a living backup has on its folder; yields False when another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _collect(reader: Reader, folded: State, state: Path, target: Path) -> Files:
    """Copy all that the state needs; paths are those of the backup. Raises JournalError for what is not as told."""
    needed = contents(reader, folded)
    files: Files = {}
    copied: set[Path] = set()
    for path in (*needed.checkpoints, *needed.shards):
        for source in _whole(state, path):
            if source not in copied:
                copied.add(source)
                files |= _copy_one(source, state, target)
    for attempt in needed.attempts:
        files |= _copy_attempt(attempt, state, target, copied)
    curves = [path for run in needed.ended for path in sorted((state / "runs" / run).glob(f"*/*/{CURVES}"))]
    files |= _copy_living(curves, state, target)
    files |= _copy_tokenizers(state, target)
    for path, sha256 in needed.checkpoints.items():
        _check(target / path, sha256)
    for path in needed.shards:
        _check(target / path, None)
    return files


def _copy_tokenizers(state: Path, target: Path) -> Files:
    """Copy all tokenizers, which are few and small; each is named by its sha256."""
    files: Files = {}
    for path in sorted((state / TOKENIZERS).glob("[!.]*.json")):
        copied = _copy_one(path, state, target)
        if any(each.sha256 != path.stem for each in copied.values()):
            raise JournalError(f"{path} is damaged: it does not fit the sha256 that names it.")
        files |= copied
    return files


def _whole(state: Path, path: str) -> list[Path]:
    """Return the files of a folder that must be there."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise JournalError(
            f"The journal names {path}, which lies outside the state folder {state}: it cannot be saved."
        )
    found = list(files_below(state / path))
    if not found:
        raise JournalError(f"{state / path} is missing or empty, and the journal's state needs it.")
    return found


def _check(folder: Path, sha256: str | None) -> None:
    """Raise JournalError unless a copied folder is what its manifest, and the manifest what the journal, says."""
    manifest = folder / FOLDER_MANIFEST
    if not manifest.is_file():
        return  # a stage of somebody's own may publish what it likes
    if sha256 is not None and digest(manifest) != sha256:
        raise JournalError(f"{folder.name} is not what the journal recorded (sha256 {sha256}): it was changed since.")
    try:
        stamped = msgspec.json.decode(manifest.read_bytes(), type=_Stamped)
    except msgspec.MsgspecError as error:
        raise JournalError(f"The manifest of {folder.name} cannot be read: {error}.") from error
    if not fits(folder, stamped.files):
        raise JournalError(f"{folder.name} is damaged: a file does not fit its sha256.")


def _copy_one(source: Path, state: Path, target: Path, *, most: int | None = None) -> Files:
    relative = source.relative_to(state)
    return {f"{STATE}/{relative.as_posix()}": copy(source, target / relative, most=most)}


def _copy_attempt(attempt: Attempt, state: Path, target: Path, copied: set[Path]) -> Files:
    """Copy what an attempt of a living run has left: its outcome as far as the journal knows it, its checkpoints.

    How its process ended (exit.json) is left out: in the copy that has not happened yet.
    """
    folder = attempt_folder(state, attempt.run, attempt.stage, attempt.number)
    files = _copy_one(folder / OUTCOME, state, target, most=_length(folder / OUTCOME, attempt.lines))
    seen = {folder / OUTCOME, folder / "exit.json", *copied}
    found = [path for path in files_below(folder) if path not in seen]
    others = [path for path in found if path.relative_to(folder).parts[0] != CHECKPOINTS]
    files |= _copy_living(others, state, target)
    for _ in range(PASSES):  # the oldest may be removed while it is copied, because a newer one is there
        steps = sorted((folder / CHECKPOINTS).glob("step-*"), reverse=True)
        fresh = [step for step in steps if not (target / step.relative_to(state)).exists()]
        if not fresh:
            break
        for step in fresh:
            try:
                files |= {k: v for path in files_below(step) for k, v in _copy_one(path, state, target).items()}
                step.stat()
                _check(target / step.relative_to(state), None)
            except (FileNotFoundError, JournalError):
                shutil.rmtree(target / step.relative_to(state), ignore_errors=True)
                gone = f"{STATE}/{step.relative_to(state).as_posix()}/"
                files = {name: each for name, each in files.items() if not name.startswith(gone)}
    return files


def _copy_living(paths: Iterable[Path], state: Path, target: Path) -> Files:
    files: Files = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a living stage replaces and removes its own files
            files |= _copy_one(path, state, target)
    return files


def _length(path: Path, lines: int) -> int:
    """Return how many bytes so many lines of an outcome file take; raises JournalError when there are fewer."""
    size = 0
    with path.open("rb") as file:
        for _ in range(lines):
            line = file.readline()
            if not line.endswith(b"\n"):
                raise JournalError(f"{path} has fewer than the {lines} lines that the journal has read: it was cut.")
            size += len(line)
    return size
