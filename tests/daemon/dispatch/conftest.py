"""A pipeline with an active run, and a journal that its specification is read from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.events import AnyEvent, Record
from daemon.core.plans import Amount, Intent, Limits, ModelSettings, Plan, Schedule, Span, Start, Training
from daemon.core.state import Order, Pipeline, Run, State
from daemon.journal.memory import MemoryJournal
from stages.run_folder import Specification

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA = "0" * 64


class Build:
    """Makes the values that the dispatcher works on."""

    sha = SHA
    noon = NOON

    @staticmethod
    def plan(*spans: tuple[int, int], **fields: Any) -> Plan:  # noqa: ANN401 - its fields
        """Make a plan over the arrivals of these spans."""
        schedule = Schedule(kind="rewarm", peak=1e-3, floor=1e-4, plateau=5e-4)
        training = Training(tokens=9, batch=1, context=8, replay=0, schedule=schedule, optimiser="keep", seed=0)
        made = Plan(
            kind="increment",
            start=Start(kind="scratch"),
            parent=None,
            spans=tuple(Span(after=after, upto=upto) for after, upto in spans),
            new={},
            past={},
            model=ModelSettings(),
            stages=("ingest", "train"),
            training=training,
            limits=Limits(),
        )
        return replace(made, **fields)

    @staticmethod
    def order(stage: str = "train", attempt: int = 1, *, run: str = "p-9", resume: bool = False) -> Order:
        """Make an order."""
        return Order(command=f"9/p/x/{attempt}", run=run, stage=stage, attempt=attempt, resume=resume, ordered_at=NOON)

    @staticmethod
    def run(order: Order | None = None, plan: Plan | None = None, **fields: Any) -> Run:  # noqa: ANN401 - its fields
        """Make a run with an order."""
        plan = plan or Build.plan()
        order = order or Build.order()
        made = Run(
            run=order.run,
            policy="x",
            command="9/p/x/0",
            plan=plan,
            intent=Intent(kind="increment", start="scratch", training=plan.training),
            priority=0,
            preemptible=True,
            started_at=NOON,
            started_position=10,
            stage=order.stage,
            order=order,
        )
        return replace(made, **fields)

    @staticmethod
    def pipeline(run: Run | None = None, **fields: Any) -> Pipeline:  # noqa: ANN401 - its fields
        """Make a pipeline whose active run this is."""
        return replace(Pipeline(name="p", active=run or Build.run()), **fields)

    @staticmethod
    def state(*pipelines: Pipeline) -> State:
        """Make a state of pipelines."""
        return State(pipelines={pipeline.name: pipeline for pipeline in pipelines})

    @staticmethod
    def specification(order: Order, state: Path, **fields: Any) -> Specification:  # noqa: ANN401 - its fields
        """Make what an attempt is told, by hand."""
        made = Specification(
            pipeline="p",
            run=order.run,
            stage=order.stage,
            attempt=order.attempt,
            command=order.command,
            implementation="stages.none:None",
            state=str(state),
            roots=(),
            plan=Build.plan(),
        )
        return replace(made, **fields)

    @staticmethod
    def amount(tokens: int) -> Amount:
        """Make an amount."""
        return Amount(arrivals=1, documents=1, bytes=tokens, tokens=tokens)


class Book(MemoryJournal):
    """A journal that is written one fact a line."""

    def write(self, event: AnyEvent, pipeline: str | None = "p") -> int:
        """Append a fact; return its position."""
        position = self.head() + 1
        record = Record(
            position=position, recorded_at=NOON, source="/s", id=str(position), pipeline=pipeline, event=event
        )
        with self.transaction() as transaction:
            transaction.append([record])
        return position


@pytest.fixture(scope="session")
def build() -> type[Build]:
    """Hand out the makers of values."""
    return Build


@pytest.fixture
def book() -> Book:
    """An empty journal."""
    return Book()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder
