"""How far MLflow is behind, fast; and what a damaged store looks like."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from daemon.core.events import Record
from daemon.journal.memory import MemoryJournal
from ops.comparison import behind, compare
from ops.recording.cursor import sqlite_file, write_hint

MakeReader = Callable[[Sequence[Record]], MemoryJournal]


def test_without_a_store_nothing_is_known(tmp_path: Path, history: Sequence[Record], make_reader: MakeReader) -> None:
    """No file: None for `status`, everything behind for `doctor`; nothing is created by asking."""
    uri = f"sqlite:///{tmp_path}/none.db"
    assert behind(7, uri, tmp_path) is None
    found = compare(make_reader(history[:7]), uri)
    assert (found.transitions, found.recorded, found.behind) == (7, 0, 7)
    assert list(tmp_path.iterdir()) == []


def test_a_remote_store_is_judged_by_the_recorders_hint(tmp_path: Path) -> None:
    """For other than embedded stores the number in the state folder counts."""
    assert behind(7, "http://127.0.0.1:9/", tmp_path) is None
    write_hint(tmp_path, 5)
    assert behind(7, "http://127.0.0.1:9/", tmp_path) == 2


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///var/m.db", "var/m.db"),
        ("sqlite:////var/m.db?timeout=3", "/var/m.db"),
        ("sqlite+pysqlite:///m.db", "m.db"),
        ("postgresql://host/db", None),
        ("http://host:5000", None),
    ],
)
def test_only_embedded_stores_are_files(uri: str, path: str | None) -> None:
    """The file of an embedded store is found in its URI."""
    assert sqlite_file(uri) == (None if path is None else Path(path))


def test_asking_how_far_imports_no_heavy_library() -> None:
    """`rewarm status` stays fast."""
    code = (
        "import sys, pathlib, ops.comparison as c; c.behind(3, 'sqlite:///no/such.db', pathlib.Path('.'));"
        "print(sorted({'mlflow', 'torch', 'matplotlib', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_damage_is_found(
    history: Sequence[Record], state: Path, make_reader: MakeReader, make_store: Callable[[], str]
) -> None:
    """A removed segment counts as missing, a changed one as differing, a torn one too; positions are named."""
    from mlflow import MlflowClient

    from ops.recording.follow import Follower
    from ops.recording.store import Store, find_run

    uri = make_store()
    reader = make_reader(history[:70])
    follower = Follower(reader, Store(uri, state), state)
    while follower.step():
        pass
    assert behind(reader.head(), uri, state) == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("docs-lm")
    assert experiment is not None
    run = find_run(client, experiment.experiment_id, "docs-lm/2026-01")
    assert run is not None
    segment = Path(url2pathname(urlparse(run.info.artifact_uri).path), "transitions", "000000000-000000099.json")
    whole = segment.read_bytes()
    kept = whole.count(b'"position"')
    segment.write_bytes(whole.replace(b"in/3.jsonl", b"in/4.jsonl"))
    changed = compare(reader, uri)
    assert (changed.missing, changed.differing, changed.examples) == (0, 1, (5,))
    segment.write_bytes(whole[:-9])
    torn = compare(reader, uri)
    assert (torn.missing, torn.differing, torn.clean) == (kept, 1, False)
    segment.unlink()
    assert compare(reader, uri).missing == kept
    segment.write_bytes(whole)
    assert compare(reader, uri).clean
