"""All targets of a daemon together: begun, woken, measured and ended as one."""

import threading
import time
from collections.abc import Sequence

from daemon.core.events import Record
from daemon.core.state import State
from ops.notify.notifier import Notifier

STOP_SECONDS = 1.0


class Notifiers:
    """A thread for each target; none waits for another, nor anybody for them."""

    def __init__(self, notifiers: Sequence[Notifier]) -> None:
        self._notifiers = tuple(notifiers)
        self._threads = [
            threading.Thread(target=each.run, name=f"notify {each.name}", daemon=True) for each in self._notifiers
        ]

    def start(self) -> None:
        """Take up every cursor, then begin to tell: what is recorded from here on is told."""
        for notifier in self._notifiers:
            notifier.begin()
        for thread in self._threads:
            thread.start()

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Wake everyone: the journal has grown."""
        for notifier in self._notifiers:
            notifier.observe(records, state)

    def behind(self) -> dict[str, int]:
        """Return how many records lie before each target."""
        return {notifier.name: notifier.behind for notifier in self._notifiers}

    def stop(self) -> None:
        """End; a target that hangs is left to it after a second, and told again by the next daemon."""
        for notifier in self._notifiers:
            notifier.stop()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
