"""A drain that lets stages go: each is asked to save a checkpoint and end, and its last lines become facts."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread

from daemon.core.state import Order, State
from daemon.dispatch import attempts, outcomes
from daemon.dispatch.specification import attempt_folder
from daemon.door import Input
from stages.run_folder import finished, held

LOOK_SECONDS = 0.05
DRAIN = "drain"
logger = logging.getLogger("rewarm.daemon")


class Checkpoints:
    """The attempts of a state that have been sent out, and have not ended.

    The dispatcher must have ended: nobody else reads their files meanwhile. `record` commits an input, `cursor` tells
    how far the journal has read an attempt's file.
    """

    def __init__(
        self,
        state: State,
        folder: Path,
        *,
        record: Callable[[Input], None],
        cursor: Callable[[str], int | None],
    ) -> None:
        self._record = record
        self._cursor = cursor
        self._attempts: list[tuple[Path, str, Order]] = []
        for pipeline in state.pipelines.values():
            order = pipeline.active.order if pipeline.active is not None else None
            if order is not None:
                attempt = attempt_folder(folder, order.run, order.stage, order.attempt)
                if (attempt / "spec.json").exists() and not finished(attempt):
                    self._attempts.append((attempt, pipeline.name, order))

    def ask(self) -> None:
        """Ask every one to stop; one that was asked for another reason keeps it."""
        for attempt, _, _ in self._attempts:
            try:
                attempts.ask_to_stop(attempt, DRAIN)
            except OSError as error:
                logger.warning("A stage cannot be asked to stop.", extra={"folder": str(attempt), "error": str(error)})

    def wait(self, seconds: float, look: Callable[[], None]) -> bool:
        """Wait until they have ended, at most so long, and take in what they tell; return whether all have.

        `look` is called all the while. One that does not end in time goes on, and the next daemon hears of its end.
        Raises JournalFull as soon as nothing can be taken in, and what the journal raises.
        """
        until = time.monotonic() + seconds
        while self._attempts:
            look()
            self._attempts = [each for each in self._attempts if not self._over(*each)]
            if not self._attempts or time.monotonic() >= until:
                break
            time.sleep(LOOK_SECONDS)
        for attempt, _, _ in self._attempts:
            logger.warning("A stage did not stop in time; it is left running.", extra={"folder": str(attempt)})
        return not self._attempts

    def _over(self, attempt: Path, pipeline: str, order: Order) -> bool:
        """Return whether an attempt has ended; what it wrote until then is recorded."""
        living = held(attempt)  # looked at first: whoever ends in between has written the last line before
        after = self._cursor(outcomes.cursor_of(order)) or 0
        while (item := outcomes.read(attempt, order, pipeline, after)) is not None and item.cursor is not None:
            self._record(item)
            after = item.cursor.next
        return not living


def join(threads: Iterable[Thread], seconds: float, look: Callable[[], None]) -> None:
    """Wait for threads to end, at most so long together; `look` is called all the while."""
    until = time.monotonic() + seconds
    for thread in threads:
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            look()
            thread.join(min(LOOK_SECONDS, left))
