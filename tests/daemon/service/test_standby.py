"""Watching a leader by a clock that is set, and whom a standby may kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from daemon import pids
from daemon.core.errors import JournalBusy, JournalCorrupt, JournalFull
from daemon.journal import lock
from daemon.journal.lock import Holder, Sign
from daemon.service.standby import Heartbeat, Standby, Watch, kill, obstacle

LEASE = 10.0
TIMELY = 2.5


def sign(beat: int, pid: int = 7) -> Sign:
    """Make what a look shows."""
    return Sign(inode=1, beat=beat, holder=Holder(host="box", pid=pid, lease=LEASE))


def test_silence_is_the_time_between_looks_that_show_the_same() -> None:
    """Every beat begins it anew, and so does another holder."""
    watch = Watch(TIMELY)
    assert [watch.look(sign(1), at) for at in (100, 101, 102)] == [0, 1, 2]
    assert [watch.look(sign(2), at) for at in (103, 105)] == [0, 2]
    assert [watch.look(sign(2, pid=8), at) for at in (106, 107)] == [0, 1]
    assert [watch.look(None, at) for at in (108, 109)] == [0, 1]


def test_a_look_that_comes_late_counts_nothing() -> None:
    """Who was away cannot tell what happened: the leader gets a whole lease again."""
    watch = Watch(TIMELY)
    looks = (0, 2.4, 4.8, 4.8 + TIMELY, 10, 12, 14)
    assert [watch.look(sign(1), at) for at in looks] == pytest.approx([0, 2.4, 4.8, 7.3, 0, 2, 4])


def test_a_heart_beats_a_few_times_a_lease() -> None:
    """At once, and then not before a quarter of the lease has passed, however often it is asked."""
    beats: list[float] = []
    now = [50.0]
    heartbeat = Heartbeat(lambda: beats.append(now[0]), LEASE, now=lambda: now[0])
    for at in (50.0, 50.1, 52.4, 52.5, 52.6, 60.0):
        now[0] = at
        heartbeat()
    assert beats == [50.0, 52.5, 60.0]


class Scene:
    """A standby whose every look comes a second after the one before, and what it does."""

    def __init__(self, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.shown: Callable[[float], Sign | None] = lambda now: sign(int(now))
        self.taken: Callable[[float], str] = self.busy
        self.killed: list[tuple[float, int]] = []
        self.waited = 60
        monkeypatch.setattr(lock, "look", lambda _: self.shown(self.now))
        monkeypatch.setattr("daemon.service.standby.obstacle", lambda _who, _me: "")
        monkeypatch.setattr("daemon.service.standby.kill", self._kill)
        self.standby = Standby(journal, LEASE, lead=lambda: self.taken(self.now), wait=self._wait, now=lambda: self.now)

    def busy(self, _now: float) -> str:
        """Raise as a journal does that is held."""
        raise JournalBusy("held")

    def _wait(self, _seconds: float) -> bool:
        self.now += 1
        return self.now > self.waited

    def _kill(self, who: Holder, still: Callable[[], bool]) -> str | None:
        if not still():
            return None
        self.killed.append((self.now, who.pid))
        self.taken = lambda _: "ours"
        return ""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Give a leader that beats every second, and its standby."""
    return Scene(tmp_path / "journal.db", monkeypatch)


def test_a_leader_that_beats_is_left_alone(scene: Scene) -> None:
    """Until the standby is asked to end: then it has nothing."""
    assert scene.standby.run() is None
    assert (scene.killed, scene.standby.told) == ([], "process 7 on box leads")


def test_a_leader_that_falls_silent_is_killed_after_a_lease(scene: Scene) -> None:
    """Counted from the first look that shows its last beat, and then the journal is ours."""
    scene.shown = lambda now: sign(int(min(now, 20)))
    assert scene.standby.run() == "ours"
    assert scene.killed == [(20 + LEASE, 7)]
    assert scene.standby.killed is not None


def test_a_leader_that_wakes_up_in_time_is_not_killed(scene: Scene) -> None:
    """Its one beat just before the lease ends is enough for another lease."""
    scene.shown = lambda now: sign(0 if now < LEASE else int(now > LEASE) + int(now > 2 * LEASE - 1))
    scene.waited = int(3 * LEASE) - 2
    assert scene.standby.run() is None
    assert scene.killed == []


def test_a_leader_that_wakes_up_at_the_last_moment_is_not_killed(scene: Scene) -> None:
    """Its sign is looked at once more when its process is in hand already."""
    looks: list[float] = []

    def shown(now: float) -> Sign:
        looks.append(now)
        return sign(1 if looks.count(LEASE + 1) > 1 else 0)  # the second look at that instant is the last one

    scene.shown = shown
    scene.waited = int(LEASE) + 1
    assert scene.standby.run() is None
    assert (looks.count(LEASE + 1), scene.killed) == (2, [])


