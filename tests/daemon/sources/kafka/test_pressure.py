"""When it pauses, and when it goes on."""

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.sources.kafka.pressure import Pressure


def test_it_pauses_at_the_high_mark_and_goes_on_at_the_low_one() -> None:
    """In between it stays as it is."""
    pressure = Pressure(high=10, low=3)
    assert pressure.room(500) == 10
    pressure.take(9)
    assert (pressure.paused, pressure.room(500)) == (False, 1)
    pressure.take(1)
    assert (pressure.paused, pressure.room(500)) == (True, 0)
    pressure.give(6)
    assert pressure.paused
    pressure.give(1)
    assert (pressure.paused, pressure.room(5), pressure.room(500)) == (False, 5, 7)


@settings(max_examples=40)
@given(st.integers(1, 50), st.data())
def test_it_never_gets_more_in_hand_than_the_high_mark_and_never_stays_paused(high: int, data: st.DataObject) -> None:
    """As long as nobody takes more than there is room for; when nothing is in hand, there is room."""
    pressure = Pressure(high=high, low=data.draw(st.integers(0, high - 1)))
    for _ in range(30):
        room = pressure.room(data.draw(st.integers(1, 20)))
        if room and data.draw(st.booleans()):
            pressure.take(data.draw(st.integers(0, room)))
        else:
            pressure.give(data.draw(st.integers(0, pressure.in_hand)))
        assert 0 <= pressure.in_hand <= high
    pressure.give(pressure.in_hand)
    assert pressure.room(1) == 1
