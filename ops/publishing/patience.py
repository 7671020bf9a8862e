"""How long a step at the brokers is waited for: to its deadline, and hardly longer than somebody asks us to end."""

import threading
import time
from collections.abc import Callable
from typing import Final

from daemon.core.errors import BrokerError

LOOK_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 0.3
"""What a step under way is given once we are asked to end: enough where the brokers answer."""


class Ended(BrokerError):
    """We were asked to end, and the brokers did not answer meanwhile."""


class Patience:
    """Waits in short looks: the client's own waits have no end, and nobody can interrupt them."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        """Give each step so many seconds; `stop` says that we are asked to end."""
        self.seconds = seconds
        self._stop = stop

    def wait(self, done: Callable[[float], bool], what: str) -> None:
        """Return when `done`, which waits for as long as it is told, says so.

        Raises BrokerError when that takes too long, Ended when nobody waits for us any more.
        """
        until = time.monotonic() + self.seconds
        asked = False
        while not done(LOOK_SECONDS):
            now = time.monotonic()
            if self._stop.is_set() and not asked:
                asked, until = True, min(until, now + GRACE_SECONDS)
            if now >= until:
                if asked:
                    raise Ended(what)
                why = "the brokers do not answer, or a partition has no leader"
                raise BrokerError(f"{what} has not ended within {self.seconds:g} s: {why}.")
