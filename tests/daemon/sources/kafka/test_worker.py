"""The thread that reads by order."""

import threading

import pytest

from daemon.core.errors import BrokerError
from daemon.sources.kafka.judge import Place, Start
from daemon.sources.kafka.worker import Broken, Brought, Order, Told, Worker
from tests.daemon.sources.kafka.cluster import MemoryCluster, MemoryConsumer, until

A, B = Place("t", 0), Place("t", 1)


@pytest.fixture
def cluster() -> MemoryCluster:
    """Give a cluster with a topic of two partitions."""
    made = MemoryCluster()
    made.create("t", 2)
    return made


def order(number: int, *places: Place, seeks: dict[Place, int]) -> Order:
    """Make an order."""
    start = Start(cursor="c", topic_id="C1", offset=0)
    return Order(number=number, places=dict.fromkeys(places, start), seeks=seeks, most=10)


def test_an_order_that_was_not_begun_is_not_lost_in_the_next(cluster: MemoryCluster) -> None:
    """Its seeks are carried out with those of the next one, but for places that are read no more."""
    told: list[Told] = []
    connect = threading.Event()

    def slowly() -> MemoryConsumer:
        assert connect.wait(5)
        return cluster.connect("C")

    at_work = Worker("w", slowly, lambda _, each: told.append(each))
    at_work.start()
    at_work.give(order(1, A, Place("gone", 0), seeks={A: 1, Place("gone", 0): 5}))
    at_work.give(order(2, A, B, seeks={B: 0}))
    cluster.send("t", b"0", b"1")
    connect.set()
    until(lambda: len(told) == 2, "records")
    assert told[0] == "connected"
    assert isinstance(told[1], Brought)
    assert told[1].order == 2
    assert [each.offset for each in told[1].haul.records[A]] == [1]
    at_work.stop()
    assert at_work.join(5)
    assert cluster.consumers[0].closed.is_set()


def test_an_order_is_carried_out_once(cluster: MemoryCluster) -> None:
    """What comes after its records waits for the next order."""
    told: list[Told] = []
    at_work = Worker("w", lambda: cluster.connect("C"), lambda _, each: told.append(each))
    at_work.start()
    cluster.send("t", b"0")
    at_work.give(order(1, A, seeks={A: 0}))
    until(lambda: len(told) == 2, "records")
    cluster.send("t", b"1")
    assert not at_work.join(0.2)
    assert len(told) == 2
    at_work.give(order(2, A, seeks={}))
    until(lambda: len(told) == 3, "the next record")
    at_work.stop()
    assert at_work.join(5)


def test_it_says_why_it_ends(cluster: MemoryCluster) -> None:
    """Nobody to connect to, or an error while it reads: one word, and its thread is over."""
    cluster.down = True
    told: list[Told] = []
    at_work = Worker("w", lambda: cluster.connect("C"), lambda _, each: told.append(each))
    at_work.start()
    assert at_work.join(5)
    (broken,) = told
    assert isinstance(broken, Broken)
    assert str(broken.error) == "nobody answers"

    cluster.down = False
    told.clear()
    at_work = Worker("w", lambda: cluster.connect("C"), lambda _, each: told.append(each))
    at_work.start()
    at_work.give(order(1, A, seeks={}))  # what the memory consumer takes for a mistake
    assert at_work.join(5)
    assert isinstance(told[-1], Broken)
    assert isinstance(told[-1].error, BrokerError)
    assert cluster.consumers[-1].closed.is_set()


def test_one_that_hangs_can_be_left_behind(cluster: MemoryCluster) -> None:
    """What it waits for is taken away."""
    told: list[Told] = []
    at_work = Worker("w", lambda: cluster.connect("C"), lambda _, each: told.append(each))
    at_work.start()
    at_work.give(order(1, A, seeks={A: 0}))
    until(lambda: told, "the connection")
    at_work.abandon()
    assert at_work.join(5)
    assert cluster.consumers[0].closed.wait(5)
