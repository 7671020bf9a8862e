"""What policies learn by looking, in a simulation: what a look costs, brings and leaves, and which shift it finds."""

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core.events import ProbeMeasured, StageStarted
from daemon.simulation.costs import Measured, Normal
from daemon.simulation.histories import Fact
from daemon.simulation.report import PolicySet, simulate
from daemon.simulation.rows import rows
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay

if TYPE_CHECKING:
    from tests.daemon.simulation.conftest import Course, Maker

LOOKS = RewarmReplay.model_validate(
    {"when": {"signal": "shift", "above": 0.3}, "look": {"arrivals": 1}, "replay": 0.0, "limits": {"time_limit": 900}}
)
GATE = Promotion()


def shifts(course: "Course") -> list[float | None]:
    """Return what every probe measured."""
    return [event.shift for _, event in course.told("probe.measured") if isinstance(event, ProbeMeasured)]


def test_a_look_that_finds_little_leaves_the_data_where_it_was(make: "Maker") -> None:
    """Ingest and probe, three seconds of them; then the run is postponed, and its arrival waits on."""
    costs = make.costs(shift=Normal(mean=0.1, deviation=0.0))
    course = make.course((LOOKS, GATE), make.history(make.arrivals([0, 1000, 2000]), 5000), costs)
    assert [at for at, _ in course.told("run.postponed")] == [1003, 2003]
    account = course.tally.account("p")
    assert [(run.kind, run.outcome) for run in account.runs.values()] == [
        ("base", "promoted"),
        ("increment", "postponed"),
        ("increment", "postponed"),
    ]
    assert (account.looks, account.stages["train"], account.stages["probe"]) == (2, 1, 3)
    assert [entry.at for entry in course.engine.books["p"].waiting()] == [
        fact.at for fact in make.arrivals([1000, 2000])
    ]


def test_a_look_that_finds_much_goes_on_and_trains(make: "Maker") -> None:
    """The same run: one ingest and one probe for it, and a champion at its end."""
    costs = make.costs(shift=Normal(mean=0.5, deviation=0.0))
    course = make.course((LOOKS, GATE), make.history(make.arrivals([0, 1000]), 5000), costs)
    begun = [(at, event.stage) for at, event in course.told("stage.started") if isinstance(event, StageStarted)]
    assert begun[5:] == [(1000, "ingest"), (1001, "probe"), (1003, "train"), (1063, "evaluate"), (1066, "promote")]
    account = course.tally.account("p")
    assert (account.looks, [run.outcome for run in account.runs.values()]) == (1, ["promoted", "promoted"])


def test_what_probes_measured_of_the_very_arrivals_is_measured_again(make: "Maker") -> None:
    """By their tokens where several are looked at together; what nobody measured is drawn."""
    costs = make.costs(
        shift=Normal(mean=0.2, deviation=0.0),
        drift={"ks": Normal(mean=0.5, deviation=0.0)},
        measured={7: Measured(shift=0.1, drift={"ks": 0.25}), 9: Measured(shift=0.4)},
    )
    sizes = [(0, 60, 5), (1000, 60, 6), (2000, 60, 7), (3000, 120, 9)]
    facts = [
        Fact(fact.at, fact.pipeline, fact.event, recorded=recorded)
        for second, tokens, recorded in sizes
        for fact in make.arrivals([second], tokens)
    ]
    course = make.course((LOOKS, GATE), make.history(facts, 5000), costs)
    probes = [event for _, event in course.told("probe.measured") if isinstance(event, ProbeMeasured)]
    assert shifts(course) == [None, 0.2, 0.1, pytest.approx((60 * 0.1 + 120 * 0.4) / 180)]
    assert [probe.drift for probe in probes[1:]] == [{"ks": 0.5}, {"ks": 0.25}, {"ks": 0.25}]
    assert [at for at, _ in course.told("run.postponed")] == [1003, 2003, 3003]


def test_the_report_tells_looks_apart(make: "Maker") -> None:
    """Of five runs three began as a look, one of which trained; compute is that of all."""
    policies = {"p": (LOOKS, GATE)}
    facts = [
        Fact(fact.at, fact.pipeline, fact.event, recorded=recorded)
        for recorded, fact in enumerate(make.arrivals([0, 1000, 2000, 3000]))
    ]
    costs = make.costs(measured={1: Measured(shift=0.1), 2: Measured(shift=0.2), 3: Measured(shift=0.9)})
    chosen = PolicySet(name="x", changed=make.changed(policies), policies=policies)
    done = simulate(chosen, make.history(facts, 5000), costs, seed=1).report.pipelines["p"]
    assert {(runs.kind, outcome): n for runs in done.runs for outcome, n in runs.outcomes.items()} == {
        ("base", "promoted"): 1,
        ("increment", "postponed"): 2,
        ("increment", "promoted"): 1,
    }
    assert done.looks == 3
    base, look, trains = 1 + 2 + 60 + 3 + 4, 1 + 2, 1 + 2 + 180 + 3 + 4
    assert done.compute_hours == pytest.approx((base + 2 * look + trains) / 3600, abs=5e-4)
    assert done.staleness.mean == pytest.approx((60 * base + 60 * (2190 + 1190 + 190)) / 240)
    told = {row.label: row.cells for row in rows([done], [1.0])}
    assert told["  begun as a look"] == ("3",)
    assert told["  increment postponed"] == ("2",)


def test_a_shift_decides_alike_under_every_seed_where_it_was_measured(make: "Maker") -> None:
    """Chance has no say in what is known."""
    costs = make.costs(shift=Normal(mean=0.3, deviation=0.5), measured={1: Measured(shift=0.9)})
    facts = [replace(fact, recorded=number) for number, fact in enumerate(make.arrivals([0, 1000]))]
    for seed in range(1, 6):
        course = make.course((LOOKS, GATE), make.history(facts, 5000), costs, seed=seed)
        assert shifts(course) == [None, 0.9]
