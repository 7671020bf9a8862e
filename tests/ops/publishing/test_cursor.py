"""Up to where all was told, by the cursors that are known."""

import pytest

from ops.publishing.cursor import reached

ANCESTORS = {"first": 10, "second": 30}
HEAD = 50


@pytest.mark.parametrize(
    ("cursors", "position"),
    [
        ({}, None),
        ({"own": 40}, 40),
        ({"own": 51}, HEAD),
        ({"own": 5, "second": 25}, 5),
        ({"first": 8}, 8),
        ({"first": 99}, 10),
        ({"first": 99, "second": 25}, 25),
        ({"first": 9, "second": 99}, 30),
        ({"stranger": 40}, None),
    ],
)
def test_what_cursors_say(cursors: dict[str, int], position: int | None) -> None:
    """Its own cursor decides, never beyond the head; else the furthest of the ancestors', as far as they are common."""
    assert reached(cursors, "own", ANCESTORS, HEAD) == position
