"""The thread that looks at the cluster from time to time, and leaves hints; and another one that tells of troubles.

Looks and hints may wait for a broker, and telling for the inbox; whoever reads must wait for neither.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from daemon.broker.sight import Looks, Sight
from daemon.core.errors import BrokerError
from daemon.sources.kafka.judge import Place, Trouble

SOONEST_SECONDS = 0.2
BLIND_SECONDS = 1.0
HINT_SECONDS = 1.0
LONGEST_HINT_SECONDS = 300.0
HINTS_REFUSED = 3
"""After how many refusals in a row it is said once; a group's coordinator may be on its way."""
logger = logging.getLogger("rewarm.kafka")


class Hints(Protocol):
    """Tells the cluster's own tools how far somebody has come; nothing depends on it."""

    def leave(self, positions: Mapping[Place, int]) -> None:
        """Leave word; raises BrokerError."""

    def close(self) -> None:
        """Let go of the connections."""


class Watch:
    """Looks every so often, and soon when asked to.

    `seen` and `blind` are called in its thread, `report` in another one.
    """

    def __init__(
        self,
        name: str,
        *,
        topics: Collection[str],
        every: float,
        looks: Callable[[], Looks],
        hints: Callable[[], Hints],
        seen: Callable[[Sight, float], None],
        blind: Callable[[BrokerError], None],
        report: Callable[[str, str | None], None],
    ) -> None:
        self._topics = topics
        self._every = every
        self._make_looks = looks
        self._make_hints = hints
        self._seen = seen
        self._blind = blind
        self._report = report
        self._looks: Looks | None = None
        self._hints: Hints | None = None
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._asked = False
        self._troubles: Mapping[str, Trouble] = {}
        self._told: dict[str, str] = {}
        self._positions: Mapping[Place, int] = {}
        self._left: Mapping[Place, int] = {}
        self._look_at = self._looked_at = self._hint_at = 0.0
        self._reachable = False
        self.hints_refused = 0
        self._name = name
        self._telling = False
        self._thread = threading.Thread(target=self._run, name=f"{name} watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def ask(self) -> None:
        """Look again soon: something has changed."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()

    def tell(self, troubles: Mapping[str, Trouble]) -> None:
        """Let these be all the troubles there are: what is new is reported, and what is over."""
        with self._changed:
            self._troubles = troubles
            if self._untold():
                self._changed.notify_all()

    def hint(self, positions: Mapping[Place, int]) -> None:
        """Leave word of these positions some time."""
        with self._changed:
            self._positions = positions
            if self._reachable and positions != self._left:
                self._changed.notify_all()

    def stop(self) -> None:
        """End as soon as the broker, or the inbox, lets go."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the end; returns whether it has come."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                if now >= self._look_due():
                    self._look(now)
                if self._untold():
                    self._telling = True
                    threading.Thread(target=self._tell_news, name=f"{self._name} tells", daemon=True).start()
                if not self._stopped.is_set() and self._hint_due() <= time.monotonic():
                    self._leave_hint()
                with self._changed:
                    if not self._stopped.is_set() and not self._untold():
                        self._changed.wait(max(0.0, self._due() - time.monotonic()))
        finally:
            for each in (self._looks, self._hints):
                if each is not None:
                    each.close()

    def _due(self) -> float:
        return min(self._look_due(), self._hint_due())

    def _look_due(self) -> float:
        soon = self._asked and self._reachable
        return min(self._look_at, self._looked_at + SOONEST_SECONDS) if soon else self._look_at

    def _hint_due(self) -> float:
        waiting = self._reachable and self._positions != self._left
        return self._hint_at if waiting else float("inf")

    def _look(self, began: float) -> None:
        self._asked = False
        try:
            if self._looks is None:
                self._looks = self._make_looks()
            sight = self._looks.look(self._topics)
        except Exception as error:  # noqa: BLE001 - whatever the library does, looking goes on
            self._reachable = False
            self._look_at = time.monotonic() + min(self._every, BLIND_SECONDS)
            known = (
                error if isinstance(error, BrokerError) else BrokerError(f"Looking at the cluster failed: {error!r}.")
            )
            self._blind(known)
        else:
            self._reachable = True
            self._look_at = time.monotonic() + self._every
            self._seen(sight, began)
        self._looked_at = time.monotonic()

    def _news(self) -> list[tuple[str, Trouble | None]]:
        """Return what has to be told: new troubles, those of another kind than before, and what is over."""
        troubles = self._troubles
        news: list[tuple[str, Trouble | None]] = [(name, None) for name in self._told if name not in troubles]
        return news + [(name, each) for name, each in troubles.items() if self._told.get(name) != each.condition]

    def _untold(self) -> bool:
        """Return whether there are news, and nobody who tells them."""
        return not self._telling and bool(self._news())

    def _tell_news(self) -> None:
        while True:
            with self._changed:
                news = self._news()
                if not news or self._stopped.is_set():
                    self._telling = False
                    return
            name, trouble = news[0]
            if trouble is None:
                del self._told[name]
                logger.info("What was wrong with a source is over.", extra={"source": name})
            else:
                self._told[name] = trouble.condition
                logger.warning("Something of a source is not read.", extra={"source": name, "why": trouble.reason})
            self._report(name, trouble.reason if trouble else None)

    def _leave_hint(self) -> None:
        positions = self._positions
        try:
            if self._hints is None:
                self._hints = self._make_hints()
            self._hints.leave(positions)
        except Exception as error:  # noqa: BLE001 - nothing depends on a hint
            if self.hints_refused == HINTS_REFUSED:
                logger.warning("The group's offsets cannot be told; reading goes on.", extra={"error": str(error)})
            self.hints_refused += 1
            wait = min(LONGEST_HINT_SECONDS, HINT_SECONDS * 2 ** min(self.hints_refused, 10))
            self._hint_at = time.monotonic() + wait
        else:
            self.hints_refused = 0
            self._left = positions
            self._hint_at = time.monotonic() + HINT_SECONDS
