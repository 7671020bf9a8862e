"""The demo's text: the standard library's own source as three domains, the same on every call."""

from pathlib import Path

import msgspec
import pytest

from daemon.cli.demo import corpus
from daemon.cli.demo.steps import library

MODULE = '''"""The module's purpose.

It has two paragraphs.
"""
import os  # for paths

# A block of comments,
# over two lines.
SIZE = "# no comment"


def size(path):
    """Return a size."""
    return os.stat(path).st_size  # in bytes
'''


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    """A small standard library."""
    folder = tmp_path / "stdlib"
    files = {
        **{f"module{number}.py": MODULE + f"\nNUMBER = {number}\n" + "x = 1\n" * 30 for number in range(8)},
        "package/inner.py": MODULE + "y = 2\n" * 40,
        "test/test_size.py": "def test():\n    assert True\n" * 20,
        "site-packages/other.py": MODULE * 3,
        "idlelib/run.py": "import tkinter\n" * 10_000,
        "config-3.11/generated.py": MODULE,
        "broken.py": "def (:\n",
        "latin.py": "x = 'é'\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if name == "latin.py" else "utf-8"))
    return folder


@pytest.fixture
def module(stdlib: Path) -> corpus.Module:
    """A module that was read."""
    found = corpus.read(stdlib / "module1.py", "module1.py")
    assert found is not None
    return found


def test_prose_is_docstrings_and_comments(module: corpus.Module) -> None:
    """Docstrings and blocks of comments come in the order of their lines, without signs."""
    assert corpus.prose_of(module).split("\n\n") == [
        "The module's purpose.",
        "It has two paragraphs.",
        "for paths",
        "A block of comments,\nover two lines.",
        "Return a size.",
        "in bytes",
    ]


def test_code_has_neither_docstrings_nor_comments(module: corpus.Module) -> None:
    """The lines of code stay as they are; a sign inside a string is no comment."""
    lines = corpus.code_of(module).splitlines()

    assert lines[:3] == ["import os", "", 'SIZE = "# no comment"']
    assert "    return os.stat(path).st_size" in lines
    assert not any('"""' in line or "bytes" in line for line in lines)


def test_documents_are_the_same_on_every_call(stdlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and cut depend on names and contents alone."""
    monkeypatch.setattr(corpus, "LEAST_BYTES", 20)
    first = corpus.prose(stdlib, 500)

    assert first.jsonl() == corpus.prose(stdlib, 500).jsonl()
    assert 0 < sum(len(document.text) for document in first.documents) <= 500
    names = [document.id for document in corpus.code(stdlib, 10_000).documents]
    assert names != sorted(names)
    assert set(names) == {*(f"module{number}.py" for number in range(8)), "package/inner.py"}


def test_each_line_is_a_document(stdlib: Path) -> None:
    """An arrival is JSONL with an id and a text."""
    lines = corpus.code(stdlib, 10_000).jsonl().splitlines()

    documents = [msgspec.json.decode(line, type=corpus.Document) for line in lines]
    assert all(document.text for document in documents)


def test_without_tests_the_programs_are_taken_and_it_says_so(stdlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a distribution leaves the tests out, another domain of the library takes their place."""
    made = corpus.tests(stdlib, 700_000)
    assert made.domain == "programs"
    assert "not installed" in made.told

    monkeypatch.setattr(corpus, "ENOUGH", 100)
    assert corpus.tests(stdlib, 700_000).domain == "tests"


def test_a_document_ends_with_a_whole_line(stdlib: Path) -> None:
    """Long modules are cut between lines."""
    made = corpus.tests(stdlib, 700_000)

    assert all(document.text.endswith("import tkinter") for document in made.documents)
    assert all(len(document.text) <= corpus.DOCUMENT_BYTES for document in made.documents)


def test_this_machines_library_is_enough() -> None:
    """The library that runs this test has text of the first two domains."""
    assert len(corpus.code(library(), 60_000).documents) > 10
    assert len(corpus.prose(library(), 60_000).documents) > 10
