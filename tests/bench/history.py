"""A long and coherent history of three pipelines, every kind of event in it, as the real core writes it."""

import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from daemon.core.arbitration import react
from daemon.core.arrivals import amount_of, within
from daemon.core.decisions import Policies
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    Comparison,
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    DriftDetected,
    EvaluationReported,
    FailureReported,
    FilesExpired,
    InputRejected,
    LabelArrived,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    OperatorRequested,
    ProbeMeasured,
    Record,
    SourceDegraded,
    SourceRecovered,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Order, Pipeline, Run, State
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.door import Offer
from daemon.sources import clock
from stages.base import Names

VERSION: Final = 2
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCER: Final = "https://data.example/crawler"
SHA: Final = "0123456789abcdef" * 4
DOMAINS: Final = ("news", "manuals", "letters")
PROGRESS: Final = 16
CONFIGURATION: Final = """
journal: sqlite:///journal.db
mlflow: {tracking_uri: null}
state: state
http: {port: PORT}
roots: [inbox]
sources: [{kind: spool, path: spool}]
executor: {kind: local, slots: 2, warm_workers: 0}
pipelines:
  alpha: &pipeline
    policies:
      - {kind: rewarm_replay, after_tokens: 4000}
      - {kind: periodic_retraining, after_increments: 8, cron: "0 3 * * *", priority: 1}
      - {kind: stage_recovery, retries: 2}
      - {kind: promotion, approval: undecided, max_forgetting: 0.02}
  beta: *pipeline
  gamma: *pipeline
"""


