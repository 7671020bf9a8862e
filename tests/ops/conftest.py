"""A written history of two pipelines: promoted, rejected, failed, rolled back; with curves and weights on disk."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.core.commands import StartRun
from daemon.core.events import (
    AnyEvent,
    Comparison,
    DaemonStarted,
    DataArrived,
    DataIngested,
    DecisionMade,
    InputRejected,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
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
from daemon.journal.memory import MemoryJournal
from daemon.journal.sqlite import open_journal

BEGAN = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
STAGES = ("ingest", "probe", "train", "evaluate", "promote")


def sha(text: str) -> str:
    """Return a hash that looks like one."""
    return (text.encode().hex() * 64)[:64]


def loss(mean: float) -> Loss:
    """Return a loss with a plausible interval."""
    return Loss(mean=mean, low=mean - 0.02, high=mean + 0.02, documents=40, bytes=90_000)


def plan(*, champion: int | None = None, replay: float = 0.05) -> Plan:
    """Return a plan that starts from scratch, or from a champion."""
    schedule = Schedule(kind="rewarm" if champion else "infinite", peak=3e-3, floor=3e-5, plateau=1.5e-3)
    checkpoint = Checkpoint(path=f"models/{champion}", sha256=sha("trunk")) if champion else None
    return Plan(
        kind="increment" if champion else "base",
        start=Start(kind="champion" if champion else "scratch", version=champion, checkpoint=checkpoint),
        parent=champion,
        spans=(Span(after=0, upto=9),),
        new={"code": Amount(arrivals=1, documents=90, bytes=400_000, tokens=400_000)},
        past={"prose": Amount(arrivals=1, documents=300, bytes=900_000, tokens=900_000)} if champion else {},
        model=ModelSettings(),
        stages=STAGES,
        training=Training(
            tokens=500_000,
            batch=8,
            context=128,
            replay=replay if champion else 0.0,
            schedule=schedule,
            optimiser="reset",
            seed=7,
        ),
        limits=Limits(),
        rule="replay 5 % for a weak shift",
    )


class Script:
    """Writes records as a daemon would, and the files that its stages would have left in `state`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.records: list[Record] = []
        self.now = BEGAN

    def add(self, event: AnyEvent, pipeline: str | None = "docs-lm", cause: int | None = None) -> int:
        """Append one record some seconds after the last one and return its position."""
        self.now += timedelta(seconds=7)
        position = len(self.records) + 1
        source = "/producer" if event.origin in {"outside", "operator"} else "/rewarm/daemon"
        self.records.append(
            Record(
                position=position,
                recorded_at=self.now,
                source=source,
                id=f"e{position}",
                event=event,
                pipeline=pipeline,
                cause=cause,
                time=self.now - timedelta(seconds=2) if source == "/producer" else None,
                text=b"{broken" if isinstance(event, InputRejected) else None,
            )
        )
        return position

    def arrive(self, count: int, pipeline: str = "docs-lm") -> int:
        """Append arrivals and return the last one's position."""
        return [
            self.add(DataArrived(uri=f"in/{index}.jsonl", domain="code", tokens=1000 * index), pipeline)
            for index in range(count)
        ][-1]

    def begin(self, planned: Plan, pipeline: str = "docs-lm") -> str:
        """Append an arrival, the decision that answers it, and the start of a run."""
        cause = self.arrive(1, pipeline)
        intent = Intent(kind=planned.kind, start=planned.start.kind, training=planned.training)
        self.add(
            DecisionMade(
                policy="fresh",
                policy_version=1,
                verdict="start",
                reason="402,311 new tokens have come and 300,000 are enough.",
                inputs={"tokens": 402_311},
                thresholds={"tokens": 300_000},
                commands=(StartRun(intent=intent),),
            ),
            pipeline,
            cause,
        )
        run = f"{pipeline}-{cause}"
        self.add(
            RunStarted(
                run=run,
                policy="fresh",
                command=f"{cause}/{pipeline}/fresh/0",
                wished_at=cause,
                passed_over=False,
                intent=intent,
                plan=planned,
            ),
            pipeline,
            cause,
        )
        return run

    def start(self, run: str, stage: str, attempt: int = 1) -> None:
        """Append the start of an attempt."""
        self.add(
            StageStarted(run=run, stage=stage, attempt=attempt, command="c", host="box", pid=4), run.rpartition("-")[0]
        )

    def succeed(self, run: str, stage: str, attempt: int = 1, **metrics: float) -> None:
        """Append the success of an attempt."""
        self.add(
            StageSucceeded(run=run, stage=stage, attempt=attempt, seconds=12.5, metrics=metrics),
            run.rpartition("-")[0],
        )

    def curve(self, run: str, attempt: int, first: int, last: int) -> None:
        """Leave a training curve on disk, its last line torn."""
        folder = self.state / "runs" / run / "train" / str(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for step in range(first, last + 1):
            wobble = 0.08 * math.sin(step * 12.9898)
            values = {
                "step": step,
                "time": self.now.timestamp() + step / 10,
                "loss": 1.2 + 2.6 * math.exp(-step / 70) + wobble,
                "loss_code": 1.0 + 2.9 * math.exp(-step / 60) + wobble,
                "loss_prose": 1.5 + 1.9 * math.exp(-step / 90) - wobble,
                "learning_rate": 1e-3,
            }
            lines.append(json.dumps(values))
        (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 99', encoding="ascii")

    def train(self, run: str) -> None:
        """Train in two attempts: the first dies."""
        pipeline = run.rpartition("-")[0]
        self.start(run, "train")
        self.curve(run, 1, 1, 130)
        self.add(StageProgressed(run=run, stage="train", attempt=1, step=60, steps=240), pipeline)
        self.add(StageInterrupted(run=run, stage="train", attempt=1, reason="died", message="killed"), pipeline)
        self.start(run, "train", 2)
        self.curve(run, 2, 121, 240)
        self.add(StageFailed(run=run, stage="train", attempt=1, failure="hang", message="too late"), pipeline)
        self.add(StageProgressed(run=run, stage="train", attempt=2, step=200, steps=240), pipeline)
        self.succeed(run, "train", 2, loss=1.23, tokens=240_000.0)

    def evaluate(self, run: str, gain: float, *, champion: bool) -> None:
        """Append the judgement of a candidate."""
        self.start(run, "evaluate")
        domains = {
            domain: Comparison(
                candidate=loss(mean),
                champion=loss(mean + gain) if champion else None,
                difference=Loss(mean=-gain, low=-gain - 0.01, high=-gain + 0.01, documents=40, bytes=90_000)
                if champion
                else None,
            )
            for domain, mean in (("code", 1.1), ("prose", 1.4))
        }
        checkpoint = Checkpoint(path=f"runs/{run}/train/2/candidate", sha256=sha(run))
        self.add(ModelEvaluated(run=run, stage="evaluate", attempt=1, domains=domains, candidate=checkpoint),
                 run.rpartition("-")[0])  # fmt: skip
        self.succeed(run, "evaluate")

    def promote(self, run: str, version: int) -> None:
        """Publish a candidate's files and end its run."""
        pipeline = run.rpartition("-")[0]
        folder = self.state / "models" / pipeline / str(version)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(run.encode() * 20)
        (folder / "config.json").write_text("{}", encoding="ascii")
        self.start(run, "promote")
        self.add(
            ModelPromoted(
                run=run,
                stage="promote",
                attempt=1,
                model_version=version,
                path=f"models/{pipeline}/{version}",
                sha256=sha(run),
                trunk=Checkpoint(path="t", sha256=sha("t")),
                parent=version - 1 or None,
                spans=(),
                losses={"code": 1.1, "prose": 1.4},
            ),
            pipeline,
        )
        self.succeed(run, "promote")
        self.add(RunSucceeded(run=run, outcome="promoted"), pipeline)

    def ingest(self, run: str, arrival: int) -> None:
        """Append the ingestion of one arrival."""
        pipeline = run.rpartition("-")[0]
        amount = Amount(arrivals=1, documents=90, bytes=400_000, tokens=400_100)
        self.start(run, "ingest")
        self.add(DataIngested(run=run, stage="ingest", attempt=1, arrival=arrival, domain="code", estimate=amount,
                              amount=amount, duplicates=3, manifest="shards/m.json", sha256=sha(f"{run}.")),
                 pipeline)  # fmt: skip
        self.succeed(run, "ingest")

    def increment(self, version: int, pipeline: str = "docs-lm") -> str:
        """Append a whole run that ends in a promotion."""
        planned = plan(champion=version - 1 if version > 1 else None)
        run = self.begin(planned, pipeline)
        self.ingest(run, int(run.rpartition("-")[2]))
        if version > 1:
            self.start(run, "probe")
            self.add(ProbeMeasured(run=run, stage="probe", attempt=1, new={"code": loss(2.0)},
                                   past={"prose": loss(1.4)}, shift=0.6), pipeline)  # fmt: skip
            self.succeed(run, "probe")
            self.add(PlanFixed(run=run, plan=plan(champion=version - 1, replay=0.25)), pipeline)
        self.train(run)
        self.evaluate(run, 0.12, champion=version > 1)
        self.promote(run, version)
        return run


def write(script: Script, *, arrivals: int = 60) -> Sequence[Record]:
    """Write the whole history: about 250 records over a month's end."""
    script.add(DaemonStarted(epoch=1, release="0.1.0", reducer=1, host="box", pid=3), None)
    script.arrive(arrivals)
    script.increment(1)
    script.add(InputRejected(reason="malformed", message="not JSON", where="spool/a line 3"), None)
    script.now += timedelta(hours=5)
    script.increment(2)
    script.increment(1, "other")
    script.add(OperatorRequested(verb="cancel", run="docs-lm-999", by="mara"))
    script.add(DecisionMade(policy="operator", policy_version=1, verdict="refused", reason="No such run.",
                            run="docs-lm-999"))  # fmt: skip
    rejected = script.begin(plan(champion=2))
    script.train(rejected)
    script.evaluate(rejected, -0.3, champion=True)
    script.add(DecisionMade(policy="promotion", policy_version=1, verdict="reject", reason="code is worse by 0.3.",
                            run=rejected))  # fmt: skip
    script.add(ModelRejected(run=rejected, reason="code is worse by 0.3.", spans=(), amounts={}))
    script.add(RunSucceeded(run=rejected, outcome="rejected"))
    failed = script.begin(plan(champion=2))
    script.start(failed, "train")
    script.add(StageFailed(run=failed, stage="train", attempt=1, failure="out_of_memory", message="no room"))
    script.add(RunFailed(run=failed, stage="train", failure="out_of_memory", reason="Gave up after 1 try."))
    champion = script.increment(3)
    script.add(ModelRolledBack(run=champion, withdrawn_version=3, model_version=2, path="models/docs-lm/2",
                               sha256=sha("2"), reason="mara asked for it."))  # fmt: skip
    held = script.begin(plan(champion=2))
    script.train(held)
    script.evaluate(held, 0.01, champion=True)
    script.add(RunHeld(run=held, reason="The gain is small."))
    script.add(RunResumed(run=held, command="c", stage="evaluate"))
    script.add(RunHeld(run=held, reason="The gain is still small."))
    cancelled = script.begin(plan(champion=2), "other")
    script.add(RunCancelled(run=cancelled, reason="No longer wanted."), "other")
    script.arrive(arrivals)
    return script.records


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the files of the written history."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def history(state: Path) -> Sequence[Record]:
    """The records of the written history."""
    return write(Script(state))


@pytest.fixture(scope="session")
def make_reader() -> Callable[[Sequence[Record]], MemoryJournal]:
    """Make a journal in memory."""

    def make(records: Sequence[Record]) -> MemoryJournal:
        journal = MemoryJournal()
        extend(journal, records)
        return journal

    return make


def extend(journal: MemoryJournal, records: Sequence[Record]) -> None:
    """Append records to a journal in memory."""
    with journal.transaction() as transaction:
        transaction.append(records)


@pytest.fixture(scope="session")
def make_journal() -> Callable[[Path, Sequence[Record]], Path]:
    """Write a journal file."""

    def make(path: Path, records: Sequence[Record]) -> Path:
        journal = open_journal(path)
        with journal.transaction() as transaction:
            transaction.append(records)
        journal.close()
        return path

    return make


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in it: making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("blank") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def make_store(blank_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Make an empty store in a folder of its own and return its URI."""

    def make() -> str:
        file = tmp_path_factory.mktemp("store") / "mlflow.db"
        shutil.copy(blank_store, file)
        return f"sqlite:///{file}"

    return make