def test_the_longer_lease_counts(scene: Scene) -> None:
    """A leader that promises less often than its standby would like is given its time."""
    scene.shown = lambda _: Sign(inode=1, beat=1, holder=Holder(host="box", pid=7, lease=3 * LEASE))
    scene.standby.run()
    assert scene.killed == [(1 + 3 * LEASE, 7)]


def test_a_journal_that_is_free_is_taken_at_once(scene: Scene) -> None:
    """Nobody is killed for it."""
    scene.taken = lambda now: "ours" if now >= 5 else scene.busy(now)
    assert scene.standby.run() == "ours"
    assert (scene.now, scene.killed, scene.standby.killed) == (5, [], None)


def test_a_full_disk_makes_it_wait(scene: Scene) -> None:
    """It says so, and takes the journal when there is room."""

    def full(now: float) -> str:
        if now >= 9:
            return "ours"
        raise JournalFull("no room")

    scene.taken = full
    assert scene.standby.run() == "ours"
    assert "no room" in scene.standby.told


def test_it_need_not_be_shown_to_lead(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its own file cannot be made, it stands by unseen, and takes the journal when that is free."""

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    scene.taken = lambda now: "ours" if now >= 5 else scene.busy(now)
    assert scene.standby.run() == "ours"


def test_a_damaged_journal_ends_it(scene: Scene) -> None:
    """No waiting mends that."""

    def damaged(_now: float) -> str:
        raise JournalCorrupt("damaged")

    scene.taken = damaged
    with pytest.raises(JournalCorrupt):
        scene.standby.run()


def test_a_lock_that_names_nobody_is_waited_for(scene: Scene) -> None:
    """There is nobody to be killed."""
    scene.shown = lambda _: Sign(inode=1, beat=1, holder=None)
    assert scene.standby.run() is None
    assert "there is no telling whom to end" in scene.standby.told
    assert scene.killed == []


ME = lock.myself(LEASE)


@pytest.mark.parametrize(
    ("who", "why"),
    [
        (ME, ""),
        (msgspec.structs.replace(ME, host="renamed", pid=1), ""),
        (msgspec.structs.replace(ME, lease=None), "of a release that shows none"),
        (msgspec.structs.replace(ME, boot_id="other"), "on another machine"),
        (msgspec.structs.replace(ME, boot_id=None), "on another machine"),
        (msgspec.structs.replace(ME, namespace="pid:[1]"), "another pid namespace"),
        (msgspec.structs.replace(ME, namespace=None), "another pid namespace"),
        (msgspec.structs.replace(ME, start_time=None), "cannot tell it from another process"),
    ],
)
def test_whom_a_standby_may_end(who: Holder, why: str) -> None:
    """Whoever is known by boot and pid namespace, has a start time, and has promised signs of life."""
    found = obstacle(who, ME)
    assert why in found
    assert bool(found) is bool(why)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def holder(process: "subprocess.Popen[bytes]") -> Holder:
    """Return a process as a lock's file names it."""
    return msgspec.structs.replace(ME, pid=process.pid, start_time=pids.start_time(process.pid))


def test_a_stopped_process_is_killed(victim: "subprocess.Popen[bytes]") -> None:
    """It has ended when that is said."""
    os.kill(victim.pid, signal.SIGSTOP)
    assert kill(holder(victim), lambda: True) == ""
    assert victim.poll() == -signal.SIGKILL


def test_a_process_that_shows_itself_is_not_killed(victim: "subprocess.Popen[bytes]") -> None:
    """It is asked for when the process is in hand already."""
    assert kill(holder(victim), lambda: False) is None
    assert victim.poll() is None


def test_another_process_of_the_same_pid_is_not_killed(victim: "subprocess.Popen[bytes]") -> None:
    """Its start time gives it away, and nobody asks further."""
    who = holder(victim)
    other = msgspec.structs.replace(who, start_time=(who.start_time or 0) - 1)
    why = kill(other, lambda: pytest.fail("it was asked whether to kill another process"))
    assert why is not None
    assert "another process by now" in why
    assert victim.poll() is None


def test_a_process_that_is_gone_is_said_to_be(victim: "subprocess.Popen[bytes]") -> None:
    """Its lock is held by somebody all the same."""
    who = holder(victim)
    victim.kill()
    victim.wait()
    why = kill(who, lambda: True)
    assert why is not None
    assert "it is gone" in why
