"""A journal on disk with a history as the daemon would have written it, and the command line in this process."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.broker.positions import cursor_name, source_of
from daemon.cli import main
from daemon.config import Configuration, load
from daemon.core.arbitration import react
from daemon.core.events import (
    AnyEvent,
    Carrier,
    Comparison,
    DaemonStarted,
    DataArrived,
    DataIngested,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    Position,
    PositionSet,
    ProbeMeasured,
    Record,
    StageFailed,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Pipeline, State
from daemon.core.transition import evolve
from daemon.journal.base import Cursor
from daemon.journal.sqlite import open_journal

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA = "ab" * 32
PIPELINE = "docs-lm"
CONFIGURATION = """
journal: sqlite:///var/journal.db
mlflow: {tracking_uri: "sqlite:///var/mlflow.db"}
state: var
http: {port: 8420}
roots: [var/inbox]
sources: [{kind: spool, path: var/spool}]
pipelines:
  docs-lm:
    policies:
      - {kind: rewarm_replay, after_tokens: 200_000}
      - {kind: periodic_retraining, after_increments: 8}
      - {kind: stage_recovery}
      - {kind: promotion, max_forgetting: 0.02}
"""


class Chronicle:
    """Writes facts and all that follows from them, as the daemon's loop does."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.state = State()
        self.now = BEGAN
        self._journal = open_journal(configuration.journal)
        self._lines = 0
        policies = configuration.settings.pipelines
        self._policies = {name: pipeline.policies for name, pipeline in policies.items()}
        self.tell(configuration.changed(), pipeline=None)
        self.tell(DaemonStarted(epoch=1, release="0.1.0", reducer=1, host="somewhere", pid=4711), pipeline=None)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as it stands."""
        return self.state.pipelines[PIPELINE]

    def tell(
        self,
        event: AnyEvent,
        *,
        pipeline: str | None = PIPELINE,
        source: str = "/test",
        id: str | None = None,  # noqa: A002
        text: bytes | None = None,
        carrier: Carrier | None = None,
    ) -> Record:
        """Record a fact, and what follows from it, a second after the last one."""
        self.now += timedelta(seconds=1)
        position = self.state.position + 1
        record = Record(
            position=position,
            recorded_at=self.now,
            source=source,
            id=id or f"fact-{position}",
            pipeline=pipeline,
            event=event,
            text=text,
            carrier=carrier,
        )
        self.state, following = react(evolve(self.state, record), record, self._policies)
        with self._journal.transaction() as transaction:
            transaction.append([record, *following])
        return record

    def arrive(
        self,
        domain: str,
        tokens: int,
        *,
        id: str,  # noqa: A002
        source: str = "/crawler",
        carrier: Carrier | None = None,
    ) -> Record:
        """Record an arrival."""
        uri = (self.configuration.roots[0] / f"{id}.jsonl").as_uri()
        return self.tell(
            DataArrived(uri=uri, domain=domain, bytes=tokens, tokens=tokens), source=source, id=id, carrier=carrier
        )

    def read(self, position: Position) -> Record:
        """Record the first position of a partition, as a Kafka source does."""
        with self._journal.transaction() as transaction:
            name = cursor_name(position)
            before = transaction.cursor(name)
            transaction.move(Cursor(name=name, expected=before, next=position.offset))
        event = PositionSet(position=position, before=before, why="first_seen")
        return self.tell(event, pipeline=None, source=source_of(position.source))

    def stage(self, *told: AnyEvent, failure: str | None = None) -> None:
        """Carry out the ordered attempt: begin, tell, end."""
        run = self.pipeline.active
        assert run is not None
        assert run.order is not None
        names = {"run": run.run, "stage": run.order.stage, "attempt": run.order.attempt}
        self.tell(StageStarted(**names, command=run.order.command, host="somewhere", pid=4712))  # type: ignore[arg-type]
        for event in told:
            self.tell(event)
        if failure is None:
            metrics = {"tokens": 4096.0, "tokens_per_second": 512.0} if run.order.stage == "train" else {}
            self.tell(StageSucceeded(**names, seconds=2.5, metrics=metrics))  # type: ignore[arg-type]
        else:
            self.tell(StageFailed(**names, failure="user_error", message=failure))  # type: ignore[arg-type]

    def train(self, differences: dict[str, float] | None = None, *, shift: float | None = None) -> str:
        """Carry the active run through all its stages; `differences` are candidate minus champion per domain."""
        run = self.pipeline.active
        assert run is not None
        ingested = [self._ingested(run.run, record.position, record) for record in self._arrivals()]
        self.stage(*ingested)
        new = {domain: loss(2.0) for domain in run.plan.new} if self.pipeline.champion else {}
        self.stage(ProbeMeasured(run=run.run, stage="probe", attempt=1, new=new, past={}, shift=shift))
        self.stage()
        domains = {
            domain: Comparison(
                candidate=loss(1.5),
                champion=loss(1.5 - (differences or {}).get(domain, 0.0)) if differences else None,
                difference=loss((differences or {}).get(domain, 0.0)) if differences else None,
            )
            for domain in {**run.plan.new, **run.plan.past}
        }
        candidate = Checkpoint(path="runs/candidate", sha256=SHA)
        self.stage(ModelEvaluated(run=run.run, stage="evaluate", attempt=1, domains=domains, candidate=candidate))
        active = self.pipeline.active
        if active is not None:
            version = self.pipeline.versions + 1
            path = f"models/{PIPELINE}/v{version}"
            promoted = ModelPromoted(
                run=run.run,
                stage="promote",
                attempt=1,
                model_version=version,
                path=path,
                sha256=SHA,
                trunk=Checkpoint(path=f"{path}/trunk", sha256=SHA),
                parent=active.plan.parent,
                spans=active.plan.spans,
                losses={domain: each.candidate.mean for domain, each in domains.items()},
            )
            self.stage(promoted)
        return run.run

    def close(self) -> None:
        """Let go of the journal: no daemon runs any more."""
        self._journal.close()

    def _arrivals(self) -> list[Record]:
        run = self.pipeline.active
        spans = run.plan.spans if run is not None else ()
        return [
            record
            for span in spans
            for record in self._journal.records(span.after, upto=span.upto, kinds={DataArrived.kind})
        ]

    def _ingested(self, run: str, position: int, record: Record) -> DataIngested:
        event = record.event
        assert isinstance(event, DataArrived)
        estimate = Amount(arrivals=1, bytes=event.bytes or 0, tokens=event.tokens or 0)
        exact = Amount(arrivals=1, documents=20, bytes=event.bytes or 0, tokens=(event.tokens or 0) - 1000)
        return DataIngested(
            run=run,
            stage="ingest",
            attempt=1,
            arrival=position,
            domain=event.domain,
            estimate=estimate,
            amount=exact,
            duplicates=2,
            manifest="shards/manifest.json",
            sha256=SHA,
        )


def loss(mean: float) -> Loss:
    """Return a loss with an interval of 0.01 to each side."""
    return Loss(mean=mean, low=mean - 0.01, high=mean + 0.01, documents=20, bytes=10_000)


class Result(NamedTuple):
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """A configuration file in an empty folder, which is the working directory."""
    (tmp_path / "rewarm.yaml").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "var" / "inbox").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return load()


@pytest.fixture
def listen(configuration: Configuration) -> Callable[..., Configuration]:
    """Add a Kafka source called `kafka` to the configuration."""

    def add(address: str, *topics: str, rest: str = "") -> Configuration:
        source = (
            f"kind: kafka, bootstrap_servers: ['{address}'], topics: [{', '.join(topics)}], request_timeout: 5{rest}"
        )
        file = configuration.file
        assert file is not None
        spool = "{kind: spool, path: var/spool}"
        text = file.read_text(encoding="utf-8").replace(f"[{spool}]", f"[{spool}, {{{source}}}]")
        file.write_text(text, encoding="utf-8")
        return load()

    return add


@pytest.fixture
def chronicle(configuration: Configuration) -> Iterator[Chronicle]:
    """A journal that a daemon has just begun."""
    written = Chronicle(configuration)
    yield written
    written.close()


@pytest.fixture
def chronicle_of(configuration: Configuration) -> Iterator[Callable[[str], Chronicle]]:
    """Begin a journal whose pipeline is configured by a line of YAML."""
    begun: list[Chronicle] = []

    def begin(pipeline: str) -> Chronicle:
        assert configuration.file is not None
        head = CONFIGURATION.partition("pipelines:")[0]
        configuration.file.write_text(f"{head}pipelines: {{{PIPELINE}: {pipeline}}}", encoding="utf-8")
        begun.append(Chronicle(load()))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


@pytest.fixture
def trained(chronicle: Chronicle) -> Chronicle:
    """A history of a first training and an increment that was promoted; no daemon runs any more."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    chronicle.close()
    return chronicle


@pytest.fixture
def rewarm(configuration: Configuration, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
