"""The loop and time: wake-ups, waits, snapshots, and threads."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.errors import JournalFull
from daemon.core.events import (
    DaemonStopped,
    DataArrived,
    StageFailed,
    TimerFired,
)
from daemon.core.transition import REDUCER_VERSION
from daemon.door import Input, Offer
from daemon.journal.base import digest

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Bench = Any
MakeBench = Callable[..., Any]


def arrival(id_: str) -> Offer:
    """Offer an arrival for pipeline p."""
    event = DataArrived(uri=id_, domain="prose", tokens=5, bytes=5)
    return Offer(source="/s", id=id_, where="f:1", digest=digest(id_.encode()), event=event, pipeline="p")


def one(*offers: Offer) -> Input:
    """Make an input."""
    return Input(offers=offers)


def run_once(bench: Bench) -> None:
    """Let the loop take one batch (or none) and stop."""
    bench.loop._housekeeping = bench.loop.stop  # noqa: SLF001 - the only call at the end of a round
    bench.loop.run()


def test_wake_ups_fire_once_and_overdue_ones_at_once(bench: Bench) -> None:
    """A wake-up that fell due while the daemon was down is the first thing that happens; it happens once."""
    bench.loop.handle([one(arrival("1"))])
    due = NOON + timedelta(seconds=10)
    assert bench.loop.state.pipelines["p"].timers == {"waker:key": due}
    assert bench.loop._patience() == 5.0  # noqa: SLF001 - how long it would wait
    bench.now = NOON + timedelta(seconds=7)
    assert bench.loop._patience() == 3.0  # noqa: SLF001 - as above
    bench.now = NOON + timedelta(days=3)
    assert bench.loop._patience() == 0.0  # noqa: SLF001 - as above
    run_once(bench)
    (fired,) = bench.records("timer.fired")
    assert fired.event == TimerFired(policy="waker", key="key", due=due)
    assert fired.id == f"timer:p:waker:key:{due.isoformat()}"
    assert fired.recorded_at == bench.now
    assert bench.loop.state.pipelines["p"].timers == {"waker:key": bench.now + timedelta(seconds=10)}


def test_a_stages_own_word_counts_whatever_its_clock_says(bench: Bench) -> None:
    """A machine's clock that was days ahead and was mended leaves no run that waits for its end for ever."""
    ended = StageFailed(run="p-1", stage="train", attempt=1, failure="transient", message="")
    source = "/rewarm/runs/p-1/train/1"
    line = Offer(source=source, id="1", where=f"{source}:1", digest=b"d", event=ended, pipeline="p")
    bench.loop.handle([one(replace(line, time=NOON + timedelta(days=9)))])
    assert not bench.records("input.rejected")
    (record,) = bench.records("stage.failed")
    assert record.time == NOON + timedelta(days=9)


def test_nothing_fires_before_its_time(bench: Bench) -> None:
    """A wake-up in the future stays pending while other inputs are handled."""
    bench.loop.handle([one(arrival("1"))])
    bench.inbox.put(one(arrival("2")))
    run_once(bench)
    assert not bench.records("timer.fired")
    assert len(bench.records("data.arrived")) == 2


def test_the_loop_runs_until_it_is_told_to_stop(bench: Bench) -> None:
    """Inputs of other threads are taken as they come; a stop ends the wait."""
    came = threading.Event()
    bench.loop._observers = (lambda records, state: came.set(),)  # noqa: SLF001 - to know when
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    try:
        assert bench.inbox.put(one(arrival("1")))
        assert came.wait(10)
    finally:
        bench.loop.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert bench.kept_house >= 1
    assert len(bench.records("data.arrived")) == 1


def test_a_clock_that_goes_back_is_held(bench: Bench) -> None:
    """Recorded instants never decrease."""
    bench.loop.handle([one(arrival("1"))])
    bench.now = NOON - timedelta(hours=1)
    bench.loop.handle([one(arrival("2"))])
    stamps = [record.recorded_at for record in bench.records()]
    assert stamps == sorted(stamps)
    assert stamps[-1] == NOON


def test_the_daemons_own_facts_have_identities_of_their_own(bench: Bench) -> None:
    """The same fact told twice is two facts."""
    bench.loop.tell(DaemonStopped(reason="x"), DaemonStopped(reason="x"))
    bench.loop.tell(DaemonStopped(reason="x"))
    assert len({record.id for record in bench.records("daemon.stopped")}) == 3


class Monotonic:
    """A monotonic clock that is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        """Return what was set."""
        return self.seconds


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    """Give the loop a monotonic clock that is set."""
    clock = Monotonic()
    monkeypatch.setattr("daemon.loop.time", clock)
    return clock


def kept(bench: Bench) -> list[int]:
    """Return the positions of the snapshots."""
    return [snapshot.position for snapshot in bench.journal.snapshots(REDUCER_VERSION)]


def test_snapshots_come_by_number_and_by_time(
    make_bench: MakeBench, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many records, or a minute in which there was one; never without a new record."""
    monkeypatch.setattr("daemon.loop.SNAPSHOT_RECORDS", 10)
    bench = make_bench()
    for number in range(3):
        bench.inbox.put(one(*(arrival(f"{number}-{n}") for n in range(4))))
        run_again(bench)
    first = kept(bench)
    assert len(first) == 1
    assert first[0] >= 10
    bench.inbox.put(one(arrival("last")))
    run_again(bench)
    assert kept(bench) == first
    monotonic.seconds += 60
    run_again(bench)
    assert kept(bench)[0] == bench.loop.state.position
    monotonic.seconds += 6000
    known = kept(bench)
    run_again(bench)
    assert kept(bench) == known


def run_again(bench: Bench) -> None:
    """Let the loop do one more round."""
    bench.loop._stop.clear()  # noqa: SLF001 - it was stopped after the round before
    bench.inbox.wake()
    run_once(bench)


def test_a_snapshot_that_finds_no_room_is_left_for_later(
    monotonic: Monotonic, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on without it, and does not try again at once."""
    tries: list[int] = []

    def save(**snapshot: object) -> None:
        tries.append(1)
        raise JournalFull("no room")

    monkeypatch.setattr(bench.journal, "save_snapshot", save)
    monotonic.seconds += 3600
    run_again(bench)
    run_again(bench)
    assert len(tries) == 1
    monotonic.seconds += 60
    run_again(bench)
    assert len(tries) == 2
