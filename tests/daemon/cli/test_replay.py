"""`rewarm replay`: exit codes, what a person and a program read, and journals that are none."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core.events import DecisionMade, Record
from daemon.core.state import dump, fingerprint
from daemon.core.transition import REDUCER_VERSION
from daemon.journal.sqlite import SqliteJournal, open_journal
from policies.rewarm_replay import RewarmReplay
from tests.golden.scenarios import GROW, HEAL, JUDGE, one
from tests.golden.tape import Tape

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Command


@pytest.fixture
def tape() -> Tape:
    """A first model."""
    made = Tape(one(GROW, HEAL, JUDGE))
    made.arrive(120)
    made.finish()
    return made


def stored(path: Path, records: Iterable[Record]) -> SqliteJournal:
    """Return a journal with these records, still open for writing."""
    journal = open_journal(path)
    with journal.transaction() as transaction:
        transaction.append(list(records))
    return journal


def spoilt(tape: Tape) -> list[Record]:
    """Return the records with one decision that nobody would make."""
    at = next(n for n, record in enumerate(tape.records) if isinstance(record.event, DecisionMade) and n > 20)
    event = tape.records[at].event
    assert isinstance(event, DecisionMade)
    told = replace(tape.records[at], event=replace(event, reason="It was full moon."))
    return [*tape.records[:at], told, *tape.records[at + 1 :]]


def test_the_journal_of_a_living_writer_is_replayed(rewarm: "Command", tape: Tape, tmp_path: Path) -> None:
    """While a daemon holds the journal: everything is the same, the snapshot is right, the hash is the state's."""
    file = tmp_path / "other.db"
    with stored(file, tape.records) as journal:
        state = dump(tape.state)
        journal.save_snapshot(
            position=tape.state.position, reducer=REDUCER_VERSION, hash=fingerprint(state), state=state
        )
        done = rewarm("replay", "--journal", str(file), "--json")
        shown = rewarm("replay", "--journal", str(file))
    found = json.loads(done.out)
    assert (done.code, found["good"], found["hash"]) == (0, True, fingerprint(state))
    assert found["snapshots"] == {str(tape.state.position): True}
    assert shown.code == 0
    assert "would be answered by the same records" in shown.out
    assert "its hash is right" in shown.out


def test_the_configured_journal_is_the_default(rewarm: "Command", tape: Tape, tmp_path: Path) -> None:
    """Without --journal the configuration says which; --upto ends before the head, amid an answer too."""
    stored(tmp_path / "var" / "journal.db", tape.records).close()
    assert rewarm("replay").code == 0
    done = rewarm("replay", "--upto", "4", "--json")
    assert (done.code, json.loads(done.out)["position"]) == (0, 4)
    assert rewarm("replay", "--upto", "999").code == 2
    assert rewarm("replay", "--upto", "0").code == 2


def test_a_bug_is_shown_side_by_side(rewarm: "Command", tape: Tape, tmp_path: Path) -> None:
    """Exit code 1; position, policy, and what is stored beside what would be stored today."""
    file = tmp_path / "other.db"
    stored(file, spoilt(tape)).close()
    done = rewarm("replay", "--journal", str(file))
    assert done.code == 1
    assert "no version explains it: a bug of rewarm" in done.out
    assert "It was full moon." in done.out
    assert "sequence" in done.out
    found = json.loads(rewarm("replay", "--journal", str(file), "--json").out)
    assert (found["good"], found["differs"]) == (False, 1)
    (difference,) = found["differences"]
    assert difference["stored"]["data"]["reason"] == "It was full moon."
    assert difference["recomputed"]["kind"] == "decision.made"


def test_a_change_fails_only_when_strict(
    rewarm: "Command", tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new version explains is counted by reason; --strict makes it an exit code of 1."""
    file = tmp_path / "other.db"
    stored(file, tape.records).close()
    monkeypatch.setattr(RewarmReplay, "version", 7)
    done = rewarm("replay", "--journal", str(file))
    assert done.code == 0
    assert "rewarm_replay had version 3, now it has 7" in done.out
    assert "concerns the future only" in done.out
    assert rewarm("replay", "--journal", str(file), "--strict").code == 1


def test_a_wrong_snapshot_fails(rewarm: "Command", tape: Tape, tmp_path: Path) -> None:
    """A snapshot whose hash is not that of the fold, or that is damaged, is exit code 1 and named."""
    file = tmp_path / "other.db"
    with stored(file, tape.records) as journal:
        state = dump(tape.state)
        journal.save_snapshot(position=5, reducer=REDUCER_VERSION, hash=fingerprint(state), state=state)
        journal.save_snapshot(position=6, reducer=REDUCER_VERSION, hash=fingerprint(state), state=b"{}")
    done = rewarm("replay", "--journal", str(file))
    assert done.code == 1
    assert "its hash is not that of the records before it" in done.out
    assert "it is damaged" in done.out


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("UPDATE record SET position = position + 100 WHERE position > 7", "position 8 is missing before 108"),
        ("UPDATE record SET data = substr(data, 1, 9) WHERE position = 7", "Record 7 cannot be read"),
        ("UPDATE record SET version = 99 WHERE position = 7", "written by a newer rewarm"),
        ("PRAGMA user_version = 99", "upgrade rewarm"),
        ("UPDATE record SET cause = 1 WHERE position = 5", "which is not the fact before it"),
    ],
)
def test_what_cannot_be_replayed_is_told(rewarm: "Command", tape: Tape, tmp_path: Path, spoil: str, told: str) -> None:
    """A gap, a torn record, one from the future, a newer file: one clear line, no traceback."""
    file = tmp_path / "other.db"
    stored(file, tape.records).close()
    with sqlite3.connect(file) as connection:
        connection.execute(spoil)
    connection.close()
    done = rewarm("replay", "--journal", str(file))
    assert done.code == 2
    assert told in done.err


def test_a_torn_file_and_none_are_told(rewarm: "Command", tape: Tape, tmp_path: Path) -> None:
    """Half a file and no file are named as such."""
    file = tmp_path / "other.db"
    stored(file, tape.records).close()
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    assert "restore it from a backup" in rewarm("replay", "--journal", str(file)).err
    assert "There is no journal" in rewarm("replay", "--journal", str(tmp_path / "none.db")).err
