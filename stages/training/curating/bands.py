"""Bands of scores: what a cut keeps of each domain, and how a domain's scores lie.

Each domain is cut by its own scores. One that the champion knows less of lies above the others as a whole: a band
over everything would take the new for noise.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.events import Band
from daemon.core.plans import Cut

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
BINS = 60
DIGITS = 9


class Bounds(msgspec.Struct, frozen=True):
    """The lowest and the highest score that stay."""

    low: float
    high: float

    def keeps(self, scores: Floats) -> Bools:
        """Return which scores stay."""
        return (scores >= self.low) & (scores <= self.high)


def bounds(scores: Floats, cut: Cut, by: str) -> Bounds:
    """Return between which scores a cut keeps: a share goes of each tail, or what is so many sigma from the mean."""
    if by == "sigma":
        mean, sigma = float(scores.mean()), float(scores.std())
        return Bounds(mean - cut.low * sigma, mean + cut.high * sigma)
    low, high = np.quantile(scores, (cut.low, 1 - cut.high))
    return Bounds(float(low), float(high))


def quantiles(scores: Floats) -> dict[str, float]:
    """Return the scores below which the shares QUANTILES lie, by share."""
    return {
        f"{share:g}": rounded(value) for share, value in zip(QUANTILES, np.quantile(scores, QUANTILES), strict=True)
    }


def scale(scores: Floats) -> tuple[float, float]:
    """Return between which scores a histogram of them is drawn: without the very ends of long tails."""
    low, high = map(rounded, np.quantile(scores, (0.001, 0.999)))
    return low, high if high > low else low + 1


def band(scores: Floats, kept: Bounds, over: tuple[float, float]) -> Band:
    """Return how a domain's scores lie, and what stays of them; `over` is the scale of its histogram."""
    counts, _ = np.histogram(np.clip(scores, *over), BINS, over)
    return Band(
        documents=len(scores),
        kept=int(kept.keeps(scores).sum()),
        mean=rounded(scores.mean()),
        sigma=rounded(scores.std()),
        low=rounded(kept.low),
        high=rounded(kept.high),
        quantiles=quantiles(scores),
        counts=tuple(counts.tolist()),
    )


def rounded(value: float) -> float:
    """Return a number as events tell it."""
    return round(float(value), DIGITS)
