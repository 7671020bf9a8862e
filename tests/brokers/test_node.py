"""A node's process, with a stand-in for Java: what a broker's own tests cannot show."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.brokers.jars import NoBroker, cache
from tests.brokers.node import Node, PortTaken, free_port

STARTER = """
import sys, threading, time
from pathlib import Path
from tests.brokers.node import Node

node = Node(Path(sys.argv[1]) / "node", dict, "1m")
starter = threading.Thread(target=node.launch)
starter.start()
starter.join()
print(node.pid, node.alive, flush=True)
time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a Java that says it is one, and otherwise does what the file `does` says."""
    script = f'if [ "$1" = -version ]; then echo "version \\"17\\""; else . {tmp_path}/does; fi'
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache().mkdir(parents=True)
    return tmp_path / "does"


def test_a_node_ends_with_whoever_started_it(stand_in: Path, tmp_path: Path) -> None:
    """It outlives the thread that started it, and not the process, though that was killed."""
    stand_in.write_text("exec sleep 60", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, alive = starter.stdout.readline().split()
        assert alive == "True"
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") != "sleep\n":  # before, it has not been told to end
            assert time.monotonic() < deadline
            time.sleep(0.01)
        starter.kill()
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("said", "kind"), [("java.net.BindException: Address already in use", PortTaken), ("no memory", NoBroker)]
)
def test_a_node_that_ends_by_itself_says_why(stand_in: Path, tmp_path: Path, said: str, kind: type[NoBroker]) -> None:
    """Its last words are in the error; a port that somebody took is told apart."""
    stand_in.write_text(f"echo '{said}'", encoding="utf-8")
    node = Node(tmp_path / "node", dict, "1m")
    node.launch()
    deadline = time.monotonic() + 10
    while node.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(NoBroker, match=said) as caught:
        node.check()
    assert caught.type is kind


def test_a_killed_node_can_be_launched_again(stand_in: Path, tmp_path: Path) -> None:
    """Killed, frozen or not, it is gone; another process comes in its place."""
    stand_in.write_text("exec sleep 60", encoding="utf-8")
    node = Node(tmp_path / "node", dict, "1m")
    node.launch()
    first = node.pid
    node.freeze()
    node.kill()
    with pytest.raises(NoBroker):
        node.check()
    node.launch()
    node.check()
    assert node.pid != first
    node.stop()
    with pytest.raises(NoBroker):
        node.check()


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """Else a client that tries to reach a node that is down may take its port."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    assert all(1024 < free_port() < first for _ in range(20))
