"""Back-pressure: how many records may be in hand, offered to the inbox and not answered yet. Pure."""


class Pressure:
    """Pauses from `high` records in hand, and goes on from `low` of them."""

    def __init__(self, high: int, low: int) -> None:
        self._high = high
        self._low = low
        self.in_hand = 0
        self.paused = False

    def take(self, records: int) -> None:
        """Take records in hand."""
        self.in_hand += records
        self._judge()

    def give(self, records: int) -> None:
        """Let go of records: they are in the journal, or will be read again."""
        self.in_hand -= records
        self._judge()

    def room(self, most: int) -> int:
        """Return how many records may come now, `most` of them at most; 0 while paused."""
        return 0 if self.paused else min(most, self._high - self.in_hand)

    def _judge(self) -> None:
        if self.in_hand >= self._high:
            self.paused = True
        elif self.in_hand <= self._low:
            self.paused = False
