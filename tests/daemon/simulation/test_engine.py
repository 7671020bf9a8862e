"""The virtual clock: small courses of events whose every instant was worked out by hand."""

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import pytest
from msgspec.structs import replace

from daemon.core.errors import FailureClass
from daemon.core.events import (
    CheckpointSaved,
    DataWithdrawn,
    DecisionMade,
    EvaluationReported,
    FailureReported,
    ModelPromoted,
    OperatorRequested,
    RunStarted,
    StageInterrupted,
    StageStarted,
)
from daemon.simulation.costs import Duration, Normal, Share
from daemon.simulation.histories import HOUR, Fact, Storm
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.simulation.conftest import Maker

SMALL = RewarmReplay(after_tokens=100, replay=0.0, limits={"checkpoint_every": 50.0})
MANY: dict[FailureClass, int] = dict.fromkeys(("worker_lost", "transient", "out_of_memory", "disk_full"), 100)
GATE = Promotion()


def test_a_run_takes_what_its_stages_take(make: "Maker") -> None:
    """60 tokens at 0 s and at 100 s are enough: trained for 120 s, and live 130 s after the second arrival."""
    course = make.course((SMALL, GATE), make.history(make.arrivals([0, 100]), 1000))
    assert [at for at, _ in course.told("run.started")] == [100]
    stages = [(at, event.stage) for at, event in course.told("stage.started") if isinstance(event, StageStarted)]
    assert stages == [(100, "ingest"), (101, "probe"), (103, "train"), (223, "evaluate"), (226, "promote")]
    assert [at for at, _ in course.told("model.promoted", "run.succeeded")] == [230, 230]
    account = course.tally.account("p")
    assert list(account.waited) == [230, 130]
    assert account.seconds == {"ingest": 1, "probe": 2, "train": 120, "evaluate": 3, "promote": 4}
    assert account.trained_tokens == 120
    assert course.engine.books["p"].waiting() == []


def test_what_comes_during_a_run_is_for_the_next(make: "Maker") -> None:
    """The second run starts the instant the first ends, and its wish had to wait since enough was there."""
    course = make.course((SMALL, GATE), make.history(make.arrivals([0, 10, 20, 30]), 1000))
    assert [at for at, _ in course.told("run.started")] == [10, 140]
    account = course.tally.account("p")
    assert list(account.waited) == [140, 130, 250, 240]
    assert account.waits == [110]
    assert account.suppressed == {"a run is active": 2}, "a base training is wished for, then an increment"
    assert [run.outcome for run in account.runs.values()] == ["promoted", "promoted"]


def test_wake_ups_come_at_their_instant(make: "Maker") -> None:
    """Data that is too little is trained on when it has waited for `max_age`, to the second."""
    policy = RewarmReplay(after_tokens=1000, max_age=timedelta(minutes=5))
    course = make.course((policy, GATE), make.history(make.arrivals([7]), 1000))
    assert [at for at, _ in course.told("timer.fired", "run.started")] == [307, 307]


def test_a_training_goes_back_once_for_a_spike(make: "Maker") -> None:
    """Workers that are lost afterwards cost what is behind their last checkpoint, as ever: no step comes twice."""
    small = RewarmReplay(
        after_tokens=800, replay=0.0, limits={"checkpoint_every": 5.0}, training={"batch": 1, "context": 4}
    )
    recovery = StageRecovery(retries=50, ceiling=100, limits=MANY, jitter=0, rollback_steps=10, skip_steps=10)
    costs = make.costs(failures={"train": {"loss_spike": 0.5, "worker_lost": 0.4}})
    lost = 0
    for seed in range(60):
        course = make.course(
            (small, recovery, GATE), make.history(make.arrivals([0, 1], 400), 20_000), costs, seed=seed
        )
        steps: list[int] = []
        back = False
        for _, event in course.told("decision.made", "checkpoint.saved", "stage.interrupted"):
            if isinstance(event, DecisionMade) and event.verdict == "step_back":
                back, steps = True, []
            elif isinstance(event, CheckpointSaved):
                steps.append(event.step)
            lost += back and bool(steps) and isinstance(event, StageInterrupted)
        assert sorted(set(steps)) == steps, f"seed {seed}"
    assert lost > 3, "too little has happened"


