"""Which checkpoints an attempt with remedies may go on from."""

import pytest

from daemon.core.plans import NO_REMEDY, Document, Remedy, Span
from stages.training.engine.checkpoint import Saved
from stages.training.engine.lineage import is_ancestor, is_left_out, left_out

SKIP = (Span(after=100, upto=300),)
BACK = Remedy(skip=SKIP, before=100)
MORE = Remedy(skip=(*SKIP, Span(after=450, upto=650)), before=400)
OUT = Remedy(without=(Document(arrival=1, number=2),), before=56)


def saved(step: int, remedy: Remedy = NO_REMEDY) -> Saved:
    """Return the manifest of a checkpoint."""
    return Saved(step=step, steps=1000, seed=0, plan="", files={}, remedy=remedy)


@pytest.mark.parametrize(
    ("step", "made", "now", "fits"),
    [
        (999, NO_REMEDY, NO_REMEDY, True),
        (100, NO_REMEDY, BACK, True),
        (101, NO_REMEDY, BACK, False),
        (350, BACK, BACK, True),
        (350, BACK, MORE, True),
        (400, BACK, MORE, True),
        (401, BACK, MORE, False),
        (200, BACK, MORE, True),
        (299, NO_REMEDY, MORE, False),
        (90, NO_REMEDY, MORE, True),
        (56, NO_REMEDY, OUT, True),
        (57, NO_REMEDY, OUT, False),
        (57, OUT, OUT, True),
        (57, OUT, NO_REMEDY, False),
        (40, NO_REMEDY, Remedy(before=39), False),
        (39, NO_REMEDY, Remedy(before=39), True),
        (40, Remedy(before=39), Remedy(before=39), True),
        (999, Remedy(accumulate=4), Remedy(accumulate=8), True),
    ],
)
def test_what_the_same_remedies_would_have_led_to(step: int, made: Remedy, now: Remedy, fits: bool) -> None:
    """Its own ones whatever the step; others up to `before`, where the same batches were left out until then."""
    assert is_ancestor(saved(step, made), now) is fits


def test_the_batches_that_are_left_out() -> None:
    """Spans are (after, upto], and are counted up to a step."""
    assert [step for step in (100, 101, 300, 301) if is_left_out(BACK, step)] == [101, 300]
    assert [left_out(MORE, step) for step in (100, 101, 300, 449, 1000)] == [0, 1, 200, 200, 400]
