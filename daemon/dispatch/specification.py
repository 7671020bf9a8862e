"""What an attempt is told: everything, read from the journal when it is dispatched."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from daemon.core import arrivals
from daemon.core.errors import InputError
from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelEvaluated,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    ProbeMeasured,
    RunSucceeded,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint, Plan, Span
from daemon.core.state import Order, Pipeline, lowest
from daemon.dispatch.quarantine import quarantined
from daemon.journal.base import Reader, scan_where
from daemon.places import Places
from stages.base import implementation
from stages.roots import Remote
from stages.run_folder import Arrival, Champion, PastRun, Shard, Specification

HISTORY = 32
"""Past runs of which the planner learns: older ones say little of today's model."""


def attempt_folder(state: Path, run: str, stage: str, attempt: int) -> Path:
    """Return where an attempt lives; a stage of the user's own is named by its class."""
    return state / "runs" / run / stage.replace(":", ".") / str(attempt)


def specify(
    reader: Reader, pipeline: Pipeline, order: Order, *, state: Path, roots: tuple[Path | Remote, ...], threads: int
) -> Specification:
    """Return the specification of the ordered attempt. Raises JournalError when the journal cannot be read."""
    if pipeline.active is None:
        raise ValueError(f"pipeline {pipeline.name} has no active run")
    plan = pipeline.active.plan
    withdrawn = _withdrawn(reader, pipeline.name)
    champion = pipeline.champion
    new = tuple(_shards(reader, order.run, state, withdrawn))
    past = tuple(_past(reader, pipeline, state, withdrawn))
    remedy = order.remedy
    if order.stage == ("train" if plan.curation is None else "curate"):  # of what `curate` keeps all is trained on
        out = quarantined(reader, pipeline.name, state, (*new, *past))
        remedy = replace(remedy, without=(*remedy.without, *out))
    return Specification(
        pipeline=pipeline.name,
        run=order.run,
        stage=order.stage,
        attempt=order.attempt,
        command=order.command,
        implementation=implementation(order.stage),
        state=str(state),
        roots=tuple(root if isinstance(root, Remote) else str(root) for root in roots),
        plan=plan,
        arrivals=tuple(_arrivals(reader, pipeline.name, plan, withdrawn, roots)),
        new=new,
        past=past,
        champion=None
        if champion is None
        else Champion(
            version=champion.version,
            model=Checkpoint(path=champion.path, sha256=champion.sha256),
            trunk=champion.trunk,
        ),
        model_version=pipeline.versions + 1,
        done={
            event.stage: str(attempt_folder(state, event.run, event.stage, event.attempt))
            for event in _events(reader, run=order.run, kinds=("stage.succeeded",))
            if isinstance(event, StageSucceeded)
        },
        resume_from=tuple(
            str(attempt_folder(state, order.run, order.stage, earlier)) for earlier in range(1, order.attempt)
        )
        if order.resume
        else (),
        remedy=remedy,
        history=_history(reader, pipeline.name, order.run) if order.stage == "probe" else (),
        threads=threads,
    )


def _history(reader: Reader, name: str, current: str) -> tuple[PastRun, ...]:
    """Return the last increments that a probe and an evaluation measured, oldest first: what the planner learns of.

    Whether a candidate was promoted does not matter: its losses are facts.
    """
    # Plans and probes are read run by run: of their kinds there is no index, and a journal may be long.
    promoted: list[tuple[int, dict[str, float]]] = [(0, {})]
    evaluated: dict[str, tuple[int, ModelEvaluated]] = {}
    for record in scan_where(reader, 0, pipeline=name, kinds=("model.evaluated", "model.promoted")):
        if isinstance(record.event, ModelPromoted):
            promoted.append((record.position, lowest(promoted[-1][1], record.event.losses)))
        elif isinstance(record.event, ModelEvaluated) and record.event.run != current:
            evaluated.pop(record.event.run, None)
            evaluated[record.event.run] = record.position, record.event
    found: list[PastRun] = []
    for run, (position, event) in reversed(evaluated.items()):
        plan, probe, probed = _before(reader, run, position)
        if plan is None or plan.kind != "increment" or probe is None:
            continue
        best = next(best for at, best in reversed(promoted) if at < probed)
        plan = replace(plan, prediction=None)  # what was expected teaches nothing
        found.append(PastRun(run=run, plan=plan, old=probe.past, new=probe.new, evaluation=event.domains, best=best))
        if len(found) == HISTORY:
            break
    return tuple(reversed(found))


def _before(reader: Reader, run: str, upto: int) -> tuple[Plan | None, ProbeMeasured | None, int]:
    """Return a run's last plan and probe until a position, and where the probe's record lies."""
    plan, probe, probed = None, None, 0
    for record in scan_where(reader, 0, upto=upto, run=run, kinds=("plan.fixed", "probe.measured")):
        if isinstance(record.event, PlanFixed):
            plan = record.event.plan
        elif isinstance(record.event, ProbeMeasured):
            probe, probed = record.event, record.position
    return plan, probe, probed


