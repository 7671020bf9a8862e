"""The paths of a run's life, from its start to each of its ends."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from daemon.core.commands import FixPlan, RunStage
from daemon.core.decisions import Decision
from daemon.core.events import (
    FailureReported,
    ModelRejected,
    ProbeMeasured,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageSucceeded,
)
from daemon.core.plans import Span
from daemon.core.state import Failures, Progress

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World


def test_a_run_goes_from_stage_to_stage_to_its_promotion(world: "World", parts: "type[Parts]") -> None:
    """Data starts a run, each stage follows the one before, the gate promotes, and the run succeeds."""
    world.arrive(100)
    assert (world.order().stage, world.order().attempt, world.order().started) == ("ingest", 1, False)
    world.begin()
    assert world.order().started
    seen = []
    while world.of().active is not None:
        seen.append(world.order().stage)
        world.succeed()
    pipeline = world.of()
    assert seen == ["ingest", "probe", "train", "evaluate", "promote"]
    assert world.all(RunSucceeded) == [RunSucceeded(run="p-2", outcome="promoted")]
    assert pipeline.champion is not None
    assert (pipeline.champion.version, pipeline.champion.run, pipeline.champion.parent) == (1, "p-2", None)
    assert pipeline.base == pipeline.champion
    assert (pipeline.previous, pipeline.versions, pipeline.increments) == (None, 1, 0)
    assert pipeline.last is not None
    assert (pipeline.last.outcome, pipeline.runs.succeeded, pipeline.ignored) == ("promoted", 1, {})


def test_a_runs_id_names_the_record_that_caused_it(world: "World") -> None:
    """The run's id is the pipeline and the position of the arrival; its command says which policy wished for it."""
    world.arrive(50)
    world.arrive(50)
    started = world.all(RunStarted)[0]
    cause = next(r for r in world.records if isinstance(r.event, RunStarted)).cause
    assert started.run == f"p-{cause}"
    assert started.command == f"{cause}/p/starter/0"


def test_an_increment_follows_a_base(promoted: "World") -> None:
    """The second model's parent is the first one, which stays base and becomes previous."""
    promoted.arrive(100)
    promoted.finish()
    pipeline = promoted.of()
    assert pipeline.champion is not None
    assert pipeline.previous is not None
    assert pipeline.base is not None
    assert (pipeline.champion.version, pipeline.champion.parent) == (2, 1)
    assert (pipeline.previous.version, pipeline.base.version, pipeline.increments) == (1, 1, 1)


def test_increments_are_counted_since_the_last_full_training(promoted: "World", parts: "type[Parts]") -> None:
    """A promoted retrain starts the count anew; started from the base it leaves the base as it is."""
    promoted.arrive(100)
    promoted.finish()
    assert promoted.of().increments == 1
    promoted.configure({"p": (parts.Starter(kind="retrain"), parts.Gate())})
    promoted.arrive(100)
    promoted.finish()
    assert promoted.all(RunStarted)[-1].plan.kind == "retrain"
    assert promoted.of().increments == 0
    assert promoted.of().base is not None


def test_what_an_attempt_tells_is_kept_while_it_runs(world: "World", parts: "type[Parts]") -> None:
    """Progress, checkpoints and the probe's figures are in the state."""
    world.arrive(100)
    world.fact(StageProgressed(**world.names(), step=3, steps=9))
    assert world.run().progress == Progress(step=3, steps=9)
    world.until("probe")
    world.fact(ProbeMeasured(**world.names(), new={"prose": parts.loss(3.0)}, past={}, shift=0.5))
    assert (world.run().shift, world.run().probe_new) == (0.5, {"prose": parts.loss(3.0)})
    world.until("train")
    world.checkpoint(40)
    assert world.run().checkpoint_step == 40
    world.until("evaluate")
    assert world.run().checkpoint_step == 0


@pytest.mark.parametrize("change", [{"run": "p-1"}, {"stage": "train"}, {"attempt": 2}])
def test_only_the_current_attempt_counts(world: "World", change: dict[str, object]) -> None:
    """What another run, stage or attempt tells changes nothing but a counter."""
    world.arrive(100)
    before = world.run()
    names = {**world.names(), **change}
    assert world.fact(StageSucceeded(**names, seconds=1)) == []
    assert world.fact(StageFailed(**names, failure="transient", message="")) == []
    assert world.run() == before
    assert world.of().ignored == {"stale_attempt": 2}


