"""Documents, one after the other: what a source holds by its format. Memory does not grow with the file."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from daemon.core.errors import StageError
from daemon.core.plans import DataSettings
from stages.training.reading import pieces
from stages.training.reading.pieces import cut, is_parquet
from stages.training.reading.source import Source
from stages.training.reading.unusable import Unusable

SEPARATOR = "\n\n\f\n"
"""Between the documents of a file of format `text`; a file without it is one document."""
GLANCE = 64
"""Bytes of a text that nearly always tell that it is not blank."""
Group = str | int | float | None


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A document's text in UTF-8 (of a record: its JSON, keys in order), never blank, and what it belongs to."""

    text: bytes
    group: str | None = None


def documents(source: Source, form: str, data: DataSettings, *, records: bool = False) -> Iterator[Document]:
    """Yield a source's documents in the file's order; with `records` each row of JSONL or Parquet as a whole.

    Blank and null texts are no documents. Raises Unusable where it stands in the file, so that what was yielded
    before counts only when all was read: at the very end for a file without documents, or that changed meanwhile.
    Raises StageError (user_error) for a format that is not known, or records of a format that has none.
    """
    readers: dict[str, Callable[[Source, DataSettings, bool], Iterator[Document]]] = {
        "text": _parts,
        "jsonl": _lines,
        "parquet": _rows,
    }
    if form not in readers:
        raise StageError("user_error", f"Format {form!r} is not known; known formats: {', '.join(readers)}.")
    if form != "parquet" and is_parquet(source):
        raise Unusable("malformed", f"{source.name} is Parquet, and was announced as {form}: announce what it is.")
    if records and form == "text":
        raise Unusable("malformed", f"{source.name} is text, and this model takes records: send JSONL or Parquet.")
    return _settled(source, readers[form](source, data, records))


def _settled(source: Source, found: Iterator[Document]) -> Iterator[Document]:
    some = False
    for document in found:
        some = True
        yield document
    source.settle()
    if not some:
        raise Unusable("no_documents", f"{source.name} holds no document with text in it.")


def group_name(value: Group) -> str | None:
    """Return a group as its name: a number is written out, a whole one the same way whatever its type.

    A column of numbers with gaps is read as floats, and its gaps as NaN: those belong to nothing.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return value if value is None or isinstance(value, str) else repr(value)


def _parts(source: Source, data: DataSettings, records: bool) -> Iterator[Document]:  # noqa: ARG001, FBT001 - as the others
    for number, part in enumerate(cut(source, SEPARATOR.encode(), "document"), start=1):
        try:
            blank = not part.decode().strip()
        except UnicodeDecodeError as error:
            raise Unusable("not_utf8", f"{source.name}, document {number}: {error}.") from None
        if not blank:
            yield Document(text=part)


def _lines(source: Source, data: DataSettings, records: bool) -> Iterator[Document]:  # noqa: FBT001 - as the others
    decode = _record_reader(data) if records else _text_reader(data)
    for number, line in enumerate(cut(source, b"\n", "line"), start=1):
        if not line or line.isspace():
            continue
        try:
            if not line.isascii():
                line.decode()
            document = decode(line)
        except UnicodeError as error:
            raise Unusable("not_utf8", f"{source.name}, line {number}: {error}.") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            hint = "" if records else f' with a string in "{data.text}"'
            raise Unusable(
                "malformed", f"{source.name}, line {number}: {error}; each line is an object{hint}."
            ) from None
        if document is not None:
            yield document


def _text_reader(data: DataSettings) -> Callable[[bytes], Document | None]:
    names = {"text": data.text, "group": data.group}
    fields: list[Any] = [("text", str | None), ("group", Group, None)]
    if data.group == data.text:  # equal texts would belong together, and they are one document anyway
        del fields[1], names["group"]
    line_type: Any = msgspec.defstruct("Line", fields, rename=names, gc=False)
    decode = msgspec.json.Decoder(line_type).decode

    def read(line: bytes) -> Document | None:
        found = decode(line)
        text: str | None = found.text
        if not text or text.isspace():
            return None
        return Document(text=text.encode(), group=group_name(found.group) if len(fields) > 1 else None)

    return read


def _record_reader(data: DataSettings) -> Callable[[bytes], Document]:
    decode = msgspec.json.Decoder(dict[str, object]).decode

    def read(line: bytes) -> Document:
        return _record(decode(line), data)

    return read


def _written(value: object) -> str:
    """Return a value that JSON has no form for: of Parquet's, instants and durations in nanoseconds (pandas' types)."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise ValueError(f"{type(value).__name__} has no form in JSON")


ENCODER = msgspec.json.Encoder(order="deterministic", enc_hook=_written)


def _record(row: dict[str, object], data: DataSettings) -> Document:
    """Return a row as JSON whose keys are in order, so that equal rows are equal bytes."""
    group = row.get(data.group)
    known = isinstance(group, str | int | float) and not isinstance(group, bool)
    return Document(text=ENCODER.encode(row), group=group_name(group) if known else None)  # type: ignore[arg-type]


def _rows(source: Source, data: DataSettings, records: bool) -> Iterator[Document]:  # noqa: FBT001 - as the others
    from stages.training.reading.parquet import read_records, read_texts

    if records:
        for number, row in enumerate(read_records(source), start=1):
            try:
                yield _record(row, data)
            except ValueError as error:
                raise Unusable("malformed", f"{source.name}, row {number}: {error}.") from None
        return
    for number, (text, group) in enumerate(read_texts(source, data), start=1):
        if len(text) > pieces.LONGEST:
            raise pieces.too_long(source, "text", number)
        if not _is_blank(text):
            yield Document(text=text, group=group_name(group))


def _is_blank(text: bytes) -> bool:
    head = text[:GLANCE].decode(errors="ignore").strip()
    return not head and not text.decode().strip()
