"""The watchdog: notices a partition that has more, and is read no further. Pure."""

from collections.abc import Mapping


class Watchdog:
    """Bites when a cursor stays behind its end for `seconds` without a step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, tuple[int, float]] = {}

    def rest(self) -> None:
        """Begin anew: for now nothing could have moved."""
        self._since.clear()

    def bites(self, stands: Mapping[str, tuple[int, int]], now: float) -> list[str]:
        """Return the cursors that are stuck at `now`; `stands` has of each where it is and where its end is."""
        self._since = {
            name: self._since[name] if name in self._since and self._since[name][0] == at else (at, now)
            for name, (at, end) in stands.items()
            if at < end
        }
        return [name for name, (_, since) in self._since.items() if now - since >= self._seconds]
