"""How daemons that read from Kafka, and the brokers that they read from, come to their ends."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from daemon.journal.lock import lock_path, standby_path
from daemon.testing import BOUNDARIES
from ops.publishing.sink import AFTER_COMMIT, AFTER_CURSOR, AFTER_SEND, BEFORE_SEND
from tests.bench import processes
from tests.bench.crash_daemons import Daemon, Nursery
from tests.bench.crash_world import Kill, World
from tests.brokers.cluster import Cluster

AIMS = (
    *(name for name in BOUNDARIES if name.partition(".")[0] in {"journal", "snapshot"}),
    *("kafka.before_offer", "kafka.after_offer"),
    *(BEFORE_SEND, AFTER_SEND, AFTER_CURSOR, AFTER_COMMIT),
)
"""Where a daemon is killed on the way from Kafka into the journal, and on that of a dead letter out of it."""


class Surgeon:
    """Kills one broker at a time, and lets it come back after some seconds."""

    def __init__(self, cluster: Cluster) -> None:
        self.kills = 0
        self._cluster = cluster
        self._return: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()

    def kill(self, rng: random.Random) -> None:
        """Kill a broker, once the one before takes part again."""
        self.heal()
        node, away = rng.randrange(len(self._cluster.nodes)), rng.uniform(1.0, 8.0)
        self._cluster.kill(node)
        self.kills += 1
        self._return = threading.Thread(target=self._bring_back, args=(node, away), daemon=True)
        self._return.start()

    def heal(self) -> None:
        """Wait until every broker takes part."""
        if self._return is not None:
            self._return.join()
            self._return = None

    def _bring_back(self, node: int, away: float) -> None:
        time.sleep(away)
        self._cluster.start(node)


def kills(seed: str, skip: int) -> Iterator[tuple[Kill, random.Random]]:
    """Yield kills without end, each with its chance: at a boundary in turn, from the `skip`-th on, then two others."""
    for number in itertools.count():
        rng = random.Random(f"{seed}/{number}")
        if number % 3:
            yield Kill(early=rng.random() < 0.1, delay=rng.uniform(0.0, 3.0), exec=number % 30 == 1), rng
        else:
            aim = AIMS[(skip + number // 3) % len(AIMS)]
            most = {"journal": 8, "kafka": 8}.get(aim.partition(".")[0], 1)
            yield Kill(boundary=aim, count=rng.randint(1, most), patience=10.0), rng


def take_over(world: World, nurseries: tuple[Nursery, Nursery], rng: random.Random) -> None:
    """Kill a leader whose standby stands ready, and then the standby, some time after it took over."""
    leader = Daemon(nurseries[0], world.life())
    standby = None
    try:
        processes.wait(lambda: leader.holds(lock_path(world.journal)), "a leader", look=0.01)
        standby = successor = Daemon(nurseries[1], world.life())
        processes.wait(lambda: successor.holds(standby_path(world.journal)), "a standby", look=0.01)
        world.end(leader, Kill(delay=rng.uniform(0.0, 1.5)), rng)
        processes.wait(lambda: successor.holds(lock_path(world.journal)), "the successor", look=0.01)
        world.end(successor, Kill(early=True, delay=rng.uniform(0.0, 2.5)), rng)
    finally:
        for daemon in (leader, standby):
            if daemon is not None:
                daemon.kill()
