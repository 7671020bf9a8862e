"""The source between a cluster and a journal, both in memory: what comes is journaled once, in its order."""

import threading
import time
from typing import Any

import pytest

from daemon.core.events import InputRejected
from daemon.door import Input, Letter, Offer
from daemon.journal.base import Cursor
from daemon.sources.kafka import intake
from daemon.sources.kafka.judge import Place
from daemon.sources.kafka.messages import Message, letter
from tests.daemon.sources.kafka.cluster import cluster, until
from tests.daemon.sources.kafka.world import World, value


def test_what_is_there_and_what_comes_is_journaled_once_in_order() -> None:
    """A partition is read from its beginning, and its first position is journaled before its first record."""
    kafka = cluster()
    kafka.send("t", value(0), value(1))
    with World(kafka) as world:
        world.await_names(0, 1)
        kafka.send("t", value(2))
        world.await_names(0, 1, 2)
        assert world.names == ["0", "1", "2"]
        (first,) = world.positions
        assert (first.why, first.before, first.position.offset, first.position.topic_id) == (
            "first_seen",
            None,
            0,
            "C1",
        )
        assert world.journal.cursor("kafka:C/C1/0") == 3
        assert world.loop.duplicates == 0


def test_the_next_daemon_goes_on_where_the_journal_stands() -> None:
    """Though the first one had read ahead, and though what comes meanwhile is there before it."""
    kafka = cluster(2)
    with World(kafka) as world:
        kafka.send("t", *(value(n) for n in range(100)))
        until(lambda: world.names, "the first events")
    kafka.send("t", value(100), value(101))
    with World(kafka, store=world.store) as second:
        second.await_names(*range(102))
        assert len(second.positions) == 2
        assert second.loop.duplicates == 0


def test_what_did_not_get_in_is_read_again_from_the_journal() -> None:
    """Somebody else has moved the cursor: the source goes on from there, and nothing counts twice."""
    kafka = cluster()
    with World(kafka) as world:
        kafka.send("t", value(0))
        world.await_names(0)
        with world.journal.transaction() as transaction:
            transaction.move(Cursor(name="kafka:C/C1/0", expected=1, next=3))
        kafka.send("t", *(value(n) for n in range(1, 5)))
        world.await_names(0, 3, 4)
        world.source.forget()
        kafka.send("t", value(5))
        world.await_names(0, 3, 4, 5)
        assert world.loop.duplicates == 0


def test_too_much_in_hand_pauses_until_it_is_answered() -> None:
    """Never more is brought than the high mark; while nothing is answered nothing is fetched; then all of it comes."""
    kafka = cluster(3)
    for partition in range(3):
        kafka.send("t", *(value(partition * 1000 + n) for n in range(1000)), partition=partition)
    world = World(kafka, high_mark=50, low_mark=0)
    gate, real = threading.Event(), world.loop.handle
    most = 0

    def handle(batch: list[Input]) -> None:
        nonlocal most
        most = max(most, sum(len(item.offers) for item in batch))
        if any(item.cursor is not None and item.cursor.expected is not None for item in batch):
            assert gate.wait(10)
        real(batch)

    world.loop.handle = handle  # type: ignore[method-assign] # a loop that is busy
    with world:
        until(lambda: world.source.standing().paused, "a pause")
        fetched = sum(len(each.fetched) for each in kafka.consumers)
        assert 0 < fetched <= 50
        looks = kafka.looks
        until(lambda: kafka.looks >= looks + 2, "two more looks")
        assert sum(len(each.fetched) for each in kafka.consumers) == fetched
        gate.set()
        world.await_names(*range(3000))
        assert most <= 50
        assert sum(len(each.fetched) for each in kafka.consumers) == 3000
        until(lambda: not world.source.standing().paused, "the end of the pause")


def test_an_inbox_that_takes_nothing_keeps_nobody_waiting() -> None:
    """What it refused is kept; a second later at most, in fact much sooner, it goes in."""
    kafka = cluster()
    with World(kafka, low_mark=0, high_mark=10) as world:
        kafka.send("t", value(0))
        world.await_names(0)
        world.inbox.pause()
        kafka.send("t", *(value(n) for n in range(1, 100)))
        until(lambda: world.source.standing().paused, "a pause")
        assert world.names == ["0"]
        world.inbox.resume()
        began = time.monotonic()
        until(lambda: len(world.names) > 1, "the next events")
        assert time.monotonic() - began < 1.0
        world.await_names(*range(100))
        assert sum(len(each.fetched) for each in kafka.consumers) == 100


def test_a_record_that_nobody_foresaw_becomes_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it are read."""

    def odd(message: Message, **how: Any) -> Letter | Offer:  # noqa: ANN401 - what letter takes
        if message.offset == 1:
            raise RuntimeError("odd")
        return letter(message, **how)

    monkeypatch.setattr(intake, "letter", odd)
    kafka = cluster()
    kafka.send("t", value(0), b"odd", value(2))
    with World(kafka) as world:
        world.await_names(0, 2)
        (dead,) = [record for record in world.records if isinstance(record.event, InputRejected)]
        assert isinstance(dead.event, InputRejected)
        assert (dead.event.reason, dead.event.where, dead.text) == ("unreadable", "kafka:kafka/t/0@1", b"odd")


def test_hints_follow_the_journal_and_never_matter() -> None:
    """The group's offsets are those of the journal; where they are refused, reading goes on."""
    kafka = cluster()
    kafka.send("t", value(0), value(1))
    with World(kafka) as world:
        until(lambda: kafka.hints == {Place("t", 0): 2}, "a hint")
        kafka.hints_refused = True
        kafka.send("t", value(2))
        world.await_names(0, 1, 2)
        assert not world.degraded


def test_it_tells_how_far_behind_it_is() -> None:
    """Records, and seconds since the end has passed the position."""
    kafka = cluster()
    kafka.send("t", value(0))
    with World(kafka, look_every=0.05) as world:
        world.await_names(0)
        until(lambda: (r := world.report()) is not None and (r.position, r.lag, r.lag_seconds) == (1, 0, 0.0), "no lag")
        world.inbox.pause()
        kafka.send("t", *(value(n) for n in range(1, 10)))
        until(lambda: (r := world.report()) is not None and (r.lag_seconds or 0) > 0.2, "a lag that grows")
        assert (report := world.report()) is not None
        assert (report.position, report.lag) == (1, 9)
        world.inbox.resume()
        until(lambda: (r := world.report()) is not None and (r.position, r.lag_seconds) == (10, 0.0), "no lag")
