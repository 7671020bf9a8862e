"""Choosing a run's peak, replayed share and tokens by the fitted law, within what past runs have covered."""

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from daemon.core.events.base import Comparison, Loss
from daemon.core.plans.amounts import tokens
from daemon.core.plans.law import Law, Measured, NewDomain, OldDomain, Prediction, Traits, forgetting, gain
from daemon.core.plans.plan import Plan, Training, budget, steps
from daemon.core.plans.schedules import TRUNKS, Schedule, course, rate

SAMPLES = 256
MEMORY = 1000
"""Steps over which a falling rate bears fruit: lambda 0.999 in arXiv 2505.07796; never more than a tenth of a run."""
DIGITS = 12
COVERED = {"excess": 0.02, "shift": 0.02, "forward": 0.0, "replay": 0.01, "tokens": 0.0}
"""The traits that have to lie near those of past runs, and how much further they may lie in any case."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What may be chosen, and what it is worth.

    `old` and `new` weigh forgetting against gain; `price` is what a run of twice the tokens has to win more, in nats
    per byte. `peaks` are factors of the configured peak, `replays` shares, `budgets` factors of the configured
    epochs. `stretch`: how many times beyond what past runs had a trait may lie.
    """

    old: float = 1.0
    new: float = 1.0
    price: float = 0.01
    peaks: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0)
    replays: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
    budgets: tuple[float, ...] = (0.5, 1.0)
    stretch: float = 2.0


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen: the training, what it is expected to bring, and among how many."""

    training: Training
    prediction: Prediction
    score: float
    candidates: int


def areas(training: Training) -> tuple[float, float]:
    """Return the forward and the annealing area of a schedule, in rate x steps (arXiv 2505.07796, section 3.1).

    The rate is thought to come from the schedule's floor, where the champion's last decay ended: to continue a trunk
    is to undo that decay. Of long runs the rate is sampled.
    """
    total = steps(training)
    laid = course(training.schedule, total, training.batch * training.context)
    decay = 1 - 1 / max(1.0, min(MEMORY, total / 10))
    forward = annealing = 0.0
    count = min(total, SAMPLES)
    before = training.schedule.floor
    for at in range(count):
        first, last = at * total // count, (at + 1) * total // count
        now = rate(laid, (first + 1 + last) // 2)
        forward += now * (last - first)
        annealing += (before - now) * (1 - decay ** (total - first)) / (1 - decay)
        before = now
    return forward, annealing


def measured(
    plan: Plan,
    old: Mapping[str, Loss],
    new: Mapping[str, Loss],
    *,
    best: Mapping[str, float],
    highest: Mapping[str, float],
) -> Measured:
    """Return what a probe measured of a plan's domains, beside what is known of them from before."""
    return Measured(
        old={name: loss.mean for name, loss in old.items() if name not in plan.new},
        new={name: _pooled([loss, *([old[name]] if name in old else [])]) for name, loss in new.items()},
        again={name: loss.mean for name, loss in old.items() if name in plan.new},
        best=dict(best),
        highest=dict(highest),
    )


def traits(plan: Plan, training: Training, before: Measured) -> Traits | None:
    """Return what the law looks at; None where no new domain was measured, and for what is no schedule."""
    schedule, old, new, best = training.schedule, before.old, before.new, before.best
    if not new or training.batch * training.context < 1 or min(schedule.peak, schedule.plateau, schedule.floor) <= 0:
        return None
    forward, annealing = areas(training)
    known = {name: min(loss, best.get(name, loss)) for name, loss in old.items()}
    usual = mean(known) if known else mean(best) if best else mean(new)
    part = parts(plan, training)
    worst = mean(new)
    return Traits(
        old=tuple(
            OldDomain(
                shift=max(0.0, worst - loss),
                height=max(0.0, before.highest.get(name, loss) - loss),
                lost=loss - known[name],
                first=name not in before.highest,
                part=part.get(name, 0.0),
            )
            for name, loss in sorted(old.items())
        ),
        new=tuple(
            NewDomain(
                excess=max(0.0, before.again.get(name, loss) - best.get(name, usual)),
                unseen=name not in best,
                part=part.get(name, 0.0),
            )
            for name, loss in sorted(new.items())
        ),
        forward=forward,
        annealing=annealing,
        replay=training.replay,
        tokens=training.tokens,
        trunk=plan.start.kind != "scratch" and schedule.kind in TRUNKS,
    )


