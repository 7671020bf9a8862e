"""A model from elsewhere becomes the first champion: what it has seen, what is in its way, what follows."""

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core import arrivals
from daemon.core.adoption import adopt, plan
from daemon.core.events import (
    DataRejected,
    DataWithdrawn,
    DecisionMade,
    ModelPromoted,
    OperatorRequested,
    PolicySettings,
    Record,
    RunFailed,
    RunHeld,
    RunStarted,
    StageFailed,
)
from daemon.core.plans import Amount, Span
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World

FOLDER = "/inbox/v3"


def request(world: "World", folder: str = FOLDER, *, pending: bool = True) -> list[Record]:
    """Ask for an adoption, completed as at the door."""
    pipeline = world.of()
    if not pending or not pipeline.pending:
        return world.request("adopt", model=folder, trained_on="nothing")
    return world.request(
        "adopt", model=folder, spans=arrivals.spans(pipeline, world.state.position), amounts=pipeline.pending
    )


def answer(records: list[Record]) -> DecisionMade:
    """Return what the operator was told."""
    (told,) = [r.event for r in records if isinstance(r.event, DecisionMade) and r.event.policy == "operator"]
    return told


@pytest.fixture
def idle(make_world: "MakeWorld") -> "World":
    """Make a world with the policies that users configure, and too little data to start."""
    return make_world(
        RewarmReplay(after_tokens=200, max_age=timedelta(hours=1)), PeriodicRetraining(), StageRecovery(), Promotion()
    )


def test_what_is_pending_becomes_the_past_of_the_adopted_model(idle: "World", parts: "type[Parts]") -> None:
    """It is version 1, without a parent, the base of later retrains; the next run continues it and replays."""
    idle.arrive(90)
    decision = answer(request(idle))
    assert (decision.verdict, decision.suppressed_by) == ("adopt", None)
    assert decision.inputs == {"model": FOLDER, "arrivals": 1, "tokens": 90}
    started = idle.all(RunStarted)[-1]
    assert (started.policy, started.plan.kind, started.plan.start.folder) == ("operator", "adopt", FOLDER)
    assert started.plan.stages == ("adopt", "ingest", "evaluate", "promote")
    idle.finish()
    pipeline = idle.of()
    assert pipeline.champion is not None
    assert (pipeline.champion.version, pipeline.champion.parent) == (1, None)
    assert pipeline.champion.past == {"prose": parts.amount(90)}
    assert (pipeline.pending, pipeline.base, pipeline.increments) == ({}, pipeline.champion, 0)
    idle.arrive(300, "code")
    increment = idle.all(RunStarted)[-1].plan
    assert (increment.kind, increment.start.checkpoint) == ("increment", pipeline.champion.trunk)
    assert (set(increment.new), set(increment.past)) == ({"code"}, {"prose"})


def test_a_model_that_has_seen_nothing_has_no_past(idle: "World") -> None:
    """Then nothing is ingested or evaluated, nobody is waited for, and what is pending stays pending."""
    idle.arrive(90)
    request(idle, pending=False)
    assert idle.run().plan.stages == ("adopt", "promote")
    idle.finish()
    assert idle.all(RunHeld) == []
    pipeline = idle.of()
    assert pipeline.champion is not None
    assert (pipeline.champion.past, pipeline.waiting) == ({}, 90)
    assert pipeline.waiting_since is not None
    idle.fire()
    assert idle.run().plan.kind == "increment"


def test_without_a_promotion_policy_it_is_promoted_all_the_same(make_world: "MakeWorld") -> None:
    """A person has asked for it: the gate needs no other word."""
    world = make_world()
    world.arrive()
    request(world)
    world.finish()
    assert world.of().champion is not None
    assert world.all(RunHeld) == []


def test_a_rollback_after_the_first_increment_leads_back_to_it(idle: "World") -> None:
    """The adopted version is an earlier champion like any other."""
    request(idle)
    idle.finish()
    adopted = idle.of().champion
    idle.arrive(300)
    idle.finish()
    assert [promoted.model_version for promoted in idle.all(ModelPromoted)] == [1, 2]
    idle.request("rollback")
    assert (idle.of().champion, idle.of().base) == (adopted, adopted)


def test_a_retrain_from_the_base_starts_at_the_adopted_model(make_world: "MakeWorld") -> None:
    """The interval counts from the adoption; with neither past nor new data there is nothing to train on."""
    world = make_world(PeriodicRetraining(every=timedelta(days=1)), Promotion())
    request(world)
    world.finish()
    adopted = world.of().champion
    assert adopted is not None
    world.fire()
    assert world.now == adopted.promoted_at + timedelta(days=1)
    assert world.of().active is None
    assert any("no data to train on" in decision.reason for decision in world.decisions(policy="arbiter"))
    world.arrive(90)
    retrain = world.run().plan
    assert (retrain.kind, retrain.start.kind, retrain.start.checkpoint) == ("retrain", "base", adopted.trunk)
    assert (set(retrain.new), retrain.past) == ({"prose"}, {})


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (lambda world: world.finish(), "version 1 is champion already"),
        (lambda world: None, "run p-2 is to become the first champion"),
        (lambda world: (world.request("cancel"), world.stopped(), request(world)), "is adopting a model"),
    ],
)
def test_what_is_in_the_way_is_named(world: "World", obstacle: object, words: str) -> None:
    """A champion, a first training and another adoption stand against it; nothing starts."""
    world.arrive()
    assert callable(obstacle)
    obstacle(world)
    started = len(world.all(RunStarted))
    decision = answer(request(world))
    assert decision.verdict == "not_possible"
    assert words in decision.reason
    assert len(world.all(RunStarted)) == started
    assert not world.of().wishes


