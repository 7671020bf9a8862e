"""When an increment is due, and how its plan is fixed."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import CancelRun, FixPlan, StartRun, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.events import (
    ConfigurationChanged,
    OperatorRequested,
    ProbeMeasured,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import ScheduleKind
from daemon.core.state import Ended, Wish
from policies.rewarm_replay import RewarmReplay

Build = Any
PROBED = StageSucceeded(run="p-90", stage="probe", attempt=1, seconds=1.0)


def only_start(decision: Decision) -> StartRun:
    """Return the one command of a decision, a start."""
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    return command


@pytest.mark.parametrize(
    ("pending", "verdict"), [(999, "waiting"), (1000, "due"), (1001, "due")], ids=["below", "at", "above"]
)
def test_the_amount_triggers(build: Build, pending: int, verdict: str) -> None:
    """An increment is due from the configured number of tokens on, and the numbers say so."""
    decision = RewarmReplay(after_tokens=1000).decide(build.pipeline(pending), build.record())
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.inputs["tokens"] == pending
    assert decision.thresholds["tokens"] == 1000
    assert bool(decision.commands) == (verdict == "due")


def test_tokens_that_a_run_has_taken_do_not_count(build: Build) -> None:
    """While a run trains on 500 of 1200 tokens, 700 wait."""
    state = build.pipeline(1200, 2, active=build.run())
    decision = RewarmReplay(after_tokens=1000).opinion(state, build.record())
    assert decision.verdict == "waiting"
    assert decision.inputs["tokens"] == 700


def test_data_that_waits_long_asks_for_a_wake_up_and_is_due_then(build: Build) -> None:
    """Below the amount the policy asks to be woken when the oldest arrival is `max_age` old, and starts then."""
    policy = RewarmReplay(after_tokens=1000, max_age=timedelta(hours=6))
    state = build.pipeline(10)
    before = policy.opinion(state, build.record(at=build.after(hours=5)))
    assert (before.verdict, before.wakes) == ("waiting", {"when": build.after(hours=6)})
    fired = TimerFired(policy="rewarm_replay", key="when", due=build.after(hours=6))
    woken = policy.decide(state, build.record(fired, build.after(hours=6)))
    assert woken is not None
    assert woken.verdict == "due"
    assert woken.inputs["age_seconds"] == 6 * 3600
    assert not woken.wakes


def test_nothing_pending_asks_for_nothing(build: Build) -> None:
    """Without an arrival neither age nor amount can come due."""
    decision = RewarmReplay(max_age=timedelta(hours=1)).opinion(build.pipeline(), build.record(at=build.after(days=9)))
    assert (decision.verdict, decision.wakes, decision.commands) == ("waiting", {}, ())


def test_an_empty_arrival_never_comes_due_by_amount_alone(build: Build) -> None:
    """Data of no tokens waits, until its age makes it due."""
    policy = RewarmReplay(after_tokens=1, max_age=timedelta(hours=1))
    state = build.pipeline(0, 1)
    assert policy.opinion(state, build.record()).verdict == "waiting"
    assert policy.opinion(state, build.record(at=build.after(hours=1))).verdict == "due"


def test_a_failed_run_blocks_its_data_until_there_is_more(build: Build) -> None:
    """What failed is not tried again over the same data: new data or an operator's retry unblocks it."""
    policy = RewarmReplay(after_tokens=100)
    ended = Ended(run="p-90", outcome="failed", position=99, at=build.noon)
    failed = build.pipeline(5000, last_arrival=80, failed_upto=90, last=ended)
    blocked = policy.opinion(failed, build.record())
    assert blocked.verdict == "blocked"
    assert "failed" in blocked.reason
    assert not blocked.commands
    fresh = build.pipeline(5000, last_arrival=91, failed_upto=90)
    assert policy.opinion(fresh, build.record()).verdict == "due"
    retried = build.pipeline(5000, last_arrival=80, failed_upto=0)
    retry = OperatorRequested(verb="retry", by="ann")
    decision = policy.decide(retried, build.record(retry))
    assert decision is not None
    assert decision.verdict == "due"


