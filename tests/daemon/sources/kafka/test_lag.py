"""How long a record has been waiting, by when the end has passed it."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kafka.lag import KEPT, Ends


def test_the_age_is_taken_between_two_sights() -> None:
    """Ten records in ten seconds: the fifth came half-way."""
    ends = Ends()
    assert ends.age(0, 100.0) is None
    assert ends.last is None
    ends.see(100.0, 20)
    ends.see(110.0, 30)
    assert ends.age(25, 120.0) == 15.0
    assert ends.age(20, 120.0) == 20.0
    assert ends.age(30, 120.0) == 0.0
    assert ends.last == 30


def test_what_was_there_before_the_first_sight_has_no_known_age() -> None:
    """Nobody has seen it come."""
    ends = Ends()
    ends.see(100.0, 20)
    ends.see(110.0, 30)
    assert ends.age(19, 120.0) is None


def test_an_end_that_goes_back_begins_anew() -> None:
    """Records were taken away: the next at those offsets are younger."""
    ends = Ends()
    ends.see(100.0, 20)
    ends.see(110.0, 5)
    assert ends.age(3, 120.0) is None
    ends.see(120.0, 8)
    assert ends.age(5, 130.0) == 20.0


@given(st.lists(st.tuples(st.floats(0.1, 10), st.integers(0, 5)), min_size=1, max_size=300), st.integers(0, 400))
def test_the_age_is_between_the_sights_around_a_record(steps: list[tuple[float, int]], position: int) -> None:
    """However many sights there were, not many are kept, and the oldest stays: a long wait is not forgotten."""
    ends, at, end, first = Ends(), 0.0, 10, 10
    ends.see(at, end)
    came = None
    for seconds, records in steps:
        at += seconds
        before, end = end, end + records
        if came is None and before <= position < end:
            came = at - seconds, at
        ends.see(at, end)
    age = ends.age(position, at)
    if position >= end:
        assert age == 0.0
    elif position < first:
        assert age is None
    else:
        assert age is not None
        assert came is not None
        assert 0.0 <= age <= at + 1e-9
        if len(steps) < KEPT:
            assert at - came[1] - 1e-6 <= age <= at - came[0] + 1e-6
    assert len(ends._seen) <= KEPT  # noqa: SLF001 - what the class is for
