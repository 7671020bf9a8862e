"""The real application before a real loop on a journal in memory, all in this process."""

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from daemon.completion import completer
from daemon.core.events import ConfigurationChanged, PipelineSettings, Record
from daemon.core.state import State
from daemon.door import Door
from daemon.journal.base import scan
from daemon.journal.memory import MemoryJournal
from daemon.loop import Loop
from daemon.sources.http.application import application
from daemon.sources.http.desk import Desk
from daemon.sources.http.events import Limits
from daemon.sources.queue import Inbox
from daemon.tokens import ALL, Holder, Tokens
from ops.health import Status

URL = "http://localhost"
SECRETS = {"sender": "s" * 32, "reader": "r" * 32, "operator": "o" * 32}
PLAIN = {"content-type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


class Site:
    """A loop in a thread (`start`), its journal, and a client of the application; anonymous unless `tokens`."""

    def __init__(
        self, folder: Path, tokens: Tokens | None = None, inbox: Inbox | None = None, limits: Limits | None = None
    ) -> None:
        self.file = folder / "a.jsonl"
        self.file.write_text('{"text": "some words"}\n', encoding="utf-8")
        self.journal = MemoryJournal()
        self.inbox = inbox or Inbox()
        self.door = Door(pipelines={"one": None}, roots=(folder,))
        self.loop = Loop(
            journal=self.journal,
            state=State(),
            policies={"one": ()},
            inbox=self.inbox,
            receive=self.door.receive,
            complete=completer(self.door, self.journal),
            observers=(),
            now=lambda: datetime.now(UTC),
            forget=lambda: None,
            housekeeping=lambda: None,
        )
        known = {"one": PipelineSettings(stages=("train",), policies=())}
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known))
        self.status = Status(beat_age=0.0)
        self.desk = Desk(
            status=lambda: self.status,
            registry=CollectorRegistry(),
            state=lambda: self.loop.state,
            inbox=self.inbox,
            reader=self.journal,
        )
        self.counted: list[tuple[str, int]] = []
        self.tokens = tokens or Tokens((), open_to_all=True)
        self.application = application(
            self.desk,
            self.door,
            self.tokens,
            release="1.2.3",
            count=lambda path, status: self.counted.append((path, status)),
            limits=limits or Limits(body=0.3, loop=5.0),
        )
        self.client = TestClient(self.application, base_url=URL)
        self._thread: threading.Thread | None = None

    def start(self) -> "Site":
        """Let the loop work."""
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the loop, and turn away what waits."""
        self.loop.stop()
        self.inbox.close()
        if self._thread is not None:
            self._thread.join(10)
        self.loop.turn_away()

    def post(
        self, content: object, headers: Mapping[str, str] = STRUCTURED, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Send events; return the status and what the answer says."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        shown = {"authorization": f"Bearer {SECRETS[token]}"} if token else {}
        answer = self.client.post("/events", content=body, headers={**headers, **shown})
        return answer.status_code, answer.json()

    def records(self) -> list[Record]:
        """Return what came in."""
        return list(scan(self.journal, 1))

    def kinds(self) -> list[str]:
        """Return the kinds of what came in."""
        return [record.event.kind for record in self.records()]

    def named(self, *names: str) -> "Site":
        """Let one more in, with every scope."""
        for name in names:
            self.tokens.admit_local(SECRETS[name], Holder(name=name, scopes=ALL))
        return self


def event(identity: str | None = "1", kind: str = "drift.detected", **changes: object) -> dict[str, Any]:
    """Return a CloudEvent; None takes an attribute away."""
    whole = {
        "specversion": "1.0",
        "id": identity,
        "source": "/test",
        "type": f"io.rewarm.{kind}.v1",
        "subject": "one",
        "data": {"metric": "psi", "value": 0.5},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}
