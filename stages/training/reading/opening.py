"""An arrival is opened: inside the roots, whole, unchanged, and what was announced, before anything of it is parsed."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stages.roots import Remote, Root, elsewhere, remote_of
from stages.run_folder import Arrival
from stages.training.reading.source import Source, changed, stamp_of
from stages.training.reading.unusable import Unusable

Beat = Callable[[], None]
BLOCK = 1 << 20
UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EISDIR})


@contextlib.contextmanager
def open_arrival(arrival: Arrival, roots: Sequence[Root], staging: Path, beat: Beat) -> Iterator[Source]:
    """Yield an arrival's content for the block; what lies elsewhere is fetched into the folder `staging` for it.

    A fetched file never has a name: it is gone when the block ends or the process dies, however it dies. `beat` is
    called after each block that was read, and may raise. Raises Unusable, and StageError (transient) where a store
    cannot be reached or refuses our credentials.
    """
    if elsewhere(arrival.path):
        remote = remote_of(arrival.path, roots)
        if remote is None:
            raise _outside(arrival, "lies plainly below none of the roots", roots)
        with _fetched(arrival, remote, staging, beat) as source:
            yield source
    else:
        with _opened(arrival, _inside(arrival, roots), beat) as source:
            yield source


def _outside(arrival: Arrival, how: str, roots: Sequence[Root]) -> Unusable:
    known = ", ".join(root.url if isinstance(root, Remote) else root for root in roots) or "none is configured"
    return Unusable("outside_roots", f"{arrival.path} {how} ({known}).")


def _inside(arrival: Arrival, roots: Sequence[Root]) -> Path:
    # Symbolic links are followed first: what counts is where the bytes really lie.
    try:
        real = Path(os.path.realpath(arrival.path))
    except ValueError as error:
        raise Unusable("unreadable", f"{arrival.path!r} is no path: {error}.") from None
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots if isinstance(root, str)):
        raise _outside(arrival, f"leads to {real}, outside of the roots", roots)
    return real


@contextlib.contextmanager
def _opened(arrival: Arrival, path: Path, beat: Beat) -> Iterator[Source]:
    try:
        # A pipe would block for ever on opening; a link swapped in after the check of the roots is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable("vanished", f"{arrival.path} is not there (any more).") from None
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        raise Unusable("unreadable", f"{arrival.path} cannot be opened: {error.strerror}.") from None
    try:
        opened = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if opened != str(path):  # a folder on the way was exchanged for a link after the check of the roots
            raise Unusable("outside_roots", f"{arrival.path} led to {path}, and to {opened} when it was opened.")
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Unusable("unreadable", f"{arrival.path} is no regular file.")
        check_size(arrival, before.st_size)
        digest = hashlib.sha256()
        size = 0
        while block := os.read(descriptor, BLOCK):
            digest.update(block)
            size += len(block)
            beat()
        stamp = stamp_of(os.fstat(descriptor))
        if stamp != stamp_of(before) or size != before.st_size:
            raise changed(arrival.path)
        source = _source(arrival, descriptor, digest.hexdigest())
        yield source
        source.settle()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _fetched(arrival: Arrival, remote: Remote, staging: Path, beat: Beat) -> Iterator[Source]:
    from stages.training.reading.remote import fetch

    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=staging, buffering=0) as file:
        digest = hashlib.sha256()
        with contextlib.closing(fetch(arrival.path, remote, lambda size: check_size(arrival, size))) as blocks:
            size = 0
            for block in blocks:
                size += len(block)
                if 0 < arrival.bytes < size:  # a store that never ends would fill the disk
                    check_size(arrival, size)
                digest.update(block)
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
                beat()
        check_size(arrival, os.fstat(file.fileno()).st_size)
        yield _source(arrival, file.fileno(), digest.hexdigest())


def check_size(arrival: Arrival, size: int) -> None:
    """Raise Unusable for a file that is empty, or has another size than was announced."""
    if not size:
        raise Unusable("empty", f"{arrival.path} is empty.")
    if arrival.bytes and size < arrival.bytes:
        raise Unusable("truncated", f"{arrival.path} has {size} of the {arrival.bytes} bytes announced.")
    if arrival.bytes and size != arrival.bytes:
        raise Unusable("checksum", f"{arrival.path} has {size} bytes, announced were {arrival.bytes}.")


def _source(arrival: Arrival, descriptor: int, sha256: str) -> Source:
    if arrival.sha256 and sha256 != arrival.sha256:
        raise Unusable("checksum", f"{arrival.path} has sha256 {sha256}, announced was {arrival.sha256}.")
    status = os.fstat(descriptor)
    return Source(
        # Opened again by this path it is the same file, whatever lies under its name by then.
        path=Path(f"/proc/{os.getpid()}/fd/{descriptor}"),
        sha256=sha256,
        bytes=status.st_size,
        name=arrival.path,
        stamp=stamp_of(status),
    )
