"""Where an arrival is counted now: pending, among what champions were trained on, or set aside.

The state knows amounts per domain, not arrivals; the journal knows what became of each. A withdrawal asks it once.
"""

from typing import Literal

from daemon.core import arrivals
from daemon.core.events import (
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    Record,
    RunSucceeded,
)
from daemon.core.plans import Amount
from daemon.core.state import Pipeline
from daemon.journal.base import Reader, scan_where

Account = Literal["past", "champion", "set_aside"]


def find(reader: Reader, arrival: Record, pipeline: Pipeline | None) -> tuple[Account | None, Amount]:
    """Return the account that an arrival is in, and as how much.

    No account: it is pending or a living run's, which the fold can tell by its position.
    """
    amount = arrivals.amount_of(arrival.event) if isinstance(arrival.event, DataArrived) else Amount()
    rejected: int | None = None
    kinds = ("data.ingested", "data.rejected", "operator.requested")
    for record in scan_where(reader, arrival.position, pipeline=arrival.pipeline, kinds=kinds):
        match record.event:
            case DataIngested(arrival=arrival.position):
                amount = record.event.amount
            case DataRejected(arrival=arrival.position):
                amount, rejected = record.event.estimate, record.position
            case OperatorRequested(verb="retry", dead_letter=position) if position == rejected:
                rejected = None
            case OperatorRequested(verb="drop", dead_letter=position) if position == rejected:
                return "set_aside", Amount()  # it was let go of already
    if rejected is not None:
        return "set_aside", amount
    if pipeline is None or arrivals.is_pending(pipeline, arrival.position):
        return None, amount
    trained = _trained(reader, arrival, pipeline)
    if trained is not None:
        return "champion" if pipeline.champion and pipeline.champion.run == trained else "past", amount
    living = [run for run in (pipeline.active, pipeline.yielded, pipeline.held) if run is not None and not run.promoted]
    if any(arrivals.counts(pipeline, run.plan.spans, arrival.position) for run in living):
        return None, amount
    return "set_aside", amount


def withdrawal(reader: Reader, pipeline: str | None, arrival: int) -> Record | None:
    """Return the record by which an arrival was withdrawn, if it was."""
    for record in scan_where(reader, arrival, pipeline=pipeline, kinds=("data.withdrawn",)):
        if isinstance(record.event, DataWithdrawn) and record.event.arrival == arrival:
            return record
    return None


def _trained(reader: Reader, arrival: Record, pipeline: Pipeline) -> str | None:
    """Return the run that made a model of an arrival, if one was promoted and not rolled back."""
    promoted = {model.run: None for model in (pipeline.champion, pipeline.previous) if model is not None}
    trained: dict[str, None] = {}
    rolled_back = set()
    kinds = ("model.promoted", "model.rolled_back", "run.succeeded")
    for record in scan_where(reader, arrival.position, pipeline=arrival.pipeline, kinds=kinds):
        match record.event:
            case ModelPromoted() if arrivals.within(record.event.spans, arrival.position):
                trained[record.event.run] = None
            case ModelRolledBack():
                rolled_back.add(record.event.run)
            case RunSucceeded(outcome="promoted"):
                promoted[record.event.run] = None
            case _:
                pass
    kept = (run for run in trained if run in promoted and run not in rolled_back)
    return next((run for run in kept if _took(reader, run, arrival.position)), None)


def _took(reader: Reader, run: str, arrival: int) -> bool:
    """Return whether a run ingested an arrival of its spans; a pipeline without ingest takes them as they are."""
    ingested = [record.event for record in scan_where(reader, 0, run=run, kinds=("data.ingested",))]
    return not ingested or any(isinstance(event, DataIngested) and event.arrival == arrival for event in ingested)
