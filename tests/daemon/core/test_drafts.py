"""From an intent to a plan."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from daemon.core.drafts import draft
from daemon.core.plans import Plan, Span

if TYPE_CHECKING:
    from tests.daemon.core.conftest import Parts, World


def test_a_first_run_starts_from_scratch_and_replays_nothing(world: "World", parts: "type[Parts]") -> None:
    """Without a champion there is neither a checkpoint to start from nor a past."""
    world.arrive(90)
    plan = draft(world.of(), parts.intent("base", "scratch"), 7)
    assert isinstance(plan, Plan)
    assert (plan.start.kind, plan.parent, plan.past) == ("scratch", None, {})
    assert (plan.training.replay, plan.training.tokens, plan.training.seed) == (0.0, 90, 7)
    assert plan.spans == (Span(after=0, upto=7),)


def test_an_increment_starts_at_the_champions_trunk(promoted: "World", parts: "type[Parts]") -> None:
    """The next run starts at the trunk behind the champion, on what is pending, and replays the champion's past."""
    promoted.arrive(95, "code")
    pipeline = promoted.of()
    plan = draft(pipeline, parts.intent(), promoted.state.position)
    assert isinstance(plan, Plan)
    assert pipeline.champion is not None
    assert plan.start.checkpoint == pipeline.champion.trunk
    assert (plan.parent, plan.new, plan.past) == (1, {"code": parts.amount(95)}, {"prose": parts.amount(100)})
    assert plan.training.tokens == 100
    assert plan.spans == (Span(after=pipeline.used_upto, upto=promoted.state.position),)


def test_a_retrain_counts_all_data(promoted: "World", parts: "type[Parts]") -> None:
    """A retrain sees past and new data alike, also when nothing is pending."""
    alone = draft(promoted.of(), parts.intent("retrain", "base"), promoted.state.position)
    assert isinstance(alone, Plan)
    assert (alone.training.tokens, alone.training.replay, alone.spans) == (100, 1.0, ())
    promoted.arrive(60)
    both = draft(promoted.of(), parts.intent("retrain", "base"), promoted.state.position)
    assert isinstance(both, Plan)
    assert both.training.tokens == 160
    assert both.training.replay == 100 / 160


def test_nothing_to_train_on_is_no_plan(world: "World", parts: "type[Parts]") -> None:
    """Without data, stages or configuration there is a sentence in place of a plan."""
    pipeline = world.of()
    assert draft(pipeline, parts.intent(), 1) == "nothing is pending"
    assert draft(pipeline, parts.intent("retrain", "base"), 1) == "there is no data to train on"
    assert draft(replace(pipeline, settings=None), parts.intent(), 1) == "the pipeline is no longer configured"
    assert draft(replace(pipeline, settings=parts.settings((), ())), parts.intent(), 1) == "the pipeline has no stages"
