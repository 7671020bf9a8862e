"""Two daemons on one journal: who leads, who stands by, and what becomes of a leader that shows no sign of life."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.core.events import DaemonStarted, DaemonStopped, DataArrived, RunSucceeded
from daemon.journal import lock
from daemon.testing import Life
from tests.acceptance.home import Home, alive
from tests.bench import processes
from tests.bench.crash_daemons import Daemon, Nursery

pytestmark = pytest.mark.slow
LEASE = 0.5
Start = Callable[..., Daemon]


@pytest.fixture(scope="module")
def nurseries() -> Iterator[list[Nursery]]:
    """Give processes that fork daemons, each one at a time."""
    with ExitStack() as stack:
        yield [stack.enter_context(Nursery()) for _ in range(3)]


@pytest.fixture
def start(home: Home, nurseries: list[Nursery]) -> Iterator[Start]:
    """Start daemons of a home whose second one stands by; end them with the test."""
    home.configure(standby={"enabled": True, "lease": LEASE})
    started: list[Daemon] = []

    def make(configuration: Path | None = None) -> Daemon:
        life = Life(config=str(configuration or home.configuration), log=str(home.log))
        started.append(Daemon(nurseries[len(started)], life))
        return started[-1]

    yield make
    for daemon in started:
        daemon.kill()
        daemon.wait()


def pair(home: Home, start: Start) -> tuple[Daemon, Daemon]:
    """Return a leader and its standby, both at work."""
    leader = start()
    home.wait_for(DaemonStarted)
    standby = start()
    home.wait(lambda: said(home, f"process {leader.pid} on", "leads"), "the standby")
    return leader, standby


def said(home: Home, *words: str) -> bool:
    """Return whether a standby has logged a reason with these words."""
    lines = home.log.read_text(encoding="utf-8").splitlines()
    whys = [json.loads(line).get("why", "") for line in lines if "This daemon stands by." in line]
    return any(all(word in why for word in words) for why in whys)


def leaders(home: Home) -> list[int]:
    """Return the pids of all that have led, in order."""
    return [event.pid for event in home.events(DaemonStarted)]


def works(home: Home, identity: str, runs: int) -> None:
    """Assert that a fact is recorded once, and acted on."""
    home.arrive(identity)
    home.wait_for(RunSucceeded, runs)
    assert len(home.events(DataArrived)) == runs
    assert len(home.notes()) == runs


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_leader_is_replaced(home: Home, start: Start, number: signal.Signals) -> None:
    """One that is stopped is killed after its lease; one that was killed or drained is followed at once."""
    leader, standby = pair(home, start)
    works(home, "1", 1)
    os.kill(leader.pid, number)
    home.arrive("2")
    home.wait_for(DaemonStarted, 2)
    assert leader.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    home.wait_for(RunSucceeded, 2)
    works(home, "3", 3)
    assert leaders(home) == [leader.pid, standby.pid]
    first, second = home.events(DaemonStarted)
    assert (first.replaced, second.epoch) == ("", 2)
    assert second.replaced.startswith(f"process {leader.pid} on ") is (number == signal.SIGSTOP)
    assert len(home.events(DaemonStopped)) == (1 if number == signal.SIGTERM else 0)
    standby.stop()
    assert standby.wait() == 0


def test_a_standby_that_was_stopped_itself_kills_nobody(home: Home, start: Start) -> None:
    """Its own absence says nothing of the leader; asked to end, it ends and writes nothing."""
    leader, standby = pair(home, start)
    os.kill(standby.pid, signal.SIGSTOP)
    beats(home, 6)
    os.kill(standby.pid, signal.SIGCONT)
    beats(home, 6)
    assert leaders(home) == [leader.pid]
    head = len(home.records())
    standby.stop()
    assert standby.wait() == 0
    assert len(home.records()) == head
    assert leader.alive()


def beats(home: Home, count: int) -> None:
    """Wait for signs of life of the leader."""
    seen = set()

    def look() -> bool:
        sign = lock.look(home.journal)
        seen.add(sign.beat if sign is not None else 0)
        return len(seen) > count

    home.wait(look, f"{count} signs of life")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("namespace", "pid:[1]", "another pid namespace"),
        ("start_time", 1, "another process by now"),
    ],
)
def test_who_cannot_be_told_for_sure_is_not_killed(
    home: Home, start: Start, field: str, value: object, why: str
) -> None:
    """The standby says so and waits; the leader wakes up, and is the leader still."""
    leader, _ = pair(home, start)
    works(home, "1", 1)
    os.kill(leader.pid, signal.SIGSTOP)
    path = lock.lock_path(home.journal)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: value}), encoding="utf-8")
    home.wait(lambda: said(home, f"process {leader.pid} on", "without a sign of life", why), "the reason")
    assert alive(leader.pid)
    os.kill(leader.pid, signal.SIGCONT)
    works(home, "2", 2)
    assert leaders(home) == [leader.pid]


def test_of_two_standbys_one_leads(home: Home, start: Start) -> None:
    """The other one goes on waiting, and is the next."""
    leader, *standbys = *pair(home, start), start()
    home.wait(lambda: home.logged("This daemon stands by.") >= 2, "the second standby")
    os.kill(leader.pid, signal.SIGSTOP)
    home.wait_for(DaemonStarted, 2)
    works(home, "1", 1)
    second, third = sorted(standbys, key=lambda daemon: daemon.pid != leaders(home)[1])
    home.wait(lambda: said(home, f"process {second.pid} on", "leads"), "the other standby")
    assert leaders(home) == [leader.pid, second.pid]
    second.kill()
    home.wait_for(DaemonStarted, 3)
    works(home, "2", 2)
    assert leaders(home) == [leader.pid, second.pid, third.pid]
    assert home.events(DaemonStarted)[2].replaced == ""


def test_a_leader_that_lost_its_lock_writes_nothing_more(home: Home, start: Start) -> None:
    """Asleep while its lock's file was removed and another daemon began, it wakes up, notices, and ends with 3."""
    leader = start()
    home.wait_for(DaemonStarted)
    os.kill(leader.pid, signal.SIGSTOP)
    lock.lock_path(home.journal).unlink()
    other = start()
    home.wait_for(DaemonStarted, 2)
    os.kill(leader.pid, signal.SIGCONT)
    assert leader.wait() == 3
    assert home.logged("Another daemon leads") == 1
    works(home, "1", 1)
    assert leaders(home) == [leader.pid, other.pid]
    assert home.events(DaemonStopped) == []


