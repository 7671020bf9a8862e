"""The composition root: everything is made here, given to each other, started, and stopped in order."""

import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from daemon import logs
from daemon.completion import completer
from daemon.config import Configuration, topics_of
from daemon.core.errors import ConfigurationError, JournalError, JournalFenced
from daemon.core.events import (
    AnyEvent,
    DaemonStarted,
    DaemonStopped,
    OperatorRequested,
    Record,
    SourceDegraded,
    SourceRecovered,
)
from daemon.core.state import State
from daemon.core.transition import REDUCER_VERSION
from daemon.dispatch.dispatcher import AGAIN_SECONDS, FRESH_AGAIN_SECONDS, Dispatcher
from daemon.dispatch.launcher import Launcher
from daemon.door import Door, Input, own
from daemon.journal.sqlite import SqliteJournal, nothing, open_journal
from daemon.journal.sqlite_reader import open_reader
from daemon.loop import OWN_SOURCE, Loop
from daemon.recorder import Recorder
from daemon.restore import restore
from daemon.retention.sweep import Sweeper, recorded_upto
from daemon.service.drain import Checkpoints, join
from daemon.service.edges import Edges
from daemon.service.memory import give_back, share_one_heap
from daemon.service.process import Boundary, Process
from daemon.service.signals import Asked
from daemon.service.standby import Heartbeat
from daemon.sources.group import Sources
from daemon.sources.kafka.messages import receiver
from daemon.sources.queue import Inbox
from ops.comparison import behind
from ops.followers import Followers
from ops.health import Status
from ops.kafka_metrics import KafkaMetrics

LONGEST_WAIT = 5.0
JOIN_SECONDS = 10.0
SCARCE_BYTES = 16 << 20
BEHIND_SECONDS = 5.0
logger = logging.getLogger("rewarm.daemon")


