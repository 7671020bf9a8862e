"""A daemon's home in a temporary folder: its configuration, its processes, and patience with both."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from daemon.core.errors import JournalError
from daemon.core.events import AnyEvent, Record
from daemon.core.state import Pipeline, State
from daemon.dispatch.fingerprint import read_card
from daemon.journal.base import scan
from daemon.journal.sqlite import open_reader
from daemon.restore import restore
from daemon.testing import RELEASE, Life
from tests.bench import processes
from tests.bench.targets import ROOT

PATIENCE = 40.0
LOOK = 0.03
NOTE = "daemon.testing:NoteStage"
SLOW = "daemon.testing:SlowStage"
RECOVERY = {"kind": "stage_recovery", "backoff": "PT0.05S", "max_backoff": "PT0.1S"}

E = TypeVar("E", bound=AnyEvent)
T = TypeVar("T")


class Home:
    """One state folder, journal and spool; daemons are started in it and end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.state = folder / "state"
        self.spool = folder / "spool"
        self.inbox = folder / "inbox"
        self.configuration = folder / "rewarm.yaml"
        self.log = folder / "daemon.log"
        self.port = 0
        self._files = 0
        self._daemons: list[subprocess.Popen[str]] = []
        for path in (self.spool, self.inbox, self.state):
            path.mkdir(parents=True)

    def configure(
        self,
        *stages: str,
        limits: Mapping[str, float] | None = None,
        pipelines: tuple[str, ...] = ("one",),
        warm: bool = False,
        http: bool = False,
        after_tokens: int = 1,
        executor: Mapping[str, object] | None = None,
        standby: Mapping[str, object] | None = None,
        kafka: Mapping[str, object] | None = None,
    ) -> None:
        """Write the configuration: pipelines that all have these stages, and start with the first arrival.

        `kafka` are the settings of a Kafka source beside the spool.
        """
        start = {"kind": "rewarm_replay", "after_tokens": after_tokens, "limits": dict(limits or {})}
        pipeline = {"stages": list(stages or (NOTE,)), "policies": [start, RECOVERY]}
        if http and not self.port:
            self.port = processes.free_port()
        content = {
            "journal": "sqlite:///journal.db",
            "mlflow": {"tracking_uri": None},
            "state": "state",
            "http": {"enabled": http, "port": self.port},
            "roots": ["inbox"],
            "sources": [{"kind": "spool", "path": "spool"}, *([{"kind": "kafka", **kafka}] if kafka else [])],
            "executor": {"slots": 2, "warm_workers": int(warm), **(executor or {})},
            "standby": dict(standby or {}),
            "pipelines": dict.fromkeys(pipelines, pipeline),
        }
        self.configuration.write_text(json.dumps(content), encoding="utf-8")

    def start(self, life: Life | None = None, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a daemon."""
        life = life or Life(config=str(self.configuration))
        command = [sys.executable, "-m", "daemon.testing", msgspec.json.encode(life).decode()]
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, text=True, stderr=log, env={**os.environ, **(environment or {})}
            )
        self._daemons.append(process)
        return process

    def serve(self) -> "subprocess.CompletedProcess[str]":
        """Run `rewarm serve` to its end."""
        command = [sys.executable, "-m", "daemon", "--config", str(self.configuration), "serve"]
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE, check=False)

    def stop(self, process: "subprocess.Popen[str]") -> int:
        """Ask a daemon to drain; return its exit status."""
        process.terminate()
        return process.wait(PATIENCE)

    def close(self) -> None:
        """End every process that was started here, stages and workers too."""
        for process in self._daemons:
            if process.poll() is None:
                process.kill()
            process.wait()
        card = read_card(self.state)
        if card is not None:
            kill(card.holder.pid)
        for lock in self.state.glob("runs/*/*/*/lock"):
            with contextlib.suppress(ValueError, KeyError):
                kill_holder(lock)

    def data(self, content: str = '{"text": "Some words."}\n', name: str = "data.jsonl") -> str:
        """Put a file of data into the inbox; return its uri."""
        (self.inbox / name).write_text(content, encoding="utf-8")
        return name

    def arrive(self, identity: str = "1", *, pipeline: str = "one", uri: str | None = None) -> None:
        """Tell that data has arrived."""
        self.send(event("data.arrived", {"uri": uri or self.data(), "domain": "words"}, identity, pipeline=pipeline))

    def request(self, verb: str, *, pipeline: str = "one", **fields: str) -> None:
        """Ask for something as an operator."""
        self.send(event("operator.requested", {"verb": verb, **fields}, f"request {time.time_ns()}", pipeline=pipeline))

    def send(self, content: bytes | Mapping[str, Any], name: str | None = None) -> str:
        """Rename a file into the spool; return its name."""
        self._files += 1
        name = name or f"{self._files:03d}.json"
        hidden = self.spool / f".{name}"
        hidden.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        hidden.rename(self.spool / name)
        return name

    def records(self) -> list[Record]:
        """Return the whole journal."""
        try:
            with open_reader(self.journal) as reader:
                return list(scan(reader))
        except JournalError:
            return []

    def events(self, cls: type[E]) -> list[E]:
        """Return all events of a class."""
        return [record.event for record in self.records() if isinstance(record.event, cls)]

    def wait_for(self, cls: type[E], count: int = 1, condition: Callable[[E], bool] = lambda _: True) -> E:
        """Wait for the `count`-th event of a class that fits; return it."""
        return self.wait(
            lambda: next(iter([e for e in self.events(cls) if condition(e)][count - 1 : count]), None),
            f"{count} × {cls.kind}",
        )

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until a condition gives something else than None or False, and return it; fail when it does not."""
        until = time.monotonic() + PATIENCE
        while not (found := condition()):
            if time.monotonic() > until:
                kinds = [record.event.kind for record in self.records()]
                log = self.log.read_text(encoding="utf-8")[-3000:] if self.log.exists() else ""
                pytest.fail(f"waited {PATIENCE:g} s in vain for {what}; the journal has {kinds}; {log}")
            time.sleep(LOOK)
        return found

    def fold(self) -> State:
        """Return the state as the journal tells it."""
        with open_reader(self.journal) as reader:
            return restore(reader, use_snapshots=False).state

    def pipeline(self, name: str = "one") -> Pipeline:
        """Return a pipeline's state."""
        return self.fold().pipelines[name]

    def read_out(self) -> bool:
        """Return whether every file has left the spool."""
        return not any(path.is_file() and not path.name.startswith(".") for path in self.spool.iterdir())

    def release(self) -> None:
        """Let slow stages end."""
        (self.state / RELEASE).touch()

    def notes(self, name: str = "effects") -> list[str]:
        """Return the command ids that stages noted."""
        path = self.state / name
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page of the daemon; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def logged(self, message: str) -> int:
        """Return how often the daemons logged a message."""
        return self.log.read_text(encoding="utf-8").count(message)


def event(
    kind: str, data: object, identity: str | None, *, pipeline: str = "one", **envelope: object
) -> dict[str, Any]:
    """Return a CloudEvent."""
    named = {} if identity is None else {"id": identity}
    head = {"specversion": "1.0", "source": "/test", "type": f"io.rewarm.{kind}.v1", "subject": pipeline}
    return {**head, **named, "data": data, **envelope}


def kill(pid: int) -> None:
    """Kill a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_holder(lock: Path) -> None:
    """Kill the stage that holds an attempt's lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            kill(json.loads(lock.read_bytes())["pid"])


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
