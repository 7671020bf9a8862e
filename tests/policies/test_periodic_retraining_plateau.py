"""A retrain when increments stop helping or have forgotten too much, on a band of the past, from several starts."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from daemon.core.commands import StartRun
from daemon.core.decisions import Decision
from daemon.core.events import ModelEvaluated, StageSucceeded
from daemon.core.ledger import Reading
from daemon.core.plans import Checkpoint, Cut, Intent
from daemon.core.state import Verdict, Wish
from policies.guards import Guards
from policies.periodic_retraining import PeriodicRetraining

Build = Any
NAME = "periodic_retraining"
EVALUATED = ModelEvaluated(
    run="p-90", stage="evaluate", attempt=1, domains={}, candidate=Checkpoint(path="c", sha256="0" * 64)
)
JUDGED = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)
PLATEAU = PeriodicRetraining.model_validate({"plateau": {"min_gain": 0.01, "window": 3}})
BOTH = PeriodicRetraining.model_validate({"after_increments": 1, "from": ["champion", "base"], "curate": {}})


def gained(build: Build, *gains: float, first: int = 50, **fields: Any) -> Any:  # noqa: ANN401 - a pipeline
    """Make a pipeline whose last evaluations found these gains."""
    readings = tuple(
        Reading(value=gain, at=build.after(hours=number), position=first + number) for number, gain in enumerate(gains)
    )
    return build.pipeline(champion=build.model(), base=build.model(), signals={"gain": readings}, **fields)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.005, 0.002), "waiting"),
        ((0.005, 0.002, -0.1), "due"),
        ((0.5, 0.005, 0.002, -0.1), "due"),
        ((0.005, 0.02, 0.002), "waiting"),
        ((0.01, 0.002, 0.001), "waiting"),
    ],
)
def test_a_plateau_is_so_many_evaluations_without_a_gain(build: Build, gains: tuple[float, ...], verdict: str) -> None:
    """Three evaluations in a row below the least gain make a retrain due; one gain among them, and it is none."""
    decision = PLATEAU.decide(gained(build, *gains), build.record(EVALUATED))

    assert decision is not None
    assert decision.verdict == verdict
    assert decision.thresholds["gain"] == 0.01
    if verdict == "due":
        assert "gain" in decision.reason


def test_evaluations_before_the_base_are_of_another_model(build: Build) -> None:
    """What increments gained before the last full training does not count against those since."""
    decision = PLATEAU.decide(gained(build, -0.1, -0.1, -0.1, first=5, retrained=10), build.record(EVALUATED))

    assert decision is not None
    assert decision.verdict == "waiting"


@pytest.mark.parametrize("verdict", ["judged", "beside", "due", "blocked"])
def test_a_plateau_that_was_acted_on_has_to_come_again(build: Build, verdict: str) -> None:
    """After a retrain was judged, only evaluations since then tell of a plateau, whatever was said meanwhile."""
    standing = {NAME: Verdict(verdict=verdict, position=60)}
    seen = gained(build, -0.1, -0.1, -0.1, -0.1, -0.1, retrained=52, verdicts=standing)
    again = gained(build, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1, retrained=52, verdicts=standing)
    seen, again = (replace(each, champion=build.model(2, position=54)) for each in (seen, again))

    waiting, due = PLATEAU.decide(seen, build.record(EVALUATED)), PLATEAU.decide(again, build.record(EVALUATED))
    assert waiting is not None
    assert due is not None
    assert (waiting.verdict, due.verdict) == ("waiting", "due")


@pytest.mark.parametrize(("forgotten", "verdict"), [(0.09, "waiting"), (0.1, "due")])
def test_what_increments_forgot_adds_up(build: Build, forgotten: float, verdict: str) -> None:
    """A retrain is due when the worst domain's loss rose by so much since the last full training."""
    policy = PeriodicRetraining(max_forgotten=0.1)
    champion = build.model(2, forgotten={"prose": forgotten, "code": -0.3})
    decision = policy.decide(build.pipeline(champion=champion, base=build.model()), build.record())

    assert decision is not None
    assert decision.verdict == verdict
    assert decision.inputs["forgotten"] == forgotten