def test_schedules_tick_on_the_virtual_clock(make: "Maker") -> None:
    """A daily calendar ticks at each of its times, and retrains once there is a model."""
    policy = PeriodicRetraining(cron="30 3 * * *")
    course = make.course((SMALL, policy, GATE), make.history(make.arrivals([0, 100]), 3 * 86_400))
    assert [at / HOUR for at, _ in course.told("schedule.fired")] == [3.5, 27.5, 51.5]
    kinds = [event.plan.kind for _, event in course.told("run.started") if isinstance(event, RunStarted)]
    assert kinds == ["base", "retrain", "retrain", "retrain"]


def test_a_failing_stage_is_tried_again_and_given_up(make: "Maker") -> None:
    """With two retries three attempts fail; their arrivals still wait at the end."""
    costs = make.costs(failures={"train": {"transient": 1.0}})
    policies = (SMALL, StageRecovery(retries=2, backoff=timedelta(seconds=10), jitter=0), GATE)
    course = make.course(policies, make.history(make.arrivals([0, 100]), 10_000), costs)
    failed = [at for at, _ in course.told("stage.failed")]
    begun = [at for at, e in course.told("stage.started") if isinstance(e, StageStarted) and e.stage == "train"]
    assert len(failed) == 3
    assert begun == [103, failed[0] + 10, failed[1] + 20]
    account = course.tally.account("p")
    assert [run.outcome for run in account.runs.values()] == ["failed"]
    assert account.seconds["train"] == pytest.approx(sum(failed) - sum(begun))
    assert len(course.engine.books["p"].waiting()) == 2
    assert list(account.waited) == []


def test_no_attempt_outlives_its_time_limit(make: "Maker") -> None:
    """What would have failed later is ended before: of 120 s of training the first ten are waited for."""
    policies = (RewarmReplay(after_tokens=100, replay=0.0, limits={"time_limit": 10.0}), GATE)
    failing = make.costs(failures={"train": {"transient": 1.0}})
    for seed in range(5):
        course = make.course(policies, make.history(make.arrivals([0, 100]), 10_000), failing, seed=seed)
        assert course.tally.account("p").seconds["train"] <= 10


def test_a_lost_worker_goes_on_from_its_checkpoint(make: "Maker") -> None:
    """While a storm lasts workers die; no attempt trains again what is behind the last checkpoint."""
    storm = Storm(begin=make.zero, end=make.zero + timedelta(seconds=10_000), failing=0.7)
    small = RewarmReplay(
        after_tokens=800,
        replay=0.0,
        limits={"checkpoint_every": 5.0},
        training={"batch": 2, "context": 4},
    )
    policies = (small, StageRecovery(retries=50, ceiling=100, limits=MANY, jitter=0), GATE)
    course = make.course(policies, make.history(make.arrivals([0, 1], tokens=400), 10_000, (storm,)))
    account = course.tally.account("p")
    assert [run.outcome for run in account.runs.values()] == ["promoted"]
    assert account.stages["train"] > 2
    steps = [event.step for _, event in course.told("checkpoint.saved") if isinstance(event, CheckpointSaved)]
    assert len(steps) > 5
    assert sorted(set(steps)) == steps, "a step was reached twice"
    assert 800 <= account.trained_tokens <= 800 + 8 * 8 * account.stages["train"]


