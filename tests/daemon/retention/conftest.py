"""A world whose stages leave files: what is on its disk is known by path alone, and what is removed is noted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core import arrivals
from daemon.core.decisions import Policies
from daemon.core.drafts import draft
from daemon.core.events import (
    AnyEvent,
    DataArrived,
    DataIngested,
    DataWithdrawn,
    ModelPromoted,
    ModelRejected,
    Record,
)
from daemon.core.plans import Amount, IntentKind, StartFrom
from daemon.core.state import Order, Pipeline, Run
from daemon.dispatch.specification import specify
from daemon.journal.memory import MemoryJournal
from daemon.retention.history import History
from daemon.retention.rules import removals
from daemon.settings import RetentionSettings
from stages.run_folder import Specification
from tests.daemon.core.conftest import SHA, Gate, Parts, Retry, Starter, World, intent

STATE = Path("/state")
MANIFEST = "manifest.json"
TINY = timedelta(microseconds=1)


@dataclass
class Story(World):
    """Every record goes into a journal too, and stages leave the files that real ones leave."""

    journal: MemoryJournal = field(default_factory=MemoryJournal)
    disk: set[str] = field(default_factory=set)
    looked: dict[str, dict[int, str]] = field(default_factory=dict)
    """Run → arrival → the shard that its ingest has found or made, and has not told yet."""
    removed: Counter[str] = field(default_factory=Counter)

    def fact(self, event: AnyEvent, pipeline: str | None = "p", after: float = 1.0) -> list[Record]:
        """Record a fact and what follows, in the journal too."""
        before = len(self.records)
        following = super().fact(event, pipeline, after)
        with self.journal.transaction() as transaction:
            transaction.append(self.records[before:])
        return following

    def begin(self, pipeline: str = "p") -> list[Record]:
        """Start the ordered attempt; an ingest looks for its shards at once, and makes those that are not there."""
        order = self.order(pipeline)
        self.disk.add(f"runs/{order.run}/{order.stage}/{order.attempt}/lock")
        if order.stage == "ingest" and order.run not in self.looked:
            found = self.specification(pipeline).arrivals
            self.looked[order.run] = {each.position: f"shards/00/{each.position % 17}" for each in found}
            self.disk.update(f"{folder}/{MANIFEST}" for folder in self.looked[order.run].values())
        return super().begin(pipeline)

    def succeed(self, pipeline: str = "p", gain: float = 0.1) -> list[Record]:
        """Let the ordered attempt leave its files and tell."""
        order = self.order(pipeline)
        self.begin(pipeline)
        folder = f"runs/{order.run}/{order.stage}/{order.attempt}"
        if order.stage == "ingest":
            for arrival, shard in self.looked.pop(order.run).items():
                self.fact(self.ingested(order, arrival, shard), pipeline)
        if order.stage == "train":
            self.disk.update({f"{folder}/candidate/{MANIFEST}", f"{folder}/trunk/{MANIFEST}"})
        if order.stage == "promote":
            version = self.promotion(pipeline).path
            self.disk.update({f"{version}/{MANIFEST}", f"{version}/trunk/{MANIFEST}"})
        return super().succeed(pipeline, gain)

    def ingested(self, order: Order, arrival: int, shard: str) -> DataIngested:
        """Make what ingest tells of an arrival."""
        event = self.records[arrival - 1].event
        assert isinstance(event, DataArrived)
        amount = arrivals.amount_of(event)
        return DataIngested(run=order.run, stage=order.stage, attempt=order.attempt, arrival=arrival, sha256=SHA,
                            domain=event.domain, estimate=amount, amount=amount, duplicates=0,
                            manifest=f"{shard}/{MANIFEST}")  # fmt: skip

    def checkpoint(self, step: int, pipeline: str = "p") -> list[Record]:
        """Let the attempt save a checkpoint."""
        order = self.order(pipeline)
        self.disk.add(f"runs/{order.run}/{order.stage}/{order.attempt}/checkpoints/step-{step}")
        return super().checkpoint(step, pipeline)

    def promotion(self, pipeline: str = "p") -> ModelPromoted:
        """Make what a promote stage tells."""
        told, path = super().promotion(pipeline), f"models/{pipeline}/v{self.of(pipeline).versions + 1}"
        return replace(told, path=path, trunk=replace(told.trunk, path=f"{path}/trunk"))

    def settle(self, verb: str, run: str, pipeline: str) -> None:
        """Accept or withdraw the arrivals of a rejected run."""
        for record in self.records:
            if isinstance(record.event, ModelRejected) and record.event.run == run:
                details = {"run": run, "spans": record.event.spans, "amounts": record.event.amounts}
                self.request(verb, pipeline, **details)  # type: ignore[arg-type]
                return

    def withdraw(self, arrival: int, pipeline: str) -> None:
        """Withdraw an arrival."""
        event = self.records[arrival - 1].event
        assert isinstance(event, DataArrived)
        told = DataWithdrawn(arrival_source="/test", arrival_id=str(arrival), arrival=arrival, domain=event.domain,
                             amount=arrivals.amount_of(event))  # fmt: skip
        self.fact(told, pipeline)

    def specification(self, pipeline: str, order: Order | None = None, state: Pipeline | None = None) -> Specification:
        """Return what the dispatcher would give the ordered attempt."""
        return specify(self.journal, state or self.of(pipeline), order or self.order(pipeline), state=STATE,
                       roots=(), threads=1)  # fmt: skip

    def sweep(self, settings: RetentionSettings) -> None:
        """Remove what the rules let go."""
        history = History(shards=settings.shards is not None)
        history.read(self.journal)
        for removal in removals(self.state, history, self.now, settings):
            for pattern in removal.paths:
                gone = {path for path in self.disk if within(path, pattern)}
                self.removed[removal.what] += len(gone)
                self.disk -= gone

    def has(self, folder: str | Path) -> bool:
        """Return whether there is a file in a folder (or the file itself)."""
        path = str(folder).removeprefix(f"{STATE}/")
        return any(each == path or each.startswith(f"{path}/") for each in self.disk)

    def missing(self) -> list[str]:
        """Return what somebody may need now and the disk has no more: asked of the dispatcher's own code."""
        gone: list[str] = []
        for name, pipeline in self.state.pipelines.items():
            for model in (pipeline.champion, pipeline.previous, pipeline.base):
                if model is not None:
                    gone += self._without([model.path, f"{model.path}/{MANIFEST}", model.trunk.path])
            if pipeline.active is not None and pipeline.active.order is not None:
                gone += self._missing_of(name, pipeline, pipeline.active, pipeline.active.order)
            for run in (pipeline.held, pipeline.yielded):
                if run is not None:
                    stage = "promote" if run is pipeline.held else run.stage
                    gone += self._missing_of(name, replace(pipeline, active=run), run, _next(run, stage))
            gone += self._startable(name, pipeline)
        gone += [shard for run in self.looked.values() for shard in run.values() if not self.has(shard)]
        return gone

    def _missing_of(self, name: str, pipeline: Pipeline, run: Run, order: Order) -> list[str]:
        given = self.specification(name, order, pipeline)
        needed = [shard.manifest for shard in (*given.past, *given.new)]
        needed += [start.path for start in (given.plan.start.checkpoint,) if start is not None]
        if "train" in given.done and order.stage in {"evaluate", "promote"}:
            needed += [f"{given.done['train']}/{each}" for each in ("candidate", "trunk")]
        gone = self._without(needed)
        own = f"runs/{order.run}/{order.stage}/{order.attempt}"
        saved = [f"{folder}/checkpoints" for folder in (own, *given.resume_from)]
        if order.resume and order.stage == run.stage and run.checkpoint_step and not any(map(self.has, saved)):
            gone.append(f"a checkpoint of {run.run}")
        return gone

    def _startable(self, name: str, pipeline: Pipeline) -> list[str]:
        """Return what a run that started now would not find, whatever it starts from."""
        gone: list[str] = []
        kinds: Sequence[tuple[IntentKind, StartFrom]] = [("increment", "champion"), ("retrain", "base")]
        for kind, start in kinds:
            plan = draft(
                replace(pipeline, pending={"prose": Amount(arrivals=1)}), intent(kind, start), self.state.position
            )
            if isinstance(plan, str):
                continue
            plan = replace(plan, spans=())
            run = Run(run="next", policy="x", command="c", plan=plan, intent=intent(kind, start), priority=0,
                      preemptible=True, started_at=self.now, started_position=1, stage="ingest")  # fmt: skip
            gone += self._missing_of(name, replace(pipeline, active=run), run, _next(run, "train"))
        return gone

    def _without(self, needed: Sequence[str]) -> list[str]:
        return [path for path in needed if not self.has(path)]


