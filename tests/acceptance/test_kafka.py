"""A daemon that is fed by Kafka: from a record to a run, through kills, and with a standby."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.core.events import DaemonStarted, DataArrived, DriftDetected, InputRejected, PositionSet, RunSucceeded
from daemon.testing import Life
from tests.acceptance.home import Home, event
from tests.bench import processes
from tests.bench.crash_daemons import Daemon, Nursery

if TYPE_CHECKING:
    from tests.brokers.broker import Broker

pytestmark = pytest.mark.slow
LEASE = 0.5


@pytest.fixture(scope="module")
def nurseries() -> Iterator[tuple[Nursery, Nursery]]:
    """Give two processes that fork daemons, each one at a time."""
    with Nursery() as first, Nursery() as second:
        yield first, second


def settings(broker: "Broker", *topics: str) -> dict[str, object]:
    """Return a source's settings."""
    return {"bootstrap_servers": [broker.address], "topics": topics, "look_every": 0.3, "dead_letters": False}


def drift(name: object) -> bytes:
    """Return an event that starts no run; without an id, so that its offset is its name."""
    return msgspec.json.encode(
        {"type": "drift.detected", "subject": "one", "data": {"metric": f"{name}", "value": 1.0}}
    )


def names(home: Home) -> list[str]:
    """Return the names of the events that came, in their order."""
    return [each.metric for each in home.events(DriftDetected)]


def test_a_record_starts_a_run_and_a_bad_one_stops_nothing(home: Home, broker: "Broker") -> None:
    """The partition's beginning is journaled first; what is no event becomes a dead letter with its place."""
    topic = broker.topic(prefix="daemon")
    home.configure(kafka=settings(broker, topic), http=True)
    arrived = event("data.arrived", {"uri": home.data(), "domain": "words"}, "1")
    broker.produce(topic, b"no event", msgspec.json.encode(arrived), msgspec.json.encode(arrived))
    daemon = home.start()
    home.wait_for(RunSucceeded)
    assert len(home.notes()) == 1
    (position,) = home.events(PositionSet)
    assert (position.why, position.position.topic, position.position.offset) == ("first_seen", topic, 0)
    (dead,) = home.events(InputRejected)
    assert (dead.reason, dead.where) == ("malformed", f"kafka:kafka/{topic}/0@0")
    home.wait(lambda: f'topic="{topic}"}} 0.0' in home.get("/metrics")[1], "a lag of nothing")
    assert home.get("/readyz")[0] == 200
    assert home.stop(daemon) == 0


def test_kills_while_it_reads_lose_and_repeat_nothing(
    home: Home, broker: "Broker", nurseries: tuple[Nursery, Nursery]
) -> None:
    """A daemon is killed again and again at random while records come to two partitions: each counts once."""
    topic = broker.topic(2, prefix="killed")
    home.configure(kafka={**settings(broker, topic), "high_mark": 200, "low_mark": 50})
    sent = itertools.count()
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.02):
            first = next(sent)
            values = [first, *(next(sent) for _ in range(9))]
            broker.produce(topic, *map(drift, values), partition=first % 20 // 10)

    chance = random.Random(7)
    thread = threading.Thread(target=produce)
    thread.start()
    try:
        for _ in range(4):
            before = len(names(home))
            daemon = Daemon(nurseries[0], Life(config=str(home.configuration), log=str(home.log)))
            home.wait(lambda before=before: len(names(home)) > before, "events")  # type: ignore[misc] # bound now
            time.sleep(chance.random() * 0.3)  # the instant of the kill is random
            daemon.kill()
            daemon.wait()
    finally:
        stop.set()
        thread.join()
    last = Daemon(nurseries[0], Life(config=str(home.configuration), log=str(home.log)))
    try:
        wanted = next(sent)
        home.wait(lambda: len(names(home)) >= wanted, f"{wanted} events")
        assert sorted(map(int, names(home))) == list(range(wanted))
        assert len(home.events(PositionSet)) == 2
    finally:
        last.kill()
        last.wait()


def test_a_standby_has_no_consumer_and_takes_over(
    home: Home, broker: "Broker", nurseries: tuple[Nursery, Nursery]
) -> None:
    """It is not connected to the broker at all while another daemon leads; then it reads on where that one stopped."""
    topic = broker.topic(prefix="standby")
    home.configure(kafka=settings(broker, topic), standby={"enabled": True, "lease": LEASE})
    life = Life(config=str(home.configuration), log=str(home.log))
    leader = Daemon(nurseries[0], life)
    standby = None
    try:
        broker.produce(topic, drift(0))
        home.wait(lambda: names(home) == ["0"], "an event")
        standby = Daemon(nurseries[1], life)
        home.wait(lambda: home.logged("This daemon stands by."), "the standby")
        port = int(broker.address.rpartition(":")[2])
        assert connections(leader.pid, port) > 0
        assert connections(standby.pid, port) == 0
        leader.kill()
        broker.produce(topic, drift(1))
        home.wait(lambda: names(home) == ["0", "1"], "the next event")
        assert [each.pid for each in home.events(DaemonStarted)] == [leader.pid, standby.pid]
        assert len(home.events(PositionSet)) == 1
    finally:
        for daemon in (leader, standby):
            if daemon is not None:
                daemon.kill()
                daemon.wait()


def test_without_a_broker_it_serves_and_stops(home: Home) -> None:
    """The daemon is ready, says what is wrong, takes in what comes otherwise, and ends quickly."""
    nobody = processes.free_port()
    home.configure(http=True, kafka={"bootstrap_servers": [f"127.0.0.1:{nobody}"], "topics": ["t"]})
    daemon = home.start()
    home.wait(lambda: "kafka:kafka" in home.get("/readyz?verbose")[1], "the trouble")
    assert home.get("/readyz")[0] == 200
    assert home.get("/livez")[0] == 200
    home.arrive()
    home.wait_for(DataArrived)
    began = time.monotonic()
    assert home.stop(daemon) == 0
    assert time.monotonic() - began < 3.0


def connections(pid: int, port: int) -> int:
    """Return how many connections a process has to a port of this machine."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(file.readlink().name)
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(f"socket:[{row[9]}]" in sockets for row in rows if int(row[2].partition(":")[2], 16) == port)
