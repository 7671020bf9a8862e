"""Retrains in the real core: what counts from the last full training, whatever it started from."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from daemon.core.events import DecisionMade, RunStarted
from tests.golden.tape import Tape

DAY = timedelta(days=1)
LOSES = {"prose": (0.01, 0.0, 0.02)}
GATE = "{kind: promotion, max_forgetting: 1.0, min_gain: -1.0}"
RETRAINING = "periodic_retraining"


def tape(retrain: str, gate: str = GATE) -> Tape:
    """Start a daemon with increments, retrains like this, and a gate that lets much through; a base is there."""
    made = Tape(
        f"pipelines: {{p: {{policies: [{{kind: rewarm_replay, after_tokens: 100}}, "
        f"{{kind: periodic_retraining, {retrain}}}, {gate}]}}}}"
    )
    made.arrive(120)
    made.finish()
    return made


def grow(tape: Tape, count: int = 1) -> None:
    """Let so many increments be promoted that gain nothing."""
    for _ in range(count):
        tape.arrive(120)
        tape.finish(differences=LOSES)


def starts(tape: Tape) -> list[str]:
    """Return from where retrains started."""
    found = [r.event for r in tape.records if isinstance(r.event, RunStarted)]
    return [event.intent.start for event in found if event.intent.kind == "retrain"]


def said(tape: Tape, policy: str = RETRAINING) -> Sequence[DecisionMade]:
    """Return what a policy said."""
    return [r.event for r in tape.records if isinstance(r.event, DecisionMade) and r.event.policy == policy]


@pytest.mark.parametrize("origin", ["scratch", "base", "champion"])
def test_a_plateau_has_to_come_again_after_a_retrain(origin: str) -> None:
    """Evaluations before the retrain count no more: not with the next arrival, and not with one increment."""
    told = tape(f"plateau: {{min_gain: 0.05, window: 3}}, from: {origin}")
    grow(told, 3)
    assert starts(told) == [origin]
    told.finish(differences=LOSES)
    grow(told, 2)
    told.arrive(5)
    assert (starts(told), told.of().active) == ([origin], None)
    grow(told)
    assert starts(told) == [origin, origin]


@pytest.mark.parametrize("origin", ["scratch", "base", "champion"])
@pytest.mark.parametrize("occasion", ["every: P3D", "when: {age: P3D, of: base}"])
def test_the_age_of_the_last_full_training_is_a_true_number(occasion: str, origin: str) -> None:
    """Each retrain comes three days after the one before, and its decision says so."""
    told = tape(f"{occasion}, from: {origin}")
    for _ in range(3):
        told.wait(3 * DAY)
        told.finish()
        told.arrive(5)
        assert told.of().active is None
    assert len(starts(told)) == 3
    due = [each for each in said(told) if each.verdict == "due"]
    assert [each.inputs["seconds"] for each in due] == [pytest.approx(3 * DAY.total_seconds(), abs=2)] * 3
    assert not any("0:00:00" in each.reason for each in due)


def test_a_rollback_takes_its_increment_back() -> None:
    """What was rolled back counts no more, and after the rollback of a retrain the increments before it count again."""
    told = tape("after_increments: 3, from: base")
    grow(told, 2)
    told.request("rollback")
    assert told.of().increments == 1
    grow(told, 2)
    assert starts(told) == ["base"]
    told.finish(differences=LOSES)
    assert told.of().increments == 0
    told.request("rollback")
    told.request("retry")
    assert (told.of().increments, len(starts(told))) == (3, 1)
    assert said(told)[-1].verdict == "judged"
    assert "another increment" in said(told)[-1].reason
    grow(told)
    assert len(starts(told)) == 2


def test_the_one_beside_waits_without_a_word() -> None:
    """While its wish stands and new data comes, nothing is stored again and again."""
    told = tape("plateau: {min_gain: 0.05, window: 2}, from: [champion, base]")
    grow(told, 2)
    told.arrive(120)
    told.finish(differences=LOSES)
    before = len(said(told))
    for _ in range(5):
        told.arrive(30)
    assert len(said(told)) == before
    told.rest()
    assert starts(told) == ["champion", "base"]


def test_quiet_hours_that_begin_are_no_occasion() -> None:
    """A refused retrain is not tried again because the wake-up for its quiet hours comes."""
    quiet = 'guards: {quiet: [{from: "14:00", to: "16:00"}]}'
    told = tape(f"after_increments: 1, from: base, {quiet}", "{kind: promotion, max_forgetting: 0.02}")
    told.arrive(120)
    told.finish()
    told.finish(differences={"prose": (0.5, 0.4, 0.6)})
    told.wait(DAY)
    assert (starts(told), told.of().active) == (["base"], None)
