"""The thread that looks, tells and hints."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from daemon.sources.kafka import watch
from daemon.sources.kafka.judge import Place, Trouble
from daemon.sources.kafka.watch import Watch
from tests.daemon.sources.kafka.cluster import MemoryCluster, until

if TYPE_CHECKING:
    from daemon.broker.sight import Sight
    from daemon.core.errors import BrokerError

A = Place("t", 0)


class Desk:
    """A watch of a cluster in memory, and what it has said."""

    def __init__(self, every: float) -> None:
        self.cluster = MemoryCluster()
        self.seen: list[Sight] = []
        self.blind: list[BrokerError] = []
        self.told: list[tuple[str, str | None]] = []
        self.entered = 0
        self.open = threading.Event()
        self.open.set()
        self.watch = Watch(
            "w",
            topics=("t",),
            every=every,
            looks=lambda: self.cluster,
            hints=lambda: self.cluster,
            seen=lambda sight, began: self.seen.append(sight),
            blind=self.blind.append,
            report=self._report,
        )

    def _report(self, name: str, reason: str | None) -> None:
        self.entered += 1
        assert self.open.wait(10)
        self.told.append((name, reason))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Desk]]:
    """Make watches that begin at once, and end with the test."""
    monkeypatch.setattr(watch, "HINT_SECONDS", 0.02)
    monkeypatch.setattr(watch, "SOONEST_SECONDS", 0.02)
    monkeypatch.setattr(watch, "BLIND_SECONDS", 0.02)
    made: list[Desk] = []

    def make(every: float) -> Desk:
        made.append(Desk(every))
        made[-1].watch.start()
        return made[-1]

    yield make
    for each in made:
        each.watch.stop()
        assert each.watch.join(5)


def test_it_looks_every_so_often_and_soon_when_asked(desk: Callable[[float], Desk]) -> None:
    """A look that fails is repeated soon, and told each time."""
    slow = desk(30.0)
    until(lambda: len(slow.seen) == 1, "the first look")
    began = time.monotonic()
    slow.watch.ask()
    until(lambda: len(slow.seen) == 2, "the look that was asked for")
    assert time.monotonic() - began < 5
    slow.cluster.down = True
    slow.watch.ask()
    until(lambda: len(slow.blind) >= 2, "looks that fail")
    slow.cluster.down = False
    until(lambda: len(slow.seen) == 3, "a look that succeeds")
    quick = desk(0.01)
    until(lambda: len(quick.seen) >= 3, "looks")


def test_it_tells_of_what_is_new_and_of_what_is_over(desk: Callable[[float], Desk]) -> None:
    """Other words for the same condition are no news: each would be a record in the journal."""
    made = desk(30.0)
    made.watch.tell({"a": Trouble(condition="missing", reason="1"), "b": Trouble(condition="missing", reason="2")})
    until(lambda: len(made.told) == 2, "two troubles")
    made.watch.tell({"a": Trouble(condition="missing", reason="other words")})
    until(lambda: made.told[2:] == [("b", None)], "the end of one")
    made.watch.tell({"a": Trouble(condition="another_topic", reason="3")})
    until(lambda: made.told[3:] == [("a", "3")], "another condition")
    made.watch.tell({})
    until(lambda: made.told[4:] == [("a", None)], "the end of the other")


def test_whoever_it_tells_keeps_no_look_waiting(desk: Callable[[float], Desk]) -> None:
    """As a full inbox would; what has changed meanwhile is told afterwards."""
    made = desk(0.02)
    made.open.clear()
    made.watch.tell({"a": Trouble(condition="missing", reason="1")})
    until(lambda: made.entered == 1, "a word that is waited for")
    looks = len(made.seen)
    made.watch.tell({"b": Trouble(condition="missing", reason="2")})
    until(lambda: len(made.seen) >= looks + 3, "more looks")
    made.open.set()
    until(lambda: made.told == [("a", "1"), ("a", None), ("b", "2")], "all that was to be told")


def test_a_hint_is_left_when_something_has_moved(desk: Callable[[float], Desk]) -> None:
    """Refusals are counted, and tried again later and later; nobody is told of them as of a trouble."""
    made = desk(30.0)
    until(lambda: made.seen, "the first look")
    made.watch.hint({A: 1})
    until(lambda: made.cluster.hints == {A: 1}, "a hint")
    made.cluster.hints_refused = True
    made.watch.hint({A: 2})
    until(lambda: made.watch.hints_refused >= 2, "refusals")
    made.cluster.hints_refused = False
    until(lambda: made.cluster.hints == {A: 2}, "another hint")
    assert made.watch.hints_refused == 0
    assert not made.told
