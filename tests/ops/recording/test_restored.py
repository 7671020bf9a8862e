"""A journal that was restored from a copy goes on in its MLflow store, unless the store has seen more than it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from daemon.core.events import Record
from daemon.journal.sqlite import open_journal, open_reader
from daemon.journal.sqlite_copy import branch_off, copy_journal
from ops.comparison import compare
from ops.recording.follow import Follower
from ops.recording.store import AnotherJournal, Store

CUT, END = 66, 80


def record_all(path: Path, uri: str, state: Path) -> None:
    """Follow a journal until nothing is left."""
    with open_reader(path) as reader:
        follower = Follower(reader, Store(uri, state), state)
        while follower.step():
            pass


@pytest.fixture
def original(history: Sequence[Record], make_journal: Callable[..., Path], tmp_path: Path) -> Path:
    """A journal of the first part of the history."""
    return make_journal(tmp_path / "original.db", history[:CUT])


@pytest.fixture
def restored(original: Path, tmp_path: Path) -> Path:
    """A journal that was restored from a copy of it."""
    path = tmp_path / "restored.db"
    copy_journal(original, path)
    branch_off(path)
    return path


def test_a_store_that_has_not_seen_more_is_gone_on_with(
    original: Path, restored: Path, history: Sequence[Record], state: Path, make_store: Callable[[], str]
) -> None:
    """What the original recorded stays, the rest follows, nothing is missing; then the original has to stop."""
    uri = make_store()
    record_all(original, uri, state)
    with open_journal(restored) as journal, journal.transaction() as transaction:
        transaction.append(history[CUT:END])
    record_all(restored, uri, state)
    with open_reader(restored) as reader:
        found = compare(reader, uri)
        assert found.clean
        assert found.recorded == END
        assert Store(uri, state).cursor(reader.identity()) == END
    with pytest.raises(AnotherJournal, match="records the journal"):
        record_all(original, uri, state)


def test_a_store_that_has_seen_more_is_not_mixed_with(
    original: Path, restored: Path, state: Path, make_store: Callable[[], str]
) -> None:
    """It tells of positions that mean something else now: refused with both ends named; one less would do."""
    uri = make_store()
    store = Store(uri, state)
    with open_reader(original) as before, open_reader(restored) as after:
        store.commit(CUT, before.identity())
        assert store.cursor(after.identity(), after.ancestors()) == CUT
        store.commit(CUT + 1, before.identity())
        with pytest.raises(AnotherJournal, match=f"up to position {CUT + 1}.*a copy that ends at {CUT}"):
            store.cursor(after.identity(), after.ancestors())
