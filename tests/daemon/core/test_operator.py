"""What a person asks for: approve, promote, cancel, roll back, pause, resume."""

from typing import TYPE_CHECKING

import pytest

from daemon.core.events import (
    ModelRolledBack,
    OperatorRequested,
    RunCancelled,
    RunHeld,
    RunResumed,
    RunSucceeded,
)

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World


@pytest.fixture
def held(make_world: "MakeWorld", parts: "type[Parts]") -> "World":
    """Make a world whose second candidate is held, with the first model as champion."""
    world = make_world(parts.Starter(), parts.Retry(), parts.Gate())
    world.arrive(100)
    world.finish()
    world.configure({"p": (parts.Starter(), parts.Retry(), parts.Gate("hold"))})
    world.arrive(100)
    world.finish()
    assert world.of().held is not None
    return world


def test_a_held_run_frees_its_slot(held: "World") -> None:
    """The run ends as held; its arrivals are neither pending nor past; the next run starts."""
    assert [e.reason for e in held.all(RunHeld)] == ["It is hold."]
    assert held.of().last is not None
    assert held.of().pending == {}
    held.arrive(100)
    assert held.order().stage == "ingest"


def test_an_approved_candidate_is_promoted(held: "World") -> None:
    """With the champion it was compared to still in place, its promote stage runs and nothing else."""
    held.request("approve")
    assert held.order().stage == "promote"
    held.succeed()
    champion = held.of().champion
    assert champion is not None
    assert (champion.version, held.of().held) == (2, None)
    assert {d: a.tokens for d, a in champion.past.items()} == {"prose": 200}


