"""The account of a course: staleness by tokens, the age of data, what held policies back, and what shadows would do."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from daemon.core.events import EvaluationReported, LabelArrived, OperatorRequested
from daemon.core.plans import Document, Remedy, Span
from daemon.simulation.account import Account, Freshness
from daemon.simulation.attempts import remedied
from daemon.simulation.costs import Normal, Share
from daemon.simulation.histories import Fact
from daemon.simulation.report import PipelineReport, PolicySet, simulate
from daemon.simulation.rows import rows
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay

if TYPE_CHECKING:
    from daemon.simulation.costs import Costs
    from tests.daemon.simulation.conftest import Maker

GATE = Promotion()


def small(**fields: Any) -> RewarmReplay:  # noqa: ANN401 - of the policy
    """Return a policy that trains on every hundred tokens."""
    return RewarmReplay.model_validate({"after_tokens": 100, "replay": 0.0, **fields})


def reported(
    make: "Maker", policies: tuple[Any, ...], seconds: list[float], until: float, costs: "Costs | None" = None
) -> PipelineReport:
    """Return the report on arrivals of 100 tokens at these seconds."""
    each = {"p": policies}
    chosen = PolicySet(name="x", changed=make.changed(each), policies=each)
    history = make.history(make.arrivals(seconds, 100), until)
    return simulate(chosen, history, costs or make.exact, seed=1).report.pipelines["p"]


def test_staleness_counts_tokens_and_what_still_waits(make: "Maker") -> None:
    """110 s of the first arrival, and 900 s of one that no champion has at the end."""
    report = reported(make, (small(guards={"cooldown": "P1D"}), GATE), [0, 100], 1000)
    assert report.staleness.mean == (100 * 110 + 100 * 900) / 200
    assert report.staleness.weight == 200
    assert report.staleness.data_age == (110 + 1000) / 2
    assert report.staleness.p50 == 110, "over what is in a champion"


def test_a_taken_back_champion_takes_its_data_along(make: "Maker") -> None:
    """The newest data is that of the champion before; the mean is over the time in which there was one."""
    fresh, begin = Freshness(), make.zero
    fresh.promoted(begin, begin + timedelta(seconds=10))
    fresh.promoted(begin + timedelta(seconds=40), begin + timedelta(seconds=50))
    fresh.rolled_back(begin + timedelta(seconds=60))
    ages = [(10 + 50) / 2 * 40, (10 + 20) / 2 * 10, (60 + 100) / 2 * 40]
    assert fresh.mean(begin + timedelta(seconds=100)) == pytest.approx(sum(ages) / 90)
    assert Freshness().mean(begin) is None


def test_what_held_a_policy_back_is_counted_and_timed(make: "Maker") -> None:
    """Due at 200 and 300 s, allowed at 1,000: one stretch of 800 s under the guard's name."""
    report = reported(make, (small(guards={"cooldown": "PT1000S"}), GATE), [0, 200, 300], 5000)
    held = report.stood["cooling_down"]
    assert (held.times, held.seconds) == (1, 800)
    told = {row.label: row.cells for row in rows([report], [1.0])}
    assert told["  cooling_down, times"] == ("1",)
    assert "  waiting, times" not in told, "there was nothing to do: no guard held it back"


def test_a_stretch_ends_with_another_word_and_with_the_history(make: "Maker") -> None:
    """Saying the same again is one stretch; a start ends it and is none."""
    account, at = Account(), make.zero
    for second, verdict in ((0, "waiting"), (10, "quiet_hours"), (20, "quiet_hours"), (50, None), (60, "waiting")):
        account.stands("r", verdict, at + timedelta(seconds=second))
    account.stands("r", None, at + timedelta(seconds=100))
    assert account.stood == {"waiting": [2, 50.0], "quiet_hours": [1, 40.0]}


def test_another_policys_run_that_takes_the_data_ends_the_stretch(make: "Maker") -> None:
    """From 500 s on it cools down; at 1,110 s a retrain takes what waits, and told is it at that run's first word."""
    retrain = PeriodicRetraining.model_validate({"every": "PT1000S"})
    report = reported(make, (small(guards={"cooldown": "PT3000S"}), retrain, GATE), [0, 500], 2500)
    held = report.stood["cooling_down"]
    assert (held.times, held.seconds) == (1, 611)


def test_a_policy_in_shadow_is_held_back_from_nothing(make: "Maker") -> None:
    """What kept it from a start that it would not have made is in no row of those that act."""
    shadowed = small(mode="shadow", guards={"cooldown": "PT1000S"})
    assert reported(make, (shadowed, GATE), [0, 100, 150, 200], 5000).stood == {}


def test_money_is_what_a_budget_says_that_compute_costs(make: "Maker") -> None:
    """110 s of the stages at 36 an hour; without a price there is no money."""
    priced = small(guards={"budget": {"per_day": 1000.0, "price": 36.0}})
    assert reported(make, (priced, GATE), [0], 1000).money == pytest.approx(1.1)
    assert reported(make, (small(), GATE), [0], 1000).money is None


