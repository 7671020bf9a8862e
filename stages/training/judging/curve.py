"""What the next training is worth, by the learning curve of those before: loss(x) = c + a x^-b (arXiv 2402.02515).

It is asked at a horizon, never for the asymptote, and only once it has shown that it can: of each of the last two runs,
fitted to those before it, it must have come twice as near as the guess that nothing changes any more.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daemon.core.plans import tokens
from stages.run_folder import PastRun

FEWEST = 5
"""Runs below which nothing is told: three numbers are fitted to all but two of them."""
TRIED = 2
NEARER = 0.5
POWERS = np.geomspace(0.05, 2.0, 40)
Floats = npt.NDArray[np.float64]


def expected_gain(history: Sequence[PastRun], new_tokens: int) -> float | None:
    """Return by how much the mean loss would fall with so many more tokens, in its own unit; None: not known.

    The curve goes over the domains that all the runs were evaluated on, by the tokens trained on until then.
    """
    common = sorted(set.intersection(*(set(run.evaluation) for run in history))) if history else []
    if len(history) < FEWEST or not common:
        return None
    seen = float(tokens(history[0].plan.past))
    sizes, losses = [], []
    for run in history:
        seen += run.plan.training.tokens
        sizes.append(seen)
        losses.append(float(np.mean([run.evaluation[domain].candidate.mean for domain in common])))
    x, y = np.array(sizes), np.array(losses)
    if not _trusted(x, y):
        return None
    now, then = predict(x, y, x[-1]), predict(x, y, x[-1] + new_tokens)
    return None if now is None or then is None else round(max(0.0, now - then), 9)


def _trusted(x: Floats, y: Floats) -> bool:
    """Return whether the curve would have told the last runs better than the guess that they change nothing."""
    missed = guessed = 0.0
    for at in range(len(x) - TRIED, len(x)):
        told = predict(x[:at], y[:at], x[at])
        if told is None:
            return False
        missed += abs(told - y[at])
        guessed += abs(y[at - 1] - y[at])
    return missed <= NEARER * guessed


def predict(x: Floats, y: Floats, at: float) -> float | None:
    """Return the loss at a size by least squares over a and c for each power b; None when no falling curve fits."""
    best: tuple[float, float] | None = None
    for power in POWERS:
        base = (x / x[0]) ** -power
        design = np.stack([np.ones_like(base), base], axis=1)
        (c, a), *_ = np.linalg.lstsq(design, y, rcond=None)
        if a <= 0 or c < 0:
            continue
        error = float(((design @ np.array([c, a]) - y) ** 2).sum())
        if best is None or error < best[0]:
            best = error, float(c + a * (at / x[0]) ** -power)
    return None if best is None else best[1]