def serve(configuration: Configuration, *, standby: bool = False, boundary: Boundary = nothing) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends it at once.

    While another daemon holds the journal, a standby (asked for here or configured) waits to take it. Raises
    JournalBusy where none was asked for, JournalFenced when another daemon leads though this one did, JournalTooNew,
    JournalCorrupt.
    """
    logs.configure(sys.stderr)
    share_one_heap()
    wanted = standby or configuration.settings.standby.enabled
    with Asked() as asked:
        process = Process(configuration, asked, boundary)
        try:
            lease = configuration.settings.standby.lease
            journal = process.lead(
                lambda: open_journal(configuration.journal, boundary=boundary, lease=lease), standby=wanted
            )
            if journal is None:
                return 0
            try:
                return Daemon(process, journal).run()
            finally:
                journal.close()
        finally:
            process.presence.close()


class Interrupted(Exception):
    """Raised while the journal is folded, when the process is asked to end."""


class Daemon:
    """One daemon from its start to its drain."""

    def __init__(self, process: Process, journal: SqliteJournal) -> None:
        configuration, boundary = process.configuration, process.boundary
        settings = configuration.settings
        self._process = process
        self._configuration = configuration
        self._journal = journal
        self._starting = True
        self._draining = False
        self._duplicates = 0
        self._metrics = process.metrics
        self._inbox = Inbox()
        self._reload = process.reload
        self._hung_up = threading.Event()
        pipelines, topics = self._reload.pipelines, topics_of(configuration)
        door = Door(pipelines=pipelines, roots=configuration.all_roots, topics=topics)
        warm = settings.executor.warm_workers > 0
        self._launcher = Launcher(configuration.state, warm=warm)
        self._dispatcher = Dispatcher(
            reader=open_reader(configuration.journal),
            inbox=self._inbox,
            launcher=self._launcher,
            state=configuration.state,
            roots=configuration.all_roots,
            threads=settings.executor.threads or _cores(),
            boundary=boundary,
            again=AGAIN_SECONDS if warm else FRESH_AGAIN_SECONDS,
        )
        edges = Edges(
            configuration=configuration,
            door=door,
            inbox=self._inbox,
            report=self._report,
            topics=lambda: self._loop.state.topics,
            delivered=self._metrics.delivery,
            boundary=boundary,
        )
        self._kafka = edges.kafka()
        if self._kafka:
            process.desk.registry.register(KafkaMetrics(lambda: [source.standing() for source in self._kafka]))
        self._sources = Sources([*edges.spools(), *self._kafka])
        self._followers = Followers(edges.followers())
        heartbeat = Heartbeat(journal.beat, settings.standby.lease)
        self._sweeper = Sweeper(
            reader=open_reader(configuration.journal),
            inbox=self._inbox,
            folder=configuration.state,
            settings=settings.retention,
            current=lambda: self._loop.state,
            recorded=lambda: recorded_upto(
                configuration.tracking_uri, configuration.state, head=self._loop.state.position
            ),
            boundary=boundary,
        )
        self._loop = Loop(
            journal=journal,
            state=State(),
            policies={name: pipeline.policies for name, pipeline in settings.pipelines.items()},
            inbox=self._inbox,
            receive=receiver(door.receive, [each.settings for each in configuration.kafka]),
            complete=completer(door, journal),
            observers=(self._metrics.observe, self._dispatcher.observe, self._followers.observe, self._committed),
            now=lambda: datetime.now(UTC),
            forget=self._forget,
            housekeeping=self._housekeeping,
            heartbeat=heartbeat,
            longest_wait=min(LONGEST_WAIT, heartbeat.every),
            reload=self._reload,
        )
        self._recorder = (
            Recorder(journal=configuration.journal, tracking_uri=configuration.tracking_uri, state=configuration.state)
            if configuration.tracking_uri
            else None
        )
        self._behind_at = 0.0

    def run(self) -> int:
        """Start everything, work, drain."""
        desk, presence = self._process.desk, self._process.presence
        desk.status, desk.state = self._status, lambda: self._loop.state
        presence.open_when_free()
        self._process.asked.then(self._end)
        self._process.asked.then_reload(self._hang_up)
        try:
            self._fold()
        except Interrupted:
            logger.info("The daemon was asked to stop before it had begun.")
            return 0
        self._tell_start()
        threads = [threading.Thread(target=self._dispatcher.run, name="dispatch", daemon=True)]
        threads.append(threading.Thread(target=self._sweeper.run, name="retention", daemon=True))
        self._followers.start()
        for thread in threads:
            thread.start()
        threads += self._sources.start()
        if self._recorder is not None:
            self._recorder.keep()
        desk.inbox, desk.reader = self._inbox, open_reader(self._configuration.journal)
        presence.announce()
        give_back()
        self._starting = False  # whoever is told that it is ready can send
        logger.info(
            "The daemon is ready.", extra={"epoch": self._journal.epoch, "journal": str(self._configuration.journal)}
        )
        try:
            self._loop.run()
        except JournalFenced:
            logger.error("Another daemon leads: this one writes nothing any more, and ends.")  # noqa: TRY400 - expected
            raise
        self._drain(threads)
        return 0

    def _fold(self) -> None:
        """Bring the state to the journal's head; meanwhile the daemon lives, and says that it is not ready."""
        began = time.monotonic()
        restored = restore(self._journal, tick=self._tick)
        for why in restored.skipped:
            logger.warning("A snapshot was skipped.", extra={"why": why})
        self._loop.begin(restored.state, restored.snapshot)
        names = {"position": restored.state.position, "snapshot": restored.snapshot}
        logger.info("The journal is folded.", extra={**names, "seconds": round(time.monotonic() - began, 3)})

    def _tick(self) -> None:
        self._loop.show_life()
        if self._process.asked:
            raise Interrupted

    def _tell_start(self) -> None:
        changed = self._configuration.changed()
        started = DaemonStarted(
            epoch=self._journal.epoch,
            release=version("rewarm"),
            reducer=REDUCER_VERSION,
            host=socket.gethostname(),
            pid=os.getpid(),
            replaced=self._process.replaced,
        )
        events: list[AnyEvent] = [started]
        if changed.hash != self._loop.state.configuration:
            events.insert(0, changed)
        self._loop.tell(*events)

    def _drain(self, threads: Sequence[threading.Thread]) -> None:
        """Stop in order: sources, then stages if they are to, then the loop's last words."""
        self._process.presence.withdraw()
        self._sources.stop()
        self._dispatcher.stop()
        self._sweeper.stop()
        self._loop.turn_away()  # the inbox is closed: who waits need not wait for the threads as well
        join(threads, JOIN_SECONDS, self._loop.show_life)
        rest = not any(pipeline.active for pipeline in self._loop.state.pipelines.values())
        try:
            rest = self._stop_stages() or rest
            self._loop.tell(DaemonStopped(reason="asked to stop"))
            self._loop.snapshot()
        except JournalError as error:
            logger.warning("The drain could not be recorded; nothing is lost by that.", extra={"error": str(error)})
        stops = [self._followers.stop, self._process.presence.close]
        stops += [self._recorder.stop] if self._recorder is not None else []
        ending = [threading.Thread(target=stop, name="end", daemon=True) for stop in stops]
        for thread in ending:
            thread.start()
        join(ending, JOIN_SECONDS, self._loop.show_life)  # a leader that ends in order is not to be killed
        if rest:
            self._launcher.retire()
        logger.info("The daemon has stopped.", extra={"position": self._loop.state.position})

    def _stop_stages(self) -> bool:
        """Where it is so configured, let every stage save a checkpoint and end; return whether none is left."""
        executor = self._configuration.settings.executor
        if executor.on_drain == "leave":
            return False
        stages = Checkpoints(
            self._loop.state,
            self._configuration.state,
            record=lambda item: self._loop.record([item]),
            cursor=self._journal.cursor,
        )
        stages.ask()
        return stages.wait(executor.drain_seconds, self._loop.show_life)

    def _end(self) -> None:
        """Take nothing more in, and let the loop end after its transaction; called in another thread."""
        self._draining = True
        self._inbox.close()
        self._loop.stop()

    def _committed(self, records: Sequence[Record], state: State) -> None:
        self._sources.committed(records)
        self._metrics.append_seconds(self._loop.append_seconds)
        self._metrics.duplicates(self._loop.duplicates - self._duplicates)
        self._duplicates = self._loop.duplicates

    def _forget(self) -> None:
        self._dispatcher.forget()
        self._sources.forget()

    def _hang_up(self) -> None:
        """Let the loop read the configuration again; called in another thread."""
        self._hung_up.set()
        self._inbox.wake()

    def _reread(self) -> None:
        """Take what the configuration file says now, if that is something else."""
        self._hung_up.clear()
        try:
            found = self._reload.read()
        except ConfigurationError:
            return  # told already
        if found.changed.hash == self._loop.state.configuration:
            self._reload.took(found)
            return
        request = OperatorRequested(verb="reload", by="SIGHUP")
        identity = f"reload:{self._journal.epoch}.{time.time_ns()}"
        self._loop.handle([Input(offers=(own(request, source=OWN_SOURCE, id=identity, where="SIGHUP"),))])

    def _housekeeping(self) -> None:
        """Between transactions: read what is to be read again, see that the recorder runs, and how far it is."""
        if self._hung_up.is_set():
            self._reread()
        self._metrics.snapshot(self._loop.snapshot_position)
        for follower, missing in self._followers.behind().items():
            self._metrics.behind(follower, missing)
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
        self._inbox.put(Input(offers=(own(event, source=OWN_SOURCE, id=identity, where=name),)))

    def _status(self) -> Status:
        self._metrics.queue(self._inbox.depth())
        degraded = dict(self._loop.state.degraded)
        if self._dispatcher.trouble is not None:
            degraded["dispatch"] = self._dispatcher.trouble
        if self._process.presence.trouble:
            degraded["http"] = self._process.presence.trouble
        return Status(
            beat_age=0.0 if self._starting else time.monotonic() - self._loop.beat,
            journal=self._loop.trouble or "",
            replay="the daemon starts: its journal is being folded" if self._starting else "",
            disk=_scarce(self._configuration.journal.parent, self._configuration.state),
            drain="draining" if self._draining else "",
            degraded=degraded,
        )


def _scarce(*folders: Path) -> str:
    """Return which folder's disk is as good as full, if one is."""
    for folder in folders:
        if folder.is_dir() and (free := shutil.disk_usage(folder).free) < SCARCE_BYTES:
            return f"{folder} has {free >> 20} MiB left on its disk: make room"
    return ""


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
