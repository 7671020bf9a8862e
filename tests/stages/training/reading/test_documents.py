"""Documents of every format and compression: the same ones, bounded, or a reason."""

import decimal
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.core.errors import StageError
from daemon.core.plans import DataSettings
from stages.training.reading import SEPARATOR, Document, Source, Unusable, documents, pieces

Make = Callable[..., Source]
DATA = DataSettings(text="text", group="group")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\f"), max_size=30)
groups = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
rows = st.lists(st.tuples(texts, groups), min_size=1, max_size=12)


def parquet(*, row_group_size: int = 3, compression: str = "snappy", **columns: object) -> bytes:
    """Return columns as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size, compression=compression)
    return file.getvalue()


def jsonl(*records: object) -> bytes:
    """Return records as JSONL."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def read(source: Source, form: str, data: DataSettings = DATA, *, records: bool = False) -> list[Document]:
    """Return all documents of a source."""
    return list(documents(source, form, data, records=records))


def reason(source: Source, form: str, data: DataSettings = DATA, *, records: bool = False) -> tuple[str, str]:
    """Return why a source cannot be used."""
    with pytest.raises(Unusable) as caught:
        read(source, form, data, records=records)
    return caught.value.reason, str(caught.value)


def two_frames(data: bytes) -> bytes:
    """Return bytes as two frames of zstd, of which the first tells no size."""
    first = zstandard.ZstdCompressor().compressobj()
    middle = len(data) // 2
    return first.compress(data[:middle]) + first.flush() + zstandard.compress(data[middle:])


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip of two members": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "zstd": zstandard.compress,
    "zstd of two frames": two_frames,
}


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(found=rows, how=st.sampled_from(sorted(COMPRESSIONS)), piece=st.sampled_from([1, 3, 7, 1 << 20]))
def test_every_format_gives_the_same_documents(
    source_of: Make, found: list[tuple[str, str | None]], how: str, piece: int
) -> None:
    """Text, JSONL and Parquet of the same content, compressed or not, in pieces of any size: the same documents."""
    wanted = [(text.encode(), group) for text, group in found if text and not text.isspace()]
    forms = {
        "jsonl": COMPRESSIONS[how](jsonl(*({"text": text, "group": group, "id": 1} for text, group in found))),
        "parquet": parquet(
            text=pa.array([text for text, _ in found], pa.string()),
            group=pa.array([group for _, group in found], pa.string()),
        ),
        "text": COMPRESSIONS[how](SEPARATOR.join(text for text, _ in found).encode()),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", piece)
        for form, content in forms.items():
            expected = wanted
            if form == "text":
                joined = SEPARATOR.join(text for text, _ in found).removeprefix("\ufeff").split(SEPARATOR)
                expected = [(part.encode(), None) for part in joined if part.strip()]
            if expected:
                assert [(each.text, each.group) for each in read(source_of(content), form)] == expected
            else:
                assert reason(source_of(content), form)[0] == "no_documents"


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.binary(max_size=200), form=st.sampled_from(["text", "jsonl", "parquet"]), how=st.integers(0, 2))
def test_any_bytes_are_documents_or_a_reason(source_of: Make, data: bytes, form: str, how: int) -> None:
    """Whatever lies in a file, also behind the beginning of a compressed or Parquet file, it is never an error."""
    head = [b"", gzip.compress(b"x" * 99)[:40], b"PAR1"][how]
    for records in (False, True):
        try:
            found = read(source_of(head + data + head[:4]), form, records=records)
        except Unusable:
            continue
        assert all(document.text.strip() for document in found)


