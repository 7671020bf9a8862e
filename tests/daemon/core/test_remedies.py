"""A remedy stays in force as long as its stage does, whatever ends an attempt of it, and goes with the stage."""

from typing import TYPE_CHECKING

from daemon.core.events import InterruptReason, StageFailed, StageInterrupted
from daemon.core.plans import NO_REMEDY, Document, Remedy
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World

SPOILED = Document(arrival=2, number=7)
OUT = Remedy(without=(SPOILED,), before=39)


def quarantined(world: "World") -> None:
    """Let a training fail twice on one document, so that the attempt at work is without it."""
    world.arrive(100)
    world.until("train")
    for _ in range(2):
        world.begin()
        world.checkpoint(30)
        failed = StageFailed(**world.names(), failure="bad_sample", message="no", step=40, documents=(SPOILED,))
        world.fact(failed)
    assert world.order().remedy == world.run().remedy == OUT


def test_it_outlives_drain_and_loss(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The next daemon's attempt, and that after a lost worker, are without the document as well."""
    world = make_world(parts.Starter(), StageRecovery())
    quarantined(world)
    ends: list[tuple[int, InterruptReason]] = [(50, "drain"), (60, "died"), (70, "drain")]
    for step, reason in ends:
        world.begin()
        world.checkpoint(step)
        world.fact(StageInterrupted(**world.names(), reason=reason))
        assert world.order().remedy == OUT
    assert world.order().attempt == 6


def test_it_outlives_a_preemption(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Taken up again, the run goes on without the document."""
    low, high = parts.Starter(label="low"), parts.Starter(label="high", after=1000, priority=1)
    world = make_world(low, high, StageRecovery())
    quarantined(world)
    world.begin()
    world.arrive(1000)
    world.stopped()
    yielded = world.of().yielded
    assert yielded is not None
    assert yielded.remedy == OUT
    world.fact(StageFailed(**world.names(), failure="user_error", message="no"))
    assert (world.run().run, world.order().remedy) == (yielded.run, OUT)


def test_it_ends_with_its_stage(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What follows the training is as it always is."""
    world = make_world(parts.Starter(), StageRecovery())
    quarantined(world)
    world.begin()
    world.succeed()
    assert (world.order().stage, world.order().remedy, world.run().remedy) == ("evaluate", NO_REMEDY, NO_REMEDY)
