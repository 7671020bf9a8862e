"""What the journal says of runs, versions and shards: as much as the rules of retention ask about."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

import msgspec

from daemon.core.events import (
    DataIngested,
    DataWithdrawn,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    OperatorRequested,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunStarted,
    RunSucceeded,
)
from daemon.journal.base import Reader, scan_where

OF_RUNS = frozenset(event.kind for event in (RunStarted, RunHeld, RunSucceeded, RunFailed, RunCancelled, ModelPromoted))
OF_SHARDS = frozenset(
    event.kind for event in (DataIngested, DataWithdrawn, ModelRejected, ModelRolledBack, OperatorRequested)
)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """When, where in the journal and how a run ended: promoted, rejected, finished, failed, cancelled or superseded."""

    at: datetime
    position: int
    outcome: str


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A published model's number and folder, the run that made it, and where in the journal it was promoted."""

    number: int
    path: str
    run: str
    position: int


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival that a run ingested into a shard."""

    pipeline: str
    run: str
    arrival: int
    at: datetime
    position: int


@dataclass
class History:
    """The fold of those records up to `position`; of shards only where it is asked for, for they may be many."""

    shards: bool = True
    position: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    """Run → pipeline."""
    endings: dict[str, Ending] = field(default_factory=dict)
    versions: dict[str, dict[str, Version]] = field(default_factory=dict)
    """Pipeline → folder → version."""
    uses: dict[str, list[Use]] = field(default_factory=dict)
    """A shard's folder → who ingested it."""
    withdrawn: dict[tuple[str, int], datetime] = field(default_factory=dict)
    """(Pipeline, arrival) → since when."""
    rejected: set[str] = field(default_factory=set)
    """Runs whose candidate was rejected and whose arrivals nobody has accepted or withdrawn since."""
    rolled_back: dict[str, datetime] = field(default_factory=dict)
    _held: dict[str, str] = field(default_factory=dict)

    def read(self, reader: Reader) -> None:
        """Go on to the journal's head. Raises JournalError when it cannot be read."""
        head = reader.head()
        kinds = OF_RUNS | OF_SHARDS if self.shards else OF_RUNS
        for record in scan_where(reader, self.position, upto=head, kinds=kinds):
            self.fold(record)
        self.position = head

    def fold(self, record: Record) -> None:
        """Take in one record; of other kinds it takes nothing."""
        name, event, at = record.pipeline, record.event, record.recorded_at
        if name is None:
            return
        match event:
            case RunStarted():
                self.runs[event.run] = name
            case RunHeld():
                before = self._held.get(name)
                if before not in (None, event.run) and before not in self.endings:
                    self.endings[before] = Ending(at=at, position=record.position, outcome="superseded")
                self._held[name] = event.run
            case RunSucceeded():
                self._ended(record, name, event.run, event.outcome)
            case RunFailed():
                self._ended(record, name, event.run, "failed")
            case RunCancelled():
                self._ended(record, name, event.run, "cancelled")
            case ModelPromoted():
                self.versions.setdefault(name, {})[event.path] = Version(
                    number=event.model_version, path=event.path, run=event.run, position=record.position
                )
            case _:
                self._fold_shards(record, name)

    def _ended(self, record: Record, pipeline: str, run: str, outcome: str) -> None:
        self.endings[run] = Ending(at=record.recorded_at, position=record.position, outcome=outcome)
        if self._held.get(pipeline) == run:
            del self._held[pipeline]

    def _fold_shards(self, record: Record, name: str) -> None:
        event, at = record.event, record.recorded_at
        match event:
            case DataIngested():
                use = Use(pipeline=name, run=event.run, arrival=event.arrival, at=at, position=record.position)
                self.uses.setdefault(str(PurePosixPath(event.manifest).parent), []).append(use)
            case DataWithdrawn(arrival=int() as arrival):
                self.withdrawn[name, arrival] = at
            case ModelRejected():
                self.rejected.add(event.run)
            case OperatorRequested(verb="accept" | "withdraw", run=str() as run):
                self.rejected.discard(run)
            case ModelRolledBack():
                self.rolled_back[event.run] = at
            case _:
                pass
