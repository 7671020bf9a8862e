"""The first signal asks, the second one ends; other signals mean what they meant."""

import os
import queue
import signal
import threading

from daemon.service.signals import Asked


def test_the_first_signal_asks_and_the_second_ends() -> None:
    """Actions run with the first, each of its own; the status of the second is 128 and its number."""
    ended, asked_twice = threading.Event(), threading.Event()
    statuses: list[int] = []
    told: list[str] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Asked(end) as asked:
        asked.then(lambda: told.append("first"))
        assert not asked.wait(0)
        assert not asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(10)
        asked.then(asked_twice.set)
        assert asked
        assert asked_twice.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert ended.wait(10)
    assert (statuses, told) == ([128 + signal.SIGINT], ["first"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_is_asked_for_late_is_done_at_once() -> None:
    """An action that is named after the signal came does not wait for the next one."""
    told: list[str] = []
    with Asked(lambda _: None) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(10)
        asked.then(lambda: told.append("late"))
        assert told == ["late"]


def test_a_hangup_asks_for_the_configuration_and_ends_nothing() -> None:
    """Each SIGHUP is told; of those that came before anybody listened, one."""
    ended: list[int] = []
    told: queue.Queue[str] = queue.Queue()
    before = signal.getsignal(signal.SIGHUP)
    with Asked(ended.append) as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)  # signals are read in their order: with this one the other was
        assert asked.wait(10)
        asked.then_reload(lambda: told.put("again"))
        assert told.get(timeout=10) == "again"
        os.kill(os.getpid(), signal.SIGHUP)
        assert told.get(timeout=10) == "again"
    assert (ended, told.empty(), signal.getsignal(signal.SIGHUP)) == ([], True, before)