BROKEN: dict[str, tuple[bytes, str, str, str]] = {
    "torn gzip": (gzip.compress(jsonl(*[{"text": str(n)} for n in range(999)]))[:-30], "jsonl", "truncated", "gzip"),
    "torn zstd": (zstandard.compress(jsonl({"text": "a" * 999}))[:-3], "jsonl", "truncated", "zstd"),
    "gzip with rubbish": (gzip.compress(jsonl({"text": "a"})) + b"rubbish", "jsonl", "malformed", "decompressed"),
    "gzip of no known method": (
        gzip.compress(b"abc" * 99).replace(b"\x1f\x8b\x08", b"\x1f\x8b\x07"),
        "text",
        "malformed",
        "decompressed",
    ),
    "Parquet as JSONL": (parquet(text=["a"]), "jsonl", "malformed", "is Parquet, and was announced as jsonl"),
    "JSONL as Parquet": (jsonl({"text": "a"}), "parquet", "malformed", "cannot be read as Parquet"),
    "compressed Parquet": (gzip.compress(parquet(text=["a"])), "parquet", "malformed", "cannot be read as Parquet"),
    "torn Parquet": (parquet(text=["a"])[:-9], "parquet", "malformed", "cannot be read as Parquet"),
    "other columns": (parquet(body=["a"], url=["b"]), "parquet", "malformed", 'no column "text"'),
    "text that is numbers": (parquet(text=[1, 2]), "parquet", "malformed", "holds int64, which is no text"),
    "group that is a list": (parquet(text=["a"], group=[["b"]]), "parquet", "malformed", "which is no group"),
    "Parquet that is not UTF-8": (parquet(text=pa.array([b"\xff"])), "parquet", "not_utf8", "file"),
    "group that is a list in JSONL": (jsonl({"text": "a", "group": ["b"]}), "jsonl", "malformed", "line 1"),
    "text is a number": (jsonl({"text": "a"}, {"text": 1}), "jsonl", "malformed", 'line 2: .* string in "text"'),
    "not UTF-8 in a field that is left alone": (b'{"text": "a", "b": "\xff"}', "jsonl", "not_utf8", "line 1"),
    "not UTF-8 in compressed text": (gzip.compress(b"a\xff"), "text", "not_utf8", "document 1"),
    "nothing compressed": (gzip.compress(b""), "jsonl", "no_documents", "no document"),
    "no rows": (parquet(text=pa.array([], pa.string())), "parquet", "no_documents", "no document"),
    "nulls": (parquet(text=pa.array([None, None], pa.string())), "parquet", "no_documents", "no document"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_has_a_reason(source_of: Make, name: str) -> None:
    """The reason is counted, and the message names the file and says what is wrong."""
    data, form, wanted, words = BROKEN[name]
    found, message = reason(source_of(data), form)
    assert found == wanted
    assert message.startswith("file")
    assert re.search(words, message), message


def test_wrong_columns_are_named(source_of: Make) -> None:
    """Who announces a Parquet file with other columns reads which there are, and where to say so."""
    _, message = reason(source_of(parquet(body=["a"], url=["b"])), "parquet", DataSettings(text="content"))
    assert 'no column "content" for the text; its columns: body, url.' in message
    assert "`data`" in message


def test_fields_are_called_as_configured(source_of: Make) -> None:
    """Text and group are read from the configured fields; a number is a group too, and none is none."""
    data = DataSettings(text="body", group="doc.id")
    lines = jsonl({"body": "a", "doc.id": 7}, {"body": "b", "doc.id": 1.5}, {"body": "c"}, {"body": None})
    columns = parquet(**{"body": ["a", "b", "c"], "doc.id": pa.array([7.0, 1.5, None])})
    assert [(each.text, each.group) for each in read(source_of(lines), "jsonl", data)] == [
        (b"a", "7"),
        (b"b", "1.5"),
        (b"c", None),
    ]
    assert [each.group for each in read(source_of(columns), "parquet", data)] == ["7", "1.5", None]
    same = DataSettings(text="body", group="body")
    assert [each.group for each in read(source_of(lines), "jsonl", same)] == [None] * 3
    assert [each.group for each in read(source_of(columns), "parquet", same)] == [None] * 3


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["ä", "b", "ä"]).dictionary_encode(),
        pa.array(["ä", "b", "ä"], pa.large_string()),
        pa.array(["ä".encode(), b"b", "ä".encode()]),
        pa.array(["ä", "b", "ä"], pa.string_view()),
    ],
    ids=["dictionary", "large string", "bytes", "view"],
)
def test_every_kind_of_text_column_is_read(source_of: Make, column: pa.Array) -> None:
    """However a writer keeps texts, they are the same bytes."""
    found = read(source_of(parquet(text=column, group=column)), "parquet") if column.type != pa.binary() else None
    found = found or read(source_of(parquet(text=column)), "parquet")
    assert [each.text for each in found] == ["ä".encode(), b"b", "ä".encode()]


