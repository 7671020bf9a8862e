"""The composition root: everything is made here, given to each other, started, and stopped in order."""

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from prometheus_client import CollectorRegistry

from daemon import logs
from daemon.completion import completer
from daemon.config import Configuration
from daemon.core.encoding import encode
from daemon.core.errors import JournalError
from daemon.core.events import AnyEvent, DaemonStarted, DaemonStopped, Record, SourceDegraded, SourceRecovered
from daemon.core.state import State, dump
from daemon.core.transition import REDUCER_VERSION
from daemon.dispatch.dispatcher import AGAIN_SECONDS, FRESH_AGAIN_SECONDS, Dispatcher
from daemon.dispatch.launcher import Launcher
from daemon.door import Door, Input, Offer
from daemon.journal.base import digest
from daemon.journal.sqlite import SqliteJournal, nothing, open_journal
from daemon.journal.sqlite_reader import open_reader
from daemon.loop import OWN_SOURCE, Loop
from daemon.recorder import Recorder
from daemon.restore import restore
from daemon.sources.queue import Inbox
from daemon.sources.spool import Spool
from ops.comparison import behind
from ops.health import Status, application
from ops.health import serve as serve_http
from ops.metrics import Metrics

JOIN_SECONDS = 10.0
SCARCE_BYTES = 16 << 20
BEHIND_SECONDS = 5.0
logger = logging.getLogger("rewarm.daemon")
Boundary = Callable[[str], None]


