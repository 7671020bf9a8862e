"""Wishes, verdicts, slots and preemption: who may act, and what is recorded of those who may not."""

from datetime import timedelta
from typing import TYPE_CHECKING

from daemon.core.commands import StartRun, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.events import (
    DataArrived,
    DecisionMade,
    EvaluationReported,
    ModelPromoted,
    RunCancelled,
    RunPreempted,
    RunResumed,
    RunStarted,
    StageFailed,
    StageSucceeded,
)

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World


def starts(world: "World") -> list[str]:
    """Return the policies whose wishes were acted on, in order."""
    return [event.policy for event in world.all(RunStarted)]


def test_a_verdict_that_stands_is_not_stored_again(world: "World") -> None:
    """Every `waiting` after the first costs no record."""
    assert [d.verdict for d in world.decisions(world.arrive(10))] == ["waiting"]
    assert world.arrive(10) == []
    assert world.arrive(10) == []
    assert world.of().verdicts["starter"].position == 3


def test_a_new_wake_up_is_stored_although_the_verdict_stands(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The same key replaces the earlier instant; the wake-up that was replaced is stale."""
    waking = parts.Scripted(
        "waking",
        lambda _, record: (
            Decision(verdict="waiting", reason="It waits.", wakes={"quiet": record.recorded_at + timedelta(minutes=1)})
            if isinstance(record.event, DataArrived)
            else None
        ),
    )
    world = make_world(waking)
    world.arrive()
    first = world.of().timers["waking:quiet"]
    assert len(world.decisions(world.arrive())) == 1
    assert world.of().timers == {"waking:quiet": first + timedelta(seconds=1)}
    world.fire()
    assert world.of().timers == {}


def test_a_wake_up_is_given_once(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Asked again for an instant that was given already, the clock would repeat an id; a later instant is new."""
    due = parts.World().now + timedelta(minutes=1)
    stubborn = parts.Scripted(
        "stubborn",
        lambda *_: Decision(verdict="waiting", reason="It waits.", wakes={"quiet": due}),
    )
    world = make_world(stubborn)
    assert world.of().timers == {"stubborn:quiet": due}
    world.fire()
    world.arrive()
    assert world.of().timers == {}


def test_a_wish_waits_for_the_run_before_it(world: "World") -> None:
    """A second wish names what suppressed it, stands once however often it is repeated, and is acted on in the end."""
    world.arrive(100)
    decision = world.decisions(world.arrive(100))[0]
    assert (decision.verdict, decision.suppressed_by) == ("due", "run p-2 is active")
    assert world.arrive(50) == []
    since = world.of().wishes["starter"].since
    world.finish()
    second = world.all(RunStarted)[1]
    assert (second.wished_at, second.passed_over) == (since, False)
    assert {d: a.tokens for d, a in second.plan.new.items()} == {"prose": 150}


def test_a_wish_that_waits_takes_on_what_is_wanted_now(world: "World") -> None:
    """A base training that was wished for while the first one ran becomes an increment once there is a champion."""
    world.arrive(100)
    world.arrive(100)
    waiting = world.of().wishes["starter"]
    assert waiting.intent is not None
    assert waiting.intent.kind == "base"
    world.until("promote")
    world.succeed()
    started = world.all(RunStarted)[1]
    assert (started.intent.kind, started.plan.kind, started.plan.start.kind) == ("increment", "increment", "champion")
    assert started.wished_at == waiting.since
    assert started.command != waiting.command


def test_a_wish_is_withdrawn_when_it_no_longer_holds(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The policy takes its wish back and nothing starts."""
    fickle = parts.Scripted(
        "fickle",
        lambda state, record: {
            "a": parts.starting(parts.intent("base", "scratch")),
            "b": Decision(verdict="waiting", reason="No more.", commands=(WithdrawWish(),)),
        }.get(getattr(record.event, "domain", "")),
    )
    world = make_world(fickle)
    world.request("pause")
    world.arrive(10, "a")
    assert set(world.of().wishes) == {"fickle"}
    world.arrive(10, "b")
    assert world.of().wishes == {}
    world.request("resume")
    assert starts(world) == []


def test_a_wish_expires(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A wish that waited too long is taken back with the reason, and may be wished again."""
    world = make_world(parts.Starter(expires_after=timedelta(minutes=1)), parts.Gate())
    world.request("pause")
    world.arrive(100)
    assert set(world.of().wishes) == {"starter"}
    following = world.fact(EvaluationReported(metric="m", value=1.0), after=61)
    assert [d.verdict for d in world.decisions(following, "arbiter")] == ["withdrawn"]
    assert "expired" in world.decisions(following, "arbiter")[0].reason
    assert world.of().wishes == {}
    world.request("resume")
    assert starts(world) == ["starter"]


def test_a_void_wish_says_why(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A start that has nothing to train on is suppressed by that, and taken back."""
    eager = parts.Scripted("eager", lambda *_: parts.starting(parts.intent("retrain", "scratch")))
    world = make_world(eager)
    following = world.fact(EvaluationReported(metric="m", value=1.0))
    due, withdrawn = world.decisions(following)
    assert due.suppressed_by == withdrawn.reason == "The wish is void: there is no data to train on."
    assert withdrawn.commands == (WithdrawWish(wish="eager"),)
    assert world.of().wishes == {}


def test_the_configured_order_decides_but_nobody_is_passed_over_twice(
    make_world: "MakeWorld", parts: "type[Parts]"
) -> None:
    """Under steady arrivals the second policy's wish is acted on after one run of the first."""
    world = make_world(parts.Starter("often"), parts.Starter("seldom", kind="retrain"), parts.Gate())
    world.arrive(100)
    for _ in range(5):
        world.arrive(100)
        world.finish_one()
    assert starts(world)[:4] == ["often", "seldom", "often", "seldom"]
    assert world.all(RunStarted)[1].passed_over


def test_a_wish_that_was_passed_over_is_not_preempted(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A run that already waited for another keeps its slot against a higher priority."""
    world = make_world(parts.Starter("low"), parts.Starter("high", priority=1), parts.Gate())
    world.arrive(100)
    world.arrive(100)
    assert starts(world) == ["high"]
    world.finish_one()
    assert starts(world) == ["high", "low"]
    world.arrive(100)
    assert world.run().stop is None


def test_a_higher_priority_preempts(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The run is asked for a checkpoint, yields, and resumes where it stopped when the other has failed."""
    world = make_world(parts.Starter("low"), parts.Starter("high", after=1000, priority=1), parts.Gate())
    world.arrive(100)
    world.until("train")
    low = world.run().run
    world.checkpoint(7)
    decisions = world.decisions(world.arrive(1000))
    assert [(d.policy, d.verdict) for d in decisions] == [("low", "due"), ("high", "due"), ("arbiter", "preempt")]
    assert world.run().stop == "preempt"
    world.stopped()
    assert [(e.run, e.stage) for e in world.all(RunPreempted)] == [(low, "train")]
    assert starts(world) == ["low", "high"]
    yielded = world.of().yielded
    assert yielded is not None
    assert (yielded.checkpoint_step, yielded.preempted) == (7, 1)
    world.fail()
    resumed = world.all(RunResumed)[0]
    assert (resumed.run, resumed.stage) == (low, "train")
    assert (world.order().attempt, world.order().resume, world.run().checkpoint_step) == (2, True, 7)
    assert world.of().yielded is None
    assert "low:resume" not in world.of().wishes


def test_a_yielded_run_is_cancelled_when_the_champion_changed(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The other run's model is champion and used the data: the run ends, and its wish, void now, is taken back."""
    world = make_world(parts.Starter("low"), parts.Starter("high", after=1000, priority=1), parts.Gate())
    world.arrive(100)
    world.arrive(1000)
    low = world.run().run
    world.stopped()
    world.finish()
    assert [(e.run, e.again) for e in world.all(RunCancelled)] == [(low, True)]
    assert world.of().yielded is None
    assert world.of().wishes == {}
    assert world.decisions(policy="arbiter")[-1].verdict == "withdrawn"
    world.arrive(100)
    assert starts(world)[-1] == "low"


def test_a_run_is_preempted_three_times_at_most(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The fourth time it keeps its slot."""
    rush = parts.Scripted(
        "rush",
        lambda _, record: (
            Decision(
                verdict="rush",
                reason="Now.",
                commands=(StartRun(intent=parts.intent("base", "scratch", priority=5)),),
            )
            if isinstance(record.event, EvaluationReported)
            else None
        ),
    )
    world = make_world(parts.Starter("low"), rush)
    world.arrive(100)
    low = world.run().run
    for _ in range(3):
        world.fact(EvaluationReported(metric="m", value=1.0))
        world.stopped()
        assert world.run().run != low
        world.fail()
        assert world.run().run == low
    world.fact(EvaluationReported(metric="m", value=1.0))
    assert (world.run().run, world.run().stop, world.run().preempted) == (low, None, 3)


def test_only_one_run_of_a_pipeline_yields(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A run is not preempted while another one waits to be resumed: none is lost."""
    world = make_world(
        parts.Starter("low"),
        parts.Starter("middle", after=1000, priority=1),
        parts.Starter("high", after=10_000, priority=2),
        parts.Gate(),
    )
    world.arrive(100)
    world.arrive(1000)
    world.stopped()
    assert starts(world) == ["low", "middle"]
    world.arrive(10_000)
    assert world.run().stop is None
    assert world.of().yielded is not None


def test_a_preemption_between_evaluation_and_gate_opens_no_gate(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The judgement that was not heard is asked for again: the run evaluates once more before anyone promotes."""
    world = make_world(parts.Starter("low"), parts.Starter("high", after=1000, priority=1), parts.Gate("reject"))
    world.arrive(100)
    world.until("evaluate")
    world.arrive(1000)
    assert world.run().stop == "preempt"
    world.succeed()
    assert world.all(RunPreempted)[0].stage == "evaluate"
    assert world.decisions(policy="gate")[-1].suppressed_by == "run p-2 is being stopped (preempt)"
    world.fail()
    assert world.order().stage == "evaluate"
    world.succeed()
    assert world.all(ModelPromoted) == []
    assert world.of().champion is None


def test_a_preemption_after_the_last_stage_comes_too_late(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A run that is done has nothing left to yield."""
    world = make_world(parts.Starter("low"), parts.Starter("high", after=1000, priority=1), stages=("ingest", "train"))
    world.arrive(100)
    world.until("train")
    world.arrive(1000)
    assert world.run().stop == "preempt"
    world.succeed()
    assert world.all(RunPreempted) == []
    assert world.of().runs.succeeded == 1


def test_pipelines_share_slots_first_come_first_served(parts: "type[Parts]") -> None:
    """With one slot the pipelines' wishes are acted on in the order in which they were made."""
    world = parts.World()
    world.configure({name: (parts.Starter(), parts.Gate()) for name in ("a", "b", "c")})
    for name in ("b", "c", "a"):
        world.arrive(100, pipeline=name)
    assert world.decisions(policy="starter")[-1].suppressed_by == "no free slot: b-2"
    order = []
    for _ in range(3):
        name = next(name for name in "abc" if world.of(name).active is not None)
        order.append(name)
        world.finish(name)
    assert order == ["b", "c", "a"]


def test_pipelines_of_a_higher_priority_go_first(parts: "type[Parts]") -> None:
    """A free slot goes to the pipeline of the highest priority."""
    world = parts.World()
    world.configure({name: (parts.Starter(), parts.Gate()) for name in ("a", "b", "c")}, priorities={"c": 1})
    for name in ("a", "b", "c"):
        world.arrive(100, pipeline=name)
    world.finish("a")
    assert world.of("c").active is not None
    assert world.of("b").active is None


def test_as_many_runs_as_slots(parts: "type[Parts]") -> None:
    """Two slots let two pipelines run; more slots by configuration start the third at once."""
    world = parts.World()
    pipelines = {name: (parts.Starter(), parts.Gate()) for name in ("a", "b", "c")}
    world.configure(pipelines, slots=2)
    for name in ("a", "b", "c"):
        world.arrive(100, pipeline=name)
    assert [name for name in "abc" if world.of(name).active is not None] == ["a", "b"]
    world.configure(pipelines, slots=3)
    assert world.of("c").active is not None


def test_cancelling_goes_before_recovering(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Of two policies that answer a failure, the one that cancels is heard first."""
    world = make_world(
        parts.Starter(),
        parts.Retry(wait=timedelta(0)),
        parts.Scripted(
            "judge",
            lambda state, record: (
                parts.cancelling(state.active.run)
                if state.active is not None and isinstance(record.event, StageFailed)
                else None
            ),
        ),
    )
    world.arrive(100)
    following = world.fail()
    assert world.decisions(following)[0].policy == "judge"
    assert world.of().active is None
    assert len(world.all(RunCancelled)) == 1


def test_policies_are_not_asked_about_an_attempt_that_is_past(world: "World") -> None:
    """While an evaluation waits for its retry, the late success of an older attempt opens no gate."""
    world.arrive(100)
    world.until("evaluate")
    world.fail()
    world.fire()
    stale = StageSucceeded(run="p-2", stage="evaluate", attempt=1, seconds=1.0)
    world.fact(stale)
    assert world.order().stage == "evaluate"
    world.fail()
    assert world.fact(stale) == []
    assert world.fact(StageSucceeded(run="p-2", stage="evaluate", attempt=2, seconds=1.0)) == []


def test_a_policy_that_raises_is_named_and_stops_nobody(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Its verdict is `raised`, told once; the policies after it are asked all the same."""

    def broken(_: object, __: object) -> Decision:
        return Decision(verdict="never", reason=str(1 // 0))

    other = parts.Scripted("other", lambda _, __: Decision(verdict="fine", reason="It was asked."))
    world = make_world(parts.Scripted("broken", broken), other)
    world.arrive()
    said = {d.policy: (d.verdict, d.reason) for d in world.all(DecisionMade)}
    assert said["broken"] == ("raised", "The policy raised ZeroDivisionError: integer division or modulo by zero.")
    assert said["other"][0] == "fine"
    assert world.arrive() == []
