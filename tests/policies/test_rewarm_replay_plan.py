"""How rewarm_replay fixes a plan: the planner, the steps of auto, when and what is replayed."""

from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import FixPlan
from daemon.core.events import Loss, StageSucceeded
from daemon.core.plans import Law, Plan, Replaying
from daemon.core.state import Model, Run
from policies.rewarm_replay import RewarmReplay

Build = Any
PROBED = StageSucceeded(run="p-90", stage="probe", attempt=1, seconds=1.0)


def test_the_steps_of_auto_are_configured(build: Build) -> None:
    """The three shares are the configuration's, as the two shifts between them are."""
    policy = RewarmReplay(weak_shift=0.1, strong_shift=0.2, weak_replay=0.02, mild_replay=0.1, strong_replay=0.4)
    for shift, share in ((0.05, 0.02), (0.15, 0.1), (0.2, 0.4), (None, 0.1)):
        assert fixed(policy, build, build.run("probe", done=True, shift=shift)).training.replay == share


def loss(mean: float) -> Loss:
    """Return a loss."""
    return Loss(mean=mean, low=mean, high=mean, documents=9, bytes=900)


def fixed(policy: RewarmReplay, build: Build, run: Run, champion: Model | None = None) -> Plan:
    """Return the plan that the policy fixes after the probe of a run."""
    decision = policy.decide(build.pipeline(500, active=run, champion=champion), build.record(PROBED))
    assert decision is not None
    (command,) = decision.commands
    assert isinstance(command, FixPlan)
    return command.plan


def probed(build: Build, law: Law | None = None, **fields: Any) -> Run:  # noqa: ANN401 - of a run
    """Return a run whose probe has measured prose, news and code, with what the past runs taught."""
    past = {"prose": build.amount(1000), "news": build.amount(3000)}
    plan = build.plan(new={"code": build.amount(100_000)}, past=past)
    measured = {"probe_past": {"prose": loss(1.2), "news": loss(1.0)}, "probe_new": {"code": loss(1.6)}}
    run: Run = build.run("probe", **{"done": True, "shift": 0.5, "law": law, "plan": plan, **measured, **fields})
    return run


WIDE = dict.fromkeys(("excess", "shift", "forward", "replay", "tokens"), (1e-9, 1e9))


def test_the_planner_speaks_once_its_law_fits(build: Build) -> None:
    """With three runs and a small error it chooses, says so, and tells what it expects."""
    law = Law(runs=5, error=0.008, covered=WIDE)
    run = probed(build, law)
    decision = RewarmReplay().decide(build.pipeline(500, active=run, champion=build.model()), build.record(PROBED))
    assert decision is not None
    assert "the planner's law of 5 runs, error 0.008" in decision.reason
    assert (decision.inputs["law_runs"], decision.inputs["law_error"]) == (5, 0.008)
    assert (decision.thresholds["law_runs"], decision.thresholds["law_error"]) == (3, 0.02)
    (command,) = decision.commands
    assert isinstance(command, FixPlan)
    prediction = command.plan.prediction
    assert prediction is not None
    assert prediction.law == law
    assert decision.inputs["expected_gain"] == prediction.gain
    assert command.plan.rule == "the planner's law of 5 runs, error 0.008"
    careful = fixed(RewarmReplay.model_validate({"planner": {"weights": {"old": 5}}}), build, run, build.model())
    eager = fixed(RewarmReplay.model_validate({"planner": {"weights": {"old": 0}}}), build, run, build.model())
    assert careful.training.replay > eager.training.replay


@pytest.mark.parametrize(
    ("law", "why"),
    [
        (Law(runs=2, error=None, covered=WIDE), "2 of 3 runs"),
        (Law(runs=9, error=0.021, covered=WIDE), "error 0.021 of 9 runs, allowed 0.02"),
        (Law(runs=9, error=0.001, covered={**WIDE, "shift": (0.0, 0.1)}), "nothing within 2 x"),
    ],
)
def test_until_then_the_shift_decides(build: Build, law: Law, why: str) -> None:
    """Too few runs, too large an error, or nothing near the past: the steps of the shift speak, and predict."""
    plan = fixed(RewarmReplay(), build, probed(build, law), build.model())
    assert plan.training.replay == 0.05
    assert plan.rule.startswith("a shift of 0.500 lies below 0.7 nats per byte (the planner is silent: ")
    assert why in plan.rule
    assert plan.prediction is not None
    assert plan.prediction.old is not None


