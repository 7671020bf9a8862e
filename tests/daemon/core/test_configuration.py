"""A configuration that changes under what is going on."""

from typing import TYPE_CHECKING

from daemon.core.events import (
    ConfigurationChanged,
    DaemonStarted,
    DecisionMade,
    InputRejected,
    RunCancelled,
    RunFailed,
    RunStarted,
    SourceDegraded,
    SourceRecovered,
)

if TYPE_CHECKING:
    from tests.daemon.core.conftest import Parts, World


def test_a_run_keeps_its_plan_when_the_stages_change(world: "World", parts: "type[Parts]") -> None:
    """The run under way goes through the stages of its stored plan; the next one through the new ones."""
    world.arrive(100)
    world.configure({"p": (parts.Starter(), parts.Gate())}, stages=("ingest", "train", "evaluate", "promote"))
    world.succeed()
    assert world.order().stage == "probe"
    world.finish()
    assert world.of().champion is not None
    world.arrive(100)
    world.succeed()
    assert world.order().stage == "train"


def test_a_policy_that_is_gone_leaves_nothing_behind(world: "World", parts: "type[Parts]") -> None:
    """Its wish, wake-ups and verdict go; a run that waited for its wake-up fails, as nobody retries it now."""
    world.arrive(100)
    world.arrive(100)
    world.fail()
    assert set(world.of().wishes) == {"starter"}
    assert list(world.of().timers) == ["retry:p-2"]
    world.configure({"p": (parts.Gate(),)})
    pipeline = world.of()
    assert (pipeline.wishes, pipeline.timers, list(pipeline.verdicts)) == ({}, {}, ["sequence", "arbiter"])
    withdrawn = [event.reason for event in world.all(DecisionMade) if event.verdict == "withdrawn"]
    assert withdrawn == ["Policy starter is not configured any more, or is in shadow."]
    assert [e.run for e in world.all(RunFailed)] == ["p-2"]


def test_a_policy_that_stays_keeps_its_wish(world: "World") -> None:
    """The same configuration again changes nothing."""
    world.arrive(100)
    world.arrive(100)
    before = world.of()
    world.configure(world.policies)
    assert world.of().wishes == before.wishes
    assert world.of().active == before.active


def test_a_pipeline_that_is_gone_is_cancelled_and_keeps_its_champion(promoted: "World", parts: "type[Parts]") -> None:
    """Its run is cancelled; named again, it goes on from its champion and what was pending."""
    promoted.arrive(100)
    promoted.configure({"q": (parts.Starter(),)})
    assert promoted.run().stop == "cancel"
    promoted.stopped()
    assert [e.again for e in promoted.all(RunCancelled)] == [False]
    assert promoted.of().settings is None
    assert promoted.of().champion is not None
    promoted.arrive(100)
    assert len(promoted.all(RunStarted)) == 2
    promoted.configure({"p": (parts.Starter(), parts.Gate())})
    assert promoted.run().plan.parent == 1
    assert {d: a.tokens for d, a in promoted.run().plan.new.items()} == {"prose": 200}


def test_a_run_that_waits_of_a_pipeline_that_is_gone_ends_at_once(world: "World", parts: "type[Parts]") -> None:
    """A back-off waits for nobody."""
    world.arrive(100)
    world.fail()
    world.configure({"q": ()})
    assert world.of().active is None
    assert len(world.all(RunCancelled)) == 1
    assert world.request("approve") != []


def test_a_yielded_run_of_a_pipeline_that_is_gone_is_cancelled(parts: "type[Parts]") -> None:
    """Neither the active nor the yielded run is left behind."""
    world = parts.World()
    world.configure({"p": (parts.Starter("low"), parts.Starter("high", after=1000, priority=1))})
    world.arrive(100)
    world.arrive(1000)
    world.stopped()
    world.configure({})
    world.stopped()
    assert (world.of().active, world.of().yielded) == (None, None)
    assert world.of().runs.cancelled == 2


def test_a_wish_of_a_policy_that_is_gone_does_not_stand_again(promoted: "World", parts: "type[Parts]") -> None:
    """A run cancelled because its champion changed starts no other when nobody wishes for it any more."""
    promoted.arrive(100)
    promoted.finish()
    promoted.arrive(100)
    promoted.request("rollback")
    promoted.configure({"p": (parts.Gate(),)})
    promoted.stopped()
    assert promoted.of().active is None
    assert promoted.of().wishes == {}


def test_what_belongs_to_no_pipeline_is_kept_beside_them(world: "World") -> None:
    """Epoch, degraded sources and dead letters are counted; the latter also for a pipeline that nobody knows."""
    world.fact(DaemonStarted(epoch=3, release="1", reducer=1, host="h", pid=1), None)
    world.fact(SourceDegraded(name="spool", reason="no room"), None)
    assert (world.state.epoch, world.state.degraded) == (3, {"spool": "no room"})
    world.fact(SourceRecovered(name="spool"), None)
    assert world.state.degraded == {}
    for pipeline in (None, "p", "nobody"):
        world.fact(InputRejected(reason="bad", message="It is bad.", where="spool"), pipeline)
    assert world.state.dead_letters == 3


def test_what_names_a_pipeline_wrongly_changes_nothing(world: "World") -> None:
    """Events of the daemon do not belong to a pipeline, and a pipeline that nobody knows is not made."""
    before = world.of()
    world.fact(ConfigurationChanged(hash="x", slots=9, pipelines={}))
    assert world.of().ignored == {"names_a_pipeline": 1}
    assert world.of().settings == before.settings
    assert world.arrive(100, pipeline="nobody") == []
    assert set(world.state.pipelines) == {"p"}
