"""Fitting the planner's law to a pipeline's past runs: least squares, held by what is known before any run.

Every coefficient has a prior (`NEW` and `OLD` in `daemon.core.plans.law`) and a width; both are of logarithms, but
of `trunk`. The widths let three runs say where they lie and keep what they cannot tell where it was: the forms and
exponents are the paper's (arXiv 2505.07796), scales differ by orders of magnitude between models, so `speed` and
`relief` are wide. The error that is told is honest: each run is predicted from a fit of the others.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.plans.law import NEW, OLD, Law, Traits, forgetting, gain
from daemon.core.plans.planner import COVERED, measured, outcome, traits
from stages.run_folder import PastRun

NOISE = 0.005
RELATIVE = 0.1
SCATTER = 0.1
"""By how much a change is off, against which a prior is weighed: nats per byte, part of itself, and nats per byte of
one document, which fall as the root of their number."""
LEAST = 3
"""Runs below which no error is told."""
WIDTHS = {
    "share": 0.5,
    "unseen": 0.5,
    "first": 0.5,
    "room": 0.5,
    "offset": 1.0,
    "speed": 2.0,
    "relief": 1.5,
    "reach": 1.0,
    "transfer": 1.0,
    "anneal": 1.0,
}
TRUNK_WIDTH = 0.03
MOST_STEPS = 200
PRECISION = 1e-6
logger = logging.getLogger("rewarm.stage")

Coefficients = dict[str, float]
Formula = Callable[[Law, Traits], float]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a run teaches: its traits, how far old losses rose (None: there were none) and new ones fell.

    The documents are those of the domain that has the fewest.
    """

    traits: Traits
    forgetting: float | None
    gain: float
    old_documents: int = 1
    new_documents: int = 1


def fit(history: Sequence[PastRun]) -> Law | None:
    """Return the law of these runs; None where they teach nothing. It never raises: a law is no run's condition."""
    known, highest = points_of(history)
    if not known:
        return None
    try:
        return msgspec.structs.replace(fit_points(known), highest=highest)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        logger.exception("No law could be fitted to the past runs.", extra={"runs": len(known)})
        return None


def points_of(history: Sequence[PastRun]) -> tuple[list[Point], dict[str, float]]:
    """Return what the runs teach, in their order, and the highest loss that a probe met per domain.

    Each run is shown what was known before its own probe, nothing later. A run whose new domains were not measured
    before and after teaches nothing.
    """
    points = []
    highest: dict[str, float] = {}
    for past in history:
        lost, won = outcome(past.plan, past.evaluation)
        before = measured(past.plan, past.old, past.new, best=past.best, highest=highest)
        seen = traits(past.plan, past.plan.training, before)
        if seen is not None and won is not None:
            points.append(
                Point(
                    traits=seen,
                    forgetting=lost if before.old else None,
                    gain=won,
                    old_documents=_fewest(past, before.old),
                    new_documents=_fewest(past, before.new),
                )
            )
        for name, loss in {**past.new, **past.old}.items():  # of before where there are some: the same ones as ever
            highest[name] = max(loss.mean, highest.get(name, loss.mean))
    return points, highest


def _fewest(past: PastRun, domains: Iterable[str]) -> int:
    return max(
        1, min((past.evaluation[name].candidate.documents for name in domains if name in past.evaluation), default=1)
    )


def fit_points(points: Sequence[Point]) -> Law:
    """Return the law of these points, with its error where there are enough of them."""
    law = fitted(points)
    if len(points) < LEAST:
        return law
    return msgspec.structs.replace(law, error=float(f"{np.mean(left_out(points)):.12g}"))


def left_out(points: Sequence[Point]) -> list[float]:
    """Return |error| of every forgetting and gain, each predicted by a law of the other points."""
    errors = []
    for index, point in enumerate(points):
        law = fitted([*points[:index], *points[index + 1 :]])
        errors.append(abs(gain(law, point.traits) - point.gain))
        if point.forgetting is not None:
            errors.append(abs(forgetting(law, point.traits) - point.forgetting))
    return errors


def fitted(points: Sequence[Point]) -> Law:
    """Return the law of these points, without its error."""
    won = [(point.traits, point.gain, point.new_documents) for point in points]
    lost = [(p.traits, p.forgetting, p.old_documents) for p in points if p.forgetting is not None]
    covered = {
        name: (
            float(min(getattr(point.traits, name) for point in points)),
            float(max(getattr(point.traits, name) for point in points)),
        )
        for name in COVERED
    }
    return Law(
        runs=len(points),
        error=None,
        new=_side(NEW, won, lambda numbers: Law(runs=0, error=None, new=numbers), gain),
        old=_side(OLD, lost, lambda numbers: Law(runs=0, error=None, old=numbers), forgetting) if lost else {},
        covered=covered,
    )


def _side(
    prior: Coefficients,
    points: Sequence[tuple[Traits, float, int]],
    law_of: Callable[[Coefficients], Law],
    formula: Formula,
) -> Coefficients:
    """Return the coefficients nearest to the points and to the prior, to 12 digits."""
    from scipy.optimize import least_squares

    names = list(prior)
    goal = np.array([value for _, value, _ in points])
    noise = NOISE + RELATIVE * np.abs(goal) + SCATTER / np.sqrt([documents for _, _, documents in points])

    def coefficients(offsets: npt.NDArray[np.float64]) -> Coefficients:
        return {
            name: prior[name] + offset * TRUNK_WIDTH if name == "trunk" else prior[name] * np.exp(offset * WIDTHS[name])
            for name, offset in zip(names, offsets.tolist(), strict=True)
        }

    def residuals(offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        law = law_of(coefficients(offsets))
        predicted = np.array([formula(law, seen) for seen, _, _ in points])
        return np.concatenate(((predicted - goal) / noise, offsets))

    found = least_squares(
        residuals, np.zeros(len(names)), bounds=(-4.0, 4.0), ftol=PRECISION, xtol=PRECISION, max_nfev=MOST_STEPS
    )
    return {name: float(f"{value:.12g}") for name, value in coefficients(found.x).items()}
