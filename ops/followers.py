"""The followers that live in the daemon's process, together: begun, woken, measured and ended as one."""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from daemon.core.events import Record
from daemon.core.state import State

STOP_SECONDS = 1.0


class Follower(Protocol):
    """Reads the journal in a thread of its own, and tells somebody; `label` is what metrics call it."""

    @property
    def label(self) -> str:
        """The follower's name among all of them."""

    @property
    def behind(self) -> int:
        """How many records lie before it."""

    def begin(self) -> None:
        """Take up the cursor; called before `run`, and never waits for anybody outside."""

    def run(self) -> None:
        """Tell until `stop`."""

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Take note that the journal has grown."""

    def stop(self) -> None:
        """End `run` soon; what was not told yet is told by the next daemon."""


class Followers:
    """A thread for each follower; none waits for another, nor anybody for them."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = tuple(followers)
        self._threads = [threading.Thread(target=each.run, name=each.label, daemon=True) for each in self._followers]

    def start(self) -> None:
        """Take up every cursor, then begin to tell: what is recorded from here on is told."""
        for follower in self._followers:
            follower.begin()
        for thread in self._threads:
            thread.start()

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Wake everyone: the journal has grown."""
        for follower in self._followers:
            follower.observe(records, state)

    def behind(self) -> dict[str, int]:
        """Return how many records lie before each follower."""
        return {follower.label: follower.behind for follower in self._followers}

    def stop(self) -> None:
        """End; one that hangs is left to it after a second, and what it did not tell the next daemon tells."""
        for follower in self._followers:
            follower.stop()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
