"""Parquet, row group by row group: only the columns that are needed, in batches of a bounded size.

Importing this module loads pyarrow: `documents` does so when there is a file of that format.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from daemon.core.plans import DataSettings
from stages.training.reading import pieces
from stages.training.reading.source import Source
from stages.training.reading.unusable import Unusable

BATCH_BYTES = 4 << 20
"""About so many bytes of values are decoded at a time, by what the file says of its row groups."""
MOST_ROWS = 4096
Kind = Callable[[Any], bool]
TEXTS: tuple[Kind, ...] = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
BINARIES: tuple[Kind, ...] = (types.is_binary, types.is_large_binary)
NUMBERS: tuple[Kind, ...] = (types.is_integer, types.is_floating)


def read_texts(source: Source, data: DataSettings) -> Iterator[tuple[bytes, Any]]:
    """Yield text and group of each row whose text is not null; raises Unusable."""
    with _opened(source) as file:
        schema = file.schema_arrow
        _check(source, schema, data.text, "text", (*TEXTS, *BINARIES))
        columns = [data.text]
        if data.group in schema.names and data.group != data.text:
            _check(source, schema, data.group, "group", (*TEXTS, *NUMBERS))
            columns.append(data.group)
        for batch in _batches(source, file, columns):
            groups = batch.column(data.group).to_pylist() if len(columns) > 1 else [None] * batch.num_rows
            for text, group in zip(_utf8(batch.column(data.text)), groups, strict=True):
                if text is not None:
                    yield text, group


def read_records(source: Source) -> Iterator[dict[str, object]]:
    """Yield each row with all its columns; raises Unusable."""
    with _opened(source) as file:
        for batch in _batches(source, file, None):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[pq.ParquetFile]:
    try:
        with _file(source) as file:
            yield file
    except MemoryError:
        raise  # pyarrow's own is one of its errors too
    except UnicodeDecodeError as error:
        raise Unusable("not_utf8", f"{source.name}: {error}.") from None
    except OSError as error:
        if error.errno is not None:
            raise  # the system's own
        raise Unusable("malformed", f"{source.name} cannot be read as Parquet: {error}.") from None
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise Unusable("malformed", f"{source.name} cannot be read as Parquet: {error}.") from None


def _file(source: Source, **options: object) -> pq.ParquetFile:
    # With a buffer pages are read one after the other; without one a row group's column is read as a whole.
    return pq.ParquetFile(str(source.path), buffer_size=pieces.PIECE, pre_buffer=False, memory_map=False, **options)


def _batches(source: Source, file: pq.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    texts = [
        each.name
        for each in file.schema_arrow
        if (columns is None or each.name in columns) and _is(each.type, (*TEXTS[:3], *BINARIES))
    ]
    with _file(source, metadata=file.metadata, read_dictionary=texts) as lexicon:
        for index in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(index)
            if not group.num_rows:
                continue
            # Of all columns together: on some damaged files pyarrow aborts the process when it is asked about one.
            rows = min(MOST_ROWS, BATCH_BYTES * group.num_rows // max(1, group.total_byte_size))
            longest = _longest(lexicon, index, texts) if texts else 1
            rows = max(1, min(rows, pieces.LONGEST // max(1, longest)))
            yield from file.iter_batches(batch_size=rows, row_groups=[index], columns=columns, use_threads=False)


def _longest(lexicon: pq.ParquetFile, index: int, texts: Sequence[str]) -> int:
    """Return the bytes of the longest words of a row group's dictionaries, one of each column.

    A dictionary's word may stand in every row: two kilobytes of a file can be a hundred gigabytes of text.
    """
    for batch in lexicon.iter_batches(batch_size=1, row_groups=[index], columns=list(texts), use_threads=False):
        words = (column.dictionary.cast(pa.large_binary()).to_pylist() for column in batch.columns)
        return sum(max((len(word or b"") for word in each), default=0) for each in words)
    return 0


def _check(source: Source, schema: pa.Schema, name: str, what: str, fits: Sequence[Kind]) -> None:
    if schema.names.count(name) != 1:
        known = ", ".join(schema.names[:50])
        message = f'{source.name} has no column "{name}" for the {what}; its columns: {known or "none"}.'
        raise Unusable("malformed", f"{message} Say which in the pipeline's `data`.")
    kind = schema.field(name).type
    if not _is(kind, fits):
        raise Unusable("malformed", f'{source.name}: column "{name}" holds {kind}, which is no {what}.')


def _is(kind: Any, tests: Sequence[Kind]) -> bool:  # noqa: ANN401 - pyarrow has no types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return any(test(kind) for test in tests)


def _utf8(column: Any) -> list[bytes | None]:  # noqa: ANN401 - as above
    """Return a column's texts as bytes, checked: what a file calls a string is not checked by anybody else."""
    plain = column.cast(pa.large_binary())
    found: list[bytes | None] = plain.to_pylist()
    try:
        plain.cast(pa.large_string())
    except pa.ArrowInvalid:
        for text in found:
            (text or b"").decode()  # says which byte it is
        raise
    return found
