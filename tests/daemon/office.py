"""A loop with the daemon's own door and completion, and what is sent to it."""

import json
from datetime import UTC, datetime
from pathlib import Path

from daemon import dead_letters
from daemon.completion import completer
from daemon.core.events import ConfigurationChanged, PipelineSettings, Record
from daemon.core.state import State
from daemon.core.transition import evolve
from daemon.dead_letters import DeadLetter, Settled
from daemon.door import Answer, Door, Input, Letter
from daemon.journal.base import Journal, scan
from daemon.loop import Loop
from daemon.settings.kafka import KafkaSettings
from daemon.sources.kafka.messages import receiver
from daemon.sources.queue import Inbox

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Office:
    """A loop with the daemon's own door and completion, whose roots and pipelines can be mended."""

    def __init__(self, journal: Journal, root: Path) -> None:
        self.journal = journal
        self.root = root
        self.now = NOON
        self.sent = 0
        self.mend(roots=(root,))
        known = {name: PipelineSettings(stages=("train",), policies=()) for name in ("p", "q")}
        self.loop.tell(ConfigurationChanged(hash="h", slots=1, pipelines=known))

    def mend(
        self, *, roots: tuple[Path, ...], pipelines: tuple[str, ...] = ("p", "q"), kafka: tuple[KafkaSettings, ...] = ()
    ) -> None:
        """Start another loop where the last one ended, as a restart with another configuration does."""
        door = Door(pipelines=dict.fromkeys(pipelines), roots=roots)
        self.loop = Loop(
            journal=self.journal,
            state=self.folded(),
            policies={},
            inbox=Inbox(),
            receive=receiver(door.receive, kafka),
            complete=completer(door, self.journal),
            observers=(),
            now=lambda: self.now,
            forget=lambda: None,
            housekeeping=lambda: None,
        )
        self.door = door

    def send(self, *texts: bytes, source: str = "/spool", by: str | None = "ann", ids: bool = True) -> list[Answer]:
        """Send texts as a source does, in one transaction; return the answers."""
        letters = []
        for text in texts:
            self.sent += 1
            identity = f"n{self.sent}" if ids else None
            letters.append(Letter(text=text, where=f"f:{self.sent}", source=source, id=identity, by=by))
        offers = tuple(self.door.receive(letter) for letter in letters)
        return list(self.loop.commit([Input(offers=offers)]).answers[0])

    def request(
        self, verb: str, position: object, identity: str | None = None, *, pipeline: str | None = None
    ) -> Answer:
        """Ask for a retry or a drop of one dead letter."""
        text = asking(verb, position, identity or f"{verb} {position} {self.sent}", pipeline=pipeline)
        (answer,) = self.send(text)
        return answer

    def folded(self) -> State:
        """Return the state that the stored records give."""
        state = State()
        for record in scan(self.journal):
            state = evolve(state, record)
        return state

    def letters(self) -> list[DeadLetter]:
        """Return all dead letters."""
        return list(dead_letters.letters(self.journal))

    def open(self) -> list[int]:
        """Return the positions of those that nobody has settled."""
        return [letter.record.position for letter in self.letters() if letter.settled is None]

    def at(self, position: int | None) -> Record:
        """Return the record at a position."""
        assert position is not None
        return self.journal.records(position - 1, 1)[0]

    def settled(self, position: int) -> Settled:
        """Return what became of a dead letter."""
        settled = dead_letters.find(self.journal, position).settled
        assert settled is not None
        return settled


def asking(verb: str, position: object, identity: str, *, pipeline: str | None = None) -> bytes:
    """Return the text of a request about a dead letter."""
    return event("operator.requested", {"verb": verb, "dead_letter": position}, identity, subject=pipeline)


def event(kind: str, data: object, identity: str, **envelope: object) -> bytes:
    """Return the text of a CloudEvent for pipeline p."""
    head = {"specversion": "1.0", "id": identity, "source": "/test", "type": f"io.rewarm.{kind}.v1", "subject": "p"}
    return json.dumps({**head, "data": data, **envelope}).encode()


def arrival(uri: str = "late", identity: str = "a", **envelope: object) -> bytes:
    """Return the text of an arrival."""
    return event("data.arrived", {"uri": uri, "domain": "prose"}, identity, **envelope)
