"""Whether the roots elsewhere can be listed, asked all at once and not for ever."""

import threading
import time
from collections.abc import Sequence

from daemon.cli.checks import Check, Level
from daemon.core.errors import RewarmError
from stages.roots import Remote

LIST_SECONDS = 15.0


def root_checks(remotes: Sequence[Remote], seconds: float = LIST_SECONDS) -> list[Check]:
    """Return for each root elsewhere whether it can be listed within so many seconds."""
    looks = [_Look(remote) for remote in remotes]
    for each in looks:
        each.start()
    until = time.monotonic() + seconds
    return [each.check(until) for each in looks]


class _Look(threading.Thread):
    """One root; a daemon thread, since a library that hangs would keep the command from ending."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(name=f"root {remote.url}", daemon=True)
        self._remote = remote
        self._found: Check | None = None

    def run(self) -> None:
        """Look."""
        from stages.training.reading.remote import look
        from stages.training.reading.unusable import Unusable

        try:
            look(self._remote)
        except Unusable:
            told = f"{self._remote.url} is not there, or its server lists nothing"
            self._found = self._tell("note", told, "check the url; a server may give files all the same")
        except RewarmError as error:
            self._found = self._tell("wrong", str(error), "what lies there waits until it can be read")
        else:
            self._found = self._tell("ok", f"{self._remote.url} can be listed")

    def check(self, until: float) -> Check:
        """Return what was found; waits until then at most."""
        self.join(max(0.0, until - time.monotonic()))
        told = f"{self._remote.url} gave no answer in time"
        return self._found or self._tell("wrong", told, "check the network, and the store's address")

    def _tell(self, level: Level, message: str, advice: str = "") -> Check:
        return Check(name="root", level=level, message=message, advice=advice)
