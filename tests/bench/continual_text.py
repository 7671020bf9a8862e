"""Two domains of text, each cut into what is trained on and what is only measured.

Without a folder: the docstrings and comments of Python's standard library, and its code without them; a module is a
document of both and lies in the same part of both. With one: a folder of `NAME.train.jsonl.gz`, whose lines have `id`,
`group` and `text`; whole groups (a novel, a page) are held out.
"""

import gzip
import hashlib
import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from daemon.cli.demo.corpus import LEAST_BYTES, code_of, library, prose_of, read

HELD_OUT = 0.15
LONGEST = 32_768
"""Bytes of a document; a longer one is cut, or a few of them would be the whole corpus."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an arrival; `group` is what it is held out with."""

    id: str
    group: str
    text: str


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain's documents: those to train on and those to measure, no group in both."""

    name: str
    told: str
    train: tuple[Document, ...]
    held_out: tuple[Document, ...]


def standard_library(budget: int, measured: int) -> tuple[Domain, Domain]:
    """Return prose and code, each with about `budget` bytes to train on and `measured` to measure."""
    prose, code = [], []
    for name, path in library(Path(sysconfig.get_paths()["stdlib"])):
        module = read(path, name)
        if module is not None:
            prose.append(Document(id=name, group=name, text=prose_of(module)))
            code.append(Document(id=name, group=name, text=code_of(module)))
    return (
        cut("prose", "docstrings and comments of Python's standard library", prose, budget, measured),
        cut("code", "the code of Python's standard library without them", code, budget, measured),
    )


def folder(path: Path, name: str, budget: int, measured: int) -> Domain:
    """Return a domain of a folder of corpora, `name` as `en_a` or (one file of several) `dated_beige/03`.

    Raises FileNotFoundError when it has none of that name.
    """
    files = sorted({*path.glob(f"{name}.train.jsonl.gz"), *path.glob(f"{name}/*.train.jsonl.gz")})
    if not files:
        message = f"{path} has no {name}.train.jsonl.gz: name the two domains by FROM= and TO=."
        raise FileNotFoundError(message)
    return cut(name.replace("/", "-"), f"{name} of {path}", _lines(files), budget, measured)


def cut(name: str, told: str, documents: Iterable[Document], budget: int, measured: int) -> Domain:
    """Return a domain whose parts hold about so many bytes, or all there are, in the order of the documents' hashes."""
    parts: dict[bool, list[Document]] = {True: [], False: []}
    left = {True: measured, False: budget}
    for document in sorted(documents, key=lambda each: _share(f"order/{each.id}")):
        held = _share(f"held out/{document.group}") < HELD_OUT
        text = document.text.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore")
        if len(text) < LEAST_BYTES or left[held] <= 0:
            continue
        parts[held].append(msgspec.structs.replace(document, text=text))
        left[held] -= len(text.encode())
    return Domain(name=name, told=told, train=tuple(parts[False]), held_out=tuple(parts[True]))


def _share(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") / 2**64


def _lines(files: Iterable[Path]) -> Iterator[Document]:
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                fields = json.loads(line)
                yield Document(id=fields["id"], group=fields["group"], text=fields["text"])