def test_a_standby_answers_and_takes_over_the_address(home: Home, start: Start) -> None:
    """One at the leader's address listens once it leads; one with its own says meanwhile that it stands by."""
    home.configure(http=True, standby={"enabled": True, "lease": LEASE})
    leader = start()
    home.wait(lambda: home.get("/readyz")[0] == 200, "readiness")
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    apart, own = home.folder / "apart.yaml", processes.free_port()
    apart.write_text(json.dumps({**content, "http": {"enabled": True, "port": own}}), encoding="utf-8")
    start(apart)
    home.wait(lambda: page(own, "/livez")[0] == 200, "the standby")
    home.wait(lambda: f"process {leader.pid} on" in page(own, "/readyz")[1], "who leads")
    assert page(own, "/readyz")[0] == 503
    assert "rewarm_leader 0.0" in page(own, "/metrics")[1]
    status, told = page(own, "/events", data=b"{}")
    assert (status, "retry-after: 1" in told, "not_ready" in told) == (503, True, True)
    assert page(own, "/state")[0] == 503
    second = start()
    home.wait(lambda: home.logged("Nothing is served for now.") == 1, "the second standby")
    assert "rewarm_leader 1.0" in home.get("/metrics")[1]
    leader.kill()
    home.wait_for(DaemonStarted, 2)
    port = home.port if leaders(home)[1] == second.pid else own
    home.wait(lambda: page(port, "/readyz")[0] == 200, "readiness of the next")
    assert 'rewarm_leader_changes_total{cause="free"} 1.0' in page(port, "/metrics")[1]


def page(port: int, path: str, data: bytes | None = None) -> tuple[int, str]:
    """Return status and body of a page of whoever listens at a port, 0 when nobody does; an error's headers too."""
    headers = {"content-type": "application/cloudevents+json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, f"{error.headers}{error.read().decode()}"
    except OSError:
        return 0, ""