@pytest.mark.parametrize("why", ["too little", "blocked"])
def test_a_wish_is_taken_back(build: Build, why: str) -> None:
    """When the data is withdrawn, or failed meanwhile, a wish that waits no longer holds."""
    wish = Wish(policy="rewarm_replay", command="1/p/rewarm_replay/0", since=50, since_at=build.noon)
    state = (
        build.pipeline(10, wishes={"rewarm_replay": wish})
        if why == "too little"
        else build.pipeline(5000, last_arrival=80, failed_upto=90, wishes={"rewarm_replay": wish})
    )
    decision = RewarmReplay(after_tokens=1000).opinion(state, build.record())
    assert decision.commands == (WithdrawWish(),)


def test_another_policys_wish_is_not_its_own(build: Build) -> None:
    """Only the policy's own wish is taken back."""
    wish = Wish(policy="other", command="1/p/other/0", since=50, since_at=build.noon)
    decision = RewarmReplay(after_tokens=1000).opinion(build.pipeline(10, wishes={"other": wish}), build.record())
    assert not decision.commands


@pytest.mark.parametrize("schedule", ["rewarm", "infinite", "constant"])
@pytest.mark.parametrize("first", [True, False])
def test_the_intent(build: Build, schedule: ScheduleKind, first: bool) -> None:
    """The first data gives a base training from scratch, later data an increment on the champion."""
    policy = RewarmReplay(after_tokens=1, schedule=schedule, priority=3)
    state = build.pipeline(10, champion=None if first else build.model())
    intent = only_start(policy.opinion(state, build.record())).intent
    assert (intent.kind, intent.start) == (("base", "scratch") if first else ("increment", "champion"))
    assert intent.training.schedule.kind == schedule
    assert intent.priority == 3
    continues = schedule == "infinite" and not first
    assert (intent.training.schedule.warmup == 0) == continues
    assert (intent.training.schedule.cooldown == 0) == continues


def test_settings_reach_the_intent(build: Build) -> None:
    """Epochs, the most tokens, the optimiser, limits and the expiry are carried into the wish."""
    policy = RewarmReplay.model_validate(
        {
            "after_tokens": 1,
            "expires_after": "PT2H",
            "training": {"epochs": 2.5, "max_tokens": 77, "optimiser": "reset", "peak": 0.1, "floor": 0.02},
            "limits": {"time_limit": 9, "heartbeat": 8, "checkpoint_every": 7},
        }
    )
    intent = only_start(policy.opinion(build.pipeline(10), build.record())).intent
    assert (intent.epochs, intent.max_tokens, intent.training.optimiser) == (2.5, 77, "reset")
    assert intent.training.schedule.plateau == pytest.approx(0.06)
    assert (intent.limits.time_limit, intent.limits.heartbeat, intent.limits.checkpoint_every) == (9, 8, 7)
    assert intent.expires_at == build.after(hours=2)


@pytest.mark.parametrize(
    ("shift", "replay", "rule"),
    [
        (0.0, 0.01, "below 0.02"),
        (-0.5, 0.01, "below 0.02"),
        (0.019, 0.01, "below 0.02"),
        (0.02, 0.05, "below 0.7"),
        (0.0199999999999996, 0.05, "below 0.7"),
        (0.69, 0.05, "below 0.7"),
        (0.7, 0.25, "strong"),
        (3.0, 0.25, "strong"),
        (None, 0.05, "default"),
    ],
)
def test_the_shift_fixes_the_share_of_replay(build: Build, shift: float | None, replay: float, rule: str) -> None:
    """1 % below a weak shift, 5 % below a strong one, 25 % from it on; 5 % where nothing was measured."""
    run = build.run("probe", done=True, shift=shift)
    decision = RewarmReplay().decide(build.pipeline(500, active=run), build.record(PROBED))
    assert decision is not None
    (command,) = decision.commands
    assert isinstance(command, FixPlan)
    assert command.run == "p-90"
    assert command.plan.training.replay == replay
    assert rule in command.plan.rule
    assert command.plan.training.tokens == round(500 / (1 - replay))
    assert command.plan.spans == run.plan.spans
    assert decision.inputs["shift"] == (None if shift is None else pytest.approx(shift))


def test_a_run_whose_new_data_is_gone_ends(build: Build) -> None:
    """When all of it was withdrawn or rejected before the plan is fixed, the run is cancelled, with the reason."""
    run = build.run("probe", done=True, plan=build.plan(new={}))
    decision = RewarmReplay().decide(build.pipeline(active=run), build.record(PROBED))
    assert decision is not None
    assert decision.verdict == "nothing_left"
    assert decision.commands == (CancelRun(run="p-90"),)