def test_a_changed_champion_means_another_evaluation(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Approve after a later model went live: first evaluate, then the gate's word."""
    world = make_world(parts.Starter(), parts.Gate("hold"))
    world.arrive(100)
    world.finish()
    held = world.of().held
    assert held is not None
    world.configure({"p": (parts.Starter(), parts.Gate())})
    world.arrive(100)
    world.finish()
    assert world.of().champion is not None
    world.request("approve", run=held.run)
    assert world.all(RunResumed)[-1].stage == "evaluate"
    assert world.order().attempt == 2
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert (champion.run, champion.version) == (held.run, 2)


def test_a_forced_promotion_passes_a_gate_that_nobody_guards(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Without a promotion policy every candidate is held; a person's `promote` lets it through."""
    world = make_world(parts.Starter())
    world.arrive(100)
    world.finish()
    assert world.decisions(policy="sequence")[-1].verdict == "held"
    world.arrive(100)
    world.finish()  # supersedes the first one
    assert world.of().set_aside == {"prose": parts.amount(100)}
    world.request("promote")
    world.finish()
    assert world.all(RunSucceeded)[-1].outcome == "promoted"
    assert world.of().champion is not None


def test_a_held_run_can_be_cancelled(held: "World", parts: "type[Parts]") -> None:
    """The candidate is given up and its arrivals are set aside; nothing is blocked by it."""
    held.request("cancel")
    assert (held.of().held, held.of().set_aside) == (None, {"prose": parts.amount(100)})
    assert held.of().failed_upto == 0
    assert held.of().runs.cancelled == 1


def test_an_approved_run_that_fails_leaves_its_arrivals_set_aside(held: "World", parts: "type[Parts]") -> None:
    """Arrivals of a candidate that could not be promoted are not lost from the account."""
    held.configure({"p": (parts.Starter(), parts.Gate("hold"))})
    held.request("approve")
    held.fail()
    assert held.of().set_aside == {"prose": parts.amount(100)}
    assert held.of().pending == {}


def test_approving_what_is_not_held_is_answered(promoted: "World") -> None:
    """The answer to an approval that cannot be is a decision that says why."""
    promoted.request("approve", run="p-2")
    assert promoted.decisions(policy="operator")[-1].verdict == "not_possible"
    promoted.request("cancel")
    assert "no such run" in promoted.decisions(policy="operator")[-1].reason


def test_an_approval_of_another_run_takes_the_place_of_one_that_waits(held: "World", parts: "type[Parts]") -> None:
    """While paused a later candidate supersedes the approved one; approving the later one is what counts."""
    held.configure({"p": (parts.Starter(), parts.Retry(), parts.Gate("hold"))})
    held.arrive(100)
    first = held.of().held
    assert first is not None
    held.request("pause")
    held.request("approve", run=first.run)
    assert held.decisions(policy="operator")[-1].suppressed_by == "paused by ann"
    held.finish()
    second = held.of().held
    assert second is not None
    held.request("promote", run=second.run)
    held.request("resume")
    assert (held.run().run, held.run().forced) == (second.run, True)


def test_a_rollback_brings_the_previous_champion_back(promoted: "World", parts: "type[Parts]") -> None:
    """The withdrawn model's own arrivals are set aside, and there is no second step back."""
    promoted.arrive(70, "code")
    promoted.arrive(30)
    promoted.finish()
    promoted.request("rollback", reason="complaints")
    pipeline = promoted.of()
    assert pipeline.champion is not None
    assert (pipeline.champion.version, pipeline.previous, pipeline.versions) == (1, None, 2)
    assert pipeline.set_aside == {"code": parts.amount(70), "prose": parts.amount(30)}
    assert promoted.all(ModelRolledBack)[0].withdrawn_version == 2
    promoted.request("rollback")
    assert promoted.decisions(policy="operator")[-1].verdict == "not_possible"
    promoted.arrive(100)
    promoted.finish()
    champion = promoted.of().champion
    assert champion is not None
    assert (champion.version, champion.parent) == (3, 1)


def test_a_base_that_was_rolled_back_is_never_continued(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """After a retrain from scratch is rolled back, retrains from the base do not start at it."""
    world = make_world(parts.Starter(), parts.Gate())
    world.arrive(100)
    world.finish()
    again = parts.Scripted(
        "again",
        lambda state, record: (
            parts.starting(parts.intent("retrain", "scratch"))
            if isinstance(record.event, OperatorRequested) and record.event.verb == "retrain"
            else None
        ),
    )
    world.configure({"p": (again, parts.Gate())})
    world.request("retrain")
    world.finish()
    base = world.of().base
    assert base is not None
    assert base.version == 2
    world.request("rollback")
    base = world.of().base
    assert base is not None
    assert base.version == 1


def test_a_rollback_cancels_the_run_that_builds_on_the_champion(promoted: "World") -> None:
    """A run whose champion changed under it is cancelled, and its wish starts a run on the new one."""
    promoted.arrive(100)
    promoted.finish()
    promoted.arrive(100)
    assert promoted.run().plan.parent == 2
    first = promoted.run().run
    promoted.request("rollback")
    assert (promoted.run().stop, promoted.run().stop_again) == ("cancel", True)
    promoted.stopped()
    assert [(e.run, e.again) for e in promoted.all(RunCancelled)] == [(first, True)]
    assert promoted.run().run != first
    assert promoted.run().plan.parent == 1
    assert promoted.of().failed_upto == 0


def test_a_model_that_is_published_after_the_cancel_is_no_champion(promoted: "World") -> None:
    """What builds on a champion that was rolled back does not go live, and its version is not used again."""
    promoted.arrive(100)
    promoted.finish()
    promoted.arrive(100)
    promoted.until("promote")
    promoted.request("rollback")
    promoted.succeed()
    pipeline = promoted.of()
    assert pipeline.champion is not None
    assert (pipeline.champion.version, pipeline.versions) == (1, 3)
    assert pipeline.ignored == {"promoted_too_late": 1}
    assert promoted.run().plan.parent == 1, "its wish stood again"


def test_a_held_candidate_that_goes_live_later_keeps_the_past_of_the_champion_before(
    make_world: "MakeWorld", parts: "type[Parts]"
) -> None:
    """What a model promoted meanwhile was trained on stays past, beside the held candidate's own arrivals."""
    world = make_world(parts.Starter(), parts.Gate("hold"))
    world.arrive(100)
    world.finish()
    world.configure({"p": (parts.Starter(), parts.Gate())})
    world.arrive(170, "code")
    world.finish()
    world.request("approve")
    world.finish()
    champion = world.of().champion
    assert champion is not None
    assert champion.past == {"prose": parts.amount(100), "code": parts.amount(170)}


def test_a_persons_cancel_outweighs_that_the_wish_would_stand_again(promoted: "World") -> None:
    """After the cancel the run's wish does not stand again although its champion changed too."""
    promoted.arrive(100)
    promoted.finish()
    promoted.arrive(100)
    promoted.request("rollback")
    promoted.request("cancel")
    promoted.stopped()
    assert [e.again for e in promoted.all(RunCancelled)] == [False]
    assert promoted.of().active is None


def test_a_paused_pipeline_starts_nothing_and_lets_its_run_go_on(world: "World") -> None:
    """Pausing lets the active run end, keeps wishes waiting, and resuming acts on them."""
    world.arrive(100)
    world.request("pause", reason="holidays")
    assert world.of().paused == "ann: holidays"
    following = world.arrive(100)
    assert world.decisions(following)[0].suppressed_by == "paused by ann: holidays"
    world.finish()
    assert len(world.all(RunSucceeded)) == 1
    assert world.of().active is None
    assert "starter" in world.of().wishes
    world.request("resume")
    assert world.order().stage == "ingest"
    assert world.of().wishes == {}
