"""Daemons that read from Kafka, killed by SIGKILL: nothing is lost, nothing happens twice, poison is told once."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bench.bench_kafka_crash import make
from tests.bench.crash_daemons import Nursery
from tests.bench.crash_kafka import KafkaFeed
from tests.bench.crash_surgery import AIMS, take_over
from tests.bench.crash_world import Kill, World, same_hashes
from tests.brokers.broker import Broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KILLS = 20


@contextmanager
def scene(broker: Broker, folder: Path) -> Iterator[tuple[World, KafkaFeed, Nursery, Nursery]]:
    """Give a world whose facts come by Kafka, and two processes that fork daemons."""
    world, feed = make(broker, folder, poison=0.1)
    with ExitStack() as stack:
        stack.callback(world.retire)
        nurseries = stack.enter_context(Nursery()), stack.enter_context(Nursery())
        world.warm_up()
        yield world, feed, *nurseries


def test_kills_lose_and_repeat_nothing(broker: Broker, tmp_path: Path) -> None:
    """At boundaries, at random instants and after a standby took over: each fact counts once, all poison is told."""
    with scene(broker, tmp_path) as (world, feed, first, second):
        number = 0
        while number < KILLS:
            rng = random.Random(f"6/{number}")
            if number == KILLS // 2:
                take_over(world, (first, second), rng)
                number += 2
                continue
            aim = AIMS[number // 2 % len(AIMS)] if number % 2 else None
            world.kill(first, Kill(boundary=aim, count=rng.randint(1, 3), delay=rng.uniform(0, 0.5), patience=0.8), rng)
            number += 1
        assert world.drain(first, patience=30)
        counted = world.count()
        assert (counted.lost, counted.repeated, counted.wrong) == ([], [], [])
        assert counted.duplicates == counted.duplicates_expected > 0
        assert counted.dead_letters > 0
        assert counted.succeeded > 0
        assert feed.faults() == ([], [])
        assert same_hashes(world.journal) == []


def test_a_cursor_outside_the_transaction_loses_something(broker: Broker, tmp_path: Path) -> None:
    """The same kills and the same counter find fault with a journal that moves its cursors by themselves."""
    with scene(broker, tmp_path) as (world, _, first, _second):
        for number in range(2):
            rng = random.Random(f"7/{number}")
            world.deliver(rng)
            kill = Kill(boundary="journal.before_commit", count=3, patience=2, loose=True)
            world.kill(first, kill, rng)
        world.drain(first, patience=1.0, loose=True)
        assert world.count().lost
