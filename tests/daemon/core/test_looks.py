"""A run that only looks: it trains when its policy says so, or leaves everything pending."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core.commands import FixPlan, PostponeRun, PreemptRun, StartRun
from daemon.core.decisions import Decision
from daemon.core.events import (
    DataArrived,
    DataWithdrawn,
    DecisionMade,
    EvaluationReported,
    Record,
    RunPostponed,
    RunResumed,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import Claim, Intent
from daemon.core.state import Pipeline, free_tokens

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World


@dataclass(frozen=True)
class Looker:
    """Looks at whatever arrives; after the probe it trains when so many tokens wait."""

    intent: Intent
    enough: int
    label: str = "looker"
    version: int = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the look, and after it the plan or that it is postponed."""
        run = state.active
        if isinstance(record.event, DataArrived) and run is None:
            return Decision(verdict="look", reason="Something came.", commands=(StartRun(intent=self.intent),))
        if run is not None and isinstance(record.event, StageSucceeded) and record.event.stage == "probe":
            if state.waiting >= self.enough:
                return Decision(verdict="planned", reason="Enough.", commands=(FixPlan(run=run.run, plan=run.plan),))
            return Decision(verdict="postponed", reason="Too little.", commands=(PostponeRun(run=run.run),))
        return None


@pytest.fixture
def looking(make_world: "MakeWorld", parts: "type[Parts]") -> "World":
    """Make a world that looks at everything, and trains on 200 tokens."""
    wanted = replace(parts.intent("base", "scratch"), look=True, claim=Claim(key="k", seconds=60.0))
    return make_world(Looker(wanted, enough=200), parts.Gate())


def look(world: "World", tokens: int = 100) -> None:
    """Let data arrive, and the run that looks at it pass its probe."""
    world.arrive(tokens)
    world.until("probe")
    world.succeed()


def test_a_postponed_run_leaves_everything_pending(looking: "World") -> None:
    """Its slot is free, its arrivals wait on, and what it saw is told apart from what comes later."""
    look(looking)
    pipeline = looking.of()

    assert [event.reason for event in looking.all(RunPostponed)] == ["Too little."]
    assert (pipeline.active, free_tokens(pipeline), pipeline.failed_upto) == (None, 100, 0)
    assert (pipeline.looked["prose"].tokens, pipeline.looked_at) == (100, looking.now)
    assert pipeline.waiting_since == looking.records[1].recorded_at
    assert (pipeline.begun, pipeline.claims, pipeline.settled) == ({}, {}, 0)
    assert pipeline.last is not None
    assert pipeline.last.outcome == "postponed"


def test_what_was_withdrawn_after_a_look_was_not_seen_by_it(looking: "World", parts: "type[Parts]") -> None:
    """It leaves what was looked at too: what comes in its place is new. What came after the look changes nothing."""
    look(looking)
    first = looking.of().last_arrival
    looking.arrive(30)
    for arrival, tokens, left in ((looking.of().last_arrival, 30, 100), (first, 100, 0)):
        amount = parts.amount(tokens)
        looking.fact(
            DataWithdrawn(arrival_source="/test", arrival_id="1", arrival=arrival, domain="prose", amount=amount)
        )
        assert sum(amount.tokens for amount in looking.of().looked.values()) == left


def test_a_look_that_trains_is_a_run_like_any_other(looking: "World") -> None:
    """From its plan on it counts as begun, with its key; when it has ended, nothing that was looked at is left."""
    look(looking)
    look(looking)
    fixed_at = looking.now
    assert looking.run().intent.look is False
    assert looking.of().begun == {"looker": fixed_at}
    assert looking.of().claims == {"k": fixed_at + timedelta(seconds=60)}
    looking.finish()

    pipeline = looking.of()
    assert pipeline.champion is not None
    assert (pipeline.looked, pipeline.looked_at, pipeline.waiting) == ({}, None, 0)
    assert pipeline.settled == pipeline.last.position if pipeline.last else False
    assert pipeline.cost.runs == 1


def test_only_a_look_can_be_postponed(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A run that was begun to train goes on, whoever would postpone it; the decision is kept with what kept it back."""
    world = make_world(Looker(parts.intent("base", "scratch"), enough=200))
    look(world)

    assert world.all(RunPostponed) == []
    assert world.order().stage == "train"
    kept = [event for event in world.all(DecisionMade) if event.verdict == "postponed"]
    assert [event.suppressed_by for event in kept] == [f"run {world.run().run} was begun to train"]


def test_a_run_that_yields_until_an_instant_waits_for_it(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Its slot is free and its wish stands, and nothing takes it up before its time; a wake-up then does."""

    def answer(state: Pipeline, record: Record) -> Decision | None:
        run = state.active
        if run is None or not isinstance(record.event, DataArrived) or run.stop is not None or run.stage != "train":
            return None
        until = record.recorded_at + timedelta(hours=1)
        return Decision(
            verdict="over_budget",
            reason="Nothing is left of today's budget.",
            commands=(PreemptRun(run=run.run, until=until),),
            wakes={"budget": until},
        )

    def start(state: Pipeline, record: Record) -> Decision | None:
        wanted = isinstance(record.event, DataArrived) and state.active is None and state.yielded is None
        return parts.starting(parts.intent("base", "scratch")) if wanted else None

    world = make_world(parts.Scripted("starter", start), parts.Gate(), parts.Scripted("limit", answer))
    world.arrive()
    world.until("train")
    world.arrive(1)
    world.stopped()
    yielded = world.of().yielded
    assert yielded is not None
    world.arrive(1)
    world.now += timedelta(minutes=59)
    world.arrive(1)
    assert world.of().active is None

    world.fire()
    assert [event.run for event in world.all(RunResumed)] == [yielded.run]
    assert world.all(TimerFired)
    world.finish()
    assert world.of().champion is not None


def test_a_wish_that_stood_waits_as_long_as_the_run_that_yields(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What the policy of a run that yields until an instant had wished meanwhile is not acted on before that either."""

    def answer(state: Pipeline, record: Record) -> Decision | None:
        run = state.active
        if run is None or not isinstance(record.event, EvaluationReported) or run.stop is not None:
            return None
        until = record.recorded_at + timedelta(hours=1)
        stop = PreemptRun(run=run.run, until=until)
        return Decision(verdict="over_budget", reason="Nothing is left.", commands=(stop,), wakes={"budget": until})

    world = make_world(parts.Starter(), parts.Gate(), parts.Scripted("limit", answer))
    world.arrive()
    world.until("train")
    world.arrive(150)
    assert "starter" in world.of().wishes
    world.fact(EvaluationReported(metric="m", value=1.0))
    world.stopped()

    assert world.of().active is None
    assert {wish.not_before for wish in world.of().wishes.values()} == {max(world.of().timers.values())}
    world.fire()
    assert world.of().active is not None