def test_a_shift_is_told_in_the_models_unit(build: Build) -> None:
    """A module's shift is a loss per example."""
    run = probed(build, None)
    run = replace(run, plan=replace(run.plan, model=replace(run.plan.model, kind="module", factory="clicks:make")))
    assert "0.7 loss per example" in fixed(RewarmReplay(), build, run, build.model()).rule


@pytest.mark.parametrize("fields", [{"planner": "off"}, {"replay": 0.3}])
def test_the_planner_can_be_left_out(build: Build, fields: dict[str, object]) -> None:
    """Switched off, or with a configured share, it chooses nothing; what the law expects is told all the same."""
    law = Law(runs=5, error=0.008, covered=WIDE)
    plan = fixed(RewarmReplay.model_validate(fields), build, probed(build, law), build.model())
    assert "planner" not in plan.rule
    assert plan.training.schedule == build.plan().training.schedule
    assert plan.prediction is not None


def test_nothing_is_expected_without_a_law_or_a_measurement(build: Build) -> None:
    """A first increment, and one whose new data has nothing held out, are planned as ever."""
    law = Law(runs=5, error=0.008, covered=WIDE)
    for run in (probed(build), probed(build, law, probe_new={})):
        plan = fixed(RewarmReplay(), build, run, build.model())
        assert plan.prediction is None
        assert plan.training.replay == 0.05


def test_the_most_tokens_bound_the_planner(build: Build) -> None:
    """It never plans a run longer than the configured most."""
    run = probed(build, Law(runs=5, error=0.008, covered=WIDE))
    run = replace(run, intent=replace(run.intent, max_tokens=60_000))
    assert fixed(RewarmReplay(), build, run, build.model()).training.tokens <= 60_000


def test_replay_is_scheduled_and_the_share_stays(build: Build) -> None:
    """Twice as much at both ends gives phases whose mean is the share."""
    parts = [{"until": 0.1, "factor": 2}, {"until": 0.9, "factor": 1}, {"until": 1, "factor": 2}]
    policy = RewarmReplay.model_validate({"replay": 0.12, "replay_schedule": parts})
    training = fixed(policy, build, probed(build)).training
    assert training.replay == 0.12
    assert [phase.share for phase in training.replaying.phases] == [0.2, 0.1, 0.2]
    nothing = fixed(policy, build, build.run("probe", done=True, plan=build.plan(past={}))).training
    assert nothing.replaying == Replaying()


def test_what_is_replayed_is_chosen(build: Build) -> None:
    """As its tokens fall, each domain alike, or more of what the champion knew better once."""
    champion = build.model(best={"prose": 1.1, "news": 1.0})
    told = {
        choice: fixed(RewarmReplay(replay_choice=choice), build, probed(build), champion).training.replaying
        for choice in ("uniform", "per_domain", "loss_increase")
    }
    assert told["uniform"].weights == {}
    assert told["per_domain"].weights == {"news": 0.5, "prose": 0.5}
    assert told["loss_increase"].weights == pytest.approx({"prose": 0.9, "news": 0.1})
    assert {name: each.choice for name, each in told.items()} == {name: name for name in told}


def test_what_is_expected_depends_on_what_is_replayed(build: Build) -> None:
    """The law looks at each old domain's part of the batch, so it is told how the past is weighed."""
    run = probed(build, Law(runs=1, error=None))
    lost = [
        plan.prediction.forgetting
        for choice in ("uniform", "per_domain")
        if (plan := fixed(RewarmReplay(replay_choice=choice), build, run, build.model())).prediction is not None
    ]
    assert len(set(lost)) == 2


def test_a_peak_that_falls_falls_with_what_was_trained(build: Build) -> None:
    """The plan is fixed with the peak that the champion's tokens and its own give; a first run peaks in full."""
    policy = RewarmReplay.model_validate({"training": {"falling_peak": True, "peak": 3e-3, "floor": 3e-4}})
    run = build.run("probe", done=True)
    peaks = [
        fixed(policy, build, run, build.model(trained=trained)).training.schedule.peak for trained in (0, 1000, 10**9)
    ]
    assert peaks[0] == pytest.approx(3e-3)
    assert peaks[0] > peaks[1] > peaks[2] == pytest.approx(3e-4)
    steady = RewarmReplay.model_validate({"training": {"peak": 9e-3}})
    assert fixed(steady, build, run, build.model(trained=10**9)).training.schedule == build.plan().training.schedule
