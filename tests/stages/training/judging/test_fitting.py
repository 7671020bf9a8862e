"""The planner's law is found again in runs that follow it, and says honestly how far it is off."""

import random
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from daemon.core.events import AnyEvent, Comparison, Loss, ProbeMeasured
from daemon.core.plans import Amount, Checkpoint, Limits, ModelSettings, Plan, Schedule, Start, Training
from daemon.core.plans.law import OLD, Law, Traits, forgetting, gain
from daemon.core.plans.planner import measured, traits
from stages.run_folder import Champion, PastRun, Shard
from stages.training.judging.fitting import LEAST, fit, fitted, points_of

TRUE = Law(
    runs=0,
    error=None,
    new={"share": 0.7, "speed": 300.0, "offset": 0.03},
    old={**OLD, "share": 0.4, "first": 0.5, "room": 0.6, "relief": 80.0, "transfer": 0.05},
)


def loss(mean: float) -> Loss:
    """Return a loss that is known exactly."""
    return Loss(mean=mean, low=mean, high=mean, documents=400, bytes=40_000)


def plan_of(share: float, peak: float, tokens: int) -> Plan:
    """Return an increment on code after prose."""
    return Plan(
        kind="increment",
        start=Start(kind="champion", version=1, checkpoint=Checkpoint(path="v1", sha256="0" * 64)),
        parent=1,
        spans=(),
        new={"code": Amount(arrivals=1, tokens=tokens)},
        past={"prose": Amount(arrivals=1, tokens=500_000)},
        model=ModelSettings(),
        stages=(),
        training=Training(
            tokens=tokens,
            batch=4,
            context=64,
            replay=share,
            schedule=Schedule(kind="rewarm", peak=peak, floor=peak / 10, plateau=peak / 2),
            optimiser="keep",
            seed=1,
        ),
        limits=Limits(),
    )


def runs(count: int, *, noise: float = 0.0) -> list[PastRun]:
    """Return runs whose losses follow TRUE; with noise they do so about."""
    generator = random.Random(7)
    found: list[PastRun] = []
    for number in range(count):
        plan = plan_of(generator.choice((0.01, 0.05, 0.25)), generator.choice((1e-3, 3e-3)), 20_000 * (1 + number % 4))
        old, new = {"prose": loss(1.1)}, {"code": loss(1.4 + 0.2 * (number % 3))}
        best = {"prose": 1.05, "code": 1.2}
        past = PastRun(run=f"p-{number}", plan=plan, old=old, new=new, evaluation={}, best=best)
        seen = told(found, past)
        lost = forgetting(TRUE, seen) + generator.gauss(0, noise)
        won = gain(TRUE, seen) + generator.gauss(0, noise)
        evaluation = {
            "prose": Comparison(candidate=loss(1.1 + lost), champion=loss(1.1), difference=loss(lost)),
            "code": Comparison(candidate=loss(1.4 - won), champion=loss(1.4), difference=loss(-won)),
        }
        found.append(replace(past, evaluation=evaluation))
    return found


def told(before: Sequence[PastRun], past: PastRun) -> Traits:
    """Return what the law looks at in a run after others."""
    _, highest = points_of(before)
    seen = traits(
        past.plan, past.plan.training, measured(past.plan, past.old, past.new, best=past.best, highest=highest)
    )
    assert seen is not None
    return seen


def test_the_law_is_found_again() -> None:
    """Of seven runs that follow a law, others are predicted to a hundredth, and the error says so."""
    history = runs(9)
    law = fit(history[:7])
    assert law is not None
    assert law.runs == 7
    assert law.error is not None
    assert law.error < 0.02
    for at in (7, 8):
        seen = told(history[:at], history[at])
        assert gain(law, seen) == pytest.approx(gain(TRUE, seen), abs=0.01)
        assert forgetting(law, seen) == pytest.approx(forgetting(TRUE, seen), abs=0.015)


def test_the_error_grows_with_the_noise() -> None:
    """Runs that follow no law well give a law that says so."""
    clean, noisy = fit(runs(6)), fit(runs(6, noise=0.2))
    assert clean is not None
    assert noisy is not None
    assert clean.error is not None
    assert noisy.error is not None
    assert noisy.error > 0.05 > clean.error


def test_few_runs_give_a_law_without_an_error() -> None:
    """One run gives a law; from three on it tells its error; none gives none."""
    history = runs(LEAST)
    assert fit([]) is None
    for count in (1, 2):
        law = fit(history[:count])
        assert law is not None
        assert (law.runs, law.error) == (count, None)
    law = fit(history)
    assert law is not None
    assert law.error is not None


def test_the_law_tells_what_it_has_seen() -> None:
    """It carries the least and the greatest of each trait, and the highest losses that probes met."""
    law = fit(runs(4))
    assert law is not None
    assert law.covered["tokens"] == (20_000.0, 80_000.0)
    assert law.covered["shift"] == pytest.approx((0.3, 0.7))
    assert law.highest == pytest.approx({"prose": 1.1, "code": 1.8})


def test_a_fit_repeats_itself_to_the_last_digit() -> None:
    """The same runs give the same law, with numbers of 12 digits."""
    history = runs(5)
    law = fit(history)
    assert law == fit(history)
    assert law is not None
    numbers = [*law.new.values(), *law.old.values(), law.error or 0.0]
    assert all(float(f"{number:.12g}") == number for number in numbers)


def test_runs_that_were_not_measured_teach_nothing() -> None:
    """Without a loss on new domains before and after, a run is passed over; without an old one half of it counts."""
    (past,) = runs(1)
    assert fit([replace(past, new={})]) is None
    assert fit([replace(past, evaluation={})]) is None
    alone = fit([replace(past, old={}, evaluation={"code": past.evaluation["code"]})])
    assert alone is not None
    assert alone.old == {}
    assert alone.new


def test_what_cannot_be_fitted_fails_no_probe(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers that are none give no law and a line in the log."""
    (past,) = runs(1)
    broken = {
        **past.evaluation,
        "code": Comparison(candidate=loss(1.0), champion=loss(1.0), difference=loss(float("nan"))),
    }
    assert fit([replace(past, evaluation=broken)]) is None
    assert "No law could be fitted" in caplog.text


def test_more_runs_come_nearer() -> None:
    """What three runs cannot tell stays near the prior; nine runs move it."""
    history = runs(12)
    seen = told(history[:11], history[11])
    few = fitted(points_of(history[:2])[0])
    many = fitted(points_of(history[:10])[0])
    goal = gain(TRUE, seen)
    assert abs(gain(many, seen) - goal) <= abs(gain(few, seen) - goal)


def test_the_probe_tells_the_law_of_the_past_runs(
    run_stage: Callable[..., list[AnyEvent]],
    make_increment_plan: Callable[..., Plan],
    champion: Champion,
    past: tuple[Shard, ...],
    new: tuple[Shard, ...],
) -> None:
    """What the pipeline's history teaches travels in `probe.measured`; without a history there is no law."""
    history = tuple(runs(4))
    given = {"plan": make_increment_plan(champion), "champion": champion, "past": past, "new": new}
    laws = [
        event.law
        for told_history, attempt in ((history, 1), ((), 2))
        for event in run_stage("probe", attempt, history=told_history, **given)
        if isinstance(event, ProbeMeasured)
    ]
    assert laws == [fit(history), None]
