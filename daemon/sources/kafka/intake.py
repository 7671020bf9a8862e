"""The way of records into the inbox, which is never waited for: what it does not take is kept, in order."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from daemon.broker.positions import source_of
from daemon.core.errors import InputError
from daemon.core.events import Position, PositionSet
from daemon.door import Answer, Door, Input, Letter, Offer, own, refuse
from daemon.journal.base import Cursor
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.messages import Message, letter
from daemon.sources.kafka.pressure import Pressure
from daemon.sources.kafka.readings import Reading, Readings, Step
from daemon.sources.queue import Inbox

GAP_SECONDS = 1.0
"""How long nothing must have come before offsets without a record are passed in the journal, too."""
logger = logging.getLogger("rewarm.kafka")


class Intake:
    """Makes inputs of records and offers them; used by the source's thread alone.

    `post` brings a call into that thread from the loop's, where inputs are answered.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        door: Door,
        inbox: Inbox,
        post: Callable[[Callable[[], None]], None],
        boundary: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._topics = {topic.name: topic for topic in settings.topics}
        self._door = door
        self._inbox = inbox
        self._post = post
        self._boundary = boundary
        self._backlog: deque[tuple[Reading | None, int, Input]] = deque()
        self._firsts: set[str] = set()
        self.readings = Readings()
        self.pressure = Pressure(settings.high_mark, settings.low_mark)
        self.records = 0
        self.changed = False

    @property
    def held_up(self) -> bool:
        """Whether nothing more is to be brought for now."""
        return self.pressure.paused or bool(self._backlog)

    @property
    def refused(self) -> bool:
        """Whether the inbox did not take what was offered."""
        return bool(self._backlog)

    def take(self, reading: Reading, messages: Sequence[Message], cluster: str, now: float) -> None:
        """Offer a partition's records, which follow those that were offered before."""
        offers = tuple(self._offer(message, cluster, reading.start.topic_id) for message in messages)
        last = messages[-1]
        step = reading.step(last.offset + 1, len(offers), last.timestamp if last.timestamp > 0 else None, now)
        self._add(reading, step, offers)

    def pass_gaps(self, now: float) -> None:
        """Let the journal pass offsets without a record where nothing else is on the way.

        Else a position could stay at one that retention removes one day, as if something had been lost there.
        """
        for reading in self.readings.active.values():
            quiet = reading.unanswered == 0 and now - reading.moved_at >= GAP_SECONDS
            if reading.passed > reading.next and quiet and not self.refused:
                self._add(reading, reading.step(reading.passed, 0, None, now), ())

    def first(self, cursor: str, position: Position) -> None:
        """Have a partition's first position journaled, once."""
        if cursor in self._firsts:
            return
        self._firsts.add(cursor)
        event = PositionSet(position=position, before=None, why="first_seen")
        offer = own(event, source=source_of(self._settings.name), id=f"first_seen:{cursor}", where=cursor)
        step = Cursor(name=cursor, expected=None, next=position.offset)
        reply = partial(self._first_replied, cursor)
        self._backlog.append((None, 0, Input(offers=(offer,), cursor=step, reply=reply)))
        self.push()

    def push(self) -> None:
        """Offer what is kept, as far as the inbox takes it."""
        while self._backlog:
            self._boundary("kafka.before_offer")
            if not self._inbox.offer(self._backlog[0][2]):
                return
            self._backlog.popleft()
            self._boundary("kafka.after_offer")

    def end(self, reading: Reading, *, drop: bool) -> None:
        """Take nothing more of a partition; what the inbox has not taken yet is dropped where it is of no use."""
        self.readings.end(reading)
        self.changed = True
        if not drop:
            return
        kept: deque[tuple[Reading | None, int, Input]] = deque()
        for item in self._backlog:
            if item[0] is reading:
                reading.unanswered -= 1
                self.pressure.give(item[1])
            else:
                kept.append(item)
        self._backlog = kept

    def _add(self, reading: Reading, step: Step, offers: tuple[Offer, ...]) -> None:
        self.pressure.take(step.records)
        reply = partial(self._replied, reading, step)
        self._backlog.append((reading, step.records, Input(offers=offers, cursor=step.cursor, reply=reply)))
        self.push()

    def _offer(self, message: Message, cluster: str, topic_id: str) -> Offer:
        try:
            made = letter(
                message,
                settings=self._settings,
                topic=self._topics[message.topic],
                cluster=cluster,
                topic_id=topic_id or message.topic,
            )
            return made if isinstance(made, Offer) else self._door.receive(made)
        except Exception as error:  # a record that nobody foresaw must not stop those behind it
            logger.exception("A record could not be read; it becomes a dead letter.")
            bare = Letter(
                text=message.value or b"",
                where=f"kafka:{self._settings.name}/{message.topic}/{message.partition}@{message.offset}",
                source=f"/kafka/{cluster}/{topic_id or message.topic}",
                id=f"{message.partition}/{message.offset}",
            )
            return refuse(bare, InputError("unreadable", f"The record could not be read: {error!r}."))

    def _replied(self, reading: Reading, step: Step, answers: Sequence[Answer] | None) -> None:
        """Called in the loop's thread."""
        self._post(partial(self._answered, reading, step, got_in=answers is not None))

    def _answered(self, reading: Reading, step: Step, *, got_in: bool) -> None:
        reading.answered(step, got_in=got_in)
        self.pressure.give(step.records)
        if got_in:
            self.records += step.records
        else:
            self.end(reading, drop=True)
        self.changed = self.changed or reading.ended  # its last answer may have been this one

    def _first_replied(self, cursor: str, _: Sequence[Answer] | None) -> None:
        """Called in the loop's thread."""
        self._post(partial(self._first_answered, cursor))

    def _first_answered(self, cursor: str) -> None:
        self._firsts.discard(cursor)
        self.changed = True
