"""Protected domains, and domains that are old and of which more came."""

from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import RejectRun
from daemon.core.decisions import Decision
from daemon.core.events import Comparison, StageSucceeded
from policies.promotion import Promotion

Build = Any
EVALUATED = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)
GAINED = (-0.5, -0.6, -0.4)


def judge(build: Build, policy: Promotion, evaluation: dict[str, Comparison], **fields: object) -> Decision:
    """Judge an increment on code after prose."""
    run = build.run("evaluate", done=True, evaluation=evaluation, **fields)
    decision = policy.decide(build.pipeline(active=run, champion=build.model()), build.record(EVALUATED))
    assert decision is not None
    return decision


# mean, low, high of the rise on prose, protected with 0.01 (all else: 0.02) → verdict, words
PROTECTED = [
    ((0.0, -0.01, 0.01), "promote", "every bound"),
    ((-0.1, -0.2, -0.05), "promote", "every bound"),
    ((0.0, -0.01, 0.0101), "reject", "prose is protected and may be forgotten by up to 0.0101 (at most 0.01 for sure)"),
    ((0.015, 0.005, 0.03), "reject", "may be forgotten by up to 0.0300"),
    ((0.02, 0.011, 0.03), "reject", "prose is protected and is forgotten by 0.0200"),
    ((0.01 + 1e-16, 0.0, 0.01 + 1e-16), "promote", "every bound"),
]


@pytest.mark.parametrize("approval", ["auto", "undecided"])
@pytest.mark.parametrize(("difference", "verdict", "words"), PROTECTED)
def test_the_whole_interval_of_a_protected_domain_lies_within_its_bound(
    build: Build, difference: tuple[float, float, float], verdict: str, words: str, approval: str
) -> None:
    """A doubt about it is a fault, whatever the approval; the numbers are told."""
    policy = Promotion.model_validate({"protected": {"prose": 0.01}, "approval": approval})
    evaluation = {"prose": build.comparison(*difference), "code": build.comparison(*GAINED)}
    decision = judge(build, policy, evaluation)
    assert decision.verdict == verdict
    assert words in decision.reason
    assert decision.inputs["forgetting.prose"] == pytest.approx(difference[0])
    assert decision.inputs["forgetting_high.prose"] == pytest.approx(difference[2])
    assert decision.thresholds["forgetting_high.prose"] == 0.01


@pytest.mark.parametrize(("rise", "verdict"), [(0.005, "promote"), (0.02, "reject")])
def test_a_protected_domain_that_came_again_as_a_whole_is_still_protected(
    build: Build, rise: float, verdict: str
) -> None:
    """Once all of it is backfilled nothing of it is past: the champion knew it all the same."""
    evaluation = {"code": build.comparison(*GAINED), "prose": build.comparison(rise, rise, rise)}
    run = build.run("evaluate", done=True, evaluation=evaluation)
    run = replace(run, plan=replace(run.plan, past={}, new={**run.plan.new, **run.plan.past}))
    policy = Promotion(protected={"prose": 0.01})
    decision = policy.decide(build.pipeline(active=run, champion=build.model()), build.record(EVALUATED))
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.thresholds["forgetting_high.prose"] == 0.01


def test_the_bound_of_a_protected_domain_may_be_wider(build: Build) -> None:
    """It is its own: what another domain may not lose, this one may."""
    evaluation = {"prose": build.comparison(0.05, 0.04, 0.06), "code": build.comparison(*GAINED)}
    assert judge(build, Promotion(), evaluation).verdict == "reject"
    assert judge(build, Promotion(protected={"prose": 0.1}), evaluation).verdict == "promote"


def test_only_a_forced_promotion_passes_a_veto(build: Build) -> None:
    """An approval settles doubts, no veto; whoever asks for `promote` says that the gate is to be open."""
    policy = Promotion(protected={"prose": 0.01}, approval="always")
    evaluation = {"prose": build.comparison(0.0, -0.01, 0.02), "code": build.comparison(*GAINED)}
    refused = judge(build, policy, evaluation, held=True, approved=True)
    assert (refused.verdict, refused.commands) == ("reject", (RejectRun(run="p-90"),))
    assert judge(build, policy, evaluation, held=True, approved=True, forced=True).verdict == "promote"