class History:
    """Yields records in order; `state` is what they fold to so far."""

    def __init__(self, policies: Policies, configuration: ConfigurationChanged, seed: int = 1) -> None:
        self.state = State()
        self._policies = policies
        self._configuration = configuration
        self._rng = random.Random(seed)
        self._now = BEGIN
        self._serial = 0
        self._epoch = 0
        self._arrivals: dict[str, list[tuple[int, str, DataArrived]]] = {}

    def records(self, at_least: int) -> Iterator[list[Record]]:
        """Yield batches until there are so many, and every run has come to its end."""
        names = sorted(self._configuration.pipelines)
        restart = 0
        while self.state.position < at_least:
            if self.state.position >= restart:
                restart += 50_000
                yield from self._restart()
            for name in names:
                yield from self._day(name)
        for name in names:
            yield from self._work(name)

    def _restart(self) -> Iterator[list[Record]]:
        self._epoch += 1
        if self._epoch > 1:
            yield self._tell("/rewarm/daemon", DaemonStopped(reason="asked to stop"))
        if self._epoch == 1:
            yield self._tell("/rewarm/daemon", self._configuration)
        started = DaemonStarted(epoch=self._epoch, release="0.1.0", reducer=REDUCER_VERSION, host="bench", pid=1000)
        yield self._tell("/rewarm/daemon", started)

    def _day(self, name: str) -> Iterator[list[Record]]:
        """Yield what happens until the pipeline has worked off what came."""
        for _ in range(self._rng.randint(3, 12)):
            yield self._arrive(name)
        if self._rng.random() < 0.2:
            yield from self._noise(name)
        yield from self._work(name)

    def _arrive(self, name: str) -> list[Record]:
        self._serial += 1
        size = self._rng.randint(300, 1500)
        event = DataArrived(
            uri=f"file:///srv/inbox/part-{self._serial:08d}.jsonl",
            domain=self._rng.choice(DOMAINS),
            bytes=size,
            tokens=size,
            sha256=SHA,
            documents=3,
        )
        records = self._tell(PRODUCER, event, name, identity=f"part-{self._serial:08d}", received=True)
        known = self._arrivals.setdefault(name, [])
        known.append((records[0].position, records[0].id, event))
        del known[:-400]
        return records

    def _noise(self, name: str) -> Iterator[list[Record]]:
        """Yield facts that belong to no run, one of each now and then."""
        position, identity, arrived = self._rng.choice(self._arrivals[name])
        champion = self.state.pipelines[name].champion
        version = champion.version if champion else None
        events: list[AnyEvent] = [
            FailureReported(failure="worker_lost", host="node-7", evidence="no answer for 30 s"),
            EvaluationReported(metric="accuracy", value=0.91, window="1h", model_version=version),
            LabelArrived(metric="accuracy", value=0.9, window="1d", model_version=version),
            DriftDetected(metric="psi", value=0.3, window="1d", model_version=version),
            DataWithdrawn(
                arrival_source=PRODUCER,
                arrival_id=identity,
                arrival=position,
                domain=arrived.domain,
                amount=amount_of(arrived),
            ),
            OperatorRequested(verb="pause", by="ann"),
            OperatorRequested(verb="resume", by="ann"),
            OperatorRequested(verb="retrain", by="ann"),
            OperatorRequested(verb="rollback", by="ann"),
            OperatorRequested(verb="cancel", by="ann"),
            OperatorRequested(verb="approve", by="ann"),
        ]
        if self._rng.random() < 0.3:
            events = [OperatorRequested(verb="approve", by="ann")]
        yield self._tell(PRODUCER, self._rng.choice(events), name)
        if self.state.pipelines[name].paused:
            yield self._tell(PRODUCER, OperatorRequested(verb="resume", by="ann"), name)
        if self._rng.random() < 0.1:
            yield self._tell("/rewarm/daemon", SourceDegraded(name="spool", reason="the share is gone"))
            yield self._tell("/rewarm/daemon", SourceRecovered(name="spool"))
            letter = InputRejected(reason="malformed", message="The text is no JSON object.", where="a.json:1")
            yield self._tell("/rewarm/door", letter, received=True)
            last = self.state.pipelines[name].last
            if last is not None:
                expired = FilesExpired(
                    what="run", name=last.run, paths=(f"runs/{last.run}",), bytes=4096, rule="runs", run=last.run
                )
                yield self._tell("/rewarm/retention", expired, name)

    def _work(self, name: str) -> Iterator[list[Record]]:
        """Yield what the stages of a pipeline tell until it rests."""
        while True:
            for offer in _offers(self.state, self._now):
                if offer.pipeline in (None, name) and offer.event is not None:
                    yield self._tell(offer.source, offer.event, offer.pipeline, identity=offer.id)
            run = self.state.pipelines[name].active
            if run is None:
                return
            if run.order is None:
                self._now += timedelta(seconds=5)
                continue
            for event in self._attempt(self.state.pipelines[name], run, run.order):
                yield self._tell(f"/rewarm/runs/{run.run}/{run.order.stage}/{run.order.attempt}", event, name)

    def _attempt(self, pipeline: Pipeline, run: Run, order: Order) -> Iterator[AnyEvent]:
        names = Names(run=order.run, stage=order.stage, attempt=order.attempt)
        yield StageStarted(**names, command=order.command, host="bench", pid=1234)
        if run.stop is not None:
            yield StageInterrupted(**names, reason=run.stop)
            return
        chance = self._rng.random()
        if order.stage == "train":
            yield from self._train(pipeline, names)
            if self._rng.random() < 0.02:
                yield StageInterrupted(**names, reason="preempt" if _stopped(self.state, pipeline.name) else "died")
                return
        if chance < 0.03:
            yield StageFailed(
                **names, failure="user_error" if chance < 0.005 else "transient", message="It did not work."
            )
            return
        yield from self._results(pipeline, run, names)
        yield StageSucceeded(**names, seconds=12.5, metrics={"loss": 1.25})

    def _train(self, pipeline: Pipeline, names: Names) -> Iterator[AnyEvent]:
        for step in range(1, PROGRESS + 1):
            metrics = {"loss": round(2.0 / step, 6), "learning_rate": 0.0003, "tokens_per_second": 48_211.5}
            yield StageProgressed(**names, step=step * 100, steps=PROGRESS * 100, metrics=metrics)
            if step % 8 == 0:
                path = f"runs/{names['run']}/train/{names['attempt']}/checkpoint-{step}"
                yield CheckpointSaved(**names, step=step * 100, checkpoint=Checkpoint(path=path, sha256=SHA))

    def _results(self, pipeline: Pipeline, run: Run, names: Names) -> Iterable[AnyEvent]:
        match names["stage"]:
            case "ingest":
                return list(self._ingested(pipeline.name, run, names))
            case "probe":
                new = {domain: _loss(1.3) for domain in run.plan.new}
                past = {domain: _loss(1.2) for domain in run.plan.past}
                return [ProbeMeasured(**names, new=new, past=past, shift=round(self._rng.uniform(0, 1), 6))]
            case "evaluate":
                domains = {domain: self._comparison() for domain in sorted({*run.plan.new, *run.plan.past})}
                candidate = Checkpoint(path=f"runs/{run.run}/train/1/model", sha256=SHA)
                return [ModelEvaluated(**names, domains=domains, candidate=candidate)]
            case "promote":
                version = pipeline.versions + 1
                promoted = ModelPromoted(
                    **names,
                    model_version=version,
                    path=f"models/{pipeline.name}/{version}",
                    sha256=SHA,
                    trunk=Checkpoint(path=f"runs/{run.run}/train/1/trunk", sha256=SHA),
                    parent=run.plan.parent,
                    spans=run.plan.spans,
                    losses=dict.fromkeys(run.plan.new, 1.2),
                )
                return [promoted]
            case _:
                return []

    def _ingested(self, name: str, run: Run, names: Names) -> Iterator[AnyEvent]:
        for position, _, event in self._arrivals[name]:
            if not within(run.plan.spans, position):
                continue
            estimate = amount_of(event)
            if self._rng.random() < 0.005:
                yield DataRejected(
                    **names,
                    arrival=position,
                    domain=event.domain,
                    estimate=estimate,
                    reason="bad_sample",
                    message="Line 3 is no JSON.",
                )
                continue
            yield DataIngested(
                **names,
                arrival=position,
                domain=event.domain,
                estimate=estimate,
                amount=Amount(arrivals=1, documents=3, bytes=estimate.bytes, tokens=estimate.tokens - 1),
                duplicates=0,
                manifest=f"shards/{position}/manifest.json",
                sha256=SHA,
            )

    def _comparison(self) -> Comparison:
        mean = round(self._rng.gauss(-0.01, 0.015), 6)
        difference = Loss(mean=mean, low=mean - 0.01, high=mean + 0.01, documents=50, bytes=50_000)
        return Comparison(candidate=_loss(1.2), champion=_loss(1.21), difference=difference)

    def _tell(
        self,
        source: str,
        event: AnyEvent,
        pipeline: str | None = None,
        *,
        identity: str | None = None,
        received: bool = False,
    ) -> list[Record]:
        """Record a fact with all that follows from it."""
        self._now += timedelta(seconds=self._rng.randint(1, 4))
        self._serial += 1
        record = Record(
            position=self.state.position + 1,
            recorded_at=self._now,
            source=source,
            id=identity or f"{event.kind}:{self._serial}",
            event=event,
            pipeline=pipeline,
            time=self._now if received else None,
            text=_text(event, pipeline) if received else None,
        )
        state, decided = react(evolve(self.state, record), record, self._policies)
        self.state = state
        return [record, *decided]


def _offers(state: State, now: datetime) -> Iterable[Offer]:
    """Return the wake-ups and the ticks that are due."""
    due = clock.due(state, now)
    return due.offers if due is not None else ()


def _stopped(state: State, name: str) -> bool:
    run = state.pipelines[name].active
    return run is not None and run.stop == "preempt"


def _loss(mean: float) -> Loss:
    return Loss(mean=mean, low=mean - 0.02, high=mean + 0.02, documents=50, bytes=50_000)


def _text(event: AnyEvent, pipeline: str | None) -> bytes:
    data = {"uri": getattr(event, "uri", ""), "domain": getattr(event, "domain", ""), "documents": 3}
    head = {"specversion": "1.0", "source": PRODUCER, "type": f"io.rewarm.{event.kind}.v1", "subject": pipeline}
    return json.dumps({**head, "id": "part", "data": data}).encode()
