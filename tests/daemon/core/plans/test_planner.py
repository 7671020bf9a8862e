"""What the planner chooses: the best by the law, never outside of what past runs and the configuration allow."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.events import Comparison, Loss
from daemon.core.plans import (
    Amount,
    Checkpoint,
    Limits,
    ModelSettings,
    Plan,
    Replaying,
    Schedule,
    ScheduleKind,
    Start,
    Training,
    learning_rate,
    steps,
)
from daemon.core.plans.law import Law, Measured, forgetting, gain
from daemon.core.plans.planner import (
    MEMORY,
    Options,
    areas,
    candidates,
    choose,
    measured,
    outcome,
    parts,
    predict,
    traits,
    within_reach,
)

SCHEDULE = Schedule(kind="rewarm", peak=3e-3, floor=3e-4, plateau=1.5e-3)
TRAINING = Training(tokens=80_000, batch=4, context=50, replay=0.05, schedule=SCHEDULE, optimiser="keep", seed=1)
PLAN = Plan(
    kind="increment",
    start=Start(kind="champion", version=1, checkpoint=Checkpoint(path="v1/trunk", sha256="0" * 64)),
    parent=1,
    spans=(),
    new={"code": Amount(arrivals=1, tokens=80_000)},
    past={"prose": Amount(arrivals=1, tokens=300_000), "news": Amount(arrivals=1, tokens=100_000)},
    model=ModelSettings(),
    stages=(),
    training=TRAINING,
    limits=Limits(),
)
BEFORE = Measured(old={"prose": 1.0, "news": 1.2}, new={"code": 1.8}, best={"prose": 1.0, "news": 1.1})
WIDE = {
    "excess": (0.0, 9.0),
    "shift": (0.0, 9.0),
    "forward": (1e-9, 1e9),
    "replay": (0.0, 1.0),
    "tokens": (1.0, 1e12),
}
LAW = Law(runs=5, error=0.008, covered=WIDE)
coefficients = st.floats(1e-3, 1e3)


def pick(law: Law = LAW, plan: Plan = PLAN, most: int | None = None, **options: Any) -> Any:  # noqa: ANN401 - of Options
    """Choose for the plan of this file."""
    return choose(law, plan, BEFORE, epochs=1.0, most=most, options=Options(**options))


def exactly(training: Training) -> tuple[float, float]:
    """Return both areas by the paper's definition, step by step."""
    total = steps(training)
    decay = 1 - 1 / max(1.0, min(MEMORY, total / 10))
    forward = annealing = momentum = 0.0
    before = training.schedule.floor
    for step in range(1, total + 1):
        rate = learning_rate(training, step)
        forward += rate
        momentum = decay * momentum + (before - rate)
        annealing += momentum
        before = rate
    return forward, annealing


