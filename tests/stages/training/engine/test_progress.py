"""What is told of a training on the way."""

import pytest

from stages.training.engine.progress import CURVE_POINTS, SMOOTHED, Progress, Speed


@pytest.mark.parametrize("steps", [1, 7, CURVE_POINTS - 1, CURVE_POINTS, CURVE_POINTS + 1, 799, 12_345])
def test_a_curve_has_at_most_its_points_and_ends_with_the_last_step(steps: int) -> None:
    """However long the training is."""
    progress = Progress(steps)
    points = [step for step in range(1, steps + 1) if progress.due(step)]

    assert len(points) <= CURVE_POINTS
    assert points[-1] == steps


def test_a_point_is_the_mean_since_the_last_one() -> None:
    """Of all rows, of each domain's, and of the norms."""
    progress = Progress(10)
    assert progress.told() == {}
    progress.note(["a", "b"], [1.0, 2.0], 0.5)
    progress.note(["a", "a"], [3.0, 5.0], 1.5)

    assert progress.point() == {"loss": 2.75, "loss_a": 3.0, "loss_b": 2.0, "gradient_norm": 1.0}
    progress.note(["b"], [4.0], 1.0)
    assert progress.point() == {"loss": 4.0, "loss_b": 4.0, "gradient_norm": 1.0}


def test_the_speed_is_that_of_the_last_seconds() -> None:
    """A slow beginning is forgotten; no time, no speed."""
    now = 0.0
    speed = Speed(100, lambda: now)
    assert speed.at(100) == 0.0
    step = 100
    for _ in range(30):
        now, step = now + 1, step + 1
        assert speed.at(step) == 1.0
    for _ in range(int(SMOOTHED) + 2):
        now, step = now + 1, step + 10
        told = speed.at(step)

    assert told == 10.0
