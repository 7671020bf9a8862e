"""A daemon that waits to take over: it watches the leader's sign of life, and ends a leader that shows none.

The lock alone decides who leads. A leader that ended frees it, and the standby has it with its next look. A leader
that is stopped or stuck keeps it: when its sign has stood still for a lease, the standby kills it, if it can be
sure whom it kills: by pidfd, after start time, boot id and pid namespace were compared. Otherwise it waits.
"""

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from daemon import pids
from daemon.core.errors import JournalBusy, JournalCorrupt, JournalError, JournalTooNew
from daemon.journal import lock
from daemon.journal.lock import Holder, Sign

BEATS: Final = 4
"""Signs of life within a lease; a look that comes later than that after the one before does not count."""
LOOKS: Final = 20
"""Looks within a lease."""
LONGEST_LOOK: Final = 0.1
DEATH_SECONDS: Final = 5.0
logger = logging.getLogger("rewarm.standby")
T = TypeVar("T")


class Heartbeat:
    """The leader's part: `beat` is called often, and passed on a few times a lease."""

    def __init__(self, beat: Callable[[], None], lease: float, now: Callable[[], float] = time.monotonic) -> None:
        self._beat = beat
        self._now = now
        self.every = lease / BEATS
        self._last = now() - self.every

    def __call__(self) -> None:
        """Beat if it is time to; raises what beating raises."""
        now = self._now()
        if now - self._last >= self.every:
            self._last = now
            self._beat()


class Watch:
    """For how long a leader has shown nothing, by this process's own clock.

    A look that comes too late (this process, or the whole machine, was stopped) begins anew: what happened
    meanwhile is not known, and the leader gets a whole lease to show itself.
    """

    def __init__(self, timely: float) -> None:
        self._timely = timely
        self._sign: Sign | None = None
        self._at: float | None = None
        self.silence = 0.0

    def look(self, sign: Sign | None, now: float) -> float:
        """Take in what a look shows; return the seconds of silence so far."""
        gap = 0.0 if self._at is None else now - self._at
        self._at = now
        if sign == self._sign and gap <= self._timely:
            self.silence += gap
        else:
            self._sign, self.silence = sign, 0.0
        return self.silence


class Standby(Generic[T]):
    """Waits to lead. `lead` takes the journal or raises JournalBusy; `wait` sleeps, True: the waiting is over."""

    def __init__(
        self,
        journal: Path,
        lease: float,
        *,
        lead: Callable[[], T],
        wait: Callable[[float], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._lease = lease
        self._lead = lead
        self._wait = wait
        self._now = now
        self._every = min(LONGEST_LOOK, lease / LOOKS)
        self._watch = Watch(lease / BEATS)
        self._told = ""
        self.beat = now()
        self.killed: Holder | None = None

    @property
    def told(self) -> str:
        """What keeps this process a standby, in words."""
        return self._told or "the journal is taken"

    def run(self) -> T | None:
        """Return what `lead` gave once this process leads, None when the waiting was ended before."""
        place = None
        try:
            while not self._wait(self._every):
                self.beat = self._now()
                if place is None:
                    place = lock.enrol(self._journal)
                try:
                    return self._lead()
                except JournalBusy:
                    self._look()
                except (JournalTooNew, JournalCorrupt):
                    raise
                except JournalError as error:  # a full disk: whoever leads must write
                    self._say(f"the journal is free and cannot be taken: {error}", logging.ERROR)
            return None
        finally:
            if place is not None:
                lock.release(place)

    def _look(self) -> None:
        sign = lock.look(self._journal)
        silence = self._watch.look(sign, self._now())
        who = sign.holder if sign is not None else None
        if who != self.killed:
            self.killed = None  # somebody else was faster, and leads
        name = "a process that its lock does not name" if who is None else f"process {who.pid} on {who.host}"
        # The leader's promise counts where it is the weaker one.
        lease = max(self._lease, who.lease if who is not None and who.lease is not None else 0.0)
        if sign is None or silence < lease:
            self._say(f"{name} leads", logging.INFO)
            return
        why = obstacle(who, lock.myself()) if who is not None else "there is no telling whom to end"
        if who is not None and not why:
            why = self._depose(who, sign, silence)
        if why:
            self._say(f"{name} leads without a sign of life, and is not ended: {why}", logging.WARNING)

    def _depose(self, who: Holder, sign: Sign, silence: float) -> str:
        """Kill the leader unless it shows itself; return why that cannot be done."""
        why = kill(who, lambda: lock.look(self._journal) == sign)
        if why is None:
            return ""
        if not why:
            names = {"pid": who.pid, "host": who.host, "silent_seconds": round(silence, 3)}
            logger.warning("The leader gave no sign of life for a lease: it was killed.", extra=names)
            self.killed = who
        return why

    def _say(self, what: str, level: int) -> None:
        if what != self._told:
            self._told = what
            logger.log(level, "This daemon stands by.", extra={"why": what})


def obstacle(who: Holder, me: Holder) -> str:
    """Return why the holder of a lock must not be ended from here, "" when nothing speaks against it."""
    if who.lease is None:
        return "it is of a release that shows none"
    if who.boot_id is None or who.boot_id != me.boot_id:
        return "it runs on another machine, or its machine was started anew"
    if who.namespace is None or who.namespace != me.namespace:
        return "it lives in another pid namespace, where its pid means another process; end it there"
    if who.start_time is None or not hasattr(os, "pidfd_open"):
        return "this system cannot tell it from another process of the same pid"
    return ""


def kill(who: Holder, still: Callable[[], bool]) -> str | None:
    """Kill a process on this machine, and see it end; return why not, "" when it has ended, None when it lives.

    `still` is asked at the last moment whether it must be. The descriptor pins the process: what is compared
    afterwards cannot be true of one and the signal go to another.
    """
    try:
        process = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return "it is gone, and somebody else holds its lock"
    except OSError as error:
        return f"process {who.pid} cannot be opened ({error.strerror})"
    try:
        if pids.start_time(who.pid) != who.start_time:
            return f"pid {who.pid} is another process by now, and somebody else holds the lock"
        if not still():
            return None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(process, select.POLLIN)
        return "" if waiting.poll(DEATH_SECONDS * 1000) else f"SIGKILL has not ended it in {DEATH_SECONDS:g} s"
    except OSError as error:
        return f"it cannot be killed ({error.strerror})"
    finally:
        os.close(process)
