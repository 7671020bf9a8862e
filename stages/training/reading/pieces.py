"""A file's bytes in small pieces, decompressed where they are compressed, and cut at a separator: never all at once."""

import os
from collections.abc import Iterator

from stages.training.reading.source import Source
from stages.training.reading.unusable import Unusable

PIECE = 1 << 20
LONGEST = 64 << 20
"""Most bytes of one document, or of one line of JSONL, after decompression."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How a compressed file begins; no text in UTF-8 can begin so."""
PARQUET = b"PAR1"


def compression(source: Source) -> str | None:
    """Return how a file is compressed by what it begins with, whatever it is called; None: not at all."""
    with source.path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in COMPRESSIONS.items() if head.startswith(magic)), None)


def is_parquet(source: Source) -> bool:
    """Return whether a file begins and ends as Parquet does."""
    with source.path.open("rb") as file:
        if file.read(4) != PARQUET or source.bytes < 2 * len(PARQUET):
            return False
        file.seek(-len(PARQUET), os.SEEK_END)
        return file.read(4) == PARQUET


def pieces(source: Source) -> Iterator[bytes]:
    """Return a file's bytes, decompressed; raises Unusable where they end too early."""
    how = compression(source)
    return _plain(source) if how is None else _decompressed(source, how)


def cut(source: Source, separator: bytes, what: str) -> Iterator[bytes]:
    """Yield what lies between separators, the last one also where it is empty; `what` it is, for messages.

    A byte order mark at the very beginning is left out. At any time there is one of them in memory, and a piece.
    Raises Unusable for one of more than LONGEST bytes.
    """
    tail = len(separator) - 1
    held: list[bytes] = []
    edge = b""
    size = number = 0
    for piece in pieces(source):
        # A separator may begin in the pieces before; no more of them is looked at again.
        crossing = edge + piece[:tail]
        edge = (edge + piece)[-tail:] if tail else b""
        if separator not in piece and separator not in crossing:
            held.append(piece)
            size += len(piece)
        else:
            found = b"".join((*held, piece)).split(separator)
            last = found.pop()
            for each in found:
                number += 1
                yield _whole(source, each, what, number)
            held, size = [last], len(last)
        if size > LONGEST:
            raise too_long(source, what, number + 1)
    yield _whole(source, b"".join(held), what, number + 1)


def _whole(source: Source, found: bytes, what: str, number: int) -> bytes:
    if len(found) > LONGEST:
        raise too_long(source, what, number)
    return found.removeprefix(BYTE_ORDER_MARK) if number == 1 else found


def too_long(source: Source, what: str, number: int) -> Unusable:
    """Return the error of what is longer than a document may be."""
    most = LONGEST >> 20
    return Unusable("malformed", f"{source.name}, {what} {number}: it has more than {most} MiB; divide it.")


def _plain(source: Source) -> Iterator[bytes]:
    with source.path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _decompressed(source: Source, how: str) -> Iterator[bytes]:
    import pyarrow as pa  # only here: what is not compressed needs none of it

    try:
        with pa.input_stream(str(source.path), compression=how, buffer_size=PIECE) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except OSError as error:
        if error.errno is not None:
            raise  # the system's own: pyarrow tells of the content without a number
        if "Truncated" in str(error):
            raise Unusable("truncated", f"{source.name} ends in the middle of its {how} stream.") from None
        raise Unusable("malformed", f"{source.name} cannot be decompressed: {error}.") from None
