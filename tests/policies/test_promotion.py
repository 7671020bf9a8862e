"""The judgement over a candidate."""

from typing import Any, Literal

import pytest
from msgspec.structs import replace

from daemon.core.commands import HoldRun, RejectRun, RunStage
from daemon.core.decisions import Decision
from daemon.core.events import StageSucceeded
from policies.promotion import Promotion

Build = Any
EVALUATED = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)


def judge(
    build: Build, policy: Promotion, evaluation: dict[str, Any], *, first: bool = False, **fields: object
) -> Decision:
    """Judge an increment on code after prose with these differences: (mean), or (mean, low, high)."""
    measured = {
        domain: build.comparison(*(difference if isinstance(difference, tuple) else (difference,)))
        for domain, difference in evaluation.items()
    }
    run = build.run("evaluate", done=True, evaluation=measured, **fields)
    state = build.pipeline(active=run, champion=None if first else build.model())
    decision = policy.decide(state, build.record(EVALUATED))
    assert decision is not None
    return decision


@pytest.mark.parametrize(
    ("prose", "code", "verdict", "words"),
    [
        (0.0, -0.1, "promote", "every bound"),
        (0.02, -0.1, "promote", "every bound"),
        (0.021, -0.1, "reject", "prose is forgotten by 0.0210"),
        (-0.5, -0.1, "promote", "every bound"),
        (0.0, 0.0, "promote", "every bound"),
        (0.0, 0.01, "reject", "the gain is -0.0100"),
        (0.5, 0.5, "reject", "; "),
    ],
)
def test_bounds(build: Build, prose: float, code: float, verdict: str, words: str) -> None:
    """A candidate within both bounds is promoted; forgetting or a missing gain refuses it, with the numbers."""
    decision = judge(build, Promotion(), {"prose": prose, "code": code})
    assert decision.verdict == verdict
    assert words in decision.reason
    assert decision.inputs["forgetting.prose"] == prose
    assert decision.inputs["gain"] == -code
    assert decision.thresholds == {"max_forgetting": 0.02, "min_gain": 0.0}


@pytest.mark.parametrize(
    ("bound", "shift", "verdict"),
    [
        (2.0, 2.0, "promote"),
        (2.0, 2.1, "reject"),
        (2.0, None, "promote"),
        (2.0, -3.0, "promote"),
        (None, 9.0, "promote"),
    ],
)
def test_what_is_unlike_the_past_is_refused(
    build: Build, bound: float | None, shift: float | None, verdict: str
) -> None:
    """Documents further from the past than the bound are refused, though nothing was forgotten and much was gained."""
    decision = judge(build, Promotion(max_shift=bound), {"prose": 0.0, "code": -4.0}, shift=shift)
    assert decision.verdict == verdict
    assert ("lie 2.1000 nats per byte from the past (at most 2)" in decision.reason) == (verdict == "reject")
    assert decision.thresholds.get("max_shift") == bound
    assert decision.inputs.get("shift") == (shift if bound else None)


def test_the_commands(build: Build) -> None:
    """Each verdict carries its one command."""
    promote = judge(build, Promotion(), {"code": -0.1}, attempts={"evaluate": 1, "promote": 2})
    assert promote.commands == (RunStage(run="p-90", stage="promote", attempt=3),)
    assert judge(build, Promotion(), {"code": 0.1}).commands == (RejectRun(run="p-90"),)
    held = judge(build, Promotion(approval="always"), {"code": -0.1})
    assert (held.verdict, held.commands) == ("hold", (HoldRun(run="p-90"),))


def test_the_first_model_is_promoted(build: Build) -> None:
    """Without a champion there is nothing to compare with, whatever the approval."""
    for approval in ("auto", "undecided", "always"):
        assert judge(build, Promotion(approval=approval), {"code": 9.0}, first=True).verdict == "promote"


# mean, low, high of the rise on prose against a bound of 0.02 → verdict under auto, undecided, always
FORGETTING = [
    ((0.01, 0.0, 0.019), "promote", "promote", "hold"),
    ((0.01, 0.0, 0.03), "promote", "hold", "hold"),
    ((0.03, 0.01, 0.05), "reject", "hold", "hold"),
    ((0.03, 0.021, 0.05), "reject", "reject", "reject"),
]


@pytest.mark.parametrize(("difference", "auto", "undecided", "always"), FORGETTING)
def test_intervals_of_forgetting(
    build: Build, difference: tuple[float, float, float], auto: str, undecided: str, always: str
) -> None:
    """An interval across the bound is undecided: judged by its mean, or held, as configured."""
    evaluation = {"prose": difference, "code": (-0.5, -0.6, -0.4)}
    assert judge(build, Promotion(approval="auto"), evaluation).verdict == auto
    assert judge(build, Promotion(approval="undecided"), evaluation).verdict == undecided
    assert judge(build, Promotion(approval="always"), evaluation).verdict == always