def _arrivals(
    reader: Reader, name: str, plan: Plan, withdrawn: Collection[int], roots: tuple[Path | Remote, ...]
) -> Iterator[Arrival]:
    """Yield the arrivals of the plan's spans with what they are counted as: exact where they were ingested.

    Left out is what was withdrawn, and what ingest rejected and nobody had retried when the plan was made.
    """
    if not plan.spans:
        return
    begin = min(span.after for span in plan.spans)
    made = max(span.upto for span in plan.spans)
    counted = {}
    unusable = set()
    kinds = ("data.ingested", "data.rejected", "operator.requested")
    for record in scan_where(reader, begin, pipeline=name, kinds=kinds):
        match record.event:
            case DataIngested(arrival=arrival, amount=amount):
                counted[arrival] = amount
            case DataRejected(arrival=arrival, estimate=amount):
                counted[arrival] = amount
                unusable.add(arrival)
            case OperatorRequested(verb="retry", dead_letter=int()) if record.position <= made:
                unusable -= {span.upto for span in record.event.spans}  # what is retried later, a later run tries
    unusable |= set(withdrawn)
    places = Places(roots)
    for span in plan.spans:
        for record in scan_where(reader, span.after, upto=span.upto, pipeline=name, kinds=("data.arrived",)):
            event = record.event
            if not isinstance(event, DataArrived) or record.position in unusable:
                continue
            amount = arrivals.amount_of(event)
            yield Arrival(
                position=record.position,
                path=_path(event.uri, places),
                format=event.format,
                domain=event.domain,
                bytes=amount.bytes,
                tokens=amount.tokens,
                documents=amount.documents,
                sha256=event.sha256,
                counted=counted.get(record.position),
            )


def _path(uri: str, places: Places) -> str:
    try:
        return places.remote(uri) or places.find(uri)[0]
    except InputError:
        return uri  # the roots changed meanwhile: ingest rejects it, with the reason


def _past(reader: Reader, pipeline: Pipeline, state: Path, withdrawn: Collection[int]) -> Iterator[Shard]:
    """Yield what promoted champions were trained on, in order, without those that were rolled back (rule 13).

    What a backfill made pending again before the run began is past no more until another run has used it.
    """
    if pipeline.active is None or pipeline.active.plan.parent is None:
        return
    name, began = pipeline.name, pipeline.active.started_position
    runs: dict[str, None] = {}
    rolled_back = set()  # it may come before the run has ended
    for event in _events(reader, pipeline=name, kinds=("run.succeeded", "model.rolled_back")):
        if isinstance(event, ModelRolledBack):
            runs.pop(event.run, None)
            rolled_back.add(event.run)
        elif isinstance(event, RunSucceeded) and event.outcome == "promoted" and event.run not in rolled_back:
            runs[event.run] = None
    again = [
        (record.position, record.event.spans)
        for record in scan_where(reader, 0, upto=began, pipeline=name, kinds=("operator.requested",))
        if isinstance(record.event, OperatorRequested) and record.event.verb == "backfill"
    ]
    for run in runs:
        yield from _shards(reader, run, state, withdrawn, again)


def _shards(
    reader: Reader,
    run: str,
    state: Path,
    withdrawn: Collection[int],
    again: Sequence[tuple[int, tuple[Span, ...]]] = (),
) -> list[Shard]:
    """Return what a run ingested, without what was made pending again afterwards."""
    found: dict[int, Shard] = {}
    for record in scan_where(reader, 0, run=run, kinds=("data.ingested", "data.rejected")):
        event = record.event
        if isinstance(event, DataIngested) and event.arrival not in withdrawn:
            if any(record.position < at and arrivals.within(spans, event.arrival) for at, spans in again):
                continue
            manifest = str(state / event.manifest)
            found[event.arrival] = Shard(position=event.arrival, domain=event.domain, manifest=manifest)
        elif isinstance(event, DataRejected):
            found.pop(event.arrival, None)  # an attempt after the one that ingested it
    return [found[position] for position in sorted(found)]


def _withdrawn(reader: Reader, name: str) -> frozenset[int]:
    return frozenset(
        event.arrival
        for event in _events(reader, pipeline=name, kinds=("data.withdrawn",))
        if isinstance(event, DataWithdrawn) and event.arrival is not None
    )


def _events(
    reader: Reader, *, kinds: Collection[str], run: str | None = None, pipeline: str | None = None
) -> Iterator[object]:
    return (record.event for record in scan_where(reader, 0, kinds=kinds, run=run, pipeline=pipeline))
