"""The learning curve of past runs says what the next training is worth, or that it is not known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from daemon.core.events import Comparison, Loss
from daemon.core.plans import Amount, Checkpoint, Limits, ModelSettings, Plan, Schedule, Start, Training
from stages.run_folder import PastRun
from stages.training.judging.curve import FEWEST, expected_gain, predict

EACH = 100_000


def run(number: int, loss: float, domain: str = "prose") -> PastRun:
    """Return an increment over EACH tokens after which the domain's loss is `loss`."""
    measured = Loss(mean=loss, low=loss, high=loss, documents=50, bytes=50_000)
    plan = Plan(
        kind="increment",
        start=Start(kind="champion", version=1, checkpoint=Checkpoint(path="v1", sha256="0" * 64)),
        parent=1,
        spans=(),
        new={domain: Amount(arrivals=1, tokens=EACH)},
        past={"prose": Amount(arrivals=1, tokens=EACH)},
        model=ModelSettings(),
        stages=(),
        training=Training(
            tokens=EACH,
            batch=4,
            context=64,
            replay=0.0,
            schedule=Schedule(kind="rewarm", peak=1e-3, floor=1e-4, plateau=5e-4),
            optimiser="keep",
            seed=1,
        ),
        limits=Limits(),
    )
    return PastRun(run=f"p-{number}", plan=plan, old={}, new={}, evaluation={domain: Comparison(candidate=measured)})


def history(losses: Sequence[float]) -> list[PastRun]:
    """Return increments after which the losses were these."""
    return [run(number, loss) for number, loss in enumerate(losses)]


def curve(tokens: float) -> float:
    """Return the loss that follows from so many tokens, by the law of the curve."""
    return 1.0 + 2.0 / math.sqrt(tokens / EACH)


def test_a_curve_is_gone_on_with() -> None:
    """Runs on a curve: the gain that is expected of twice the tokens is the curve's."""
    told = expected_gain(history([curve(EACH * (2 + n)) for n in range(8)]), 4 * EACH)

    assert told == pytest.approx(curve(9 * EACH) - curve(13 * EACH), abs=0.01)


def test_more_tokens_are_worth_more_and_later_ones_less() -> None:
    """The expected gain grows with the tokens, and falls with what was trained before."""
    early, late = (history([curve(EACH * (2 + n)) for n in range(count)]) for count in (8, 24))
    more, little, later = expected_gain(early, 4 * EACH), expected_gain(early, EACH), expected_gain(late, 4 * EACH)

    assert more is not None
    assert little is not None
    assert later is not None
    assert more > little > 0
    assert later < more


def test_what_has_not_shown_that_it_predicts_is_silent() -> None:
    """Losses that jump about, too few runs, or domains that differ from run to run: nothing is told."""
    assert expected_gain(history([2.0, 1.4, 1.9, 1.5, 2.1, 1.6]), EACH) is None
    assert expected_gain(history([curve(EACH * (2 + n)) for n in range(FEWEST - 1)]), EACH) is None
    assert expected_gain([run(n, 1.5, domain=f"d{n}") for n in range(8)], EACH) is None
    assert expected_gain([], EACH) is None


def test_a_rising_loss_has_no_curve() -> None:
    """Where more data made it worse there is nothing to extrapolate."""
    assert predict(np.array([1.0, 2, 3, 4]), np.array([1.0, 1.1, 1.2, 1.3]), 5.0) is None