def test_an_attempt_that_is_reported_as_lost_is_replaced(make: "Maker") -> None:
    """It ends a second later, the next goes on from its checkpoint, and later reports change nothing."""
    lost = [
        Fact(make.zero + timedelta(seconds=150 + number), "p", FailureReported(failure="worker_lost"))
        for number in range(5)
    ]
    elsewhere = Fact(make.zero + timedelta(seconds=120), "p", FailureReported(failure="worker_lost", host="nowhere"))
    small = RewarmReplay(
        after_tokens=800,
        replay=0.0,
        limits={"checkpoint_every": 20.0},
        training={"batch": 1, "context": 8},
    )
    policies = (small, StageRecovery(), GATE)
    history = make.history([*make.arrivals([0, 1], tokens=400), elsewhere, *lost], 10_000)
    course = make.course(policies, history)
    account = course.tally.account("p")
    assert [run.outcome for run in account.runs.values()] == ["promoted"]
    interrupted = [(at, e.attempt) for at, e in course.told("stage.interrupted") if isinstance(e, StageInterrupted)]
    assert interrupted == [(151, 1)]
    assert account.stages["train"] == 2
    begun = [at for at, e in course.told("stage.started") if isinstance(e, StageStarted) and e.stage == "train"]
    assert begun[1:] == [151]
    assert course.engine.state.pipelines["p"].ignored == {"failure_elsewhere": 1, "failure_known": 1}
    assert 800 < account.trained_tokens < 800 + 20


def test_storms_end(make: "Maker") -> None:
    """What begins before a storm or at its end is spared by it."""
    storm = Storm(begin=make.zero + timedelta(seconds=101), end=make.zero + timedelta(seconds=103), failing=1.0)
    policies = (SMALL, StageRecovery(retries=99, backoff=timedelta(seconds=1)), GATE)
    course = make.course(policies, make.history(make.arrivals([0, 100]), 10_000, (storm,)))
    begun = [event for _, event in course.told("stage.started") if isinstance(event, StageStarted)]
    assert {event.stage for event in begun if event.attempt > 1} == {"probe"}
    assert [run.outcome for run in course.tally.account("p").runs.values()] == ["promoted"]


def test_a_preempted_run_resumes_from_its_checkpoint(make: "Maker") -> None:
    """A run that yields saves a checkpoint, goes on after the other one, and trains on each token once."""
    urgent = PeriodicRetraining(every=timedelta(seconds=1000), priority=5)
    small = RewarmReplay(after_tokens=8000, replay=0.0, training={"batch": 1, "context": 8})
    costs = make.costs(durations={**make.exact.durations, "train": Duration(fixed=0.0, per_million=100_000.0)})
    arrivals = make.arrivals([0, 1500], tokens=8000)
    course = make.course((small, urgent, GATE), make.history(arrivals, 10_000), costs)
    assert [at for at, _ in course.told("run.preempted")] == [1811]
    saved = [e.step for at, e in course.told("checkpoint.saved") if at == 1811 and isinstance(e, CheckpointSaved)]
    assert saved == [383]
    assert [e.reason for _, e in course.told("stage.interrupted") if isinstance(e, StageInterrupted)] == ["preempt"]
    outcomes = [(run.kind, run.outcome) for run in course.tally.account("p").runs.values()]
    assert outcomes[:3] == [("base", "promoted"), ("increment", "cancelled"), ("retrain", "promoted")]


def test_nobody_approves_unless_told_to(make: "Maker") -> None:
    """A held candidate waits for ever; or for so long as `approve_after` says, and is evaluated and promoted then."""
    policies = (SMALL, Promotion(approval="always"))
    arrivals = make.arrivals([0, 100, 300, 400])
    left = make.course(policies, make.history(arrivals, 100_000))
    assert [run.outcome for run in left.tally.account("p").runs.values()] == ["promoted", "held"]
    assert len(left.engine.books["p"].waiting()) == 2
    approved = make.course(policies, make.history(arrivals, 100_000), approve_after=timedelta(hours=4))
    held = [at for at, _ in approved.told("run.held")]
    assert held == [400 + 1 + 2 + 120 + 3]
    asked = [at for at, e in approved.told("operator.requested") if isinstance(e, OperatorRequested)]
    assert asked == [held[0] + 4 * HOUR]
    assert [at for at, _ in approved.told("model.promoted")] == [230, asked[0] + 4]
    assert [run.outcome for run in approved.tally.account("p").runs.values()] == ["promoted", "promoted"]
    stretches = [(run.outcome, (run.end - run.begin).total_seconds()) for run in approved.tally.account("p").ended]
    assert stretches == [("promoted", 130), ("held", 126), ("promoted", 4)]