def test_records_are_rows_in_order_of_their_keys(source_of: Make) -> None:
    """For a model that is not of language each row is one record, the same bytes whatever the order of its keys."""
    lines = source_of(jsonl({"x": [1, 2.5], "y": "ä", "group": 3}, {"group": True, "y": "b", "x": []}))
    found = read(lines, "jsonl", records=True)
    assert [(each.text.decode(), each.group) for each in found] == [
        ('{"group":3,"x":[1,2.5],"y":"ä"}', "3"),
        ('{"group":true,"x":[],"y":"b"}', None),
    ]
    columns = source_of(parquet(y=["ä", "b"], x=[[1, 2.5], []], group=[3, 4]))
    assert [each.text.decode() for each in read(columns, "parquet", records=True)] == [
        '{"group":3,"x":[1.0,2.5],"y":"ä"}',
        '{"group":4,"x":[],"y":"b"}',
    ]
    assert reason(source_of(jsonl([1])), "jsonl", records=True)[0] == "malformed"


def test_a_record_of_every_kind_of_column_is_json(source_of: Make) -> None:
    """Instants, durations, decimals, bytes and what is nested have a form; what is no number is null."""
    columns = {
        "bytes": pa.array([b"\xff"]),
        "date": pa.array([1], pa.date32()),
        "decimal": pa.array([decimal.Decimal("1.50")]),
        "lasts": pa.array([1], pa.duration("ns")),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
        "nan": pa.array([float("nan")]),
        "nested": pa.array([{"a": [{"b": "x"}]}]),
        "when": pa.array([1], pa.timestamp("ns")),
    }
    (found,) = read(source_of(parquet(**columns)), "parquet", records=True)
    assert found.text.decode() == (
        '{"bytes":"/w==","date":"1970-01-02","decimal":"1.50","lasts":"P0DT0H0M0.000000001S","map":[["a",1]],'
        '"nan":null,"nested":{"a":[{"b":"x"}]},"when":"1970-01-01T00:00:00.000000001"}'
    )


def test_text_has_no_records(source_of: Make) -> None:
    """A model of records cannot read plain text, and says what to send."""
    found, message = reason(source_of(b"text"), "text", records=True)
    assert found == "malformed"
    assert "send JSONL or Parquet" in message
    with pytest.raises(StageError, match="known formats: text, jsonl, parquet"):
        read(source_of(b"text"), "csv")


@pytest.mark.parametrize("form", ["text", "jsonl"])
@pytest.mark.parametrize("how", ["plain", "zstd"])
def test_nothing_longer_than_the_bound_is_read(
    source_of: Make, monkeypatch: pytest.MonkeyPatch, form: str, how: str
) -> None:
    """A document of the longest length passes; one byte more is malformed, at the end of the file or before it."""
    monkeypatch.setattr(pieces, "LONGEST", 2000)
    monkeypatch.setattr(pieces, "PIECE", 512)
    longest = b'{"text": "' + b"x" * (2000 - 12) + b'"}'
    for end in (b"", b"\n" if form == "jsonl" else SEPARATOR.encode()):
        assert len(read(source_of(COMPRESSIONS[how](longest + end)), form)) == 1
        longer = longest.replace(b"x", b"xx", 1)
        found, message = reason(source_of(COMPRESSIONS[how](longer + end)), form)
        assert found == "malformed"
        assert "1: it has more than" in message


@pytest.mark.parametrize("records", [False, True])
def test_a_word_that_stands_in_every_row_is_no_bomb(source_of: Make, records: bool) -> None:
    """A few kilobytes of Parquet whose dictionary is worth four gigabytes of text are read a few rows at a time."""
    word = "x" * (4 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array([word]))
    file = io.BytesIO()
    pq.write_table(
        pa.table({"text": column}), file, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False
    )
    source = source_of(file.getvalue())
    assert source.bytes < 10_000
    before = pa.default_memory_pool().max_memory()
    found = list(itertools.islice(documents(source, "parquet", DATA, records=records), 20))
    assert all(len(document.text) >= len(word) for document in found)
    assert pa.default_memory_pool().max_memory() - before < 300 << 20


def test_a_longer_text_in_parquet_is_malformed(source_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is one for all formats."""
    monkeypatch.setattr(pieces, "LONGEST", 2000)
    assert len(read(source_of(parquet(text=["x" * 2000])), "parquet")) == 1
    found, message = reason(source_of(parquet(text=["a", "x" * 2001])), "parquet")
    assert found == "malformed"
    assert "text 2: it has more than" in message


def test_a_byte_order_mark_is_no_text(source_of: Make) -> None:
    """Files that begin with one, as some editors write them, are read as if they did not."""
    for form, data in (("text", b"a"), ("jsonl", jsonl({"text": "a"}))):
        assert read(source_of(b"\xef\xbb\xbf" + data), form) == [Document(text=b"a")]
