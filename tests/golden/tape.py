"""A tape: the real core driven over a virtual clock, every record of it kept, and records as lines of text."""

import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from daemon.config import load
from daemon.core.arbitration import react
from daemon.core.arrivals import amount_of, within
from daemon.core.encoding import decode, encode
from daemon.core.errors import FailureClass
from daemon.core.events import (
    AnyEvent,
    Carrier,
    CheckpointSaved,
    Comparison,
    DaemonStarted,
    DataArrived,
    DataIngested,
    DataRejected,
    InterruptReason,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    OperatorRequested,
    ProbeMeasured,
    Record,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
    Verb,
)
from daemon.core.plans import Checkpoint, Document, Law
from daemon.core.state import Order, Pipeline, Run, State
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.sources import clock
from stages.base import Names

if TYPE_CHECKING:
    from daemon.core.decisions import Policies

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA: Final = "0123456789abcdef" * 4


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record as one line of a golden journal."""

    position: int
    recorded_at: datetime
    source: str
    id: str
    kind: str
    version: int
    pipeline: str | None = None
    cause: int | None = None
    carrier: Carrier | None = None
    data: msgspec.Raw


class Tape:
    """One pipeline `p`, or several, and everything that is told of them."""

    def __init__(self, configuration: str, begin: datetime = NOON) -> None:
        self.now = begin
        self.state = State()
        self.records: list[Record] = []
        self._policies: Policies = {}
        self._epoch = 0
        self.start(configuration)

    def start(self, configuration: str) -> None:
        """Let a daemon start with a configuration (YAML, the part below `pipelines` and `executor`)."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rewarm.yaml")
            file.write_text(configuration, encoding="utf-8")
            loaded = load(file)
        self._epoch += 1
        self._policies = {name: pipeline.policies for name, pipeline in loaded.settings.pipelines.items()}
        changed = loaded.changed()
        if changed.hash != self.state.configuration:
            self.tell(changed, None)
        self.tell(
            DaemonStarted(epoch=self._epoch, release="0", reducer=REDUCER_VERSION, host="golden", pid=self._epoch), None
        )
        self.catch_up()

    def tell(
        self,
        event: AnyEvent,
        pipeline: str | None = "p",
        *,
        source: str = "/golden",
        identity: str | None = None,
        cause: int | None = None,
        carrier: Carrier | None = None,
    ) -> list[Record]:
        """Record a fact a second later, and return what follows from it."""
        self.now += timedelta(seconds=1)
        position = self.state.position + 1
        record = Record(
            position=position,
            recorded_at=self.now,
            source=source,
            id=identity or str(position),
            pipeline=pipeline,
            event=event,
            cause=cause,
            carrier=carrier,
        )
        self.state, following = react(evolve(self.state, record), record, self._policies)
        self.records += [record, *following]
        return following

    def wait(self, span: timedelta) -> None:
        """Let time pass, and every wake-up and tick fire when it is due."""
        end = self.now + span
        while (at := clock.next_due(self.state)) is not None and at <= end:
            self.now = max(self.now, at)
            self.catch_up()
        self.now = max(self.now, end)

    def sleep(self, span: timedelta) -> None:
        """Let time pass with no daemon there."""
        self.now += span

    def catch_up(self) -> None:
        """Tell what is due now."""
        due = clock.due(self.state, self.now)
        for offer in due.offers if due is not None else ():
            if offer.event is not None:
                self.tell(offer.event, offer.pipeline, source=offer.source, identity=offer.id)

    # ------------------------------------------------------------------------------------ the world

    def arrive(self, tokens: int = 100, domain: str = "prose", pipeline: str = "p") -> int:
        """Let data arrive; returns its position."""
        self.tell(
            DataArrived(uri=f"file:///in/{domain}", domain=domain, tokens=tokens, bytes=tokens, documents=1), pipeline
        )
        return next(r.position for r in reversed(self.records) if isinstance(r.event, DataArrived))

    def request(self, verb: Verb, pipeline: str | None = "p", **details: Any) -> list[Record]:  # noqa: ANN401 - its fields
        """Let a person ask."""
        return self.tell(OperatorRequested(verb=verb, by="ann", **details), pipeline)

    # ------------------------------------------------------------------------------------ its stages

    def of(self, pipeline: str = "p") -> Pipeline:
        """Return a pipeline's state."""
        return self.state.pipelines[pipeline]

    def run(self, pipeline: str = "p") -> Run:
        """Return the active run."""
        run = self.of(pipeline).active
        assert run is not None, "no run is active"
        return run

    def order(self, pipeline: str = "p") -> Order:
        """Return the attempt that shall run now."""
        order = self.run(pipeline).order
        assert order is not None, "no attempt is ordered"
        return order

    def names(self, pipeline: str = "p") -> Names:
        """Return the fields that name the current attempt."""
        order = self.order(pipeline)
        return Names(run=order.run, stage=order.stage, attempt=order.attempt)

    def stage(self, event: AnyEvent, pipeline: str = "p") -> None:
        """Tell what the current attempt says."""
        order = self.order(pipeline)
        self.tell(event, pipeline, source=f"/rewarm/runs/{order.run}/{order.stage}/{order.attempt}")

    def begin(self, pipeline: str = "p") -> None:
        """Let the current attempt begin."""
        started = StageStarted(**self.names(pipeline), command=self.order(pipeline).command, host="golden", pid=1)
        self.stage(started, pipeline)

    def checkpoint(self, step: int, pipeline: str = "p") -> None:
        """Let the current attempt save a checkpoint."""
        self.stage(StageProgressed(**self.names(pipeline), step=step, steps=10 * step, metrics={"loss": 2.5}), pipeline)
        saved = Checkpoint(path=f"runs/step-{step}", sha256=SHA)
        self.stage(CheckpointSaved(**self.names(pipeline), step=step, checkpoint=saved), pipeline)

    def fail(
        self, failure: FailureClass, pipeline: str = "p", *, step: int | None = None, documents: Sequence[Document] = ()
    ) -> None:
        """Let the current attempt fail, at a step and on documents where they are given."""
        place = {"step": step, "documents": tuple(documents)}
        failed = StageFailed(**self.names(pipeline), failure=failure, message="it did not work", **place)  # type: ignore[arg-type]
        self.stage(failed, pipeline)

    def interrupt(self, reason: InterruptReason, pipeline: str = "p") -> None:
        """Let the current attempt be stopped, or die."""
        self.stage(StageInterrupted(**self.names(pipeline), reason=reason), pipeline)

    def succeed(
        self,
        pipeline: str = "p",
        *,
        shift: float | None = 0.3,
        law: Law | None = None,
        differences: dict[str, tuple[float, float, float]] | None = None,
        rejects: Iterable[int] = (),
    ) -> None:
        """Let the current attempt do its work: `differences` is candidate minus champion (mean, low, high)."""
        self.begin(pipeline)
        stage = self.order(pipeline).stage
        if stage == "ingest":
            self._ingest(pipeline, set(rejects))
        elif stage == "probe":
            plan = self.run(pipeline).plan
            new, past = dict.fromkeys(plan.new, _loss(2.5)), dict.fromkeys(plan.past, _loss(2.2))
            self.stage(ProbeMeasured(**self.names(pipeline), new=new, past=past, shift=shift, law=law), pipeline)
        elif stage == "train":
            self.checkpoint(100, pipeline)
        elif stage == "evaluate":
            self._evaluate(pipeline, differences)
        elif stage == "promote":
            self._promote(pipeline)
        self.stage(StageSucceeded(**self.names(pipeline), seconds=1.5), pipeline)

    def until(self, stage: str, pipeline: str = "p", *, shift: float | None = 0.3, law: Law | None = None) -> None:
        """Let stages succeed until `stage` is ordered."""
        while self.order(pipeline).stage != stage:
            self.succeed(pipeline, shift=shift, law=law)

    def finish(self, pipeline: str = "p", differences: dict[str, tuple[float, float, float]] | None = None) -> None:
        """Let stages succeed until the run that is active now is no longer so."""
        run = self.run(pipeline).run
        while (active := self.of(pipeline).active) is not None and active.run == run:
            self.succeed(pipeline, differences=differences)

    def rest(self) -> None:
        """Let stages succeed until none is ordered in any pipeline."""
        while orders := [n for n, p in sorted(self.state.pipelines.items()) if p.active is not None and p.active.order]:
            self.finish(orders[0])

    def written(self, path: str) -> str:
        """Return the hash of the manifest of a folder that a stage has just written; here nothing is."""
        return SHA

    def _ingest(self, pipeline: str, rejects: set[int]) -> None:
        spans = self.run(pipeline).plan.spans
        for record in list(self.records):
            if not isinstance(record.event, DataArrived) or not within(spans, record.position):
                continue
            if record.pipeline != pipeline:
                continue
            names, estimate = self.names(pipeline), amount_of(record.event)
            if record.position in rejects:
                event: AnyEvent = DataRejected(
                    **names,
                    arrival=record.position,
                    domain=record.event.domain,
                    estimate=estimate,
                    reason="not_json",
                    message="Line 3 is no JSON.",
                )
            else:
                event = DataIngested(
                    **names,
                    arrival=record.position,
                    domain=record.event.domain,
                    estimate=estimate,
                    amount=replace(estimate, tokens=estimate.tokens + 1),
                    duplicates=0,
                    manifest=f"shards/{record.position}/manifest.json",
                    sha256=self.written(f"shards/{record.position}"),
                )
            self.stage(event, pipeline)

    def _evaluate(self, pipeline: str, differences: dict[str, tuple[float, float, float]] | None) -> None:
        plan = self.run(pipeline).plan
        told = {}
        for domain in sorted({*plan.new, *plan.past}):
            mean, low, high = (differences or {}).get(domain, (-0.1, -0.15, -0.05))
            difference = Loss(mean=mean, low=low, high=high, documents=10, bytes=1000)
            known = plan.parent is not None and differences != {}
            told[domain] = Comparison(
                candidate=_loss(2.0), champion=_loss(2.1) if known else None, difference=difference if known else None
            )
        candidate = Checkpoint(path=f"runs/{plan.kind}/model", sha256=SHA)
        self.stage(ModelEvaluated(**self.names(pipeline), domains=told, candidate=candidate), pipeline)

    def _promote(self, pipeline: str) -> None:
        plan, version = self.run(pipeline).plan, self.of(pipeline).versions + 1
        path = f"models/{pipeline}/v{version}"
        promoted = ModelPromoted(
            **self.names(pipeline),
            model_version=version,
            path=path,
            trunk=Checkpoint(path=f"{path}/trunk", sha256=self.written(f"{path}/trunk")),
            sha256=self.written(path),
            parent=plan.parent,
            spans=plan.spans,
            losses=dict.fromkeys(plan.new, 2.0),
        )
        self.stage(promoted, pipeline)


def _loss(mean: float) -> Loss:
    return Loss(mean=mean, low=mean - 0.05, high=mean + 0.05, documents=10, bytes=1000)


def write(records: Iterable[Record]) -> bytes:
    """Return records as lines of text."""
    return b"".join(
        msgspec.json.encode(
            Line(
                position=record.position,
                recorded_at=record.recorded_at,
                source=record.source,
                id=record.id,
                kind=record.event.kind,
                version=record.event.version,
                pipeline=record.pipeline,
                cause=record.cause,
                carrier=record.carrier,
                data=msgspec.Raw(encode(record.event)),
            )
        )
        + b"\n"
        for record in records
    )


def read(text: bytes) -> list[Record]:
    """Return the records that lines of text say."""
    lines = [msgspec.json.decode(line, type=Line) for line in text.splitlines()]
    return [
        Record(
            position=line.position,
            recorded_at=line.recorded_at,
            source=line.source,
            id=line.id,
            event=decode(line.kind, line.version, bytes(line.data)),
            pipeline=line.pipeline,
            cause=line.cause,
            carrier=line.carrier,
        )
        for line in lines
    ]