def test_pipelines_share_the_slots(make: "Maker") -> None:
    """With one slot the run of the pipeline with the higher priority goes first, and none overlaps another."""
    facts = [*make.arrivals([0, 10]), *make.arrivals([0, 5, 20, 21], pipeline="q"), *make.arrivals([200, 201])]
    policies = {"p": (SMALL, GATE), "q": (SMALL, GATE)}
    course = make.course(policies, make.history(facts, 2000), priorities={"p": 1})
    runs = [(name, run) for name, account in course.tally.accounts.items() for run in account.ended]
    ordered = sorted((run.begin, run.end, name) for name, run in runs)
    assert [name for _, _, name in ordered] == ["q", "p", "p", "q"]
    assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    both = make.course(policies, make.history(facts, 2000), slots=2)
    assert len(both.told("run.started")) == 4
    assert "no free slot" not in both.tally.account("p").suppressed
    assert "no free slot" in course.tally.account("p").suppressed


def test_what_is_withdrawn_is_in_no_run(make: "Maker") -> None:
    """A recorded withdrawal finds its arrival where it lies here; the rest is too little then."""
    first, second = make.arrivals([0, 100])
    withdrawal = DataWithdrawn(arrival_source="a", arrival_id="b", arrival=4711, domain="prose")
    facts = [Fact(first.at, "p", first.event, 4711), Fact(make.zero + timedelta(seconds=50), "p", withdrawal), second]
    course = make.course((SMALL, GATE), make.history(facts, 1000))
    assert course.told("run.started") == []
    assert course.state.pipelines["p"].waiting == 60
    assert (course.engine.books["p"].withdrawn, len(course.engine.books["p"].waiting())) == (1, 1)


@pytest.mark.parametrize(("later", "past"), [(50, 120), (500, 60)])
@pytest.mark.parametrize("account", [None, "set_aside", "past"])
def test_what_is_withdrawn_is_taken_from_where_it_lies_here(
    make: "Maker", later: int, past: int, account: Literal["past", "set_aside"] | None
) -> None:
    """Wherever the journal had it: pending before the run, and of the champion's past after it."""
    first, *others = make.arrivals([0, 100, 101])
    withdrawal = DataWithdrawn(arrival_source="a", arrival_id="b", arrival=4711, domain="prose", account=account)
    at = make.zero + timedelta(seconds=later)
    facts = [Fact(first.at, "p", first.event, 4711), Fact(at, "p", withdrawal), *others]
    course = make.course((SMALL, GATE), make.history(facts, 1000))
    champion = course.state.pipelines["p"].champion
    assert champion is not None
    assert champion.past["prose"].tokens == past
    assert course.state.pipelines["p"].set_aside == {}
    assert course.state.pipelines["p"].ignored == {}


