"""The state at start: from a snapshot that holds, else from the records."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.core.errors import JournalFull
from daemon.core.events import ConfigurationChanged, DataArrived, PipelineSettings, Record
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.journal.memory import MemoryJournal, MemoryReader
from daemon.restore import restore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class History:
    """A journal of a configuration and so many arrivals, and the state at each position."""

    def __init__(self, arrivals: int) -> None:
        self.journal = MemoryJournal()
        self.states = [State()]
        settings = PipelineSettings(stages=("ingest",), policies=())
        self.add(ConfigurationChanged(hash="h", slots=1, pipelines={"p": settings}), None)
        for number in range(arrivals):
            self.add(DataArrived(uri=str(number), domain="prose", tokens=1, bytes=1), "p")

    def add(self, event: ConfigurationChanged | DataArrived, pipeline: str | None) -> None:
        """Append and fold."""
        position = self.journal.head() + 1
        record = Record(
            position=position,
            recorded_at=NOON + timedelta(seconds=position),
            source="/s",
            id=str(position),
            pipeline=pipeline,
            event=event,
        )
        with self.journal.transaction() as transaction:
            transaction.append([record])
        self.states.append(evolve(self.states[-1], record))

    def keep(
        self, position: int, *, state: bytes | None = None, hash_: str | None = None, reducer: int = REDUCER_VERSION
    ) -> None:
        """Save a snapshot, right or wrong."""
        content = dump(self.states[position]) if state is None else state
        self.journal.save_snapshot(
            position=position, reducer=reducer, hash=hash_ or fingerprint(content), state=content
        )


@pytest.fixture
def history() -> History:
    """A journal of 20 records."""
    return History(19)


def test_an_empty_journal_gives_the_first_state() -> None:
    """Nothing recorded, nothing known."""
    restored = restore(MemoryJournal())
    assert (restored.state, restored.snapshot, restored.skipped) == (State(), 0, ())


def test_without_a_snapshot_all_is_folded(history: History) -> None:
    """The fold of all records is the state."""
    restored = restore(history.journal)
    assert restored.state == history.states[20]
    assert restored.snapshot == 0


@pytest.mark.parametrize("position", [1, 10, 20])
def test_from_a_snapshot_the_state_is_the_same(history: History, position: int) -> None:
    """Only what came after it is folded, and the result is the same to the byte."""
    history.keep(position)
    restored = restore(history.journal)
    assert dump(restored.state) == dump(history.states[20])
    assert restored.snapshot == position
    assert not restored.skipped


def test_a_snapshot_is_believed(history: History) -> None:
    """A snapshot whose hash is right is taken as it is: records before it are not read."""
    history.keep(10, state=dump(history.states[5]).replace(b'"position":5', b'"position":10'))
    assert restore(history.journal).state != history.states[20]
    assert restore(history.journal, use_snapshots=False).state == history.states[20]


def test_snapshots_that_do_not_hold_are_skipped(history: History) -> None:
    """A wrong hash, and content of another shape, are named; the older snapshot is used."""
    history.keep(5)
    history.keep(10, hash_="0" * 64)
    restored = restore(history.journal)
    assert (restored.snapshot, restored.state) == (5, history.states[20])
    assert "snapshot at 10" in restored.skipped[0]
    history.keep(12, state=b'{"position": "twelve"}')
    restored = restore(history.journal)
    assert (restored.snapshot, len(restored.skipped)) == (0, 2)
    assert restored.state == history.states[20]


def test_another_reducers_snapshots_are_not_used(history: History) -> None:
    """New code folds from the start."""
    history.keep(10, reducer=REDUCER_VERSION + 1)
    restored = restore(history.journal)
    assert (restored.snapshot, restored.state) == (0, history.states[20])


def test_a_snapshot_beyond_the_head_is_skipped(history: History) -> None:
    """A journal that was restored from an older backup does not believe a snapshot of its future."""

    class Shorter(MemoryReader):
        """The same journal, cut after ten records."""

        def head(self) -> int:
            """Return where it ends."""
            return 10

    history.keep(15)
    restored = restore(Shorter(history.journal._store))  # noqa: SLF001 - a reader on the same store
    assert restored.snapshot == 0
    assert "snapshot at 15" in restored.skipped[0]


def test_errors_of_the_journal_go_up(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is not guessed."""

    def records(*arguments: object, **conditions: object) -> list[Record]:
        raise JournalFull("unreadable")

    monkeypatch.setattr(history.journal, "records", records)
    with pytest.raises(JournalFull):
        restore(history.journal)


def test_whoever_folds_is_asked_now_and_then_whether_to_go_on(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long journal is folded in steps, between which the daemon shows that it lives, or is ended."""

    class Ended(Exception):
        """The end of the fold."""

    asked: list[None] = []

    def tick() -> None:
        asked.append(None)
        if len(asked) == 5:
            raise Ended

    monkeypatch.setattr("daemon.restore.TICK_RECORDS", 5)
    assert restore(history.journal, tick=tick).state == history.states[20]
    assert len(asked) == 4
    with pytest.raises(Ended):
        restore(history.journal, tick=tick)