def test_without_a_past_nothing_is_replayed(build: Build) -> None:
    """A base training has nothing to replay, whatever the configured share."""
    for replay in ("auto", 0.5):
        run = build.run("probe", done=True, plan=build.plan(past={}), shift=2.0)
        decision = RewarmReplay(replay=replay).decide(build.pipeline(500, active=run), build.record(PROBED))
        assert decision is not None
        assert isinstance(decision.commands[0], FixPlan)
        assert decision.commands[0].plan.training.replay == 0
        assert decision.commands[0].plan.training.tokens == 500


def test_a_configured_share_stands(build: Build) -> None:
    """A number in the configuration is taken whatever the shift, and the most tokens bound the budget."""
    run = build.run("probe", done=True, shift=5.0)
    state = build.pipeline(500, active=replace(run, intent=replace(run.intent, max_tokens=400)))
    decision = RewarmReplay(replay=0.4).decide(state, build.record(PROBED))
    assert decision is not None
    assert isinstance(decision.commands[0], FixPlan)
    training = decision.commands[0].plan.training
    assert (training.replay, training.tokens) == (0.4, 400)


@pytest.mark.parametrize(
    ("stage", "policy"), [("ingest", "rewarm_replay"), ("train", "rewarm_replay"), ("probe", "other")]
)
def test_only_the_probe_of_its_own_run_fixes_the_plan(build: Build, stage: str, policy: str) -> None:
    """Other stages, and other policies' runs, are none of its business."""
    state = build.pipeline(500, active=build.run(stage, policy, done=True))
    told = StageSucceeded(run="p-90", stage=stage, attempt=1, seconds=1.0)
    assert RewarmReplay().decide(state, build.record(told)) is None
    measured = ProbeMeasured(run="p-90", stage="probe", attempt=1, new={}, past={})
    assert RewarmReplay().decide(state, build.record(measured)) is None


def test_a_changed_configuration_is_considered(build: Build) -> None:
    """A lower threshold acts on the data that waits already."""
    changed = ConfigurationChanged(hash="h", slots=1, pipelines={})
    decision = RewarmReplay(after_tokens=5).decide(build.pipeline(10), build.record(changed))
    assert decision is not None
    assert decision.verdict == "due"


@pytest.mark.parametrize(
    "fields",
    [
        {"replay": 1.0},
        {"replay": -0.1},
        {"replay": "some"},
        {"weak_shift": 0.8},
        {"after_tokens": 0},
        {"max_age": "-PT1S"},
        {"max_age": "P999999999D"},
        {"expires_after": 0},
        {"training": {"peak": float("inf")}},
        {"training": {"floor": 0}},
        {"limits": {"heartbeat": 0}},
        {"schedule": "cosine"},
        {"mild_replay": 1.0},
        {"replay_choice": "some"},
        {"replay_schedule": [{"until": 0.5, "factor": 1}]},
        {"replay_schedule": [{"until": 0.5, "factor": 1}, {"until": 0.5, "factor": 1}, {"until": 1, "factor": 1}]},
        {"replay_schedule": [{"until": 1, "factor": 0}]},
        {"planner": "on"},
        {"planner": {"least_runs": 2}},
        {"planner": {"weights": {"old": -1}}},
        {"planner": {"replays": []}},
        {"planner": {"peaks": [0]}},
    ],
)
def test_configurations_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    """Shares outside [0, 1), periods that no instant bears, and rates that are no numbers never start."""
    with pytest.raises(ValueError, match="validation error"):
        RewarmReplay.model_validate(fields)


def test_the_oldest_possible_instants_do_not_overflow(build: Build) -> None:
    """The longest periods that are accepted can be added to today's instants."""
    policy = RewarmReplay(after_tokens=1, max_age=timedelta(days=36_525), expires_after=timedelta(days=36_525))
    at = datetime(2126, 1, 1, tzinfo=build.noon.tzinfo)
    intent = only_start(policy.opinion(build.pipeline(10), build.record(at=at))).intent
    assert intent.expires_at is not None
    assert intent.expires_at.year == 2226
