"""A Kafka source: the thread that ties it together. It never waits for a broker, and never for the inbox.

A `Watch` looks at the cluster, `judge` says what is to be read from where, a `Worker` brings records by order, and
an `Intake` offers them to the inbox, each partition's in order with the step of its cursor. While the inbox does not
take them, or too many are unanswered, nothing is ordered. Whatever other threads have to say comes as mail.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from daemon.broker.access import Access
from daemon.broker.positions import cursor_name
from daemon.broker.report import SourceReport
from daemon.broker.sight import Looks, Sight
from daemon.core.errors import BrokerError
from daemon.core.events import PositionSet, Record
from daemon.core.state import Topic
from daemon.door import Door
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.consumer import Consumer, Fault, Haul, Unreadable, connect
from daemon.sources.kafka.crew import Crew
from daemon.sources.kafka.hint import GroupHints
from daemon.sources.kafka.intake import Intake
from daemon.sources.kafka.judge import Judgement, Known, Trouble, judge, name_of
from daemon.sources.kafka.readings import Reading
from daemon.sources.kafka.setbacks import Setbacks
from daemon.sources.kafka.standing import Standing
from daemon.sources.kafka.watch import Hints, Watch
from daemon.sources.kafka.watchdog import Watchdog
from daemon.sources.kafka.worker import POLL_SECONDS, Broken, Told, Worker
from daemon.sources.queue import BATCH, Inbox

TICK_SECONDS = 1.0
TELL_SECONDS = 0.2
REFUSED_SECONDS = 0.02
"""How soon the inbox is tried again that did not take an input; it tells nobody when there is room."""
logger = logging.getLogger("rewarm.kafka")


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """How a cluster is looked at, read from (by its id), and left hints."""

    looks: Callable[[], Looks]
    consumer: Callable[[str], Consumer]
    hints: Callable[[], Hints]


def tools(settings: KafkaSettings, access: Access) -> Tools:
    """Return what works with kafka-python; loaded when it is used."""

    def looks() -> Looks:
        from daemon.broker.look import AdminLooks

        return AdminLooks(access)

    return Tools(
        looks=looks,
        consumer=lambda cluster: connect(access, cluster, refresh=min(settings.look_every, 10.0)),
        hints=lambda: GroupHints(access, settings.group_id),
    )


class KafkaSource:
    """Feeds an inbox from the topics of a cluster until stopped."""

    def __init__(  # noqa: PLR0913 - every collaborator is a parameter
        self,
        settings: KafkaSettings,
        *,
        access: Access,
        door: Door,
        inbox: Inbox,
        cursor: Callable[[str], int | None],
        topics: Callable[[], Mapping[str, Topic]],
        report: Callable[[str, str | None], None],
        boundary: Callable[[str], None],
        using: Tools | None = None,
    ) -> None:
        using = using or tools(settings, access)
        self.name = f"kafka:{settings.name}"
        self._settings = settings
        self._cursor = cursor
        self._known_topics = topics
        self._mail: deque[Callable[[], None]] = deque()
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._intake = Intake(settings, door=door, inbox=inbox, post=self._post, boundary=boundary)
        self._standing = Standing()
        self._watchdog = Watchdog(settings.watchdog)
        self._setbacks = Setbacks(settings.look_every)
        self._topics = tuple(topic.name for topic in settings.topics)
        self._watch = Watch(
            self.name,
            topics=self._topics,
            every=settings.look_every,
            looks=using.looks,
            hints=using.hints,
            seen=lambda sight, began: self._post(partial(self._seen, sight, began)),
            blind=lambda error: self._post(partial(self._blind, error)),
            report=report,
        )
        self._crew = Crew(
            self.name,
            connect=using.consumer,
            tell=lambda worker, told: self._post(partial(self._told, worker, told)),
            longest=settings.look_every,
        )
        self._sight: Sight | None = None
        self._began = 0.0
        self._unreachable: Trouble | None = None
        self._judgement = Judgement(cluster="")
        self._moved: dict[str, float] = {}
        self._connects = 0
        self._rebuilds = 0
        self._told_at = 0.0
        self._report = SourceReport(name=self.name)

    def prepare(self) -> None:
        """Do nothing: the cluster may be down."""

    def run(self) -> None:
        """Read until `stop`."""
        self._watch.start()
        while not self._stop.is_set():
            try:
                self._step()
            except Exception as error:
                logger.exception("The Kafka source failed; it begins anew from the journal.")
                self._setbacks.note(self.name, "failed", f"Reading failed: {error!r}.", time.monotonic())
                self._begin_anew()
                self._intake.changed = True
                self._stop.wait(TICK_SECONDS)
        self._watch.stop()
        self._crew.end(POLL_SECONDS + 0.3)
        self._watch.join(0.1)

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()
        self._woken.set()

    def committed(self, records: Sequence[Record]) -> None:
        """Take note of positions that were set."""
        for record in records:
            event = record.event
            if isinstance(event, PositionSet) and event.position.source == self._settings.name:
                self._post(partial(self._set, event))

    def forget(self) -> None:
        """Read again from where the journal stands."""
        self._post(self._end_all)

    def standing(self) -> SourceReport:
        """Return how the source is doing."""
        return self._report

    def _post(self, call: Callable[[], None]) -> None:
        """Have something done in the source's thread; called in any."""
        self._mail.append(call)
        self._woken.set()

    def _step(self) -> None:
        self._woken.clear()
        while self._mail:
            self._mail.popleft()()
        now = time.monotonic()
        self._intake.push()
        judged = self._intake.changed
        if judged:
            self._judge()
        self._read_on(now)
        if judged or now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._intake.pass_gaps(now)
            self._guard(now)
            self._tell(now)
        self._woken.wait(self._patience(now))

    def _patience(self, now: float) -> float:
        if self._mail:
            return 0.0
        if self._intake.refused:
            return REFUSED_SECONDS
        retrying = not self._crew.at_work and self._crew.retry_at > now
        return min(TICK_SECONDS, self._crew.retry_at - now) if retrying else TICK_SECONDS

    # What the others say

    def _seen(self, sight: Sight, began: float) -> None:
        if self._unreachable is not None or self._sight is None:
            self._connects += 1
            self._crew.dismiss()  # the old client would wait for some seconds more before it tries again
            logger.info("The cluster answers.", extra={"source": self.name, "cluster": sight.cluster})
        self._sight, self._began, self._unreachable = sight, began, None
        self._standing.see(sight, time.monotonic())
        if self._crew.proven(time.monotonic()):
            self._setbacks.over(self.name)
        self._intake.changed = True

    def _blind(self, error: BrokerError) -> None:
        self._unreachable = Trouble(condition="unreachable", reason=str(error))
        self._watchdog.rest()

    def _set(self, event: PositionSet) -> None:
        """Take note of a position that was set: the journal has it, and knows the topic."""
        at, name = event.position, cursor_name(event.position)
        self._moved[name] = time.monotonic()
        self._setbacks.over(name_of(at.source, at.topic, at.partition), name)
        reading = self._intake.readings.get(name)
        if reading is not None and event.why == "aligned":
            self._intake.end(reading, drop=True)
        self._intake.changed = True

    def _end_all(self) -> None:
        for reading in self._intake.readings:
            self._intake.end(reading, drop=True)

    def _told(self, worker: Worker, told: Told) -> None:
        if not self._crew.has(worker):
            return  # one that was left behind
        if isinstance(told, Broken):
            self._break(told.error)
        elif told == "connected":
            self._crew.connected(time.monotonic())
        else:
            if told.haul.records or told.haul.fault:
                self._crew.done(told.order)
            self._hauled(told.order, told.haul)

    def _hauled(self, order: int, haul: Haul) -> None:
        now = time.monotonic()
        active = self._intake.readings.active
        for place, messages in haul.records.items():
            reading = active.get(place)
            if reading is None or not reading.takes(order):
                continue
            if messages[0].offset < reading.next or messages[-1].offset < messages[0].offset:
                raise BrokerError(f"{place.topic}/{place.partition} came out of order at {messages[0].offset}.")
            self._moved[reading.cursor] = now
            self._intake.take(reading, messages, self._judgement.cluster, now)
        for place, passed in haul.passed.items():
            reading = active.get(place)
            if reading is not None and reading.takes(order):
                self._moved[reading.cursor] = now
                reading.passed = max(reading.passed, passed)
        if haul.fault is not None:
            faulty = [active[place] for place in haul.fault.places if place in active]
            self._fault(haul.fault, [reading for reading in faulty if reading.takes(order)], now)

    def _fault(self, fault: Fault, readings: Sequence[Reading], now: float) -> None:
        """End what cannot be read; what comes of it, the next look will tell, or the next try."""
        for reading in readings:
            topic, number = reading.place
            logger.warning(
                "A partition cannot be read on.",
                extra={"source": self.name, "topic": topic, "partition": number, "why": fault.what},
            )
            self._intake.end(reading, drop=fault.what != "changed")
            self._setbacks.hold(reading.cursor, now)
            if fault.what == "truncated":
                self._setbacks.faults[reading.cursor] = fault.message
            elif fault.what == "refused":
                self._setbacks.hold(reading.cursor, now + self._setbacks.pause)
                reason = f"Topic {topic}: {fault.message}"
                self._setbacks.note(name_of(self._settings.name, topic), fault.what, reason, now)
        self._watch.ask()

    # What follows

    def _judge(self) -> None:
        """Draw the conclusions from what was seen last and where the journal stands."""
        self._intake.changed = False
        readings = self._intake.readings
        readings.sweep()
        if self._sight is None:
            return
        active = dict(readings.active)
        known = Known(
            topics=self._known_topics(),
            cursor=self._cursor,
            reading={reading.cursor: reading.next for reading in active.values()},
            moved={name for name, at in self._moved.items() if at > self._began},
            faults=self._setbacks.faults,
        )
        self._judgement = judged = judge(self._settings.name, self._topics, self._sight, known)
        for place, reading in active.items():
            start = judged.starts.get(place)
            gone = place in judged.conditions or place.topic not in self._sight.topics
            if (start is None and gone) or (start is not None and start.cursor != reading.cursor):
                self._intake.end(reading, drop=False)
        for place, start in judged.starts.items():
            if readings.get(start.cursor) is None and not self._setbacks.holds(start.cursor, self._began):
                readings.begin(place, start)
        for cursor, position in judged.firsts.items():
            self._intake.first(cursor, position)
        self._setbacks.faults |= judged.beyond
        if judged.doubted:
            self._watch.ask()

    def _guard(self, now: float) -> None:
        """Leave a consumer behind that brings nothing though there is something to bring."""
        if not self._crew.at_work or self._intake.held_up or self._unreachable is not None:
            self._watchdog.rest()
            return
        stands = {}
        for reading in self._intake.readings.active.values():
            behind = self._standing.behind(reading)
            if behind is not None:
                stands[reading.cursor] = behind
        stuck = self._watchdog.bites(stands, now)
        if stuck:
            self._rebuilds += 1
            extra = {"source": self.name, "cursors": stuck[:10], "rebuilds": self._rebuilds}
            logger.warning("Partitions have records that do not come: the consumer is made anew.", extra=extra)
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Leave the consumer behind, and read everything again from where the journal stands."""
        self._crew.leave()
        self._watchdog.rest()
        self._end_all()

    def _break(self, error: BrokerError) -> None:
        """Have another consumer, without the place that this one broke at if it was one."""
        now = time.monotonic()
        if isinstance(error, Unreadable):
            self._shun(error, now)
        elif self._crew.failed(now) == 1:
            logger.warning("The consumer is made anew.", extra={"source": self.name, "error": str(error)})
        else:
            self._setbacks.note(self.name, "failed", str(error), now)
        self._begin_anew()
        self._watch.ask()

    def _shun(self, error: Unreadable, now: float) -> None:
        """Leave a partition out for a while: its records cannot be read, those of others can."""
        topic, partition = error.place
        reading = self._intake.readings.active.get(error.place)
        if reading is not None:
            self._setbacks.hold(reading.cursor, now + self._setbacks.pause)
        reason = (
            f"{topic}/{partition} is not read on: {error} It is tried again every {self._setbacks.pause:g} s; to leave "
            f"out what cannot be read, `rewarm align --set {self._settings.name}/{topic}/{partition}=OFFSET`."
        )
        self._setbacks.note(name_of(self._settings.name, topic, partition), "unreadable", reason, now)

    def _read_on(self, now: float) -> None:
        """Have a worker, and give it its next order."""
        seen = self._sight.topics if self._sight is not None else {}
        readings = self._intake.readings
        if self._crew.keep(self._judgement, seen, reachable=self._unreachable is None, now=now):
            for reading in readings:
                reading.order = None
        self._crew.give(readings.active, 0 if self._intake.refused else self._intake.pressure.room(BATCH))

    # What is told

    def _tell(self, now: float) -> None:
        troubles = self._setbacks.troubles(now) | self._judgement.troubles
        if self._unreachable is not None:
            troubles[self.name] = self._unreachable
        self._watch.tell(troubles)
        active = self._intake.readings.active
        self._watch.hint({place: reading.stands for place, reading in active.items()})
        self._report = SourceReport(
            name=self.name,
            connected=self._sight is not None and self._unreachable is None,
            paused=self._intake.held_up,
            connects=self._connects,
            rebuilds=self._rebuilds,
            records=self._intake.records,
            partitions=self._standing.partitions(self._judgement, active, now, time.time()),
        )