def test_a_run_that_spends_the_budget_yields_and_goes_on_the_next_day(make: "Maker") -> None:
    """Ninety seconds a day: the second day has the rest of the run."""
    budget, training = {"budget": {"per_day": 90 / 3600}}, {"batch": 1, "context": 8}
    policy = small(guards=budget, training=training, limits={"checkpoint_every": 10.0})
    course = make.course((policy, GATE), make.history(make.arrivals([0], 100), 3 * 86_400))
    (stopped,) = [at for at, _ in course.told("run.preempted")]
    (resumed,) = [at for at, _ in course.told("run.resumed")]
    assert 60 < stopped <= 92
    assert resumed == 86_400
    assert [run.outcome for run in course.tally.account("p").runs.values()] == ["promoted"]


def test_a_policy_in_shadow_starts_nothing_and_is_counted_apart(make: "Maker") -> None:
    """What it would have started is told; no decision of its own counts as one that acts."""
    report = reported(make, (small(mode="shadow"), GATE), [0, 200, 400], 1000)
    assert report.runs == ()
    assert report.acting == 0
    assert report.shadow_starts == {"rewarm_replay": 3}
    assert report.shadow >= 3
    told = {row.label: row.cells for row in rows([report], [1.0])}
    assert told["  starts that rewarm_replay would have made"] == ("3",)


def test_a_start_that_waits_for_a_person_is_approved_after_a_while(make: "Maker") -> None:
    """`approve_after` is about starts too, not about held candidates alone."""
    policy = small(guards={"approval": True})
    history = make.history(make.arrivals([0], 100), 5000)
    course = make.course((policy, GATE), history, approve_after=timedelta(seconds=600))
    asked = [
        (at, event.verb) for at, event in course.told("operator.requested") if isinstance(event, OperatorRequested)
    ]
    assert asked == [(600, "approve")]
    assert [at for at, _ in course.told("run.started")] == [600]


def test_what_monitors_report_falls_with_the_age_of_the_data(make: "Maker") -> None:
    """A made-up monitor sees a hundredth less for each day; before there is a champion, and recorded, what it said."""
    facts = make.arrivals([0], 100)
    for day in (0.0001, 1, 11):
        at = make.zero + timedelta(days=day)
        facts += [Fact(at, "p", kind(metric="accuracy", value=0.9)) for kind in (EvaluationReported, LabelArrived)]
    for ages, values in ((True, [0.9, 0.89, 0.79]), (False, [0.9, 0.9, 0.9])):
        history = make.history(facts, 20 * 86_400)
        course = make.course((small(), GATE), replace(history, ages=ages), make.costs(ageing=0.01))
        for kind in ("evaluation.reported", "label.arrived"):
            assert [getattr(event, "value", None) for _, event in course.told(kind)] == values


def test_a_band_of_the_past_is_kept_by_its_share(make: "Maker") -> None:
    """Curate comes before train, and keeps the share that past runs kept."""
    retrain = PeriodicRetraining.model_validate({"after_increments": 1, "curate": {}})
    course = make.course(
        (small(), retrain, GATE), make.history(make.arrivals([0, 200], 100), 5000), make.costs(kept=Share(share=0.6))
    )
    (curated,) = [event for _, event in course.told("data.curated")]
    assert (getattr(curated, "tokens", None), getattr(curated, "kept_tokens", None)) == (200, 120)


def test_forgetting_is_summed_over_promotions_and_falls_are_not_taken_off(make: "Maker") -> None:
    """Two increments of news over prose: 0.02 each, whatever they gained."""
    costs = make.costs(forgetting=Normal(mean=0.02, deviation=0.0), gain=Normal(mean=0.5, deviation=0.0))
    facts = [*make.arrivals([0], 100), *make.arrivals([300], 100, domain="news")]
    each = {"p": (small(), Promotion(max_forgetting=1.0))}
    chosen = PolicySet(name="x", changed=make.changed(each), policies=each)
    report = simulate(chosen, make.history(facts, 1000), costs, seed=1).report.pipelines["p"]
    assert (report.forgotten, report.champions.changes, report.rollbacks) == (0.02, 2, 0)


@pytest.mark.parametrize(
    ("remedy", "helped"),
    [
        (Remedy(), set()),
        (Remedy(accumulate=2), {"out_of_memory"}),
        (Remedy(skip=(Span(after=3, upto=5),)), {"loss_spike", "not_finite"}),
        (Remedy(before=7), {"loss_spike", "not_finite"}),
        (Remedy(without=(Document(arrival=1, number=2),)), {"bad_sample"}),
    ],
    ids=["none", "accumulate", "skip", "before", "without"],
)
def test_a_remedy_helps_against_what_it_is_for(remedy: Remedy, helped: set[str]) -> None:
    """What it is not for may come again."""
    assert remedied(remedy) == helped
