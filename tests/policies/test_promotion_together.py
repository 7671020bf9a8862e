"""The gate in the real core: what is held, taken up, rolled back, and never continued."""

import pytest

from daemon.core.events import (
    DecisionMade,
    ModelPromoted,
    ModelRolledBack,
    RunCancelled,
    RunResumed,
    RunStarted,
)
from daemon.core.plans import tokens
from daemon.core.state import dump, load
from daemon.core.transition import evolve
from tests.golden.gate import FREEZE, GROW, HOUR, WATCH, frozen, one, report, vetoes, watched
from tests.golden.tape import Tape


def told(tape: Tape, *policies: str) -> list[tuple[str, str | None]]:
    """Return what the gate (or others) said, with what it waited for."""
    made = [record.event for record in tape.records if isinstance(record.event, DecisionMade)]
    return [(each.verdict, each.suppressed_by) for each in made if each.policy in (policies or ("promotion",))]


def promoted(tape: Tape) -> list[int]:
    """Return the versions that went live, in order."""
    return [record.event.model_version for record in tape.records if isinstance(record.event, ModelPromoted)]


def test_champions_are_watched() -> None:
    """One is kept, and late reports do not matter; one is rolled back by what is reported on itself alone."""
    tape = watched()
    assert [verdict for verdict, _ in told(tape)][:6] == [
        "promote",
        "promote",
        "watched",
        "kept",
        "promote",
        "watched",
    ]
    (back,) = [record.event for record in tape.records if isinstance(record.event, ModelRolledBack)]
    assert (back.withdrawn_version, back.model_version) == (3, 2)
    (cancelled,) = [record.event for record in tape.records if isinstance(record.event, RunCancelled)]
    assert cancelled.again
    starts = [record.event for record in tape.records if isinstance(record.event, RunStarted)]
    assert starts[-1].plan.start.version == 2  # what went on from version 3 was begun again from version 2
    assert tokens(tape.of().set_aside) > 0
    champion = tape.of().champion
    assert champion is not None
    assert champion.version == 4


def test_a_rollback_is_not_rolled_back() -> None:
    """The champion that came back is judged by nobody: there is none before it."""
    tape = Tape(one(WATCH))
    for version in (1, 2):
        tape.arrive(120)
        tape.finish()
        report(tape, version, *(1.0 / version,) * 3)
    assert [r.event.model_version for r in tape.records if isinstance(r.event, ModelRolledBack)] == [1]
    report(tape, 1, 0.0, 0.0, 0.0, 0.0)
    tape.wait(48 * HOUR)
    assert [verdict for verdict, _ in told(tape)] == ["promote", "promote", "watched", "rolled_back"]
    champion = tape.of().champion
    assert champion is not None
    assert champion.version == 1


def test_an_approved_candidate_that_goes_on_from_what_is_rolled_back_is_cancelled() -> None:
    """Its promotion is at work when the champion goes: it is published too late, and nobody's data comes back."""
    tape = Tape(one(f"{WATCH}, approval: always"))
    tape.arrive(120)
    tape.finish()
    report(tape, 1, 0.9, 0.9, 0.9)
    for _ in range(2):
        tape.arrive(120)
        tape.finish()
        tape.request("approve")
        if tape.of().versions == 1:
            tape.rest()
    approved = tape.run()
    assert (approved.plan.start.version, tape.order().stage) == (2, "promote")
    report(tape, 2, 0.1, 0.1, 0.1)
    assert tape.run().stop == "cancel"
    tape.succeed()
    champion = tape.of().champion
    assert champion is not None
    assert champion.version == 1
    assert tape.of().active is None
    assert tape.of().ignored == {"promoted_too_late": 1}
    assert sum(amount.arrivals for amount in tape.of().set_aside.values()) == 2
    assert told(tape)[-1] == ("rolled_back", None)


def test_it_works_after_the_daemon_was_started_again() -> None:
    """Everything that the watch needs is in the state, and the state in a snapshot."""
    tape = Tape(one(WATCH))
    for version in (1, 2):
        tape.arrive(120)
        tape.finish()
        report(tape, version, *((0.9,) * 3 if version == 1 else (0.5,) * 2))
    tape.state = load(dump(tape.state))
    tape.sleep(2 * HOUR)
    tape.start(one(WATCH))
    report(tape, 2, 0.5)
    assert told(tape)[-1] == ("rolled_back", None)


def test_candidates_are_held_while_it_is_frozen_and_taken_up_afterwards() -> None:
    """By the thaw and by the window's end; what a person approves meanwhile goes live at once."""
    tape = frozen()
    verdicts = [verdict for verdict, _ in told(tape)]
    assert verdicts == ["promote", "hold", "thawed", "hold", "thawed", "hold"]
    assert promoted(tape) == [1, 2, 3, 4]
    assert tape.of().held is None
    assert tape.of().set_aside == {}
    assert tape.of().waiting == 0


