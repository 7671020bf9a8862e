"""The bounded queue between sources and the loop: a full one makes its sources wait, it never drops."""

import threading
from collections import deque

from daemon.door import Input

BATCH = 500
INPUTS = 1024
WEIGHT = 32 << 20
"""Bytes that may wait, counting each offer as its text and a kibibyte; one input more than that gets in."""


class Inbox:
    """Inputs in the order in which they came. `put` waits while the queue is full or intake is paused."""

    def __init__(self, size: int = INPUTS, weight: int = WEIGHT) -> None:
        self._size = size
        self._most = weight
        self._items: deque[tuple[Input, int]] = deque()
        self._weight = 0
        self._changed = threading.Condition()
        self.paused = False
        self._closed = False
        self._woken = False

    def put(self, item: Input) -> bool:
        """Add an input; returns False when the inbox was closed instead."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._takes())
            return self._add(item)

    def offer(self, item: Input) -> bool:
        """Add an input if there is room for it now."""
        with self._changed:
            return self._takes() and self._add(item)

    def take(self, timeout: float | None) -> list[Input]:
        """Return what waits, up to about a transaction's worth; waits up to `timeout` seconds for the first."""
        taken: list[Input] = []
        offers = 0
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._woken, timeout)
            self._woken = False
            while self._items and offers < BATCH:
                item, weight = self._items.popleft()
                self._weight -= weight
                offers += len(item.offers)
                taken.append(item)
            self._changed.notify_all()
        return taken

    def wake(self) -> None:
        """Make a waiting `take`, or the next one, return."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Let sources wait: the journal cannot take anything for now."""
        with self._changed:
            self.paused = True

    def resume(self) -> None:
        """Let sources go on."""
        with self._changed:
            self.paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse everything from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def depth(self) -> int:
        """Return how many inputs wait."""
        return len(self._items)

    def _takes(self) -> bool:
        return not self._closed and not self.paused and len(self._items) < self._size and self._weight < self._most

    def _add(self, item: Input) -> bool:
        if self._closed:
            return False
        weight = sum(len(offer.text or b"") + 1024 for offer in item.offers)
        self._items.append((item, weight))
        self._weight += weight
        self._changed.notify_all()
        return True
