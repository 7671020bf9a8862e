"""What reading itself has shown to be wrong, beside what a look can see: what is left out, and what is told of it."""

from daemon.sources.kafka.judge import Trouble

LOOKS = 3
"""For how many looks something is left out that could not be read, before it is tried again."""


class Setbacks:
    """Instants are seconds of one clock; `look` is the time between two looks."""

    def __init__(self, look: float) -> None:
        self._look = look
        self._held: dict[str, float] = {}
        self._notes: dict[str, tuple[Trouble, float]] = {}
        self.faults: dict[str, str] = {}

    @property
    def pause(self) -> float:
        """After how many seconds something is tried again."""
        return LOOKS * self._look

    def hold(self, cursor: str, until: float) -> None:
        """Read this again only by a look that began at `until` or later."""
        self._held[cursor] = until

    def holds(self, cursor: str, began: float) -> bool:
        """Return whether the look that began then is too early."""
        return self._held.get(cursor, 0.0) > began

    def note(self, name: str, condition: str, reason: str, now: float) -> None:
        """Let a trouble stand until it has not come again for twice the pause."""
        self._notes[name] = Trouble(condition=condition, reason=reason), now + 2 * self.pause

    def over(self, name: str, *cursors: str) -> None:
        """Forget a trouble, and what is known of these cursors."""
        self._notes.pop(name, None)
        for cursor in cursors:
            self._held.pop(cursor, None)
            self.faults.pop(cursor, None)

    def troubles(self, now: float) -> dict[str, Trouble]:
        """Return the troubles that stand."""
        self._notes = {name: note for name, note in self._notes.items() if note[1] > now}
        return {name: trouble for name, (trouble, _) in self._notes.items()}
