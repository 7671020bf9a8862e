"""An arrival's file as documents: opened safely, checked against what was announced, parsed.

Everything that makes a file unusable is an `Unusable` with a reason that is counted; nothing else is raised
but errors of the machine.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from stages.run_folder import Arrival

Reason = Literal[
    "vanished",
    "unreadable",
    "empty",
    "truncated",
    "checksum",
    "not_utf8",
    "malformed",
    "outside_roots",
    "no_documents",
    "all_duplicates",
]
SEPARATOR = "\n\n\f\n"
"""Between the documents of a file of format `text`; a file without it is one document."""
BYTE_ORDER_MARK = "\ufeff"
UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EISDIR})


class Unusable(Exception):
    """An arrival cannot be used: a fact about the input, not an error of the stage."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class Line(msgspec.Struct):
    """One line of a JSONL arrival; further fields are left alone."""

    text: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival's content: the sha256 of the file, and its documents in UTF-8, none of them empty."""

    sha256: str
    documents: list[bytes]


def read_arrival(arrival: Arrival, roots: Sequence[str]) -> Source:
    """Return an arrival's documents in the file's order; raises Unusable."""
    data = _read(arrival, _inside(arrival, roots))
    if not data:
        raise Unusable("empty", f"{arrival.path} is empty.")
    if arrival.bytes and len(data) < arrival.bytes:
        raise Unusable("truncated", f"{arrival.path} has {len(data)} of the {arrival.bytes} bytes announced.")
    sha256 = hashlib.sha256(data).hexdigest()
    if arrival.sha256 and sha256 != arrival.sha256:
        raise Unusable("checksum", f"{arrival.path} has sha256 {sha256}, announced was {arrival.sha256}.")
    if arrival.bytes and len(data) != arrival.bytes:
        raise Unusable("checksum", f"{arrival.path} has {len(data)} bytes, announced were {arrival.bytes}.")
    documents = _lines(arrival, data) if arrival.format == "jsonl" else _parts(arrival, data)
    if not documents:
        raise Unusable("no_documents", f"{arrival.path} holds no document with text in it.")
    return Source(sha256=sha256, documents=documents)


def _inside(arrival: Arrival, roots: Sequence[str]) -> Path:
    # Symbolic links are followed first: what counts is where the bytes really lie.
    try:
        real = Path(os.path.realpath(arrival.path))
    except ValueError as error:
        raise Unusable("unreadable", f"{arrival.path!r} is no path: {error}.") from None
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        known = ", ".join(roots) or "none is configured"
        raise Unusable("outside_roots", f"{arrival.path} leads to {real}, outside of the roots ({known}).")
    return real


def _read(arrival: Arrival, path: Path) -> bytes:
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
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Unusable("unreadable", f"{arrival.path} is no regular file.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read()
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unusable("checksum", f"{arrival.path} changed while it was read: move it in when it is whole.")
    return data


def _lines(arrival: Arrival, data: bytes) -> list[bytes]:
    decoder = msgspec.json.Decoder(Line)
    documents = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            line.decode()
            text = decoder.decode(line).text.encode()
        except UnicodeError as error:
            raise Unusable("not_utf8", f"{arrival.path}, line {number}: {error}.") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            message = f'{arrival.path}, line {number}: {error}; each line is an object with a string in "text".'
            raise Unusable("malformed", message) from None
        if text.strip():
            documents.append(text)
    return documents


def _parts(arrival: Arrival, data: bytes) -> list[bytes]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Unusable("not_utf8", f"{arrival.path}: {error}.") from None
    parts = text.removeprefix(BYTE_ORDER_MARK).split(SEPARATOR)
    return [part.encode() for part in parts if part.strip()]