@pytest.mark.parametrize("measured", [False, True])
def test_a_protected_domain_has_to_be_measured(build: Build, measured: bool) -> None:
    """Nothing held out, or one document, is a veto: before anything else, a hold too."""
    evaluation = {"code": build.comparison(*GAINED)}
    words = "protected and was not measured"
    if measured:
        told = build.comparison(-0.1)
        evaluation["prose"] = replace(told, difference=replace(told.difference, documents=1))
        words = "protected and was measured on one document"
    decision = judge(build, Promotion(protected={"prose": 0.5}, approval="always"), evaluation)
    assert decision.verdict == "reject"
    assert words in decision.reason
    nothing = judge(build, Promotion(protected={"prose": 0.5}), {})
    assert nothing.verdict == "reject"


def test_a_protected_domain_that_is_not_old_yet_has_no_veto(build: Build) -> None:
    """What nothing was trained on cannot be forgotten."""
    policy = Promotion(protected={"code": 0.0, "letters": 0.0})
    assert judge(build, policy, {"code": build.comparison(*GAINED)}).verdict == "promote"


def both(build: Build, old: Any, new: Any, whole: float = -0.2) -> Comparison:  # noqa: ANN401 - numbers or None
    """Make the comparison of a domain that is old and of which more came."""
    told: Comparison = build.comparison(whole)
    sides = {
        name: build.comparison(*each).difference for name, each in (("old", old), ("new", new)) if each is not None
    }
    return replace(told, **sides)


def test_what_came_anew_does_not_hide_what_was_forgotten(build: Build) -> None:
    """A domain's new documents are learned, its older ones forgotten: the mean over both looks well, and is no use."""
    plan = build.plan(new={"prose": build.amount(500)})
    poisoned = {"prose": both(build, (0.3, 0.2, 0.4), (-2.0, -2.1, -1.9), whole=-0.9)}
    decision = judge(build, Promotion(), poisoned, plan=plan)
    assert decision.verdict == "reject"
    assert "prose is forgotten by 0.3000" in decision.reason
    assert (decision.inputs["forgetting.prose"], decision.inputs["gain"]) == (0.3, 2.0)

    well = {"prose": both(build, (-0.01, -0.02, 0.0), (-0.2, -0.3, -0.1))}
    decision = judge(build, Promotion(min_gain=0.15), well, plan=plan)
    assert (decision.verdict, decision.inputs["gain"]) == ("promote", 0.2)


def test_an_old_domain_of_which_only_the_new_is_held_out_is_in_doubt(build: Build) -> None:
    """Whether it was forgotten nobody knows: undecided; a veto where it is protected."""
    plan = build.plan(new={"prose": build.amount(500)})
    blind = {"prose": both(build, None, (-0.2, -0.3, -0.1))}
    asked = judge(build, Promotion(approval="undecided"), blind, plan=plan)
    assert asked.verdict == "hold"
    assert "nothing of the older prose is held out" in asked.reason
    assert judge(build, Promotion(protected={"prose": 9.0}), blind, plan=plan).verdict == "reject"


def test_one_side_of_one_document_is_in_doubt(build: Build) -> None:
    """An interval of no width decides nothing, on the older side as little as in all."""
    plan = build.plan(new={"prose": build.amount(500)})
    told = both(build, (-0.1, -0.1, -0.1), (-0.2, -0.3, -0.1))
    assert told.old is not None
    alone = replace(told, old=replace(told.old, documents=1))
    assert judge(build, Promotion(approval="undecided"), {"prose": alone}, plan=plan).verdict == "hold"
    assert judge(build, Promotion(approval="undecided"), {"prose": told}, plan=plan).verdict == "promote"


@pytest.mark.parametrize("protected", [{"prose": -0.1}, {"prose": float("nan")}, {"prose": None}])
def test_impossible_bounds_are_refused(protected: dict[str, object]) -> None:
    """A bound below zero, or none at all, is a mistake."""
    with pytest.raises(ValueError, match="protected"):
        Promotion.model_validate({"protected": protected})
