"""`rewarm backup` and `rewarm restore`."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.core.events import Position
from daemon.journal.sqlite import open_journal
from ops.recording import cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command


@pytest.fixture
def begun(chronicle: "Chronicle") -> "Chronicle":
    """A journal without models: an arrival that is too small to train on."""
    chronicle.arrive("prose", 1000, id="prose-1")
    chronicle.close()
    return chronicle


def test_backup_verify_wipe_restore(rewarm: "Command", begun: "Chronicle", tmp_path: Path) -> None:
    """The three commands agree on position and state hash, and `replay` finds the same afterwards."""
    taken = json.loads(rewarm("backup", "copy", "--json").out)
    assert (taken["position"], taken["problems"]) == (begun.state.position, [])
    assert json.loads(rewarm("backup", "copy", "--verify", "--json").out)["state_hash"] == taken["state_hash"]
    shutil.rmtree(tmp_path / "var")
    done = rewarm("restore", "copy", "--json")
    restored = json.loads(done.out)
    assert (done.code, restored["state_hash"]) == (0, taken["state_hash"])
    assert restored["identity"] != taken["identity"]
    replayed = json.loads(rewarm("replay", "--json").out)
    assert (replayed["position"], replayed["hash"]) == (taken["position"], taken["state_hash"])


def test_people_read_what_was_done(rewarm: "Command", begun: "Chronicle", tmp_path: Path) -> None:
    """Position, hash and size, and that everything was checked."""
    shown = rewarm("backup", "copy")
    assert shown.code == 0
    assert "every file of it checked" in shown.out
    assert f"{begun.state.position} records" in shown.out
    assert "The backup is whole." in rewarm("backup", "copy", "--verify").out
    shutil.rmtree(tmp_path / "var")
    assert "serve` goes on from here" in rewarm("restore", "copy").out


def test_a_damaged_backup_is_told(rewarm: "Command", begun: "Chronicle", tmp_path: Path) -> None:
    """--verify: exit code 1 and the fault; restore: exit code 2 and nothing in place."""
    rewarm("backup", "copy")
    with (tmp_path / "copy" / "journal.db").open("ab") as file:
        file.write(b"x")
    verified = rewarm("backup", "copy", "--verify")
    assert verified.code == 1
    assert "another content" in verified.err
    assert "whole" not in verified.out
    shutil.rmtree(tmp_path / "var")
    assert rewarm("restore", "copy").code == 2
    assert not (tmp_path / "var" / "journal.db").exists()


def test_what_is_in_the_way_is_told(rewarm: "Command", begun: "Chronicle", configuration: "Configuration") -> None:
    """A target that is there, a journal that is there, a daemon that runs, a folder that is no backup."""
    rewarm("backup", "copy")
    assert "is there already" in rewarm("backup", "copy").err
    assert "already there" in rewarm("restore", "copy").err
    assert rewarm("restore", "nowhere").code == 2
    with open_journal(configuration.journal):
        assert rewarm("restore", "copy").code == 3


def test_what_came_after_the_copy_is_told(
    rewarm: "Command", begun: "Chronicle", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MLflow store that is ahead, and spool files that the restored journal has not read."""
    rewarm("backup", "copy")
    shutil.rmtree(tmp_path / "var")
    processed = tmp_path / "var" / "spool" / "processed"
    processed.mkdir(parents=True)
    (processed / "later.json").write_bytes(b"{}")
    monkeypatch.setattr(cursor, "read_cursor", lambda uri, state: 99)
    done = rewarm("restore", "copy", "--json")
    hints = json.loads(done.out)["hints"]
    assert any("up to position 99" in hint and "mlflow.db" in hint for hint in hints)
    assert any("later.json" in hint for hint in hints)


def test_kafka_is_read_again_from_where_the_copy_stood(
    rewarm: "Command", chronicle: "Chronicle", listen: "Callable[..., Configuration]", tmp_path: Path
) -> None:
    """A position that moved after the copy stands as before; that this is so is told."""
    listen("127.0.0.1:1", "events")
    place = Position(source="kafka", cluster="C", topic="events", topic_id="A", partition=0, offset=30)
    chronicle.read(place)
    rewarm("backup", "copy")
    chronicle.read(msgspec.structs.replace(place, offset=50))
    assert "kafka/events: read up to 50" in rewarm("status").out
    chronicle.close()
    shutil.rmtree(tmp_path / "var")

    (hint,) = json.loads(rewarm("restore", "copy", "--json").out)["hints"]

    assert "Kafka is read again from where the copy stood" in hint
    assert "kafka/events: read up to 30" in rewarm("status").out
