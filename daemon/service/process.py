"""What stays the same while a process stands by and then leads: its signals, its metrics, its HTTP side."""

import logging
import time
from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from daemon.config import Configuration
from daemon.core.errors import JournalBusy, JournalCorrupt, JournalError, JournalTooNew
from daemon.core.state import State
from daemon.door import Door
from daemon.journal.sqlite import SqliteJournal, nothing
from daemon.journal.sqlite_reader import open_reader
from daemon.service.presence import Presence
from daemon.service.reload import Reload
from daemon.service.signals import Asked
from daemon.service.standby import Standby
from daemon.sources import schedule
from daemon.sources.http.desk import Desk
from daemon.sources.http.front import Front
from ops.health import Status
from ops.metrics import Metrics

Boundary = Callable[[str], None]
Take = Callable[[], SqliteJournal]
logger = logging.getLogger("rewarm.daemon")


class Process:
    """One process of `rewarm serve`; `replaced` names the leader that it ended to take its place."""

    def __init__(self, configuration: Configuration, asked: Asked, boundary: Boundary = nothing) -> None:
        self.configuration = configuration
        self.reload = Reload(configuration)
        self.asked = asked
        self.boundary = boundary
        self.replaced = ""
        registry = CollectorRegistry()
        self.metrics = Metrics(registry, release=version("rewarm"), upcoming=schedule.upcoming)
        starting = Status(beat_age=0.0, replay="the daemon starts")
        self.desk = Desk(status=lambda: starting, registry=registry, state=_no_state)
        self.presence = Presence(self._front if configuration.settings.http.enabled else None)

    def lead(self, take: Take, *, standby: bool) -> SqliteJournal | None:
        """Return the journal, taken at once or after having stood by; None: asked to end before that.

        Raises JournalBusy where it is taken and no standby is wanted, and what else `take` raises; AddressTaken.
        """
        try:
            journal = take()
        except JournalBusy:
            if not standby:
                raise
            return self._stand_by(take)
        self.metrics.leads()
        try:
            self.presence.open()
        except BaseException:
            journal.close()
            raise
        return journal

    def _stand_by(self, take: Take) -> SqliteJournal | None:
        path = self.configuration.journal
        try:
            open_reader(path).close()
        except (JournalTooNew, JournalCorrupt):
            raise  # better told now than when it is needed
        except JournalError:
            logger.debug("The leader has not made the journal yet.")
        waiting = Standby(path, self.configuration.settings.standby.lease, lead=take, wait=self.asked.wait)
        self.desk.status = lambda: Status(
            beat_age=time.monotonic() - waiting.beat, standby=f"this daemon stands by: {waiting.told}"
        )
        self.presence.open_if_free()
        journal = waiting.run()
        if journal is None:
            logger.info("The standby has stopped.")
            return None
        if waiting.killed is not None:
            self.replaced = f"process {waiting.killed.pid} on {waiting.killed.host}"
        self.metrics.leads("killed" if self.replaced else "free")
        logger.info("This daemon leads from here on.", extra={"epoch": journal.epoch, "replaced": self.replaced})
        self.configuration = self.reload.catch_up()
        return journal

    def _front(self) -> Front:
        door = Door(pipelines=self.reload.pipelines, roots=self.configuration.all_roots)
        return Front(self.configuration, self.desk, door, release=version("rewarm"), count=self.metrics.answered)


def _no_state() -> State:
    raise JournalError("There is no state here: this daemon has just been started, or stands by.")