@pytest.mark.parametrize("kind", ["rewarm", "infinite", "constant", "linear", "wsd", "wsd_s"])
@pytest.mark.parametrize("total", [1, 7, 200, 256])
def test_areas_are_the_papers(kind: ScheduleKind, total: int) -> None:
    """Of a short run both areas are the sums of arXiv 2505.07796."""
    training = replace(TRAINING, tokens=200 * total, schedule=replace(SCHEDULE, kind=kind))
    assert areas(training) == pytest.approx(exactly(training), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind", ["rewarm", "infinite", "linear", "wsd"])
def test_a_long_run_is_sampled(kind: ScheduleKind) -> None:
    """Of a run of many steps the forward area is right to a thousandth and the annealing area to a fiftieth."""
    training = replace(TRAINING, tokens=200 * 20_000, schedule=replace(SCHEDULE, kind=kind))
    forward, annealing = areas(training)
    real_forward, real_annealing = exactly(training)
    assert forward == pytest.approx(real_forward, rel=1e-3)
    assert annealing == pytest.approx(real_annealing, rel=0.02, abs=0.02 * MEMORY * SCHEDULE.peak)


def test_the_parts_of_a_batch() -> None:
    """New tokens share what is not replayed; the past shares the rest as its tokens fall, or as it is weighed."""
    assert parts(PLAN, TRAINING) == pytest.approx({"code": 0.95, "prose": 0.0375, "news": 0.0125})
    weighed = replace(TRAINING, replaying=Replaying(weights={"prose": 1.0, "news": 3.0}))
    assert parts(PLAN, weighed) == pytest.approx({"code": 0.95, "prose": 0.0125, "news": 0.0375})
    again = replace(PLAN, new={"prose": Amount(arrivals=1, tokens=10)})
    assert parts(again, TRAINING)["prose"] == pytest.approx(0.95 + 0.0375)


def test_what_the_law_looks_at() -> None:
    """Shift, height and loss are told apart, and a domain of which more came is no old one."""
    loss = {name: Loss(mean=mean, low=mean, high=mean, documents=1, bytes=1) for name, mean in (("a", 1.5), ("b", 2.0))}
    plan = replace(PLAN, new={"a": Amount(tokens=10)}, past={"a": Amount(tokens=10), "b": Amount(tokens=30)})
    before = measured(plan, loss, {"a": loss["a"]}, best={"a": 1.2, "b": 1.7}, highest={"b": 2.6})
    seen = traits(plan, TRAINING, before)
    assert seen is not None
    (old,) = seen.old
    assert (old.shift, old.height, old.lost, old.first) == pytest.approx((0.0, 0.6, 0.3, False))
    (new,) = seen.new
    assert new.excess == pytest.approx(0.3)
    assert not new.unseen
    fresh = traits(plan, TRAINING, Measured(old={"b": 2.0}, new={"a": 3.0}, best={"b": 1.5}))
    assert fresh is not None
    assert (fresh.new[0].unseen, fresh.new[0].excess, fresh.old[0].first) == (True, 1.5, True)
    assert fresh.shift == 1.0


def test_without_a_new_loss_or_a_schedule_there_is_nothing_to_look_at() -> None:
    """A run whose new data was not measured, or whose rate is nothing, is not predicted."""
    assert traits(PLAN, TRAINING, Measured(old={"prose": 1.0}, new={})) is None
    assert traits(PLAN, replace(TRAINING, schedule=replace(SCHEDULE, floor=0.0)), BEFORE) is None


def test_the_choice_is_the_best_of_all() -> None:
    """No candidate has a lower score than the chosen one."""
    choice = pick(old=1.0, new=1.0, price=0.01)
    scores = []
    for _, training in candidates(PLAN, epochs=1.0, most=None, options=Options()):
        seen = traits(PLAN, training, BEFORE)
        assert seen is not None
        lost, won = forgetting(LAW, seen), gain(LAW, seen)
        scores.append(lost - won)
    assert choice is not None
    assert choice.candidates == len(scores) == 60
    assert choice.prediction.forgetting - choice.prediction.gain <= min(scores) + 0.03


def test_weights_decide() -> None:
    """Who cares for the old domains alone replays most; who cares for the new ones alone replays least."""
    for_old, for_new = pick(old=1.0, new=0.0, price=0.0), pick(old=0.0, new=1.0, price=0.0)
    assert for_old.training.replay == 0.5
    assert for_new.training.replay < for_old.training.replay


def test_tokens_have_a_price() -> None:
    """Where nothing is to be won the shorter run is taken, and a high price always takes it."""
    assert pick(old=0.0, new=0.0).training.tokens < TRAINING.tokens
    dear, cheap = pick(price=10.0), pick(price=0.0)
    assert dear.training.tokens < cheap.training.tokens


@settings(deadline=None, max_examples=40)
@given(
    new=st.fixed_dictionaries(dict.fromkeys(("share", "speed", "anneal"), coefficients)),
    old=st.fixed_dictionaries(dict.fromkeys(("share", "room", "speed", "relief", "reach"), coefficients)),
    most=st.none() | st.integers(1_000, 200_000),
    low=st.floats(0.001, 0.1),
    width=st.floats(1, 20),
    stretch=st.floats(1, 3),
)
def test_the_choice_never_leaves_its_bounds(
    new: dict[str, float], old: dict[str, float], most: int | None, low: float, width: float, stretch: float
) -> None:
    """Whatever law was fitted: tokens, share, peak and areas lie where the configuration and the past allow."""
    covered = {**WIDE, "replay": (low, low * width), "forward": (low, low * width * 10), "tokens": (1e4, 1e5)}
    law = replace(LAW, new=new, old=old, covered=covered)
    choice = pick(law, most=most, stretch=stretch)
    if choice is None:
        return
    training = choice.training
    assert most is None or training.tokens <= most
    assert training.tokens <= 1e5 * stretch
    assert training.replay <= low * width * stretch + 0.01
    forward, _ = areas(training)
    assert low / stretch <= forward <= low * width * 10 * stretch
    assert training.schedule.floor == SCHEDULE.floor
    assert 0.5 * SCHEDULE.peak <= training.schedule.peak <= 2 * SCHEDULE.peak
    again = pick(law, most=most, stretch=stretch)
    assert again == choice
    numbers = (choice.score, choice.prediction.gain, choice.prediction.forgetting, choice.prediction.new)
    assert all(float(f"{number:.12g}") == number for number in numbers)


def test_far_from_the_past_nothing_is_chosen() -> None:
    """A shift that no past run had, or another budget, leaves the planner silent."""
    assert pick(replace(LAW, covered={**WIDE, "shift": (0.0, 0.1)})) is None
    assert pick(replace(LAW, covered={**WIDE, "tokens": (1.0, 10.0)})) is None
    assert pick(replace(LAW, covered={})) is None
    seen = traits(PLAN, TRAINING, BEFORE)
    assert seen is not None
    edge = replace(LAW, covered={**WIDE, "tokens": (160_000.0, 160_000.0)})
    assert within_reach(edge, seen, 2.0)
    assert not within_reach(edge, seen, 1.9)


def test_without_a_past_nothing_is_replayed() -> None:
    """Then peak and tokens alone are chosen."""
    choice = choose(LAW, replace(PLAN, past={}), replace(BEFORE, old={}), epochs=1.0, most=None, options=Options())
    assert choice is not None
    assert choice.training.replay == 0
    assert choice.prediction.old is None
    assert choice.prediction.forgetting is None


def test_a_past_without_tokens_is_not_replayed() -> None:
    """All that is left of a past domain may be held out: no share of it can be drawn."""
    plan = replace(PLAN, past={"prose": Amount(arrivals=1, documents=1, bytes=9)})
    choice = choose(LAW, plan, BEFORE, epochs=1.0, most=None, options=Options())
    assert choice is not None
    assert choice.training.replay == 0


def test_a_prediction_tells_losses_and_changes() -> None:
    """Losses are the probe's with the change; both are rounded to 12 digits."""
    seen = traits(PLAN, TRAINING, BEFORE)
    assert seen is not None
    told = predict(LAW, seen, BEFORE)
    assert told.new == pytest.approx(1.8 - told.gain)
    assert told.old == pytest.approx(1.1 + (told.forgetting or 0))


def test_the_outcome_is_a_mean_over_domains() -> None:
    """Old are the domains of which nothing new came; without a champion there is no outcome."""
    flat = Loss(mean=2.0, low=2.0, high=2.0, documents=1, bytes=1)

    def compared(change: float) -> Comparison:
        return Comparison(candidate=flat, champion=flat, difference=replace(flat, mean=change))

    evaluation = {"code": compared(-0.4), "prose": compared(0.1), "news": compared(0.3)}
    assert outcome(PLAN, evaluation) == pytest.approx((0.2, 0.4))
    again = replace(PLAN, new={**PLAN.new, "news": Amount(tokens=1)})
    assert outcome(again, evaluation) == pytest.approx((0.1, 0.05))
    assert outcome(PLAN, {"code": Comparison(candidate=flat)}) == (None, None)