GAIN = [
    ((-0.2, -0.3, -0.11), "promote", "promote", "hold"),
    ((-0.2, -0.3, -0.05), "promote", "hold", "hold"),
    ((-0.05, -0.2, 0.1), "reject", "hold", "hold"),
    ((-0.05, -0.09, 0.0), "reject", "reject", "reject"),
]


@pytest.mark.parametrize(("difference", "auto", "undecided", "always"), GAIN)
def test_intervals_of_the_gain(
    build: Build, difference: tuple[float, float, float], auto: str, undecided: str, always: str
) -> None:
    """The same holds for the gain, against a bound of 0.1."""
    evaluation = {"code": difference}
    assert judge(build, Promotion(approval="auto", min_gain=0.1), evaluation).verdict == auto
    assert judge(build, Promotion(approval="undecided", min_gain=0.1), evaluation).verdict == undecided
    assert judge(build, Promotion(approval="always", min_gain=0.1), evaluation).verdict == always


def test_one_document_decides_nothing(build: Build) -> None:
    """Its interval has no width: whoever wants to be asked where it is undecided is asked, however large the gain."""
    run = build.run("evaluate", done=True, evaluation={"code": build.comparison(-0.3)})
    (told,) = run.evaluation.values()
    alone = replace(told, difference=replace(told.difference, documents=1))
    state = build.pipeline(active=replace(run, evaluation={"code": alone}), champion=build.model())
    decision = Promotion(approval="undecided").decide(state, build.record(EVALUATED))
    assert decision is not None
    assert decision.verdict == "hold"
    assert "one document" in decision.reason


def test_a_person_can_force_a_promotion(build: Build) -> None:
    """What an operator forces is promoted whatever was measured."""
    for approval in ("auto", "always"):
        decision = judge(build, Promotion(approval=approval), {"prose": 9.0, "code": 9.0}, approved=True, forced=True)
        assert decision.verdict == "promote"
        assert "operator" in decision.reason


@pytest.mark.parametrize("approval", ["undecided", "always"])
def test_an_approved_candidate_is_held_no_more(build: Build, approval: Literal["undecided", "always"]) -> None:
    """An approval settles a doubt; but what is forgotten for sure by now is still refused."""
    doubtful = {"prose": (0.01, 0.0, 0.03), "code": -0.1}
    decision = judge(build, Promotion(approval=approval), doubtful, approved=True)
    assert decision.verdict == "promote"
    assert "approved" in decision.reason
    assert judge(build, Promotion(approval=approval), {"prose": 0.5, "code": -0.1}, approved=True).verdict == "reject"


def test_a_domain_that_is_old_and_new_counts_as_both(build: Build) -> None:
    """More prose after prose: it must not be forgotten, and its gain counts."""
    plan = build.plan(new={"prose": build.amount(5), "code": build.amount(5)})
    decision = judge(build, Promotion(), {"prose": 0.01, "code": -0.03}, plan=plan)
    assert decision.verdict == "promote"
    assert decision.inputs["forgetting.prose"] == 0.01
    assert decision.inputs["gain"] == pytest.approx(0.01)
    assert judge(build, Promotion(), {"prose": 0.03, "code": -0.9}, plan=plan).verdict == "reject"


def test_domains_without_a_difference_are_only_noted(build: Build) -> None:
    """A domain that the champion was not measured on, or that is neither old nor new, bounds nothing."""
    alone = build.comparison(0.0).__class__(candidate=build.comparison(0.0).candidate)
    run = build.run("evaluate", done=True, evaluation={"code": build.comparison(-0.1), "odd": alone, "prose": alone})
    decision = Promotion().decide(build.pipeline(active=run, champion=build.model()), build.record(EVALUATED))
    assert decision is not None
    assert decision.verdict == "promote"
    assert set(decision.inputs) == {"loss.code", "loss.odd", "loss.prose", "gain"}


def test_what_was_not_compared_waits_for_a_person(build: Build) -> None:
    """An evaluation that told nothing about the champion never promotes by itself; a person may."""
    decision = judge(build, Promotion(), {})
    assert (decision.verdict, decision.commands) == ("hold", (HoldRun(run="p-90"),))
    assert judge(build, Promotion(), {}, approved=True).verdict == "promote"


def test_numbers_that_differ_beyond_the_twelfth_digit_are_equal(build: Build) -> None:
    """The same measurement on another machine is judged the same."""
    assert judge(build, Promotion(), {"prose": 0.02 + 1e-16, "code": 0.0 - 1e-18}).verdict == "promote"
    assert judge(build, Promotion(), {"prose": 0.020000000000000004, "code": -0.1}).verdict == "promote"


@pytest.mark.parametrize(
    ("stage", "told"), [("train", "evaluate"), ("evaluate", "train"), ("promote", "evaluate"), (None, "evaluate")]
)
def test_only_a_finished_evaluation_is_judged(build: Build, stage: str | None, told: str) -> None:
    """Other stages, and a pipeline without a run, bring no judgement."""
    run = None if stage is None else build.run(stage, done=True)
    event = StageSucceeded(run="p-90", stage=told, attempt=1, seconds=1.0)
    assert Promotion().decide(build.pipeline(active=run), build.record(event)) is None
