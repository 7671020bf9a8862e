"""States and records that policies are asked about: made directly, with the least of everything."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.events import AnyEvent, Comparison, DataArrived, Loss, Record
from daemon.core.plans import (
    Amount,
    Checkpoint,
    Intent,
    Limits,
    ModelSettings,
    Plan,
    Schedule,
    Span,
    Start,
    Training,
)
from daemon.core.state import Failures, Model, Pipeline, Run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA = "0" * 64
STAGES = ("ingest", "probe", "train", "evaluate", "promote")
TRAINING = Training(
    tokens=1000,
    batch=4,
    context=8,
    replay=0.05,
    schedule=Schedule(kind="rewarm", peak=3e-3, floor=3e-4, plateau=1e-3),
    optimiser="keep",
    seed=3,
)


class Build:
    """Makes the values that policies look at."""

    noon = NOON
    arrival = DataArrived(uri="a.jsonl", domain="prose", tokens=10)

    @staticmethod
    def after(**period: float) -> datetime:
        """Return an instant that long after noon."""
        return NOON + timedelta(**period)

    @staticmethod
    def amount(tokens: int, arrivals: int = 1) -> Amount:
        """Make an amount."""
        return Amount(arrivals=arrivals, documents=arrivals, bytes=tokens, tokens=tokens)

    @staticmethod
    def record(event: AnyEvent = arrival, at: datetime = NOON, position: int = 100) -> Record:
        """Make the record of a fact."""
        return Record(position=position, recorded_at=at, source="/test", id=str(position), pipeline="p", event=event)

    @staticmethod
    def model(version: int = 1, **fields: Any) -> Model:  # noqa: ANN401 - its fields
        """Make a promoted model."""
        made = Model(
            version=version,
            run=f"p-{version}",
            path=f"v{version}",
            sha256=SHA,
            trunk=Checkpoint(path=f"v{version}/trunk", sha256=SHA),
            parent=None,
            losses={},
            past={"prose": Build.amount(1000)},
            promoted_at=NOON,
            position=10 * version,
        )
        return replace(made, **fields)

    @staticmethod
    def plan(**fields: Any) -> Plan:  # noqa: ANN401 - its fields
        """Make the draft of an increment on code, after prose."""
        made = Plan(
            kind="increment",
            start=Start(kind="champion", version=1, checkpoint=Checkpoint(path="v1/trunk", sha256=SHA)),
            parent=1,
            spans=(Span(after=10, upto=90),),
            new={"code": Build.amount(500)},
            past={"prose": Build.amount(1000)},
            model=ModelSettings(),
            stages=STAGES,
            training=TRAINING,
            limits=Limits(),
        )
        return replace(made, **fields)

    @staticmethod
    def run(stage: str = "train", policy: str = "rewarm_replay", **fields: Any) -> Run:  # noqa: ANN401 - its fields
        """Make a run whose stage has no order: its attempt has ended."""
        made = Run(
            run="p-90",
            policy=policy,
            command="90/p/rewarm_replay/0",
            plan=Build.plan(),
            intent=Intent(kind="increment", start="champion", training=TRAINING),
            priority=0,
            preemptible=True,
            started_at=NOON,
            started_position=91,
            stage=stage,
            attempts={stage: 1},
        )
        return replace(made, **fields)

    @staticmethod
    def pipeline(pending: int = 0, arrivals: int | None = None, **fields: Any) -> Pipeline:  # noqa: ANN401 - its fields
        """Make a pipeline in which so many tokens of code wait since noon."""
        count = arrivals if arrivals is not None else int(pending > 0)
        made = Pipeline(
            name="p",
            pending={"code": Build.amount(pending, count)} if count else {},
            waiting=pending,
            waiting_since=NOON if count else None,
            last_arrival=99 if count else 0,
        )
        return replace(made, **fields)

    @staticmethod
    def ready(pending: int = 0, arrivals: int | None = None, **fields: Any) -> Pipeline:  # noqa: ANN401 - of a pipeline
        """Make a pipeline with a champion, in which so many tokens of code wait since noon."""
        champion = Build.model()
        made = Build.pipeline(pending, arrivals, **{"champion": champion, "base": champion, **fields})
        return replace(made, last_arrival_at=NOON if pending else None)

    @staticmethod
    def looking(tokens: int = 500, **fields: Any) -> Run:  # noqa: ANN401 - of a run
        """Make a run that looks at so many tokens, whose probe is done."""
        plan = Build.plan(new={"code": Build.amount(tokens)})
        run = Build.run("probe", done=True, waiting_since=NOON, plan=plan)
        return replace(run, intent=replace(run.intent, look=True), **fields)

    @staticmethod
    def failures(last: str, count: int = 1, total: int | None = None, **fields: Any) -> Failures:  # noqa: ANN401
        """Make the account of failures of a stage, all of one class."""
        made = Failures(
            total=total or count,
            without_progress=count,
            last=last,
            message="it broke",
            classes={last: total or count},
        )
        return replace(made, **fields)

    @staticmethod
    def comparison(mean: float, low: float | None = None, high: float | None = None) -> Comparison:
        """Make a measured difference, candidate minus champion."""

        def loss(mean: float, low: float, high: float) -> Loss:
            return Loss(mean=mean, low=low, high=high, documents=9, bytes=900)

        difference = loss(mean, mean if low is None else low, mean if high is None else high)
        return Comparison(candidate=loss(2 + mean, 2, 3), champion=loss(2, 2, 2), difference=difference)


@pytest.fixture(scope="session")
def build() -> type[Build]:
    """Hand out the makers of values."""
    return Build