def serve(configuration: Configuration, *, boundary: Boundary = nothing) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.

    Raises JournalBusy when another daemon holds the journal, JournalTooNew, JournalCorrupt.
    """
    logs.configure(sys.stderr)
    journal = open_journal(configuration.journal, boundary=boundary)
    try:
        return Daemon(configuration, journal, boundary).run()
    finally:
        journal.close()


class Daemon:
    """One daemon from its start to its drain."""

    def __init__(self, configuration: Configuration, journal: SqliteJournal, boundary: Boundary) -> None:
        settings = configuration.settings
        self._configuration = configuration
        self._journal = journal
        self._folding = True
        self._draining = False
        self._duplicates = 0
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry, release=version("rewarm"))
        self._inbox = Inbox()
        door = Door(pipelines=dict(settings.pipelines), roots=configuration.roots)
        warm = settings.executor.warm_workers > 0
        self._launcher = Launcher(configuration.state, warm=warm)
        self._dispatcher = Dispatcher(
            reader=open_reader(configuration.journal),
            inbox=self._inbox,
            launcher=self._launcher,
            state=configuration.state,
            roots=configuration.roots,
            threads=settings.executor.threads or _cores(),
            boundary=boundary,
            again=AGAIN_SECONDS if warm else FRESH_AGAIN_SECONDS,
        )
        self._spools = [
            Spool(
                folder,
                door=door,
                inbox=self._inbox,
                cursor=open_reader(configuration.journal).cursor,
                report=self._report,
                boundary=boundary,
            )
            for folder in configuration.spools
        ]
        self._loop = Loop(
            journal=journal,
            state=State(),
            policies={name: pipeline.policies for name, pipeline in settings.pipelines.items()},
            inbox=self._inbox,
            complete=completer(door, journal),
            observers=(self._metrics.observe, self._dispatcher.observe, self._committed),
            now=lambda: datetime.now(UTC),
            forget=self._forget,
            housekeeping=self._housekeeping,
        )
        self._recorder = (
            Recorder(journal=configuration.journal, tracking_uri=configuration.tracking_uri, state=configuration.state)
            if configuration.tracking_uri
            else None
        )
        self._behind_at = 0.0

    def run(self) -> int:
        """Start everything, work, drain."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        http = self._configuration.settings.http
        handle = None
        if http.enabled:
            handle = serve_http(application(self._status, self._registry, self._state_json), http.host, http.port)
        self._fold()
        self._tell_start()
        threads = [threading.Thread(target=self._dispatcher.run, name="dispatch", daemon=True)]
        for spool in self._spools:
            spool.prepare()
            threads.append(threading.Thread(target=spool.run, name="spool", daemon=True))
        for thread in threads:
            thread.start()
        if self._recorder is not None:
            self._recorder.keep()
        logger.info(
            "The daemon is ready.", extra={"epoch": self._journal.epoch, "journal": str(self._configuration.journal)}
        )
        self._loop.run()
        self._drain(threads)
        if handle is not None:
            handle.stop()
        return 0

    def _fold(self) -> None:
        """Bring the state to the journal's head; meanwhile the daemon lives, and says that it is not ready."""
        began = time.monotonic()
        restored = restore(self._journal)
        for why in restored.skipped:
            logger.warning("A snapshot was skipped.", extra={"why": why})
        self._loop.begin(restored.state, restored.snapshot)
        self._folding = False
        names = {"position": restored.state.position, "snapshot": restored.snapshot}
        logger.info("The journal is folded.", extra={**names, "seconds": round(time.monotonic() - began, 3)})

    def _tell_start(self) -> None:
        changed = self._configuration.changed()
        started = DaemonStarted(
            epoch=self._journal.epoch,
            release=version("rewarm"),
            reducer=REDUCER_VERSION,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        events: list[AnyEvent] = [started]
        if changed.hash != self._loop.state.configuration:
            events.insert(0, changed)
        self._loop.tell(*events)

    def _drain(self, threads: Sequence[threading.Thread]) -> None:
        """Stop in order: sources, then the loop's last words; a stage that runs is left running."""
        self._draining = True
        self._inbox.close()
        for spool in self._spools:
            spool.stop()
        self._dispatcher.stop()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        try:
            self._loop.tell(DaemonStopped(reason="asked to stop"))
            self._loop.snapshot()
        except JournalError as error:
            logger.warning("The drain could not be recorded; nothing is lost by that.", extra={"error": str(error)})
        if self._recorder is not None:
            self._recorder.stop()
        if not any(pipeline.active for pipeline in self._loop.state.pipelines.values()):
            self._launcher.retire()
        logger.info("The daemon has stopped.", extra={"position": self._loop.state.position})

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            os._exit(128 + number)
        self._draining = True
        self._loop.stop()

    def _committed(self, records: Sequence[Record], state: State) -> None:
        for spool in self._spools:
            spool.committed()
        self._metrics.append_seconds(self._loop.append_seconds)
        self._metrics.duplicates(self._loop.duplicates - self._duplicates)
        self._duplicates = self._loop.duplicates

    def _forget(self) -> None:
        self._dispatcher.forget()
        for spool in self._spools:
            spool.forget()

    def _housekeeping(self) -> None:
        """Between transactions: see that the recorder runs, and how far it and the snapshots are."""
        self._metrics.snapshot(self._loop.snapshot_position)
        if self._recorder is None or time.monotonic() - self._behind_at < BEHIND_SECONDS:
            return
        self._behind_at = time.monotonic()
        self._recorder.keep()
        lag = behind(self._loop.state.position, self._configuration.tracking_uri or "", self._configuration.state)
        if lag is not None:
            self._metrics.behind("mlflow", lag)

    def _report(self, name: str, reason: str | None) -> None:
        """Turn a source's trouble, or its end, into a fact."""
        event: AnyEvent = SourceRecovered(name=name) if reason is None else SourceDegraded(name=name, reason=reason)
        identity = f"{event.kind}:{name}:{self._journal.epoch}.{time.time_ns()}"
        offer = Offer(source=OWN_SOURCE, id=identity, where=name, digest=digest(encode(event)), event=event)
        self._inbox.put(Input(offers=(offer,)))

    def _status(self) -> Status:
        self._metrics.queue(self._inbox.depth())
        degraded = dict(self._loop.state.degraded)
        if self._dispatcher.trouble is not None:
            degraded["dispatch"] = self._dispatcher.trouble
        return Status(
            beat_age=0.0 if self._folding else time.monotonic() - self._loop.beat,
            journal=self._loop.trouble or "",
            replay="the journal is being folded" if self._folding else "",
            disk=_scarce(self._configuration.journal.parent, self._configuration.state),
            drain="draining" if self._draining else "",
            degraded=degraded,
        )

    def _state_json(self) -> bytes:
        return dump(self._loop.state)


def _scarce(*folders: Path) -> str:
    """Return which folder's disk is as good as full, if one is."""
    for folder in folders:
        if folder.is_dir() and (free := shutil.disk_usage(folder).free) < SCARCE_BYTES:
            return f"{folder} has {free >> 20} MiB left on its disk: make room"
    return ""


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
