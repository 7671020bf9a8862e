"""All sources of a daemon that have a thread of their own, together: prepared, begun, told and ended as one."""

import threading
from collections.abc import Sequence
from typing import Protocol

from daemon.core.events import Record


class Source(Protocol):
    """Feeds the inbox from its own thread; the other methods are called from the loop's thread."""

    name: str

    def prepare(self) -> None:
        """Make what `run` needs; called once, before it."""

    def run(self) -> None:
        """Feed the inbox until `stop`."""

    def stop(self) -> None:
        """End `run` soon."""

    def committed(self, records: Sequence[Record]) -> None:
        """Take note that the journal has moved on."""

    def forget(self) -> None:
        """Read again from where the journal stands: something that was sent did not get in."""


class Sources:
    """A thread for each source."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)

    def start(self) -> list[threading.Thread]:
        """Begin to read; returns the threads, which end after `stop`."""
        threads = []
        for source in self._sources:
            source.prepare()
            threads.append(threading.Thread(target=source.run, name=source.name, daemon=True))
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        """Read no more."""
        for source in self._sources:
            source.stop()

    def committed(self, records: Sequence[Record]) -> None:
        """Tell every source that the journal has moved on."""
        for source in self._sources:
            source.committed(records)

    def forget(self) -> None:
        """Tell every source that something did not get in."""
        for source in self._sources:
            source.forget()
