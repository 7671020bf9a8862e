"""One Kafka node as a process of this machine: broker and controller in one (KRaft), with its data in a folder.

Measured here: formatting 1.3 s, from start to the first answer 2.5 s.

Its ports lie below those that the system gives to outgoing connections: while a node is down, a client that keeps
trying to reach it may be given the very port it wants to reach, connect to itself, and keep the node from its port.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.brokers.jars import HERE, NoBroker, jars

# A child that asked for a signal at its parent's death gets it when the thread that started it ends.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts-brokers")
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData")


def free_port() -> int:
    """Return a port that nobody listens at and that no outgoing connection is given."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:
        first = 32768
    while True:
        port = random.randrange(min(15000, first - 1000), first)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port


def java(folder: Path, heap: str, *words: str) -> list[str]:
    """Return the command line of one of Kafka's classes, which logs to `folder`/log."""
    die = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    log = [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", f"-Drewarm.log={folder / 'log'}"]
    return [*die, "java", f"-Xms{heap}", f"-Xmx{heap}", *QUICK, *log, "-cp", f"{jars()}/*", *words]


class PortTaken(NoBroker):
    """Somebody else listens at one of a node's ports."""


class Node:
    """A node; `settings` are the lines of its properties file, read again at each start."""

    def __init__(self, folder: Path, settings: Callable[[], Mapping[str, str]], heap: str) -> None:
        self.folder = folder
        self._settings = settings
        self._heap = heap
        self._process: subprocess.Popen[bytes] | None = None
        self._written: dict[Path, int] = {}
        folder.mkdir(parents=True)

    @property
    def pid(self) -> int:
        """The process's id; raises AssertionError while there is none."""
        assert self._process is not None, "the node was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (a frozen one does)."""
        return self._process is not None and self._process.poll() is None

    def format(self, cluster: str, *words: str) -> None:
        """Prepare the folder for a cluster; `words` are further options of Kafka's storage tool."""
        self._write()
        command = java(self.folder, "64m", "kafka.tools.StorageTool", "format", "--cluster-id", cluster)
        command += ["--config", str(self.folder / "properties"), *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise NoBroker(f"Kafka's storage tool failed:\n{done.stdout}")

    def launch(self) -> None:
        """Start the process, on the data that are there, without waiting for it."""
        assert not self.alive, "the node runs already"
        self._write()
        self._written = {path: path.stat().st_size for path in self._outputs() if path.exists()}
        command = java(self.folder, self._heap, "kafka.Kafka", str(self.folder / "properties"))
        with (self.folder / "output").open("ab") as output:
            started = _STARTER.submit(
                subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            self._process = started.result()

    def check(self) -> None:
        """Raise NoBroker, with the end of what it wrote, if it has ended by itself."""
        if not self.alive:
            said = self.said()
            kind = PortTaken if "BindException" in said or "already in use" in said else NoBroker
            raise kind(f"the Kafka node in {self.folder} did not start:\n{said}")

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask the process to end, and wait until it did."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def freeze(self) -> None:
        """Stop the process in mid-step: connections stay, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def said(self) -> str:
        """Return the last lines of what it wrote since it was started last."""
        texts = [path.read_bytes()[self._written.get(path, 0) :] for path in self._outputs() if path.exists()]
        return "\n".join(b"".join(texts).decode(errors="replace").splitlines()[-30:])

    def _outputs(self) -> tuple[Path, ...]:
        return self.folder / "output", self.folder / "log"

    def _write(self) -> None:
        lines = [f"{key}={value}\n" for key, value in self._settings().items()]
        (self.folder / "properties").write_text("".join(lines), encoding="utf-8")
