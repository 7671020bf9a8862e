"""The dispatcher: no memory that matters. It carries out what the state orders, and reads what comes of it.

For every order without an outcome it looks at the attempt's folder: a living one is adopted, one that never
began is started (starting twice is a no-op), a dead one is buried, and every new outcome line becomes a fact.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from daemon.core.errors import RewarmError, WorkerError
from daemon.core.events import Record
from daemon.core.state import Order, Pipeline, Run, State
from daemon.dispatch import attempts, outcomes
from daemon.dispatch.attempts import Attempt
from daemon.dispatch.launcher import Launcher
from daemon.dispatch.specification import attempt_folder, specify
from daemon.journal.base import Reader
from daemon.sources.queue import Inbox
from stages.roots import Remote
from stages.run_folder import place_specification, read_specification

TICK = 0.05
IDLE = 5.0
AGAIN_SECONDS = 2.0
FRESH_AGAIN_SECONDS = 30.0
EXIT_PATIENCE = 1.0
KILL_PATIENCE = 5.0
logger = logging.getLogger("rewarm.dispatch")


class Dispatcher:
    """Runs in its own thread, with its own reader of the journal; `observe` hands it each new state."""

    def __init__(
        self,
        *,
        reader: Reader,
        inbox: Inbox,
        launcher: Launcher,
        state: Path,
        roots: tuple[Path | Remote, ...],
        threads: int,
        boundary: Callable[[str], None],
        again: float = AGAIN_SECONDS,
    ) -> None:
        self._reader = reader
        self._inbox = inbox
        self._launcher = launcher
        self._folder = state
        self._roots = roots
        self._threads = threads
        self._boundary = boundary
        self._again = again
        self._state = State()
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._sent_lines: dict[str, int] = {}
        self._launched: dict[str, float] = {}
        self._seen_dead: dict[str, float] = {}
        self._killed: dict[str, float] = {}
        self.trouble: str | None = None

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Take note of a new state."""
        self._state = state
        self._changed.set()

    def run(self) -> None:
        """Dispatch and read until `stop`."""
        while True:
            self._changed.clear()  # before looking: whatever comes from here on is not slept over
            if self._stop.is_set():
                return
            orders = _orders(self._state)
            # One order that cannot be carried out keeps no other one waiting.
            troubles = [self._guarded(partial(self.attend, *each)) for each in orders]
            troubles.append(self._guarded(self._launcher.reap))
            if not orders:
                troubles.append(self._guarded(self._launcher.warm_up))
            self.trouble = next((trouble for trouble in troubles if trouble is not None), None)
            if self.trouble is not None:
                self._changed.wait(1.0)
            self._forget({outcomes.cursor_of(order) for _, _, order in orders})
            self._changed.wait(TICK if orders else IDLE)

    def _guarded(self, action: Callable[[], None]) -> str | None:
        """Return why an action failed for now, if it did."""
        try:
            action()
        except (OSError, RewarmError, msgspec.MsgspecError, ValueError) as error:
            if self.trouble is None:
                logger.exception("An order cannot be carried out for now.")
            return str(error) or type(error).__name__
        return None

    def stop(self) -> None:
        """End `run` soon; stages go on."""
        self._stop.set()
        self._changed.set()

    def forget(self) -> None:
        """Read outcome files again from where the journal stands."""
        self._sent_lines.clear()

    def attend(self, pipeline: Pipeline, run: Run, order: Order) -> None:
        """Do for one order whatever its attempt's folder calls for."""
        folder = attempt_folder(self._folder, order.run, order.stage, order.attempt)
        attempt = attempts.look(folder, attempts.wall_clock())
        if self._read(folder, pipeline, order) or attempt.finished:
            return
        if attempt.held:
            self._seen_dead.pop(str(folder), None)
            self._mind(folder, run, order, attempt)
        elif order.lost and run.stop is None:
            self._bury(folder, run, order)
        elif attempt.started or (attempt.exit is not None and attempt.placed):
            self._bury_dead(folder, run, order, attempt)
        elif run.stop is not None:
            self._bury(folder, run, order)
        else:
            self._dispatch(folder, pipeline, order, attempt)

    def _mind(self, folder: Path, run: Run, order: Order, attempt: Attempt) -> None:
        """Watch a living attempt: pass on a wish to stop, kill what is stuck or reported as lost."""
        if run.stop is not None:
            attempts.ask_to_stop(folder, run.stop)
        why = order.lost or attempts.overdue(folder, attempt, run.plan.limits, attempts.wall_clock())
        if why:
            self._kill(folder, order, why)

    def _kill(self, folder: Path, order: Order, why: str) -> None:
        """Kill an attempt, again and again until its lock is free; raises WorkerError when that cannot be."""
        now, key = time.monotonic(), str(folder)
        if key not in self._killed:
            logger.warning("An attempt is killed.", extra={"folder": key, "why": why})
        first = self._killed.setdefault(key, now)
        attempts.kill(folder)
        beyond = attempts.out_of_reach(folder)
        if beyond is None and now - first > KILL_PATIENCE:
            beyond = f"its process has not died for {KILL_PATIENCE:g} s"
        if beyond is not None:
            raise WorkerError(
                f"Attempt {order.attempt} of stage {order.stage} of run {order.run} must end ({why}), but {beyond}: "
                "end it there; the next attempt waits until its lock is free."
            )

    def _bury_dead(self, folder: Path, run: Run, order: Order, attempt: Attempt) -> None:
        """Bury a dead attempt; its worker gets a moment to write down how it ended."""
        seen = self._seen_dead.setdefault(str(folder), time.monotonic())
        if attempt.exit is None and time.monotonic() - seen < EXIT_PATIENCE:
            return
        self._bury(folder, run, order)

    def _bury(self, folder: Path, run: Run, order: Order) -> None:
        self._boundary("dispatch.before_bury")
        attempts.bury(folder, order.run, order.stage, order.attempt, run.stop, lost=order.lost)
        self._boundary("dispatch.after_bury")

    def _dispatch(self, folder: Path, pipeline: Pipeline, order: Order, attempt: Attempt) -> None:
        key = str(folder)
        last = self._launched.get(key)
        if last is not None and time.monotonic() - last < self._again:
            return
        if not attempt.placed:
            self._boundary("dispatch.before_place")
            specification = specify(
                self._reader, pipeline, order, state=self._folder, roots=self._roots, threads=self._threads
            )
            place_specification(folder, specification)
        elif read_specification(folder).command != order.command:
            raise WorkerError(f"{folder} belongs to another command than {order.command}: move it away.")
        self._boundary("dispatch.before_send")
        if self._launcher.launch(folder):
            self._launched[key] = time.monotonic()
            self._boundary("dispatch.after_send")

    def _read(self, folder: Path, pipeline: Pipeline, order: Order) -> bool:
        """Offer new outcome lines; returns whether there were any."""
        name = outcomes.cursor_of(order)
        after = self._sent_lines.get(name)
        if after is None:
            after = self._reader.cursor(name) or 0
        item = outcomes.read(folder, order, pipeline.name, after)
        if item is None or item.cursor is None:
            return False
        self._boundary("outcome.after_read")
        self._sent_lines[name] = item.cursor.next  # before: `forget` may come as soon as the loop has it
        self._inbox.put(item)
        return True

    def _forget(self, current: set[str]) -> None:
        """Keep nothing of attempts that are no longer ordered."""
        for name in self._sent_lines.keys() - current:
            self._sent_lines.pop(name, None)
        if not current:
            self._launched.clear()
            self._seen_dead.clear()
            self._killed.clear()


def _orders(state: State) -> list[tuple[Pipeline, Run, Order]]:
    """Return every stage attempt that the state wants run."""
    return [
        (pipeline, pipeline.active, pipeline.active.order)
        for _, pipeline in sorted(state.pipelines.items())
        if pipeline.active is not None and pipeline.active.order is not None
    ]
