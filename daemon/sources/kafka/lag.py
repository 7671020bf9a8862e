"""How far behind a partition is: in records, and as the age of its oldest record that is not journaled. Pure."""

from collections import deque
from itertools import pairwise

KEPT = 64


class Ends:
    """Where a partition's end was seen, and when: `at` in seconds of any one clock, never decreasing."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def last(self) -> int | None:
        """The end as it was seen last."""
        return self._seen[-1][1] if self._seen else None

    def see(self, at: float, end: int) -> None:
        """Take note of an end; what was seen long ago is kept more and more thinly."""
        if self._seen and end < self._seen[-1][1]:
            self._seen.clear()  # records were taken away: what was known of them says nothing of the new ones
        self._seen.append((at, end))
        if len(self._seen) > KEPT:
            half = KEPT // 2
            old, new = list(self._seen)[:half], list(self._seen)[half:]
            self._seen = deque(old[::2] + new)

    def age(self, position: int, now: float) -> float | None:
        """Return for how long the record at `position` has been there, 0 where there is none; None: not known.

        It came between the last sight of an end before it, or at it, and the first of one after it; between two
        sights records are taken to have come evenly.
        """
        if not self._seen:
            return None
        if position >= self._seen[-1][1]:
            return 0.0
        while len(self._seen) > 1 and self._seen[1][1] <= position:
            self._seen.popleft()
        for (before, low), (after, high) in pairwise(self._seen):
            if low <= position < high:
                came = before + (after - before) * (position - low) / (high - low)
                return max(0.0, now - came)
        return None
