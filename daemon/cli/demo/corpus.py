"""Text that every machine with Python has: the standard library's own source, as three domains.

`prose` is its docstrings and comments, `code` is its code without them, `tests` is the source of its tests
(where a distribution ships none, of the programs that come with it). One document is the beginning of what
one module has of a domain; the order is by the hash of the module's name, so that a cut is a fair sample.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

DOCUMENT_BYTES = 4096
LEAST_BYTES = 200
TESTS = ("test", "tests")
PROGRAMS = ("idlelib", "lib2to3", "turtledemo", "tkinter", "distutils")
LEFT_OUT = frozenset({*TESTS, *PROGRAMS, "site-packages", "dist-packages", "encodings", "pydoc_data", "ensurepip"})
ENOUGH = 100_000
"""Bytes below which a domain is not worth an arrival."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a JSONL arrival."""

    id: str
    text: str


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a domain and what they are, in words."""

    domain: str
    told: str
    documents: tuple[Document, ...]

    def jsonl(self) -> bytes:
        """Return the documents as they are delivered."""
        return b"".join(msgspec.json.encode(document) + b"\n" for document in self.documents)


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A module's source, with the lines of its docstrings: (first, last), counted from 1."""

    name: str
    lines: list[str]
    docstrings: dict[tuple[int, int], str]
    comments: dict[int, tuple[int, str]]


def prose(stdlib: Path, budget: int) -> Corpus:
    """Return docstrings and comments of the library's modules."""
    told = "the docstrings and comments of Python's standard library"
    return Corpus(domain="prose", told=told, documents=_take(library(stdlib), prose_of, budget))


def code(stdlib: Path, budget: int) -> Corpus:
    """Return the library's code without docstrings and comments."""
    told = "the code of Python's standard library, without docstrings and comments"
    return Corpus(domain="code", told=told, documents=_take(library(stdlib), code_of, budget))


def tests(stdlib: Path, budget: int) -> Corpus:
    """Return the source of the library's tests, or of its programs where the tests are not installed."""
    documents = _take(_below(stdlib, TESTS), source_of, budget)
    if sum(len(document.text) for document in documents) >= ENOUGH:
        return Corpus(domain="tests", told="the tests of Python's standard library", documents=documents)
    told = "programs that come with Python (its tests are not installed here)"
    return Corpus(domain="programs", told=told, documents=_take(_below(stdlib, PROGRAMS), source_of, budget))


def read(path: Path, name: str) -> Module | None:
    """Return a parsed module, None for what is no valid source (some tests are broken on purpose)."""
    try:
        data = path.read_bytes()
        tree = ast.parse(data)
        tokens = list(tokenize.tokenize(io.BytesIO(data).readline))
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        lines = data.decode(encoding).splitlines()
    except (OSError, SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return None
    docstrings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                docstrings[node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno] = text
    comments = {token.start[0]: (token.start[1], token.string) for token in tokens if token.type == tokenize.COMMENT}
    return Module(name=name, lines=lines, docstrings=docstrings, comments=comments)


def prose_of(module: Module) -> str:
    """Return a module's docstrings and blocks of comments, in the order of its lines."""
    parts = {first: text for (first, _), text in module.docstrings.items()}
    begun, last = 0, -1
    for line, (_, comment) in sorted(module.comments.items()):
        text = comment.lstrip("#!").strip()
        begun = begun if line == last + 1 else line
        last = line
        if text.strip("-=*#~ "):
            parts[begun] = f"{parts[begun]}\n{text}" if begun in parts else text
    return "\n\n".join(text for _, text in sorted(parts.items()))


def code_of(module: Module) -> str:
    """Return a module's lines without docstrings, comments and more than one empty line in a row."""
    hidden = {line for first, last in module.docstrings for line in range(first, last + 1)}
    kept: list[str] = []
    for number, line in enumerate(module.lines, start=1):
        if number in hidden:
            continue
        column, _ = module.comments.get(number, (len(line), ""))
        text = line[:column].rstrip()
        if text or (kept and kept[-1]):
            kept.append(text)
    return "\n".join(kept).strip()


def source_of(module: Module) -> str:
    """Return a module's whole source."""
    return "\n".join(module.lines).strip()


def library(stdlib: Path) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of the library's own modules, in the order of the hashes of their names."""
    return _sources(stdlib, lambda parts: not LEFT_OUT.intersection(parts) and not parts[0].startswith("config-"))


def _below(stdlib: Path, folders: Iterable[str]) -> Iterator[tuple[str, Path]]:
    wanted = frozenset(folders)
    return _sources(stdlib, lambda parts: parts[0] in wanted and len(parts) > 1)


def _sources(stdlib: Path, chosen: Callable[[tuple[str, ...]], bool]) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of modules in the order of the hashes of their names."""
    found = []
    for path in stdlib.rglob("*.py"):
        relative = path.relative_to(stdlib)
        if chosen(relative.parts):
            name = relative.as_posix()
            found.append((hashlib.sha256(name.encode()).digest(), name, path))
    return ((name, path) for _, name, path in sorted(found))


def _take(modules: Iterable[tuple[str, Path]], text_of: Callable[[Module], str], budget: int) -> tuple[Document, ...]:
    """Return documents until `budget` bytes are full."""
    documents: list[Document] = []
    taken = 0
    for name, path in modules:
        module = read(path, name)
        text = _beginning(text_of(module)) if module is not None else ""
        size = len(text.encode("utf-8", "replace"))
        if size < LEAST_BYTES:
            continue
        if taken + size > budget:
            break
        taken += size
        documents.append(Document(id=name, text=text))
    return tuple(documents)


def _beginning(text: str) -> str:
    """Return whole lines from the start of a text, as many as fit into a document; no lone surrogates."""
    data = text.encode("utf-8", "replace")
    if len(data) > DOCUMENT_BYTES:
        data = data[:DOCUMENT_BYTES].rpartition(b"\n")[0] or data[:DOCUMENT_BYTES]
    return data.decode("utf-8", "ignore")
