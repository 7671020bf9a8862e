"""Whoever dies, stands still or comes back: a consumer sees every dead letter once, and in order."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.broker.access import Access
from daemon.core.events import Carrier, DaemonStarted, InputRejected, Record
from daemon.core.state import State
from daemon.journal.sqlite import SqliteJournal, open_journal, open_reader
from ops.followers import STOP_SECONDS, Followers
from ops.publishing.build import publishers
from ops.publishing.sink import AFTER_COMMIT, AFTER_CURSOR, AFTER_SEND, BEFORE_SEND
from tests.brokers.broker import Broker
from tests.brokers.cluster import Cluster
from tests.ops.publishing.lives import ENDED, SOURCE, Life, Nursery

PARTITIONS = 2
PATIENCE = 30.0
SEED = 4711


class World:
    """A journal that gets dead letters, and the topic that is told of them."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.broker = broker
        self.state = folder / "state"
        self.state.mkdir()
        self.path = folder / "journal.db"
        self.journal: SqliteJournal = open_journal(self.path)
        self.group = f"lives-{time.time_ns()}"
        self.topic = f"{self.group}.dlq"
        self.letters: list[int] = []
        broker.create(self.topic, PARTITIONS)

    def write(self, count: int) -> list[Record]:
        """Record dead letters, with a few keys and without."""
        records = []
        for number in range(count):
            at = len(self.letters)
            event = InputRejected(reason="malformed", message="It is no JSON.", where=f"kafka:{SOURCE}/in/0@{at}")
            key = f"k{at % 3}".encode() if at % 4 else None
            carrier = Carrier(source=SOURCE, topic="in", partition=at % 5, offset=at, timestamp=_now(), key=key)
            records.append(self._record(number, event, carrier))
            self.letters.append(records[-1].position)
        return self._append(records)

    def another_daemon(self) -> None:
        """Record that a daemon begins to lead."""
        event = DaemonStarted(epoch=2, release="1", reducer=1, host="here", pid=1)
        self._append([self._record(0, event, None)])

    def life(self, boundary: str | None = None, *, count: int = 1, freeze: bool = False) -> Life:
        """Return how a follower lives."""
        return Life(
            address=self.broker.address,
            group=self.group,
            journal=str(self.path),
            state=str(self.state),
            boundary=boundary,
            count=count,
            does="freeze" if freeze else "kill",
        )

    def end(self) -> None:
        """Say that no more dead letters will come."""
        (self.state / ENDED).touch()

    def check(self) -> None:
        """Check that a consumer of committed records sees every dead letter once, and in order within a partition."""
        for partition in range(PARTITIONS):  # so that one too many would be seen
            self.broker.produce(self.topic, "the end", partition=partition)
        found: list[list[int]] = [[] for _ in range(PARTITIONS)]
        for record in self.broker.read(self.topic, len(self.letters) + PARTITIONS):
            if record.headers:
                found[record.partition].append(int(dict(record.headers)["rewarm.errors.id"].rpartition(b"/")[2]))
        assert sorted(position for told in found for position in told) == self.letters
        assert found == [sorted(told) for told in found]

    def _record(self, number: int, event: InputRejected | DaemonStarted, carrier: Carrier | None) -> Record:
        position = self.journal.head() + 1 + number
        return Record(
            position=position,
            recorded_at=self.journal.stamp(datetime.now(UTC)),
            source="/rewarm/door",
            id=f"e{position}",
            event=event,
            text=b"{broken",
            carrier=carrier,
        )

    def _append(self, records: list[Record]) -> list[Record]:
        with self.journal.transaction() as transaction:
            transaction.append(records)
        return records


def _now() -> int:
    return int(time.time() * 1000)


def wait_until(true: Callable[[], bool]) -> None:
    """Return when something is true."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def stopped(process: int) -> bool:
    """Tell whether a process stands still."""
    return "\nState:\tT" in Path(f"/proc/{process}/status").read_text(encoding="utf-8")


@pytest.fixture
def world(tmp_path: Path, broker: Broker) -> Iterator[World]:
    """Give a journal and a topic."""
    made = World(tmp_path, broker)
    yield made
    made.journal.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Nursery, Nursery]]:
    """Give two nurseries, for two daemons at a time."""
    first, second = Nursery(), Nursery()
    yield first, second
    first.close()
    second.close()


def test_killed_at_every_boundary_and_in_between(world: World, pair: tuple[Nursery, Nursery]) -> None:
    """Each life is ended by SIGKILL, where it hurts or at random; the last one tells the rest."""
    nursery, _ = pair
    chance = random.Random(SEED)
    for boundary in (BEFORE_SEND, AFTER_SEND, AFTER_CURSOR, AFTER_COMMIT):
        world.write(10)
        nursery.begin(world.life(boundary, count=chance.randint(1, 2)))
        assert nursery.end() == -signal.SIGKILL
    for _ in range(4):
        world.write(10)
        process = nursery.begin(world.life())
        time.sleep(chance.uniform(0.05, 0.3))  # when, not what, is left to chance
        os.kill(process, signal.SIGKILL)
        assert nursery.end() == -signal.SIGKILL
    world.end()
    nursery.begin(world.life())
    assert nursery.end() == 0
    world.check()


@pytest.mark.parametrize("boundary", [AFTER_SEND, AFTER_CURSOR])
def test_an_old_leader_wakes_up(world: World, pair: tuple[Nursery, Nursery], boundary: str) -> None:
    """It stood still within a transaction while another daemon took over: it is fenced, tells nothing more and ends."""
    old, new = pair
    world.write(20)
    asleep = old.begin(world.life(boundary, count=2, freeze=True))
    wait_until(lambda: stopped(asleep))
    world.another_daemon()
    world.end()
    new.begin(world.life())
    assert new.end() == 0
    os.kill(asleep, signal.SIGCONT)
    assert old.end() == 0
    world.check()


def test_a_broker_that_dies_and_one_that_freezes(
    tmp_path: Path, own_broker: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within a transaction, the broker comes back, and all is told once; a frozen one holds nobody up."""
    monkeypatch.setattr("ops.publishing.publisher.LONGEST", 0.5)
    monkeypatch.setattr("ops.publishing.publisher.SHORTEST", 0.1)
    world = World(tmp_path, own_broker)
    passed: list[str] = []

    def pass_by(boundary: str) -> None:
        passed.append(boundary)
        if boundary == AFTER_SEND and passed.count(boundary) == 2:
            own_broker.kill()

    (follower,) = publishers(
        source=SOURCE,
        group=world.group,
        access=Access(bootstrap_servers=(own_broker.address,), request_timeout=1.0),
        dead_letters=world.topic,
        transitions=None,
        state=world.state,
        reader=lambda: open_reader(world.path),
        boundary=pass_by,
    )
    followers = Followers([follower])

    def write(count: int) -> None:
        followers.observe(world.write(count), State(position=world.journal.head()))

    write(80)
    followers.start()
    wait_until(lambda: passed.count(AFTER_SEND) == 2)
    wait_until(lambda: not own_broker.nodes[0].alive)
    own_broker.start()
    wait_until(lambda: follower.behind == 0)
    own_broker.freeze()
    write(5)
    wait_until(lambda: follower.behind > 0)
    began = time.monotonic()
    followers.stop()
    assert time.monotonic() - began < STOP_SECONDS + 0.5
    own_broker.thaw()
    world.letters = world.letters[:80]
    world.check()
    wait_until(lambda: not any(thread.name == follower.label for thread in threading.enumerate()))
    world.journal.close()
