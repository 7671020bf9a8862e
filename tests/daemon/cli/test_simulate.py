"""`rewarm simulate`: what it shows, what it compares, and what it refuses."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.journal.sqlite import open_reader

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command

OTHER = """
pipelines:
  docs-lm:
    policies:
      - {kind: rewarm_replay, after_tokens: 100_000}
      - {kind: promotion}
"""


def test_a_made_up_history_without_a_journal(rewarm: "Command") -> None:
    """Runs, compute, staleness and the champion's age are told, and that every cost is a default."""
    out = rewarm("simulate", "--days", "3").out
    assert "3 days of virtual time from 2026-01-05 00:00 UTC, seed 1, 1 slot" in out
    for words in ("increment promoted", "compute-hours", "nine tenths within", "changes of the champion", "mean age"):
        assert words in out
    assert "there are no past runs to learn from" in out
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_json_holds_everything_and_is_the_same_again(rewarm: "Command") -> None:
    """--json gives the assumptions and the whole report, byte for byte the same the next time."""
    arguments = ("simulate", "--history", "bursty", "--days", "2", "--json")
    out = rewarm(*arguments).out
    assert rewarm(*arguments).out == out
    answer = json.loads(out)
    assert answer["learned_from"] is None
    assert answer["costs"]["durations"]["train"]["seen"] == 0
    report = answer["reports"][0]
    assert report["name"] == "in force"
    assert report["pipelines"]["docs-lm"]["arrivals"] == report["facts"]["data.arrived"]


def test_costs_are_learned_from_the_journal(rewarm: "Command", trained: "Chronicle") -> None:
    """Where there were runs, their times are taken, and the answer says from which journal; nothing is written."""
    before = trained.state.position
    answer = json.loads(rewarm("simulate", "--days", "1", "--json").out)
    assert answer["learned_from"].endswith("journal.db")
    assert answer["costs"]["durations"]["train"]["seen"] > 0
    with open_reader(trained.configuration.journal) as reader:
        assert reader.head() == before


def test_a_recorded_history_is_replayed(rewarm: "Command", trained: "Chronicle") -> None:
    """What the journal was told from outside comes again, under the policies that it has in force."""
    answer = json.loads(rewarm("simulate", "--history", "journal", "--json").out)
    with open_reader(trained.configuration.journal) as reader:
        arrived = len(reader.records(0, kinds=("data.arrived",)))
    assert answer["history"] == "journal"
    assert answer["reports"][0]["facts"]["data.arrived"] == arrived
    assert answer["reports"][0]["configuration"] == trained.configuration.changed().hash


def test_two_configurations_are_compared(rewarm: "Command", tmp_path: Path) -> None:
    """--against shows both over the same history, and the change; the same one changes nothing."""
    other = tmp_path / "other.yaml"
    other.write_text(OTHER)
    out = rewarm("simulate", "--days", "3", "--against", str(other)).out
    line = next(line for line in out.splitlines() if line.startswith("runs"))
    before, after, change = (int(cell.replace("−", "-")) for cell in line.split()[1:])
    assert after - before == change != 0
    assert "other.yaml" in out
    same = rewarm("simulate", "--days", "1", "--against", "rewarm.yaml").out
    assert "Nothing would change." in same


def test_what_is_in_shadow_says_what_to_simulate_instead(rewarm: "Command", tmp_path: Path) -> None:
    """A table without a run would answer nothing: it says that a copy without the mode is to be simulated."""
    other = tmp_path / "other.yaml"
    other.write_text(OTHER.replace("policies:", "mode: shadow\n    policies:"))
    out = " ".join(rewarm("simulate", "--days", "1", "--against", str(other)).out.split())
    assert "does nothing here either (other.yaml): simulate a copy of the configuration without `mode: shadow`" in out
    assert "does nothing here" not in rewarm("simulate", "--days", "1").out


@pytest.mark.parametrize("name", ["picture.svg", "picture.png"])
def test_a_picture_is_drawn(rewarm: "Command", tmp_path: Path, name: str) -> None:
    """--plot writes what its ending says."""
    path = tmp_path / name
    assert str(path) in rewarm("simulate", "--days", "1", "--plot", str(path)).out.replace("\n", "")
    assert path.read_bytes().startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--history", "sunny"],
            ["'sunny'", "steady", "bursty", "busy", "seasonal", "dying", "failure-storm", "journal"],
        ),
        (["--days", "0"], ["--days 0", "more than 0"]),
        (["--days", "nan"], ["--days nan"]),
        (["--days", "99999"], ["--days", "3,650"]),
        (["--history", "busy", "--days", "3650"], ["busy", "21,024,000", "--days", "--events"]),
        (["--events", "0"], ["--events 0"]),
        (["--tokens", "-3"], ["--tokens -3"]),
        (["--pipeline", "nobody"], ["'nobody'", "docs-lm"]),
        (["--approve-after", "soon"], ["'soon'", "4h"]),
        (["--plot", "picture.pdf"], ["picture.pdf", ".svg", ".png"]),
        (["--plot", "no/such/folder/p.svg", "--days", "0.1"], ["no/such/folder/p.svg", "no folder"]),
        (["--journal", "nowhere.db"], ["nowhere.db"]),
        (["--history", "journal"], ["no journal", "--journal"]),
        (["--history", "journal", "--days", "3", "--tokens", "5"], ["--days and --tokens"]),
        (["--against", "nothing.yaml"], ["nothing.yaml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_simulated_is_named(rewarm: "Command", arguments: list[str], words: list[str]) -> None:
    """A mistake is one sentence that names it and what would do, with exit code 2."""
    told = rewarm("simulate", *arguments)
    assert told.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    for word in words:
        assert word in told.err


def test_the_other_configuration_needs_the_pipeline(rewarm: "Command", tmp_path: Path) -> None:
    """Two configurations can be compared over pipelines that both have."""
    other = tmp_path / "other.yaml"
    other.write_text(OTHER.replace("docs-lm", "others"))
    told = rewarm("simulate", "--against", str(other))
    assert (told.code, "'docs-lm'" in told.err) == (2, True)