def test_a_protected_domain_is_kept_for_sure() -> None:
    """The first candidate may have forgotten it; the second for sure has not."""
    assert [verdict for verdict, _ in told(vetoes())] == ["promote", "reject", "promote"]


def test_a_held_candidate_is_judged_again_when_the_champion_changed() -> None:
    """Nobody approved it: taken up after the freeze it is held to every bound once more, and its doubts count."""
    tape = Tape(one(f"{FREEZE}, approval: undecided"))
    tape.arrive(120)
    tape.finish()
    tape.arrive(120)
    tape.finish()
    tape.wait(13 * HOUR)
    tape.arrive(120)
    tape.finish()
    held = tape.of().held
    assert held is not None
    tape.request("rollback")  # of version 2, from which it goes on
    assert tape.of().held is None
    gone = [record.event for record in tape.records if isinstance(record.event, RunCancelled)]
    assert [(each.run, each.reason) for each in gone] == [
        (held.run, "Its candidate goes on from version 2, which was rolled back.")
    ]
    assert tokens(tape.of().set_aside) > tokens(held.plan.new)
    tape.wait(48 * HOUR)
    assert not [record for record in tape.records if isinstance(record.event, RunResumed)]


@pytest.mark.parametrize(("difference", "verdict"), [((0.01, -0.1, 0.1), "hold"), ((-0.1, -0.2, -0.05), "promote")])
def test_what_a_policy_takes_up_is_not_approved(difference: tuple[float, float, float], verdict: str) -> None:
    """A retraining from scratch that was held survives a new champion: it is evaluated again, and judged as ever."""
    retrain = "{kind: periodic_retraining, from: scratch}"
    gate = "{kind: promotion, approval: undecided, max_forgetting: 1, min_gain: -1}"
    tape = Tape(f"pipelines: {{p: {{policies: [{GROW}, {retrain}, {gate}]}}}}\n")
    tape.arrive(120)
    tape.finish()
    tape.arrive(120)
    tape.finish()
    tape.request("freeze")
    tape.request("retrain")
    tape.finish()
    held = tape.of().held
    assert held is not None
    assert held.plan.start.kind == "scratch"
    tape.request("rollback")
    assert tape.of().held == held
    tape.request("thaw")
    assert tape.run().run == held.run
    assert (tape.run().approved, tape.order().stage) == (False, "evaluate")
    wide = {"prose": (difference[0], difference[1] * 20, difference[2] * 20)} if verdict == "hold" else None
    tape.succeed(differences=wide)
    assert told(tape)[-1] == (verdict, None)


def test_what_was_thawed_and_waits_for_its_slot_is_held_again_by_the_next_freeze() -> None:
    """Its wish is taken back before it is granted, and stands again after the thaw."""
    tape = Tape(one("approval: auto"))
    tape.arrive(120)
    tape.finish()
    tape.request("freeze")
    tape.arrive(120)
    tape.finish()
    held = tape.of().held
    assert held is not None
    tape.request("pause")
    tape.request("thaw")
    assert set(tape.of().wishes) == {"promotion:resume"}
    tape.request("freeze")
    assert tape.of().wishes == {}
    tape.request("resume")
    assert tape.of().active is None
    tape.request("thaw")
    tape.rest()
    assert promoted(tape) == [1, 2]


def test_a_freeze_that_comes_with_a_new_configuration_holds_what_waits_for_its_slot() -> None:
    """The candidate is not promoted in a window that was not there when its wish was made."""
    tape = Tape(one("approval: auto"))
    tape.arrive(120)
    tape.finish()
    tape.request("freeze")
    tape.arrive(120)
    tape.finish()
    tape.request("pause")
    tape.request("thaw")
    assert set(tape.of().wishes) == {"promotion:resume"}
    tape.start(one('freeze: [{from: "2026-02-01T00:00:00Z", until: "2026-03-03T00:00:00Z"}]'))
    assert tape.of().wishes == {}
    tape.request("resume")
    assert (tape.of().active, promoted(tape)) == (None, [1])
    tape.wait(72 * HOUR)
    tape.rest()
    assert promoted(tape) == [1, 2]


def test_the_fold_alone_gives_the_same_state() -> None:
    """What is told of gates folds to the same state, record by record."""
    for tape in (watched(), frozen(), vetoes()):
        state = Tape(one(WATCH)).state.__class__()
        for record in tape.records:
            state = evolve(state, record)
        assert dump(state) == dump(tape.state)
