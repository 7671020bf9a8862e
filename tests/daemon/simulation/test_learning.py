"""The cost model of a journal: made with known parameters, it gives them back."""

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from daemon.core.events import (
    AnyEvent,
    Comparison,
    DataCurated,
    DataIngested,
    DataRejected,
    Loss,
    ModelEvaluated,
    ProbeMeasured,
    Record,
    RunPostponed,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import (
    Amount,
    Checkpoint,
    Intent,
    Limits,
    ModelSettings,
    Plan,
    Schedule,
    Span,
    Start,
    Training,
)
from daemon.simulation.costs import DEFAULTS, Duration, Measured, Normal, Share
from daemon.simulation.learning import KINDS, duration, learn
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery
from stages.base import Names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.daemon.simulation.conftest import Maker

SHA = "0" * 64


def records(make: "Maker", events: "Iterable[AnyEvent]") -> list[Record]:
    """Return events as records."""
    return [
        Record(position=number, recorded_at=make.zero, source="/test", id=str(number), pipeline="p", event=event)
        for number, event in enumerate(events, 1)
    ]


def started(run: str, tokens: int = 1000, new: int = 1000) -> RunStarted:
    """Return the start of a run on code, after prose, with a budget of so many tokens."""
    training = Training(
        tokens=tokens,
        batch=1,
        context=8,
        replay=0.0,
        schedule=Schedule(kind="rewarm", peak=1e-3, floor=1e-4, plateau=1e-3),
        optimiser="keep",
        seed=0,
    )
    plan = Plan(
        kind="increment",
        start=Start(kind="champion", version=1),
        parent=1,
        spans=(Span(after=0, upto=9),),
        new={"code": Amount(arrivals=1, tokens=new)},
        past={"prose": Amount(arrivals=1, tokens=500)},
        model=ModelSettings(),
        stages=("ingest", "train"),
        training=training,
        limits=Limits(),
    )
    intent = Intent(kind="increment", start="champion", training=training)
    return RunStarted(run=run, policy="r", command="c", wished_at=1, passed_over=False, intent=intent, plan=plan)


def succeeded(run: str, stage: str, seconds: float, **metrics: float) -> StageSucceeded:
    """Return a stage's success."""
    return StageSucceeded(run=run, stage=stage, attempt=1, seconds=seconds, metrics=metrics)


def loss(mean: float) -> Loss:
    """Return a loss whose interval is 0.02 wide."""
    return Loss(mean=mean, low=mean - 0.01, high=mean + 0.01, documents=5, bytes=5000)


def test_durations_are_lines(make: "Maker") -> None:
    """12 s + 70 s a million tokens is found again, and the spread of what was measured around it."""
    random = Random(7)
    events: list[AnyEvent] = []
    for number in range(300):
        tokens = random.randint(100_000, 5_000_000)
        seconds = (12 + 70 * tokens / 1e6) * (1 + random.gauss(0, 0.05))
        events += [started(f"p-{number}", tokens), succeeded(f"p-{number}", "train", seconds)]
    found = learn(records(make, events)).duration("train")
    assert found.seen == 300
    assert found.fixed == pytest.approx(12, abs=4)
    assert found.per_million == pytest.approx(70, rel=0.03)
    assert found.spread == pytest.approx(0.05, rel=0.15)


def test_the_work_of_ingest_is_its_data_and_other_stages_have_a_mean(make: "Maker") -> None:
    """Ingest goes by the new tokens, train by its budget, every other stage has one duration."""
    events: list[AnyEvent] = []
    for number, new in enumerate((1_000_000, 2_000_000, 4_000_000)):
        run = f"p-{number}"
        events += [
            started(run, 10, new),
            succeeded(run, "ingest", 1 + 2 * new / 1e6),
            succeeded(run, "own", 5 + number),
        ]
    costs = learn(records(make, events))
    assert costs.duration("ingest") == Duration(fixed=1.0, per_million=2.0, spread=0.0, seen=3)
    assert (costs.duration("own").fixed, costs.duration("own").per_million) == (6.0, 0.0)
    assert costs.duration("train") == DEFAULTS.duration("train")
    assert costs.duration("nobody's") == DEFAULTS.other_stage


@pytest.mark.parametrize(
    ("pairs", "fixed", "per_million"),
    [
        ([(1e6, 10.0)], 0.0, 10.0),
        ([(1e6, 10.0), (3e6, 50.0)], 0.0, 15.0),
        ([(2e6, 10.0), (2e6, 14.0), (2e6, 12.0)], 0.0, 6.0),
        ([(1e6, 30.0), (2e6, 20.0), (3e6, 10.0)], 20.0, 0.0),
        ([(1e6, 1.0), (2e6, 3.0), (3e6, 5.0)], 0.0, 1.5),
        ([(0.0, 4.0), (0.0, 8.0)], 6.0, 0.0),
    ],
    ids=["one", "two", "all of a size", "falling", "below zero", "no size"],
)
def test_few_and_odd_observations_give_a_line_that_can_be(
    pairs: list[tuple[float, float]], fixed: float, per_million: float
) -> None:
    """No part of a duration is ever below zero, and what has a size goes through the origin in doubt."""
    found = duration(pairs, Duration(fixed=1.0))
    assert found.fixed == pytest.approx(fixed)
    assert found.per_million == pytest.approx(per_million)


def test_what_was_resumed_teaches_no_duration(make: "Maker") -> None:
    """An attempt that went on from a checkpoint did a part of the work."""
    events: list[AnyEvent] = [started("p-1"), succeeded("p-1", "train", 1.0, resumed_at=100.0)]
    costs = learn(records(make, events))
    assert costs.duration("train") == DEFAULTS.duration("train")
    assert costs.attempts == {"train": 1}


def test_counts_shifts_and_losses_are_means_per_domain(make: "Maker") -> None:
    """Exact per estimated tokens, the shift, gain on new domains and forgetting on the others."""
    names = Names(run="p-1", stage="x", attempt=1)
    before = Amount(arrivals=1, tokens=100)
    events: list[AnyEvent] = [started("p-1")]
    events += [
        DataIngested(
            **names,
            arrival=1,
            domain=domain,
            estimate=before,
            amount=Amount(arrivals=1, tokens=tokens),
            duplicates=0,
            manifest="m",
            sha256=SHA,
        )
        for domain, tokens in (("code", 80), ("code", 100), ("prose", 50))
    ]
    events.append(DataRejected(**names, arrival=2, domain="code", estimate=before, reason="r", message="m"))
    events += [ProbeMeasured(**names, new={}, past={}, shift=shift) for shift in (0.1, 0.3, None)]
    for code, prose in ((-0.2, 0.02), (-0.4, 0.04)):
        domains = {
            "code": Comparison(candidate=loss(1), champion=loss(1), difference=loss(code)),
            "prose": Comparison(candidate=loss(1), champion=loss(1), difference=loss(prose)),
            "other": Comparison(candidate=loss(1), champion=loss(1), difference=loss(9)),
            "first": Comparison(candidate=loss(1)),
        }
        candidate = Checkpoint(path="p", sha256=SHA)
        events.append(ModelEvaluated(**names, domains=domains, candidate=candidate))
    costs = learn(records(make, [*events, RunSucceeded(run="p-1", outcome="promoted")]))
    assert costs.counted_of("code").mean == pytest.approx(0.9)
    assert costs.counted_of("prose") == Normal(mean=0.5, deviation=DEFAULTS.counted.deviation, seen=1)
    assert costs.counted_of("unseen").mean == pytest.approx(2.3 / 3)
    assert (costs.rejected.share, costs.rejected.seen) == (0.25, 4)
    assert costs.shift.mean == pytest.approx(0.2)
    assert costs.shift.seen == 2
    assert costs.gain_of("code") == costs.gain_of("unseen") == costs.gain
    assert costs.gain.mean == pytest.approx(0.3)
    assert costs.gain.half == pytest.approx(0.01)
    assert costs.gain.seen == 2
    assert costs.forgetting_of("prose").mean == pytest.approx(0.03)
    assert costs.forgetting.seen == 2
    assert costs.runs == 1


def test_failures_are_shares_of_the_attempts_of_a_stage(make: "Maker") -> None:
    """What was stopped on request is none, a death is a lost worker."""
    events: list[AnyEvent] = [started("p-1"), *(succeeded("p-1", "train", 1.0) for _ in range(6))]
    events += [StageFailed(run="p-1", stage="train", attempt=1, failure="out_of_memory", message="m")]
    events += [
        StageInterrupted(run="p-1", stage="train", attempt=1, reason=reason)
        for reason in ("died", "died", "hang", "cancel", "preempt", "drain")
    ]
    costs = learn(records(make, events))
    assert costs.failures == {"train": {"hang": 0.1, "out_of_memory": 0.1, "worker_lost": 0.2}}
    assert costs.attempts == {"train": 10}


def test_nothing_learned_is_the_default() -> None:
    """An empty journal teaches nothing, and says so."""
    costs = learn([])
    assert costs == DEFAULTS
    assert {each.seen for each in (costs.gain, costs.shift, costs.counted, costs.forgetting)} == {0}


def test_a_simulated_journal_teaches_the_costs_that_made_it(make: "Maker") -> None:
    """From costs to a course of events and back: durations, losses, shares and failures come out as they went in."""
    costs = make.costs(
        durations={
            "ingest": Duration(fixed=2.0),
            "probe": Duration(fixed=3.0),
            "train": Duration(fixed=5.0, per_million=40_000.0, spread=0.1),
            "evaluate": Duration(fixed=4.0),
            "promote": Duration(fixed=1.0),
        },
        counted=Normal(mean=0.8, deviation=0.05),
        shift=Normal(mean=0.4, deviation=0.1),
        gain=Normal(mean=0.05, deviation=0.01, half=0.02),
        forgetting=Normal(mean=0.01, deviation=0.01, half=0.02),
        failures={"evaluate": {"transient": 0.2}, "train": {"worker_lost": 0.1}},
    )
    random = Random(1)
    seconds = [60 * number + random.random() for number in range(3000)]
    facts = [
        fact
        for second in seconds
        for fact in make.arrivals([second], random.randint(200, 3000), domain=random.choice(("prose", "code")))
    ]
    policies = (
        RewarmReplay(after_tokens=4000, training={"batch": 1, "context": 64}),
        StageRecovery(retries=20),
        Promotion(max_forgetting=1.0),
    )
    course = make.course(policies, make.history(facts, 181_000), costs)
    found = learn(record for record in course.records() if record.event.kind in KINDS)
    typical = found.duration("train").fixed + found.duration("train").per_million * 5_000 / 1e6
    assert typical == pytest.approx(5 + 40_000 * 5_000 / 1e6, rel=0.03)
    assert found.duration("train").spread == pytest.approx(0.1, rel=0.2)
    assert found.duration("probe").fixed == pytest.approx(3)
    assert found.counted.mean == pytest.approx(0.8, rel=0.01)
    assert found.shift.mean == pytest.approx(0.4, abs=0.03)
    assert found.gain.mean == pytest.approx(0.05, rel=0.1)
    assert found.gain.half == pytest.approx(0.02)
    assert found.failures["evaluate"]["transient"] == pytest.approx(0.2, abs=0.05)
    assert found.failures["train"]["worker_lost"] == pytest.approx(0.1, abs=0.05)
    assert found.failures["probe"] == {}
    assert found.runs == sum(1 for run in course.tally.account("p").runs.values() if run.outcome == "promoted")


def ingested(run: str, arrival: int) -> DataIngested:
    """Return that a run has taken an arrival in."""
    amount = Amount(arrivals=1, tokens=100)
    names = Names(run=run, stage="ingest", attempt=1)
    return DataIngested(
        **names, arrival=arrival, domain="code", estimate=amount, amount=amount, duplicates=0, manifest="m", sha256=SHA
    )


def probed(run: str, shift: float, **fields: Any) -> ProbeMeasured:  # noqa: ANN401 - of the event
    """Return what a probe found."""
    return ProbeMeasured(run=run, stage="probe", attempt=1, new={}, past={}, shift=shift, **fields)


def test_looks_teach_what_probes_measure_of_each_arrival(make: "Maker") -> None:
    """The probe with the fewest others beside an arrival tells most of it; of equals it is the mean."""
    events: list[AnyEvent] = [
        *(
            started("p-1"),
            ingested("p-1", 5),
            probed("p-1", 0.1, drift={"ks": 0.2}),
            RunPostponed(run="p-1", reason=""),
        ),
        *(started("p-2"), ingested("p-2", 5), ingested("p-2", 6), probed("p-2", 0.4)),
        *(started("p-3"), ingested("p-3", 5), probed("p-3", 0.3, drift={"ks": 0.4}, expected_gain=0.05)),
    ]
    costs = learn(records(make, events))
    assert costs.measured == {
        5: Measured(shift=0.2, drift={"ks": 0.3}, beside=0, seen=2),
        6: Measured(shift=0.4, beside=1),
    }
    assert costs.drift["ks"].mean == pytest.approx(0.3)
    assert costs.drift["ks"].seen == 2
    assert costs.drift["features"] == DEFAULTS.drift["features"], "nobody measured it"
    assert (costs.expected_gain.mean, costs.expected_gain.seen) == (0.05, 1)
    assert costs.runs == 1, "a postponed run is over"


def test_curate_is_learned_from_what_it_kept_and_what_it_read(make: "Maker") -> None:
    """Its time is a line over all the run could train on: 1,500 tokens of the plan; the share is of tokens."""
    names = Names(run="p-1", stage="curate", attempt=1)
    band = DataCurated(**names, documents=9, tokens=1000, kept=6, kept_tokens=750, manifest="m", sha256=SHA)
    costs = learn(records(make, [started("p-1"), band, succeeded("p-1", "curate", 3.0)]))
    assert costs.kept == Share(share=0.75, seen=1)
    assert costs.duration("curate").per_million == pytest.approx(3.0 / 1500 * 1e6)