def test_an_outcome_counts_once(world: "World") -> None:
    """A second success of the same attempt is stale."""
    world.arrive(100)
    names = world.names()
    world.succeed()
    world.fact(StageSucceeded(**names, seconds=1))
    assert world.order().stage == "probe"
    assert world.of().ignored == {"stale_attempt": 1}


def test_a_model_is_promoted_once(world: "World") -> None:
    """A promotion told twice moves champion, previous, increments and pending data once."""
    world.arrive(100)
    world.arrive(50)
    world.until("promote")
    world.fact(world.promotion())
    before = world.of()
    world.fact(world.promotion())
    assert world.of().champion == before.champion
    assert (world.of().previous, world.of().pending) == (None, before.pending)
    assert world.of().ignored == {"already_promoted": 1}


@pytest.mark.parametrize("end", ["fail", "cancel", "die"])
def test_a_run_whose_model_is_live_has_succeeded(world: "World", end: str) -> None:
    """Once the files are published nothing that becomes of the attempt makes the run fail or try again."""
    world.arrive(100)
    world.until("promote")
    world.fact(world.promotion())
    if end == "fail":
        world.fail()
    elif end == "die":
        world.fact(StageInterrupted(**world.names(), reason="died"))
    else:
        world.request("cancel")
        world.stopped()
    assert world.all(RunSucceeded) == [RunSucceeded(run="p-2", outcome="promoted")]
    assert world.of().active is None


