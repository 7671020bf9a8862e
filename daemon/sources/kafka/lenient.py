r"""kafka-python cannot read on behind a header whose name is no UTF-8; Kafka's brokers take such a message in.

Its consumer raises CorruptRecordError and then turns in circles, for the whole batch is read again and again. Here
such a name is read with its odd bytes as `\xff`, so that the message comes in like any other one.
"""

from collections.abc import Callable
from typing import Any

MARK = "reads_any_header"
Read = Callable[[Any], Any]


class _Part(bytearray):
    """Bytes that always are a text."""

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _Whole(bytearray):
    """A buffer of such bytes."""

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 - an index or a slice
        found = super().__getitem__(at)
        return _Part(found) if isinstance(at, slice) else found


def read_any_header() -> None:
    """Let every consumer of this process read messages whatever their headers are called."""
    from kafka.record.default_records import DefaultRecordBatch

    if not hasattr(DefaultRecordBatch, MARK):
        DefaultRecordBatch._read_msg = _wrapped(DefaultRecordBatch._read_msg)  # noqa: SLF001 - no other way in
        setattr(DefaultRecordBatch, MARK, True)


def _wrapped(read: Read) -> Read:
    def read_message(batch: Any) -> Any:  # noqa: ANN401 - the library has no types
        try:
            return read(batch)
        except UnicodeDecodeError:
            buffer = batch._buffer  # noqa: SLF001 - as above
            batch._buffer = _Whole(buffer)  # noqa: SLF001 - as above; the place in it moves at the end of a read alone
            try:
                return read(batch)
            finally:
                batch._buffer = buffer  # noqa: SLF001 - as above

    return read_message
