"""Dated text as arrivals: each at a virtual instant that follows its date, and a text to measure what came next.

A folder has `dated_NAME/NN_FROM-TO.train.jsonl.gz` and `.val.jsonl.gz`, whose lines have `text`. Documents are cut into
pieces and taken in an order of their hashes until the arrival has its size.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from daemon.files import write_atomically

SERIES = ("dated_beige", "dated_tech")
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
YEAR = timedelta(days=10)
"""Of virtual time for a year of the corpus."""
PIECE = 1024


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is: bytes of a series' first arrival, the share of the others' text, bytes that are measured.

    `arrivals`: of each series at most so many.
    """

    first: int
    share: float
    measured: int
    arrivals: int = 99


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival: its number in its series, when it comes, its file, and the file to be measured on."""

    series: str
    number: int
    name: str
    at: datetime
    file: str
    bytes: int
    tokens: int
    documents: int
    measured: str


def arrivals(data: Path, inbox: Path, size: Size) -> dict[str, list[Text]]:
    """Write every arrival's files, the same bytes every time; raises FileNotFoundError where the folder has none."""
    found = {}
    for series in SERIES:
        files = sorted((data / series).glob("*.train.jsonl.gz"))[: size.arrivals]
        if not files:
            raise FileNotFoundError(f"DATA={data} has no {series}/*.train.jsonl.gz: name a folder of dated text.")
        begin = first_year(files[0])
        found[series] = [_text(series, number, path, begin, inbox, size) for number, path in enumerate(files, 1)]
    return found


def first_year(path: Path) -> int:
    """Return the year in which a file's text begins: `03_1982-1987.train.jsonl.gz` says 1982."""
    return int(path.name.split("_")[1].split("-")[0])


def _text(series: str, number: int, path: Path, begin: int, inbox: Path, size: Size) -> Text:
    name = path.name.removesuffix(".train.jsonl.gz")
    texts = pieces(_documents(path))
    budget = size.first if number == 1 else round(size.share * sum(len(text.encode()) for text in texts))
    kept = upto(texts, budget)
    measured = pieces(_documents(path.with_name(f"{name}.val.jsonl.gz")))
    file = f"{series}-{name}.jsonl"
    written = _write(inbox / file, kept)
    _write(inbox / f"measured-{file}", upto(measured, size.measured))
    return Text(
        series=series,
        number=number,
        name=name,
        at=BEGIN + (first_year(path) - begin) * YEAR,
        file=str(inbox / file),
        bytes=written,
        tokens=sum(len(text.encode()) for text in kept),
        documents=len(kept),
        measured=str(inbox / f"measured-{file}"),
    )


def pieces(texts: Iterator[str]) -> list[str]:
    """Return texts in pieces of at most PIECE bytes, in the order of their hashes."""
    found = []
    for text in texts:
        data = text.encode()
        found += [data[at : at + PIECE].decode(errors="ignore").strip() for at in range(0, len(data), PIECE)]
    return sorted((each for each in found if each), key=lambda each: hashlib.sha256(each.encode()).digest())


def upto(texts: Sequence[str], budget: int) -> list[str]:
    """Return the first texts that have so many bytes together, or all."""
    kept, taken = [], 0
    for text in texts:
        if taken >= budget:
            break
        kept.append(text)
        taken += len(text.encode())
    return kept


def _documents(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def _write(path: Path, texts: Sequence[str]) -> int:
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return len(data)