def test_what_a_champion_that_was_taken_back_had_is_set_aside(make: "Maker") -> None:
    """A withdrawal finds it there, and monitors see the age of the data of the champion that is back."""
    watch = {"signal": "evaluation.accuracy", "better": "higher", "for": "P30D", "least": 1}
    gate = Promotion.model_validate({"watch": watch})
    arrivals = make.arrivals([0, 86_400], tokens=100)
    withdrawal = DataWithdrawn(arrival_source="a", arrival_id="b", arrival=4711, domain="prose", account="past")
    facts = [arrivals[0], Fact(arrivals[1].at, "p", arrivals[1].event, 4711)]
    facts += [
        Fact(make.zero + timedelta(days=day), "p", EvaluationReported(metric="accuracy", value=value))
        for day, value in ((0.5, 0.9), (1.5, 0.1), (2.0, 0.9))
    ]
    facts.append(Fact(make.zero + timedelta(days=3), "p", withdrawal))
    history = replace(make.history(facts, 5 * 86_400), ages=True)
    course = make.course((SMALL, gate), history, make.costs(ageing=0.1))
    pipeline = course.state.pipelines["p"]
    assert pipeline.champion is not None
    assert (pipeline.champion.version, course.tally.account("p").rollbacks) == (1, 1)
    assert pipeline.champion.past["prose"].tokens == 100
    assert not sum(amount.tokens for amount in pipeline.set_aside.values())
    values = [event.value for _, event in course.told("evaluation.reported") if isinstance(event, EvaluationReported)]
    assert values == [0.85, 0.05, 0.7]


def test_a_held_candidate_gives_way_to_the_next(make: "Maker") -> None:
    """One candidate can be held: what the next one supersedes is held no more, and its data is set aside."""
    policies = (SMALL, Promotion(approval="always"))
    course = make.course(policies, make.history(make.arrivals([0, 1, 500, 501, 900, 901]), 2000))
    assert [run.outcome for run in course.tally.account("p").runs.values()] == ["promoted", "superseded", "held"]
    assert course.engine.books["p"].set_aside == 2


def test_refused_candidates_set_their_arrivals_aside(make: "Maker") -> None:
    """Where nothing gains, the base is promoted and every increment is refused."""
    costs = make.costs(gain=Normal(mean=-1.0, deviation=0.0))
    course = make.course((SMALL, GATE), make.history(make.arrivals([0, 1, 500, 501]), 1000), costs)
    assert [run.outcome for run in course.tally.account("p").runs.values()] == ["promoted", "rejected"]
    assert course.engine.books["p"].set_aside == 2
    assert course.engine.books["p"].waiting() == []


def test_arrivals_that_cannot_be_used_are_rejected(make: "Maker") -> None:
    """When ingest can use none of them the run fails for good, and they wait for nobody."""
    course = make.course(
        (SMALL, StageRecovery(), GATE),
        make.history(make.arrivals([0, 100]), 1000),
        make.costs(rejected=Share(share=1.0)),
    )
    assert course.engine.books["p"].rejected == 2
    assert [run.outcome for run in course.tally.account("p").runs.values()] == ["failed"]


def test_attempts_keep_their_time_limit(make: "Maker") -> None:
    """A stage that would take longer than its limit fails at the limit."""
    policy = RewarmReplay(after_tokens=100, limits={"time_limit": 60.0})
    course = make.course((policy, GATE), make.history(make.arrivals([0, 100]), 1000))
    assert [at for at, _ in course.told("stage.failed")] == [163]


def test_what_goes_on_at_the_end_counts_so_far(make: "Maker") -> None:
    """A stage that the history's end cuts off has cost what it took until then."""
    course = make.course((SMALL, GATE), make.history(make.arrivals([0, 100]), 163))
    account = course.tally.account("p")
    assert account.seconds["train"] == 60
    assert [run.outcome for run in account.runs.values()] == ["going on"]


def test_the_same_policies_are_asked_as_in_the_daemon(make: "Maker") -> None:
    """Every decision is recorded with its cause, and the champion's past is what arrived."""
    course = make.course((SMALL, GATE), make.history(make.arrivals([0, 100]), 1000))
    decided = [e for _, e in course.told("decision.made") if isinstance(e, DecisionMade)]
    verdicts = [e.verdict for e in decided if e.verdict != "waiting"]
    assert verdicts == ["due", "advance", "planned", "advance", "advance", "promote"]
    champion = course.state.pipelines["p"].champion
    assert champion is not None
    assert champion.past["prose"].tokens == 120
    promoted = [e for _, e in course.told("model.promoted") if isinstance(e, ModelPromoted)]
    assert [e.model_version for e in promoted] == [1]