def test_a_pipeline_that_has_no_champion_ever_adopts_none(make_world: "MakeWorld", world: "World") -> None:
    """Without the stage promote, without a configuration and without a model there is nothing to adopt for."""
    assert "no stage promote" in answer(request(make_world(stages=("ingest", "train")))).reason
    pipeline, event = world.of(), OperatorRequested(verb="adopt", model=FOLDER)
    assert "no longer configured" in adopt(replace(pipeline, settings=None), event).reason
    assert "names no model" in adopt(pipeline, replace(event, model=None)).reason
    (command,) = adopt(pipeline, event).commands
    intent = command.intent  # type: ignore[union-attr]
    assert pipeline.settings is not None
    assert plan(pipeline, pipeline.settings, replace(intent, adoption=None)) == "it names no model"


def test_an_adoption_waits_for_the_end_of_a_pause_and_goes_first(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What arrives meanwhile is new to the model; a policy's wish of any priority comes after it."""
    world = make_world(parts.Starter(priority=9), parts.Gate())
    world.request("pause")
    world.arrive(100)
    assert "paused" in (answer(request(world)).suppressed_by or "")
    world.arrive(30)
    assert "waits already" in answer(request(world)).reason
    world.request("resume")
    assert world.run().plan.kind == "adopt"
    world.arrive(500)
    assert world.run().stop is None
    assert world.of().waiting_since is not None
    world.finish_one()
    champion = world.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(100)}
    assert (world.run().plan.kind, world.run().plan.new) == ("increment", {"prose": parts.amount(530, 2)})


def test_an_arrival_withdrawn_meanwhile_was_not_seen(idle: "World", parts: "type[Parts]") -> None:
    """It is taken out of the model's past, and of nothing else."""
    idle.request("pause")
    idle.arrive(50)
    position = idle.of().last_arrival
    idle.arrive(40)
    request(idle)
    amount = Amount(arrivals=1, documents=1, bytes=50, tokens=50)
    idle.fact(DataWithdrawn(arrival_source="/s", arrival_id="1", arrival=position, domain="prose", amount=amount))
    idle.request("resume")
    idle.finish()
    champion = idle.of().champion
    assert champion is not None
    assert (champion.past, idle.of().pending) == ({"prose": parts.amount(40)}, {})


def test_an_arrival_that_came_back_after_the_request_was_not_seen(idle: "World", parts: "type[Parts]") -> None:
    """Refused by a run that failed, retried and withdrawn while the adoption waits: the model keeps its past."""
    idle.arrive(150)
    idle.arrive(60)
    names = {**idle.names(), "arrival": 2, "domain": "prose"}
    idle.fact(DataRejected(**names, estimate=parts.amount(150), reason="empty", message="It is empty."))
    idle.fact(StageFailed(**idle.names(), failure="user_error", message="it cannot be"))
    idle.request("pause")
    request(idle)
    amounts = {"prose": parts.amount(150)}
    idle.request("retry", dead_letter=9, spans=(Span(after=1, upto=2),), amounts=amounts)
    idle.fact(DataWithdrawn(arrival_source="/s", arrival_id="1", arrival=2, domain="prose", amount=amounts["prose"]))
    idle.request("resume")
    idle.finish()
    champion = idle.of().champion
    assert champion is not None
    assert (champion.past, idle.of().pending) == ({"prose": parts.amount(60)}, {})


def test_an_adoption_that_waits_can_be_taken_back(idle: "World") -> None:
    """A cancel that names no run withdraws it."""
    idle.request("pause")
    request(idle)
    assert answer(idle.request("cancel")).verdict == "withdrawn"
    idle.request("resume")
    assert (idle.of().active, idle.of().wishes) == (None, {})
    assert answer(idle.request("cancel")).verdict == "not_possible"


def test_an_adoption_that_fails_leaves_everything_as_it_was(idle: "World", parts: "type[Parts]") -> None:
    """The run fails without a retry, the arrivals are pending, and it can be asked for again."""
    idle.arrive(90)
    request(idle)
    idle.fact(StageFailed(**idle.names(), failure="user_error", message="it holds a pickle"))
    assert [failed.stage for failed in idle.all(RunFailed)] == ["adopt"]
    assert idle.of().pending == {"prose": parts.amount(90)}
    assert idle.of().champion is None
    assert answer(request(idle)).verdict == "adopt"
    idle.finish()
    assert idle.of().champion is not None


def test_it_is_evaluated_in_the_windows_that_it_will_be_trained_in(world: "World") -> None:
    """The first policy that says how it trains says it; a policy's own `training` of another kind is passed over."""
    pipeline = world.of()
    assert pipeline.settings is not None
    policies = tuple(
        PolicySettings(name=f"p{n}", kind="k", version=1, configuration=text)
        for n, text in enumerate(("[]", '{"training": 3}', '{"training": {"context": 64, "batch": 4}}'))
    )
    settings = replace(pipeline.settings, policies=policies)
    decision = adopt(replace(pipeline, settings=settings), OperatorRequested(verb="adopt", model=FOLDER))
    (command,) = decision.commands
    training = command.intent.training  # type: ignore[union-attr]
    assert (training.context, training.batch) == (64, 4)
