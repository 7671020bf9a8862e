"""The thread that waits for the cluster, so that nobody else has to: it reads by order, and can be left behind."""

import threading
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from daemon.core.errors import BrokerError
from daemon.sources.kafka.consumer import Consumer, Haul
from daemon.sources.kafka.judge import Place, Start

POLL_SECONDS = 0.5
"""How long the consumer waits for records at a time; so long a new order waits at most."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Bring at most `most` records of these places, once; until there are some, wait for them.

    `seeks` says from where those are read that were not read before.
    """

    number: int
    places: dict[Place, Start]
    seeks: dict[Place, int]
    most: int


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What an order has brought; one with records, or with a fault, ends the order."""

    order: int
    haul: Haul


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The worker has ended, for the cluster could not be reached, or not be read from."""

    error: BrokerError


Told = Brought | Broken | Literal["connected"]


class Worker:
    """A consumer in a thread of its own. `tell` is called in that thread."""

    def __init__(self, name: str, connect: Callable[[], Consumer], tell: Callable[["Worker", Told], None]) -> None:
        self._connect = connect
        self._tell = tell
        self._changed = threading.Condition()
        self._order: Order | None = None
        self._stopped = False
        self._consumer: Consumer | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def give(self, order: Order) -> None:
        """Let this order take the place of the one before."""
        with self._changed:
            if self._order is not None:  # it was not begun yet
                before = {place: at for place, at in self._order.seeks.items() if place in order.places}
                order = replace(order, seeks=before | order.seeks)
            self._order = order
            self._changed.notify_all()

    def stop(self) -> None:
        """End as soon as the consumer returns."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """End a worker that hangs: what it waits for is taken away, and nobody waits for it."""
        self.stop()
        consumer = self._consumer
        if consumer is not None and self._thread.is_alive():
            threading.Thread(target=consumer.abort, name=f"{self._thread.name} end", daemon=True).start()

    def join(self, timeout: float) -> bool:
        """Wait for the end; returns whether it has come."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            consumer = self._connect()
        except BrokerError as error:
            self._tell(self, Broken(error=error))
            return
        self._consumer = consumer
        try:
            self._tell(self, "connected")
            while (order := self._next()) is not None:
                self._carry_out(consumer, order)
        except Exception as error:  # noqa: BLE001 - whatever the library does, the source goes on without this worker
            known = error if isinstance(error, BrokerError) else BrokerError(f"Reading failed: {error!r}.")
            self._tell(self, Broken(error=known))
        finally:
            consumer.close()

    def _next(self) -> Order | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._order is not None)
            order, self._order = self._order, None
            return None if self._stopped else order

    def _carry_out(self, consumer: Consumer, order: Order) -> None:
        consumer.read(order.places, order.seeks)
        while not self._stopped and self._order is None:
            haul = consumer.poll(POLL_SECONDS, order.most)
            if haul.records or haul.passed or haul.fault:
                self._tell(self, Brought(order=order.number, haul=haul))
            if haul.records or haul.fault:
                return
