"""Reports: numbers by hand, rows as they are read, and the same bytes again."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.simulation.costs import Share
from daemon.simulation.histories import synthetic
from daemon.simulation.plot import draw
from daemon.simulation.report import PolicySet, Simulated, quantile, simulate
from daemon.simulation.rows import amount, cost_rows, count, percent, period, rows
from daemon.simulation.tally import hindrance
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from daemon.core.decisions import Policies
    from daemon.simulation.costs import Costs
    from tests.daemon.simulation.conftest import Maker

SMALL = RewarmReplay(after_tokens=100, replay=0.0)


def simulated(make: "Maker", after_tokens: int = 100, name: str = "in force") -> Simulated:
    """Simulate four arrivals of 60 tokens under a threshold, for 1,000 seconds."""
    policies: Policies = {"p": (RewarmReplay(after_tokens=after_tokens, replay=0.0), Promotion())}
    history = make.history(make.arrivals([0, 100, 300, 500]), 1000)
    chosen = PolicySet(name=name, changed=make.changed(policies), policies=policies)
    return simulate(chosen, history, make.exact, seed=1)


def test_a_report_by_hand(make: "Maker") -> None:
    """Runs from 100 to 230 s and from 500 to 630 s: every number of the report follows from that."""
    report = simulated(make).report.pipelines["p"]
    assert report.arrivals == 4
    assert [(each.kind, each.policy, each.outcomes) for each in report.runs] == [
        ("base", "rewarm_replay", {"promoted": 1}),
        ("increment", "rewarm_replay", {"promoted": 1}),
    ]
    assert report.stage_hours == round(260 / 3600, 3)
    assert report.attempts == {"evaluate": 2, "ingest": 2, "probe": 2, "promote": 2, "train": 2}
    assert report.trained_tokens == 240
    waited = report.staleness
    assert (waited.arrivals, waited.p50, waited.p90, waited.longest) == (4, 130, 330, 330)
    assert (waited.waiting, waited.waiting_longest) == (0, None)
    assert report.champions.changes == 2
    assert report.champions.mean_age == round((400**2 + 370**2) / 2 / 770, 3)
    assert (report.champions.longest_age, report.champions.age_at_end) == (400, 370)
    assert (report.wishes.waited, report.wishes.longest, report.wishes.standing) == (0, None, 0)


def test_what_never_got_anywhere_is_told(make: "Maker") -> None:
    """With too high a threshold everything still waits, and no champion has an age."""
    report = simulated(make, 1000).report.pipelines["p"]
    assert (report.staleness.waiting, report.staleness.waiting_longest, report.staleness.p50) == (4, 1000, None)
    assert report.champions.mean_age is None
    assert report.runs == ()


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.25, 1.0), (0.5, 2.0), (0.51, 3.0), (0.9, 4.0), (1.0, 4.0)])
def test_quantiles_are_values_that_occurred(share: float, value: float) -> None:
    """The smallest value that so great a share does not exceed; None of none."""
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == value
    assert quantile([], share) is None


def test_the_change_is_told_between_two_reports(make: "Maker") -> None:
    """Each row has a cell for each report; where both have a number, and it differs, by how much."""
    both = [simulated(make), simulated(make, 200)]
    told = {row.label: row for row in rows([each.report.pipelines["p"] for each in both], [1.0, 1.0])}
    assert (told["arrivals"].cells, told["arrivals"].change) == (("4", "4"), "")
    assert (told["runs"].cells, told["runs"].change) == (("2", "1"), "−1")
    assert told["  half of it within"].cells == ("2.2 min", "7.5 min")
    assert told["  half of it within"].change == "+5.3 min"
    assert "  arrivals set aside" not in told, "a row of noughts says nothing"


def test_where_nothing_came_that_is_told(make: "Maker") -> None:
    """That nothing arrived and nothing ran is no row of noughts to be left out; headings of such rows are."""
    policies: Policies = {"p": (SMALL,)}
    chosen = PolicySet(name="x", changed=make.changed(policies), policies=policies)
    done = simulate(chosen, make.history([], 1000), make.exact, seed=1)
    assert [(row.label, row.cells) for row in rows([done.report.pipelines["p"]], [1.0])] == [
        ("arrivals", ("0",)),
        ("runs", ("0",)),
    ]
    assert len(draw([done], make.history([], 1000), seed=1, form="svg")) > 5000


def test_every_arrival_is_in_a_row(make: "Maker") -> None:
    """What ingest rejected is told beside what waits, is set aside or got into a champion."""
    policies: Policies = {"p": (SMALL,)}
    chosen = PolicySet(name="x", changed=make.changed(policies), policies=policies)
    costs = make.costs(rejected=Share(share=1.0))
    done = simulate(chosen, make.history(make.arrivals([0, 100]), 1000), costs, seed=1)
    told = {row.label: row.cells for row in rows([done.report.pipelines["p"]], [1.0])}
    assert told["  arrivals that ingest rejected"] == ("2",)


def test_why_runs_failed_is_told(make: "Maker") -> None:
    """A training that its time limit ends is no chance: the row says which limit of the configuration it was."""
    policies: Policies = {"p": (RewarmReplay(after_tokens=100, limits={"time_limit": 60.0}), StageRecovery())}
    chosen = PolicySet(name="x", changed=make.changed(policies), policies=policies)
    done = simulate(chosen, make.history(make.arrivals([0, 100]), 1000), make.exact, seed=1)
    told = {row.label: row.cells for row in rows([done.report.pipelines["p"]], [1.0])}
    assert (told["  base failed"], told["  failed with time_limit"]) == (("1",), ("1",))
    assert done.report.pipelines["p"].failures == {"time_limit": 1}


def test_costs_say_where_they_are_known_from(defaults: "Costs", make: "Maker") -> None:
    """A default is called one, of any stage; what was learned says from how many observations."""
    unlearned = cost_rows(defaults, ["train", "lint"])
    assert {known for _, _, known in unlearned} == {"default"}
    assert unlearned[:2] == [("train", "1 s + 73 s / M tokens  ± 5 %", "default"), ("lint", "10 s", "default")]
    learned = make.costs(
        attempts={"train": 7, "probe": 2},
        failures={"train": {"worker_lost": 0.25}, "probe": {}},
        durations={"train": msgspec.structs.replace(defaults.duration("train"), seen=7)},
    )
    told = {name: (words, known) for name, words, known in cost_rows(learned, ["train", "probe", "lint"])}
    assert told["train"] == ("1 s + 73 s / M tokens  ± 5 %", "7 attempts")
    assert told["train fails"] == ("25.0 % worker_lost", "7 attempts")
    assert told["no other stage fails"] == ("", "2 attempts")
    assert told["lint fails"] == ("never", "default")
    few = make.costs(
        durations={"train": msgspec.structs.replace(defaults.duration("train"), seen=2)},
        shift=msgspec.structs.replace(defaults.shift, seen=1),
    )
    told = {name: (words, known) for name, words, known in cost_rows(few, ["train"])}
    assert told["train"][1] == "2 attempts, ± default", "two tell no deviation"
    assert told["shift"][1] == "1 probe, ± default"


def test_numbers_have_units_that_fit() -> None:
    """Counts, shares, large amounts and periods as a person reads them."""
    assert [count(1234567), count(None)] == ["1,234,567", "–"]
    assert [percent(0.1234), percent(None)] == ["12.3 %", "–"]
    assert [amount(999), amount(12_345), amount(7.5e9), amount(None)] == ["999", "12.3 k", "7.5 G", "–"]
    assert [period(5), period(119), period(150), period(7300), period(200_000)] == [
        *("5.0 s", "119.0 s", "2.5 min", "2.0 h", "2.3 d")
    ]


def test_what_suppressed_a_decision_is_counted_without_names() -> None:
    """Reasons that differ in the run that they name alone are one."""
    assert hindrance("run p-12 is active") == hindrance("run p-99 is active") == "a run is active"
    assert hindrance("no free slot: p-12, q-3") == "no free slot"
    assert hindrance("paused by ann") == "paused"
    assert hindrance("run p-12 is not alive") == "its run was not there for it"


@pytest.mark.parametrize(("form", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")], ids=["png", "svg"])
def test_the_picture_is_the_same_again(make: "Maker", form: str, begins: bytes) -> None:
    """Of two reports: a picture of its form, the same bytes twice."""
    history = make.history(make.arrivals([0, 100, 300, 500]), 1000)
    both = [simulated(make), simulated(make, 200, "other")]
    picture = draw(both, history, seed=1, form=form)
    assert picture == draw(both, history, seed=1, form=form)
    assert picture.startswith(begins)
    assert len(picture) > 5000


SCRIPT = """
import sys
from datetime import timedelta
from pathlib import Path
import msgspec
from daemon.config import load
from daemon.simulation.costs import DEFAULTS
from daemon.simulation.histories import synthetic
from daemon.simulation.report import PolicySet, simulate
configuration = load(Path(sys.argv[1]))
policies = {name: each.policies for name, each in configuration.settings.pipelines.items()}
chosen = PolicySet(name="x", changed=configuration.changed(), policies=policies)
for name in ("busy", "failure-storm"):
    history = synthetic(name, sorted(policies), seed=3, days=2, events=500, tokens=9000)
    done = simulate(chosen, history, DEFAULTS, seed=3, approve_after=timedelta(hours=2))
    print(msgspec.json.encode([done.report, done.drawings]).decode())