def parts(plan: Plan, training: Training) -> dict[str, float]:
    """Return each domain's part of the tokens that are trained on, new and replayed."""
    weights = training.replaying.weights or {name: float(amount.tokens) for name, amount in plan.past.items()}
    found: dict[str, float] = {}
    for share, amounts in (
        (1 - training.replay, {name: float(amount.tokens) for name, amount in plan.new.items()}),
        (training.replay, weights),
    ):
        total = sum(amounts.values())
        for name, weight in amounts.items():
            found[name] = found.get(name, 0.0) + (share * weight / total if total > 0 else 0.0)
    return found


def predict(law: Law, seen: Traits, before: Measured) -> Prediction:
    """Return what the law expects, rounded to 12 digits."""
    won = _rounded(gain(law, seen))
    lost = _rounded(forgetting(law, seen)) if before.old else None
    return Prediction(
        old=None if lost is None else _rounded(mean(before.old) + lost),
        new=_rounded(mean(before.new) - won),
        law=law,
        forgetting=lost,
        gain=won,
    )


def choose(
    law: Law,
    plan: Plan,
    before: Measured,
    *,
    epochs: float,
    most: int | None,
    options: Options,
) -> Choice | None:
    """Return the best training within reach; None when everything lies too far from what past runs had.

    Of equals the shortest is taken, then the one nearest to the configured peak, then the one that replays least.
    """
    found: list[tuple[tuple[float, int, float, float], Choice]] = []
    reference = budget(tokens(plan.new), 0.0, epochs, most)
    for factor, training in candidates(plan, epochs=epochs, most=most, options=options):
        seen = traits(plan, training, before)
        if seen is None or not within_reach(law, seen, options.stretch):
            continue
        prediction = predict(law, seen, before)
        cost = options.price * math.log2(training.tokens / reference)
        score = _rounded(options.old * (prediction.forgetting or 0.0) - options.new * prediction.gain + cost)
        far = max(factor, 1 / factor)
        choice = Choice(training=training, prediction=prediction, score=score, candidates=0)
        found.append(((score, training.tokens, far, training.replay), choice))
    if not found:
        return None
    _, best = min(found, key=lambda each: each[0])
    return replace(best, candidates=len(found))


def candidates(plan: Plan, *, epochs: float, most: int | None, options: Options) -> Iterator[tuple[float, Training]]:
    """Yield every training that may be chosen, with the factor of its peak."""
    for part in options.budgets:
        for replay in options.replays if tokens(plan.past) else (0.0,):
            total = budget(tokens(plan.new), replay, epochs * part, most)
            for factor in options.peaks:
                schedule = scaled(plan.training.schedule, factor)
                yield factor, replace(plan.training, tokens=total, replay=replay, schedule=schedule)


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """Return the schedule with its peak and plateau so many times as high, never below its floor."""
    peak = max(schedule.floor, schedule.peak * factor)
    plateau = max(schedule.floor, schedule.plateau * factor)
    return replace(schedule, peak=_rounded(peak), plateau=_rounded(plateau))


def within_reach(law: Law, seen: Traits, stretch: float) -> bool:
    """Return whether no trait lies more than `stretch` times beyond what past runs had."""
    for name, slack in COVERED.items():
        low, high = law.covered.get(name, (0.0, 0.0))
        if not low / stretch - slack <= getattr(seen, name) <= high * stretch + slack:
            return False
    return True


def outcome(plan: Plan, evaluation: Mapping[str, Comparison]) -> tuple[float | None, float | None]:
    """Return the forgetting and the gain that an evaluation found: means over the old and over the new domains.

    None where nothing was compared.
    """
    changes = {name: each.difference.mean for name, each in evaluation.items() if each.difference is not None}
    old = {name: change for name, change in changes.items() if name in plan.past and name not in plan.new}
    new = {name: -change for name, change in changes.items() if name in plan.new}
    return mean(old) if old else None, mean(new) if new else None


def _pooled(losses: Sequence[Loss]) -> float:
    """Return the loss over all documents of several samples."""
    return sum(loss.mean * loss.bytes for loss in losses) / max(1, sum(loss.bytes for loss in losses))


def mean(losses: Mapping[str, float]) -> float:
    """Return the mean over domains, each counting the same."""
    return sum(losses.values()) / len(losses)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
