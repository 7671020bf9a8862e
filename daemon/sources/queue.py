"""The bounded queue between sources and the loop: a full one makes its sources wait, it never drops."""

import queue
import threading

from daemon.door import Input

BATCH = 500


class Inbox:
    """Inputs in the order in which they came. `put` waits while the queue is full or intake is paused."""

    def __init__(self, size: int = 64) -> None:
        self._queue: queue.Queue[Input | None] = queue.Queue(size)
        self._open = threading.Event()
        self._open.set()
        self._closed = threading.Event()

    def put(self, item: Input) -> bool:
        """Add an input; returns False when the inbox was closed instead."""
        while not self._closed.is_set():
            if self._open.wait(0.2) and not self._closed.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                except queue.Full:
                    continue
                return True
        return False

    def take(self, timeout: float | None) -> list[Input]:
        """Return what waits, up to about a transaction's worth; waits up to `timeout` seconds for the first."""
        taken: list[Input] = []
        try:
            first = self._queue.get(timeout=timeout)
            while first is not None:
                taken.append(first)
                if sum(len(item.offers) for item in taken) >= BATCH:
                    break
                first = self._queue.get_nowait()
        except queue.Empty:
            pass
        return taken

    def wake(self) -> None:
        """Make a waiting `take` return."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def pause(self) -> None:
        """Let sources wait: the journal cannot take anything for now."""
        self._open.clear()

    def resume(self) -> None:
        """Let sources go on."""
        self._open.set()

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed.set()
        self._open.set()

    def depth(self) -> int:
        """Return how many inputs wait."""
        return self._queue.qsize()