def _next(run: Run, stage: str) -> Order:
    attempt = run.attempts.get(stage, 0) + 1
    return Order(command="c", run=run.run, stage=stage, attempt=attempt, resume=True, ordered_at=run.started_at)


def within(path: str, pattern: str) -> bool:
    """Return whether a file lies in what a pattern names."""
    parts = path.split("/")
    wanted = pattern.split("/")
    return len(parts) >= len(wanted) and all(fnmatchcase(a, b) for a, b in zip(parts, wanted, strict=False))


def policies(verdict: str) -> Policies:
    """Make small policies; a rush preempts."""
    return {
        name: (Starter("often"), Starter("seldom", kind="retrain"), Starter("rush", after=160, priority=1), Retry(),
               Gate(gate))
        for name, gate in (("p", "promote"), ("q", verdict))
    }  # fmt: skip


@pytest.fixture
def story() -> Story:
    """A world of one pipeline that promotes."""
    made = Story()
    made.configure({"p": (Starter(), Retry(), Gate())})
    return made


@pytest.fixture(scope="session")
def make_story() -> type[Story]:
    """Make worlds."""
    return Story


@pytest.fixture(scope="session")
def make_policies() -> Callable[[str], Policies]:
    """Make policies for two pipelines: `p` promotes, `q` answers with a verdict."""
    return policies


@pytest.fixture(scope="session")
def parts() -> type[Parts]:
    """Hand out the policies that tests build their own worlds from."""
    return Parts
