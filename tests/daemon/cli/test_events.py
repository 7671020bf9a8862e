"""The journal as lines."""

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from daemon.cli.events import Wanted, follow
from daemon.cli.words import summary
from daemon.core.events import EVENTS, Carrier, DecisionMade, DriftDetected, OperatorRequested, Position, PositionSet
from daemon.journal.sqlite import open_reader

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_line_says_what_happened(rewarm: "Command", trained: "Chronicle") -> None:
    """Each record is one line with position, time, kind, pipeline and its essentials."""
    lines = rewarm("events", "--after", "0").out.splitlines()

    assert len(lines) == trained.state.position
    arrival = next(line for line in lines if "data.arrived" in line)
    assert arrival.split()[:4] == ["4", "2026-03-01", "12:00:03Z", "data.arrived"]
    assert "prose" in arrival
    assert any("rewarm_replay → due" in line for line in lines)


def test_every_recorded_kind_has_words(trained: "Chronicle") -> None:
    """No record of a history is without a summary."""
    with open_reader(trained.configuration.journal) as reader:
        assert all(summary(record.event) for record in reader.records(0))


def test_json_lines_hold_everything(rewarm: "Command", trained: "Chronicle") -> None:
    """--json prints one object a line, with the event's whole data."""
    lines = [json.loads(line) for line in rewarm("events", "--after", "0", "--json").out.splitlines()]

    assert [line["position"] for line in lines] == list(range(1, trained.state.position + 1))
    assert {line["kind"] for line in lines} <= set(EVENTS)
    assert next(line for line in lines if line["kind"] == "data.arrived")["data"]["domain"] == "prose"


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--kind", "data.arrived"], 2),
        (["--kind", "data.arrived", "--limit", "1"], 1),
        (["--kind", "data.arrived", "--kind", "model.promoted", "--after", "0"], 4),
        (["--after", "3", "--limit", "2"], 2),
        (["--limit", "5"], 5),
        (["--pipeline", "docs-lm", "--kind", "run.started"], 2),
        (["--pipeline", "other"], 0),
    ],
)
def test_records_are_chosen(rewarm: "Command", trained: "Chronicle", arguments: list[str], count: int) -> None:
    """Kind, pipeline, position and number narrow what is shown."""
    assert len(rewarm("events", *arguments, "--json").out.splitlines()) == count


def test_a_line_says_from_where_in_a_topic_it_came(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Topic, partition and offset for a person; for a program all that carried it but the value."""
    carrier = Carrier(
        source="kafka",
        topic="rewarm.events",
        partition=2,
        offset=17,
        timestamp=1,
        key=b"\xffk",
        headers=(("x", b"y"), ("x", None)),
        value=b"{}",
        traceparent=TRACE,
    )
    chronicle.arrive("prose", 100, id="a", carrier=carrier)
    chronicle.tell(DriftDetected(metric="psi", value=0.5), carrier=Carrier(traceparent=TRACE))

    first, second = (
        line.rstrip() for line in rewarm("events", "--after", "2").out.splitlines() if "psi" in line or "prose" in line
    )
    assert first.endswith("[rewarm.events/2@17]")
    assert second.endswith("psi = 0.5")
    lines = [json.loads(line) for line in rewarm("events", "--after", "2", "--json").out.splitlines()]
    assert [line["carrier"] for line in lines if line["carrier"]] == [
        {
            "source": "kafka",
            "topic": "rewarm.events",
            "partition": 2,
            "offset": 17,
            "timestamp": 1,
            "key": "/2s=",
            "headers": [["x", "eQ=="], ["x", None]],
            "traceparent": TRACE,
        },
        {"traceparent": TRACE},
    ]


def test_alignments_are_told_in_words() -> None:
    """Who set which partition to where, and where it stood; of many positions the first ones."""
    at = Position(source="kafka", cluster="c", topic="t", topic_id="i", partition=3, offset=9)
    assert summary(PositionSet(position=at, before=None, why="first_seen")) == "kafka/t/3@9 (first seen)"
    aligned = PositionSet(position=at, before=4, why="aligned", by="ann")
    assert summary(aligned) == "kafka/t/3@9 (aligned by ann, it stood at 4)"
    asked = OperatorRequested(verb="align", by="ann", positions=(at,) * 5)
    assert summary(asked) == "align kafka/t/3@9, kafka/t/3@9, kafka/t/3@9 and 2 more by ann"


def test_the_records_of_one_run(rewarm: "Command", trained: "Chronicle") -> None:
    """--run shows what belongs to a run, its end last."""
    champion = trained.pipeline.champion
    assert champion is not None
    lines = rewarm("events", "--run", champion.run, "--json").out.splitlines()

    assert json.loads(lines[-1])["kind"] == "run.succeeded"


def test_the_last_records_come_without_being_asked_for(rewarm: "Command", trained: "Chronicle") -> None:
    """Without --after the newest records are shown, the newest at the end."""
    (line,) = rewarm("events", "--limit", "1", "--json").out.splitlines()

    assert json.loads(line)["position"] == trained.state.position


def test_an_unknown_kind_brings_the_known_ones(rewarm: "Command", trained: "Chronicle") -> None:
    """A kind that does not exist is refused."""
    code, _, err = rewarm("events", "--kind", "data.came")

    assert code == 2
    assert "Known: checkpoint.saved" in err


def test_without_a_journal_there_is_nothing_to_show(rewarm: "Command") -> None:
    """Before the first daemon a sentence says so, and --json prints no line."""
    assert "Nothing is recorded yet" in rewarm("events").out
    assert rewarm("events", "--json") == (0, "", "")


def test_following_shows_what_is_committed_later(chronicle: "Chronicle") -> None:
    """--follow yields records as they come."""
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        chronicle.arrive("prose", 10, id=f"late-{len(sleeps)}")

    with open_reader(chronicle.configuration.journal) as reader:
        found = follow(reader, Wanted(kinds=("data.arrived",)), reader.head(), sleep)
        records = list(itertools.islice(found, 2))

    assert [record.id for record in records] == ["late-1", "late-2"]
    assert all(seconds <= 0.5 for seconds in sleeps)


def test_a_suppressed_decision_says_by_what(rewarm: "Command", chronicle: "Chronicle") -> None:
    """A wish that had to wait is told as such."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.arrive("code", 600_000, id="code-2")
    run = chronicle.pipeline.active
    assert run is not None

    lines = rewarm("events", "--kind", DecisionMade.kind).out

    assert f"[not now: run {run.run} is active]" in lines
