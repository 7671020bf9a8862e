"""One arm of the comparison: a model trained by the engine's own stages on specifications, and what it costs to read.

Everything of an arm lies in `<state>/runs/<arm>`; an arm that was measured is not trained again, and one that was
interrupted goes on from its last checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from daemon.core.events import AnyEvent, DataIngested, StageFailed, StageSucceeded
from daemon.core.plans import Checkpoint, DataSettings, Limits, ModelSettings, Plan, Schedule, Start, Training
from daemon.files import write_atomically
from stages.base import Context, Result
from stages.evaluate import find_candidate
from stages.execute import execute
from stages.run_folder import Arrival, Shard, Specification, finished, place_specification
from stages.training.engine.device import prepare
from stages.training.files import MANIFEST, digest
from stages.training.judging.evaluation import Budget, Floats
from stages.training.judging.measuring import held_out, load_recorded
from stages.training.models import adapter_of
from tests.attempts import arrived, shards_of, told
from tests.bench.continual_text import Document, Domain

PIPELINE = "continual"
BUDGET = Budget(documents=256, bytes=512 * 1024)
MEASURED = "measured.json"
ALMOST_ALL = 0.9999
"""The share of an arrival of documents to measure that is held out; one of them is trained on by nobody."""
Part = Literal["candidate", "trunk"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain's held-out documents cost a model: nats and bytes of each, in the same order for every arm."""

    nats: list[float]
    bytes: list[float]

    @property
    def mean(self) -> float:
        """The mean loss in nats per byte."""
        return sum(self.nats) / sum(self.bytes)

    @property
    def sizes(self) -> Floats:
        """The bytes."""
        return np.array(self.bytes)

    @property
    def costs(self) -> Floats:
        """The nats."""
        return np.array(self.nats)


Readings = dict[str, Reading]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A training: on which domains, from which other arm's weights, by which plan.

    `data` are the new domains, `past` those that are replayed. `of` names an arm and which part of it is continued.
    """

    name: str
    data: tuple[str, ...]
    training: Training
    past: tuple[str, ...] = ()
    of: tuple[str, Part] | None = None


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Where the arms are trained, on what, with how many threads; `train` and `held_out` are shards by domain."""

    state: Path
    model: ModelSettings
    threads: int
    train: dict[str, Shard]
    held_out: dict[str, Shard]
    tokens: dict[str, int]


class ArmFailed(Exception):
    """A stage of an arm ended otherwise than well."""


class Measure:
    """A stage: the candidate's loss on every held-out document of every domain."""

    def run(self, context: Context) -> Result:
        """Write measured.json: nats and bytes of each document."""
        adapter = adapter_of(context)
        model = load_recorded(context, adapter, find_candidate(context), prepare(context.specification.threads))
        size = context.specification.plan.training.context
        readings = {}
        for domain, excerpts in held_out(context, context.specification.new, BUDGET).items():
            nats = adapter.document_nats(model, excerpts.tokens, context=size, beat=lambda: context.beat(0, 0))
            readings[domain] = Reading(nats=nats.tolist(), bytes=excerpts.bytes.tolist())
        write_atomically(context.folder / MEASURED, msgspec.json.encode(readings))
        return Result()


def make_world(state: Path, domains: Sequence[Domain], model: ModelSettings, threads: int) -> World:
    """Ingest the domains; what is trained on and what is measured are arrivals of their own."""
    world = World(state=state, model=model, threads=threads, train={}, held_out={}, tokens={})
    for position, domain in enumerate(domains):
        for offset, part, share in ((1, "train", 0.0), (2, "held_out", ALMOST_ALL)):
            arrival = _write(state, domain.name, part, getattr(domain, part), 2 * position + offset)
            events = _run(world, f"{domain.name}-{part}", "ingest", _plan(world, share=share), arrivals=(arrival,))
            (ingested,) = [event for event in events if isinstance(event, DataIngested)]
            (getattr(world, part)[domain.name],) = shards_of(events)
            if part == "train":
                world.tokens[domain.name] = ingested.amount.tokens
    return world


def readings(world: World, arm: Arm) -> Readings | None:
    """Return what an arm was measured at, None when it is not finished."""
    path = world.state / "runs" / arm.name / "measure" / "1" / MEASURED
    return msgspec.json.decode(path.read_bytes(), type=Readings) if path.exists() else None


def train(world: World, arm: Arm) -> Readings:
    """Train and measure an arm; raises ArmFailed with what its stage said."""
    start = Start(kind="scratch")
    if arm.of is not None:
        parent, part = arm.of
        folder = _attempt(world, parent, "train") / part
        checkpoint = Checkpoint(path=str(folder.relative_to(world.state)), sha256=digest(folder / MANIFEST))
        start = Start(kind="champion", version=1, checkpoint=checkpoint)
    plan = _plan(world, training=arm.training, start=start)
    shards = {"new": tuple(world.train[d] for d in arm.data), "past": tuple(world.train[d] for d in arm.past)}
    _run(world, arm.name, "train", plan, **shards)
    done = {"train": str(_attempt(world, arm.name, "train").relative_to(world.state))}
    _run(world, arm.name, "measure", plan, new=tuple(world.held_out.values()), done=done)
    found = readings(world, arm)
    assert found is not None
    return found


def _attempt(world: World, run: str, stage: str) -> Path:
    return world.state / "runs" / run / stage / "1"


def _plan(world: World, *, training: Training | None = None, start: Start | None = None, share: float = 0.05) -> Plan:
    nothing = Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0)
    return Plan(
        kind="base",
        start=start or Start(kind="scratch"),
        parent=None,
        spans=(),
        new={},
        past={},
        model=world.model,
        stages=(),
        training=training
        or Training(tokens=1, batch=1, context=1, replay=0.0, schedule=nothing, optimiser="reset", seed=0),
        limits=Limits(),
        data=DataSettings(held_out=share),
    )


def _run(world: World, run: str, stage: str, plan: Plan, **fields: object) -> list[AnyEvent]:
    folder = _attempt(world, run, stage)
    specification = Specification(
        pipeline=PIPELINE,
        run=run,
        stage=stage,
        attempt=1,
        command=f"{run}/{stage}",
        implementation=f"{__name__}:Measure" if stage == "measure" else stage,
        state=str(world.state),
        roots=(str(world.state / "inbox"),),
        plan=plan,
        threads=world.threads,
        **fields,  # type: ignore[arg-type]
    )
    place_specification(folder, specification)
    if not finished(folder):
        execute(folder)
    events = told(folder)
    if not isinstance(events[-1], StageSucceeded):
        said = events[-1].message if isinstance(events[-1], StageFailed) else str(events[-1])
        message = f"{run}: {stage} did not succeed: {said} All of it lies in {folder}; remove that to try again."
        raise ArmFailed(message)
    return events


def _write(state: Path, domain: str, part: str, documents: Sequence[Document], position: int) -> Arrival:
    path = state / "inbox" / f"{domain}-{part}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(msgspec.json.encode(document) + b"\n" for document in documents)
    if not path.exists():
        write_atomically(path, data)
    return arrived(path, domain, len(documents), position)