def test_a_rejected_candidate_is_never_continued(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Its arrivals are set aside, the champion stays, and the run has succeeded in saying no."""
    world = make_world(parts.Starter(), parts.Gate("reject"))
    world.arrive(100)
    world.finish()
    assert world.all(ModelRejected) == [
        ModelRejected(
            run="p-2", reason="It is reject.", spans=(Span(after=0, upto=3),), amounts={"prose": parts.amount(100)}
        )
    ]
    pipeline = world.of()
    assert world.all(RunSucceeded) == [RunSucceeded(run="p-2", outcome="rejected")]
    assert (pipeline.champion, pipeline.pending, pipeline.set_aside) == (None, {}, {"prose": parts.amount(100)})


def test_a_failure_without_a_recovery_policy_ends_the_run(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Nobody retries: the run fails, with the failure's class and a decision that says so."""
    world = make_world(parts.Starter(), parts.Gate())
    world.arrive(100)
    following = world.fail()
    assert [d.verdict for d in world.decisions(following, "sequence")] == ["failed"]
    assert [(e.failure, e.stage) for e in world.all(RunFailed)] == [("transient", "ingest")]
    assert world.of().runs.failed == 1


def test_a_policy_retries_after_a_wake_up_under_the_runs_id(world: "World", parts: "type[Parts]") -> None:
    """The run waits for its wake-up, then the next attempt resumes; a checkpoint counts as progress."""
    world.arrive(100)
    world.until("train")
    world.checkpoint(10)
    assert [d.verdict for d in world.decisions(world.fail())] == ["backing_off"]
    assert world.of().timers == {"retry:p-2": world.now + timedelta(seconds=10)}
    assert world.run().order is None
    world.fire()
    assert world.of().timers == {}
    assert (world.order().attempt, world.order().resume) == (2, True)
    lost = Failures(total=1, without_progress=1, last="transient", message="the net is down", classes={"transient": 1})
    assert world.run().failures == lost
    world.checkpoint(20)
    assert world.run().failures.without_progress == 0
    world.until("evaluate")
    assert world.run().failures == Failures()


def test_a_policy_gives_up_in_the_end(world: "World") -> None:
    """After the last retry the run fails by the policy's decision and its wake-ups go with it."""
    world.arrive(100)
    for _ in range(3):
        world.fail()
        world.fire()
    world.fail()
    assert [e.failure for e in world.all(RunFailed)] == ["transient"]
    assert world.decisions(policy="retry")[-1].verdict == "given_up"
    assert world.of().timers == {}


def test_a_run_that_is_cancelled_while_ordered_waits_for_its_attempt(world: "World") -> None:
    """Cancelling marks the run; it ends when the attempt has ended, and its data is not tried again by itself."""
    world.arrive(100)
    world.request("cancel", reason="wrong data")
    assert world.run().stop == "cancel"
    assert world.all(RunCancelled) == []
    world.stopped()
    assert [(e.run, e.again) for e in world.all(RunCancelled)] == [("p-2", False)]
    assert world.of().wishes == {}
    assert world.of().runs.cancelled == 1


def test_a_stage_that_succeeds_although_cancelled_ends_the_run(world: "World") -> None:
    """No stage follows on a run that is being cancelled."""
    world.arrive(100)
    world.request("cancel")
    world.succeed()
    assert world.of().active is None
    assert len(world.all(RunCancelled)) == 1


def test_a_run_that_waits_for_its_back_off_is_cancelled_at_once(world: "World") -> None:
    """No attempt is under way, so there is nothing to wait for, and its wake-up is gone."""
    world.arrive(100)
    world.fail()
    world.request("cancel")
    assert world.of().active is None
    assert world.of().timers == {}
    assert len(world.all(RunCancelled)) == 1


def test_a_run_without_a_gate_finishes(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A pipeline whose last stage is train ends its runs as finished, and its data is used."""
    world = make_world(parts.Starter(), stages=("ingest", "train"))
    world.arrive(100)
    world.finish()
    assert world.all(RunSucceeded) == [RunSucceeded(run="p-2", outcome="finished")]
    assert world.of().pending == {}


def test_a_plan_is_fixed_by_a_policy(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The plan that a policy gives after the probe is the plan of the run."""
    fix = parts.Scripted(
        "fix",
        lambda state, record: (
            Decision(
                verdict="planned", reason="Fixed.", commands=(FixPlan(run=state.active.run, plan=state.active.plan),)
            )
            if state.active is not None and isinstance(record.event, ProbeMeasured)
            else None
        ),
    )
    world = make_world(parts.Starter(), fix)
    world.arrive(100)
    world.until("probe")
    following = world.fact(ProbeMeasured(**world.names(), new={}, past={}))
    assert [record.event.kind for record in following] == ["decision.made", "plan.fixed"]


@pytest.mark.parametrize(
    ("stage", "attempt", "why"),
    [
        ("train", 1, "stage ingest of run p-2 is still going on"),
        ("promote", 2, "attempt 2 of stage promote is not the next"),
        ("ingest", 1, "attempt 1 of stage ingest is not the next"),
        ("polish", 1, "run p-2 has no stage polish"),
    ],
)
def test_a_command_that_does_not_fit_is_suppressed(
    make_world: "MakeWorld", parts: "type[Parts]", stage: str, attempt: int, why: str
) -> None:
    """A policy's stage is run only when it is the next attempt of a stage that the run has, and nothing runs."""
    command = RunStage(run="p-2", stage=stage, attempt=attempt)
    at = FailureReported if "still" in why else StageFailed
    odd = parts.Scripted(
        "odd",
        lambda _, record: (
            Decision(verdict="odd", reason="It wants.", commands=(command,), wakes={"later": record.recorded_at})
            if isinstance(record.event, at)
            else None
        ),
    )
    world = make_world(parts.Starter(), parts.Retry(), odd)
    world.arrive(100)
    following = world.fact(FailureReported(failure="worker_lost")) if "still" in why else world.fail()
    decision = world.decisions(following, "odd")[0]
    assert (decision.suppressed_by, decision.commands) == (why, ())
    assert "odd:later" in world.of().timers


def test_contradictory_steps_of_a_run_change_nothing(world: "World") -> None:
    """Steps of a run that is not there, not active or not waiting are counted as ignored."""
    world.arrive(100)
    before = world.run()
    started = world.all(RunStarted)[0]
    world.fact(started)
    world.fact(RunResumed(run="p-2", command="c", stage="train"))
    world.fact(RunSucceeded(run="p-9", outcome="promoted"))
    world.fact(RunHeld(run="p-9", reason=""))
    world.fact(RunPreempted(run="p-9", stage="train"))
    world.fact(RunCancelled(run="p-9", reason=""))
    assert world.run() == before
    assert world.of().ignored == {"pipeline_is_busy": 2, "not_the_active_run": 3, "not_a_living_run": 1}


def test_a_stage_that_a_drain_stopped_goes_on_at_once(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The order to go on is decided with its end, whatever policies there are, and counts as no failure."""
    for policies in ((parts.Starter(),), (parts.Starter(), parts.Retry(most=0))):
        world = make_world(*policies)
        world.arrive(100)
        world.until("train")
        world.begin()
        world.checkpoint(7)
        following = world.fact(StageInterrupted(**world.names(), reason="drain"))
        (decided,) = world.decisions(following, "sequence")
        run = world.run()
        assert decided.verdict == "resume"
        assert "after step 7" in decided.reason
        assert decided.commands == (RunStage(run=run.run, stage="train", attempt=2, resume=True),)
        assert (run.failures.total, run.failures.without_progress, run.checkpoint_step) == (0, 0, 7)
        world.begin()
        world.succeed()
        assert world.order().stage == "evaluate"
