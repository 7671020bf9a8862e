"""One worker at a time: hired while there is something to read, given orders, left behind when it is of no use."""

from collections.abc import Callable, Mapping
from functools import partial

from daemon.broker.sight import TopicSight
from daemon.sources.kafka.consumer import Consumer
from daemon.sources.kafka.judge import Judgement, Place
from daemon.sources.kafka.readings import Reading
from daemon.sources.kafka.worker import Order, Told, Worker

RETRY_SECONDS = 0.1


class Crew:
    """The worker of a source; used by the source's thread alone. `tell` is called in the worker's."""

    def __init__(
        self, name: str, *, connect: Callable[[str], Consumer], tell: Callable[[Worker, Told], None], longest: float
    ) -> None:
        self._name = name
        self._connect = connect
        self._tell = tell
        self._longest = longest
        self._worker: Worker | None = None
        self._ids: dict[str, str] = {}
        self._connected_at: float | None = None
        self._order: Order | None = None
        self._orders = 0
        self._failures = 0
        self.retry_at = 0.0

    @property
    def at_work(self) -> bool:
        """Whether there is a worker."""
        return self._worker is not None

    def has(self, worker: Worker) -> bool:
        """Return whether this worker is the present one."""
        return worker is self._worker

    def connected(self, now: float) -> None:
        """Take note that the worker has reached the cluster."""
        self._connected_at = now

    def proven(self, now: float) -> bool:
        """Return whether the worker has been well for a while."""
        return self._connected_at is not None and now - self._connected_at > self._longest

    def done(self, order: int) -> None:
        """Take note that an order is carried out."""
        if self._order is not None and self._order.number == order:
            self._order = None

    def failed(self, now: float) -> int:
        """Wait a while until there is another worker; returns how many have failed one after the other."""
        self._failures = 1 if self.proven(now) else self._failures + 1
        self.retry_at = now + min(self._longest, RETRY_SECONDS * 2 ** min(self._failures, 10))
        return self._failures

    def keep(self, judgement: Judgement, seen: Mapping[str, TopicSight], *, reachable: bool, now: float) -> bool:
        """Have a worker while there is something to read; returns whether a new one was hired.

        One that has read a topic that is gone, or is another one now, is let go: its client keeps what it knew.
        """
        stale = any(topic not in seen or seen[topic].topic_id != known for topic, known in self._ids.items())
        if stale or not judgement.starts:
            self.dismiss()
        if self._worker is not None or not judgement.starts or not reachable or now < self.retry_at:
            return False
        self._worker = Worker(self._name, partial(self._connect, judgement.cluster), self._tell)
        self._worker.start()
        return True

    def give(self, active: Mapping[Place, Reading], room: int) -> None:
        """Order what is to be read, unless that is ordered already."""
        if self._worker is None or self._connected_at is None or room <= 0 or not active:
            return
        new = {place: reading for place, reading in active.items() if reading.order is None}
        if self._order is not None and not new and self._order.places.keys() == active.keys():
            return
        self._orders += 1
        for reading in new.values():
            reading.order = self._orders
        self._ids |= {place.topic: reading.start.topic_id for place, reading in active.items()}
        self._order = Order(
            number=self._orders,
            places={place: reading.start for place, reading in active.items()},
            seeks={place: reading.next for place, reading in new.items()},
            most=room,
        )
        self._worker.give(self._order)

    def dismiss(self) -> None:
        """Let the worker go as soon as it returns; another one may go on at once where orders have led this one."""
        if self._worker is not None:
            self._worker.stop()
        self._forget()

    def leave(self) -> None:
        """Leave the worker behind, whatever it is at."""
        if self._worker is not None:
            self._worker.abandon()
        self._forget()

    def end(self, timeout: float) -> None:
        """Let the worker end; one that does not in time is left behind."""
        if self._worker is not None:
            self._worker.stop()
            if not self._worker.join(timeout):
                self._worker.abandon()

    def _forget(self) -> None:
        self._worker, self._order, self._connected_at = None, None, None
        self._ids = {}
