"""How long the brokers are waited for."""

import threading
import time

import pytest

from daemon.core.errors import BrokerError
from ops.publishing.patience import Ended, Patience


def waiting(event: threading.Event, stop: threading.Event, seconds: float) -> float:
    """Return how long was waited for an event."""
    began = time.monotonic()
    Patience(stop, seconds).wait(event.wait, "Sending")
    return time.monotonic() - began


def test_what_is_done_is_not_waited_for() -> None:
    """It returns at once, also when we are asked to end."""
    done, stop = threading.Event(), threading.Event()
    done.set()
    stop.set()
    assert waiting(done, stop, 10) < 0.1


def test_a_step_has_its_time() -> None:
    """Afterwards it is told what took too long."""
    with pytest.raises(BrokerError, match=r"Sending has not ended within 0\.2 s"):
        waiting(threading.Event(), threading.Event(), 0.2)


def test_the_end_cuts_it_short() -> None:
    """A step of a minute ends soon after we are asked to."""
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Ended):
        waiting(threading.Event(), stop, 60)
    assert time.monotonic() - began < 0.9