def test_any_trigger_is_an_occasion(build: Build) -> None:
    """`when` takes any trigger: an age asks to be woken, and a retrain is due then."""
    policy = PeriodicRetraining.model_validate({"when": {"age": timedelta(days=30), "of": "champion"}})
    state = build.pipeline(champion=build.model(), base=build.model())
    waiting = policy.decide(state, build.record())
    due = policy.decide(state, build.record(at=build.after(days=30)))

    assert waiting is not None
    assert due is not None
    assert (waiting.verdict, waiting.wakes) == ("waiting", {"interval": build.after(days=30)})
    assert due.verdict == "due"


def test_a_band_of_the_past_is_asked_for(build: Build) -> None:
    """`curate` goes into the intent as the stage takes it."""
    policy = PeriodicRetraining.model_validate(
        {"after_increments": 1, "curate": {"by": "sigma", "cuts": [{"high": 1.5}], "rewrite": "mine.words:tidy"}}
    )
    state = build.pipeline(champion=build.model(), base=build.model(), increments=1)
    decision = policy.decide(state, build.record())

    assert decision is not None
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    curation = command.intent.curation
    assert curation is not None
    assert (curation.by, curation.cuts, curation.rewrite) == ("sigma", (Cut(low=0.0, high=1.5),), "mine.words:tidy")


@pytest.mark.parametrize(
    "fields",
    [
        {"from": ["base", "base"]},
        {"from": []},
        {"curate": {"cuts": [{"low": 0.5, "high": 0.5}]}},
        {"curate": {"cuts": []}},
        {"curate": {"rewrite": "not a function"}},
        {"plateau": {"window": 0}},
        {"plateau": {"window": 101}},
        {"max_forgotten": 0},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    """A start named twice, a cut that keeps nothing, a window of no evaluations."""
    with pytest.raises(ValidationError):
        PeriodicRetraining.model_validate(fields)


def wanted(decision: Decision | None) -> Intent:
    """Return what a decision wishes to start."""
    assert decision is not None
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    return command.intent


def test_beside_one_start_the_next_is_tried(build: Build) -> None:
    """When the first candidate is judged, whatever came of it, a run from the next start is wished for."""
    state = build.pipeline(champion=build.model(), base=build.model(), increments=1)
    first = wanted(BOTH.decide(state, build.record()))
    run = build.run("evaluate", NAME, plan=build.plan(kind="retrain"), intent=first)

    beside = BOTH.decide(replace(state, active=run), build.record(JUDGED))
    second = wanted(beside)
    assert beside is not None
    assert beside.verdict == "beside"
    assert (first.start, second.start) == ("champion", "base")
    assert replace(first, start="base") == second
    cooled = BOTH.model_copy(update={"guards": Guards(cooldown=timedelta(days=1))})
    state = replace(state, begun={NAME: build.noon})
    assert wanted(cooled.decide(replace(state, active=run), build.record(JUDGED))).start == "base"

    last = BOTH.decide(replace(state, active=replace(run, intent=second)), build.record(JUDGED))
    assert last is not None
    assert (last.verdict, last.commands) == ("judged", ())


def test_the_one_beside_keeps_its_turn(build: Build) -> None:
    """While it waits, no new occasion takes its place, and data that arrives does not take it back."""
    state = build.pipeline(champion=build.model(), base=build.model(), increments=1)
    second = replace(wanted(BOTH.decide(state, build.record())), start="base")
    wish = Wish(policy=NAME, command="c", since=95, since_at=build.noon, intent=second)
    for increments in (0, 3):
        decision = BOTH.opinion(replace(state, increments=increments, wishes={NAME: wish}), build.record())
        assert decision is not None
        assert decision.commands == ()
