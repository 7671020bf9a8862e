"""When a partition counts as stuck."""

from daemon.sources.kafka.watchdog import Watchdog


def test_it_bites_when_there_is_more_and_no_step_for_long() -> None:
    """A step, or the end reached, begins the time anew; so does rest."""
    dog = Watchdog(10.0)
    assert dog.bites({"a": (5, 9), "b": (7, 7)}, 0.0) == []
    assert dog.bites({"a": (5, 9), "b": (7, 7)}, 9.0) == []
    assert dog.bites({"a": (6, 9), "b": (7, 8)}, 10.0) == []
    assert dog.bites({"a": (6, 30), "b": (7, 8)}, 19.9) == []
    assert dog.bites({"a": (6, 30), "b": (7, 8)}, 20.0) == ["a", "b"]
    dog.rest()
    assert dog.bites({"a": (6, 30)}, 21.0) == []
    assert dog.bites({"a": (30, 30)}, 31.0) == []
    assert dog.bites({"a": (30, 31)}, 32.0) == []
    assert dog.bites({"a": (30, 31)}, 42.0) == ["a"]
