"""What was seen: found in whatever order and however often it is added."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.training.data.seen import HELD_OUT, NOWHERE, Index

NUMBERS = st.lists(st.integers(min_value=1, max_value=40), max_size=30)


@settings(deadline=None, max_examples=40)
@given(added=st.lists(st.tuples(NUMBERS, st.booleans()), max_size=8), asked=NUMBERS)
def test_an_index_knows_the_part_of_each_key(added: list[tuple[list[int], bool]], asked: list[int]) -> None:
    """A key in both parts is held out, one that was never added and the number for none are nowhere."""
    known: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder))
        for numbers, held in added:
            index.add([np.array([2 * number | held for number in numbers], dtype=np.uint64)])
            for number in numbers:
                known[number] = max(known.get(number, NOWHERE), int(held))
        found = index.find(np.array([2 * number for number in asked] + [0], dtype=np.uint64))

    assert found.tolist() == [*(known.get(number, NOWHERE) for number in asked), NOWHERE]
    assert max(found, default=NOWHERE) <= HELD_OUT


def test_what_is_added_often_lies_in_few_runs(tmp_path: Path) -> None:
    """A thousand small arrivals leave about ten runs to look through."""
    index = Index(tmp_path)
    for number in range(1, 1001):
        index.add([np.array([2 * number], dtype=np.uint64)])

    assert len(index._runs) <= 10  # noqa: SLF001 - what a look-up costs
    assert (index.find(np.arange(2, 2002, 2, dtype=np.uint64)) != NOWHERE).all()