"""


def test_other_processes_come_to_the_same_bytes(tmp_path: Path) -> None:
    """Neither the order of hashes, nor the time zone, nor the hour has a say in what is simulated."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(
        "pipelines:\n"
        "  one: &it\n    policies:\n"
        "      - {kind: rewarm_replay, after_tokens: 200000}\n"
        "      - {kind: periodic_retraining, every: 86400, priority: 1}\n"
        "      - {kind: stage_recovery}\n"
        "      - {kind: promotion, approval: undecided}\n"
        "  two: *it\n  three: *it\n"
    )
    told = []
    for seed, zone in (("1", "UTC"), ("2", "Asia/Kathmandu")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", SCRIPT, str(file)]
        told.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert told[0] == told[1]
    assert len(told[0]) > 10_000


def test_another_seed_is_another_course(make: "Maker", defaults: "Costs") -> None:
    """The seed decides what comes and what it costs; what is asked again is answered again."""
    policies: Policies = {"p": (RewarmReplay(after_tokens=100_000), Promotion())}
    chosen = PolicySet(name="x", changed=make.changed(policies), policies=policies)

    def states(seed: int) -> str:
        history = synthetic("bursty", ["p"], seed=seed, days=3)
        return simulate(chosen, history, defaults, seed=seed, approve_after=timedelta(hours=1)).report.state

    assert states(1) == states(1)
    assert states(1) != states(2)
