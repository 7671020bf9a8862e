"""What the next attempt of a failed stage does otherwise, or why none would help: a function of the run alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

import msgspec
from msgspec.structs import replace

from daemon.core.events import Numbers
from daemon.core.plans import Document, Remedy, Span
from daemon.core.state import Failures, Run
from policies.stage_recovery.table import ANSWERS, UNKNOWN, Answer, Measure

if TYPE_CHECKING:
    from daemon.core.errors import FailureClass

TRAINING: Final = "train"
CURATION: Final = "curate"
"""The stages that know remedies; of these two the second knows documents alone."""
MOST_DOCUMENTS: Final = 256
"""Most documents of a run that are left out: more than so many are no accident."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step back goes: steps before the failure, batches left out around it, and their largest share."""

    rollback_steps: int
    skip_steps: int
    max_skip: float


class Treatment(msgspec.Struct, frozen=True, kw_only=True):
    """A retry: its verdict, what it does otherwise in words and numbers, and the remedies in force for it."""

    remedy: Remedy
    verdict: str = "retry"
    told: str = ""
    inputs: Numbers = {}
    thresholds: Numbers = {}


def answer_to(failure: str) -> Answer:
    """Return what a failure class calls for."""
    return ANSWERS.get(cast("FailureClass", failure), UNKNOWN)


def is_repeated(failures: Failures) -> bool:
    """Return whether the last failure is no accident: there again, or of this class again without progress."""
    return failures.again or (failures.classes.get(failures.last, 1) > 1 and failures.without_progress > 1)


def treat(run: Run, bounds: Bounds) -> Treatment | str:
    """Return how the stage that failed is tried again, or why no retry helps."""
    answer, repeated = answer_to(run.failures.last), is_repeated(run.failures)
    spares = run.stage == CURATION and run.failures.documents
    if run.stage != TRAINING and not spares:
        hopeless = answer.elsewhere == "confirm" and repeated
        return _measured("stop" if hopeless else answer.elsewhere, run, bounds)
    return _measured(answer.repeated if repeated else answer.first, run, bounds)


def _measured(measure: Measure, run: Run, bounds: Bounds) -> Treatment | str:
    failures = run.failures
    match measure:
        case "again":
            return Treatment(remedy=run.remedy)
        case "confirm":
            return _confirmed(run)
        case "step_back":
            return _stepped_back(run, bounds)
        case "spare":
            return _quarantined(run) if failures.documents else _stepped_back(run, bounds)
        case "quarantine":
            return _quarantined(run)
        case "split":
            return _split(run)
        case "older":
            return _older(run)
        case "stop":
            return f"{failures.last} is not mended by a retry"


def _confirmed(run: Run) -> Treatment | str:
    if run.failures.last == "bad_sample" and run.failures.step is None and not run.failures.documents:
        return "bad_sample is not mended by a retry, for it is of no batch"
    return Treatment(remedy=run.remedy, told="to see whether it comes again")


def _stepped_back(run: Run, bounds: Bounds) -> Treatment | str:
    """Go on from before the failure and leave out batches around its step, as PaLM did about 20 times."""
    step, remedy, training = run.failures.step, run.remedy, run.plan.training
    if step is None:
        return f"{run.failures.last} came again, and no step is named to go back from"
    steps = max(1, training.tokens // max(1, training.batch * training.context))
    left = int(bounds.max_skip * steps) - skipped(remedy)
    count = min(bounds.skip_steps, left)
    if count < 1:
        return (
            f"{run.failures.last} came again at step {step}, and of its {steps} batches {skipped(remedy)} are left out "
            f"already, where max_skip allows for {bounds.max_skip:g}"
        )
    after = min(max(0, step - 1 - count // 2), steps - 1)
    upto = min(steps, after + count)
    before = max(0, min(after, step - bounds.rollback_steps))
    made = replace(remedy, skip=_merged([*remedy.skip, Span(after=after, upto=upto)]), before=before)
    return Treatment(
        verdict="step_back",
        told=f"from a checkpoint at or before step {before}, and the batches of steps {after + 1} to {upto} are left "
        f"out, for {run.failures.last} came again at step {step}",
        remedy=made,
        inputs={"step": step, "before": before, "skipped": skipped(made), "share": round(skipped(made) / steps, 6)},
        thresholds={"rollback_steps": bounds.rollback_steps, "skip_steps": bounds.skip_steps, "share": bounds.max_skip},
    )


def _quarantined(run: Run) -> Treatment | str:
    failures, remedy = run.failures, run.remedy
    found = sorted({*remedy.without, *failures.documents}, key=lambda each: (each.arrival, each.number))
    fresh = len(found) - len(remedy.without)
    if not fresh:
        return f"{failures.last} came again, and no document is named that could be left out"
    if len(found) > MOST_DOCUMENTS:
        return f"{failures.last} came again, and {len(found)} documents would have to be left out"
    before = remedy.before if failures.step is None else max(0, failures.step - 1)
    return Treatment(
        verdict="quarantine",
        told=f"without {_named(failures.documents)}, for {failures.last} came again there",
        remedy=replace(remedy, without=tuple(found), before=before),
        inputs={"step": failures.step, "documents": len(found)},
        thresholds={"documents": MOST_DOCUMENTS},
    )


def _split(run: Run) -> Treatment | str:
    training, remedy = run.plan.training, run.remedy
    engine = training.engine
    rows = max(1, training.batch // max(1, engine.processes))
    parts = min(rows, engine.accumulate * remedy.accumulate)
    if parts >= rows:
        smaller = "" if engine.recompute else "set `recompute: true`, "
        return (
            f"a batch is computed row by row already ({parts} parts of {rows} rows a process) and does not fit: "
            f"{smaller}lower `context` ({training.context}), train a smaller model, or give it more memory"
        )
    return Treatment(
        verdict="split",
        told=f"with the batch in {min(rows, 2 * parts)} parts instead of {parts}, which is the same step in less "
        "memory",
        remedy=replace(remedy, accumulate=2 * remedy.accumulate),
        inputs={"parts": min(rows, 2 * parts)},
        thresholds={"parts": rows},
    )


def _older(run: Run) -> Treatment | str:
    failures, remedy = run.failures, run.remedy
    if failures.step is None:
        return "what the run starts from cannot be read, and that is all there is: restore it"
    if remedy.before == 0:
        return "no checkpoint can be read, and what it starts from neither"
    before = max(0, failures.step - 1) if failures.without_progress <= _CONFIRMED else 0
    return Treatment(
        verdict="step_back",
        told=f"from a checkpoint at or before step {before}, for that of step {failures.step} cannot be read"
        if before
        else "from its start, for no checkpoint can be read",
        remedy=replace(remedy, before=before),
        inputs={"step": failures.step, "before": before},
    )


_CONFIRMED: Final = 2
"""Failures without progress after which a bad checkpoint is confirmed, and one older one has not been tried yet."""


def skipped(remedy: Remedy) -> int:
    """Return how many batches a remedy leaves out."""
    return sum(span.upto - span.after for span in remedy.skip)


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans in order, none of which touches the next."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda each: (each.after, each.upto)):
        if found and span.after <= found[-1].upto:
            found[-1] = Span(after=found[-1].after, upto=max(found[-1].upto, span.upto))
        else:
            found.append(span)
    return tuple(found)


def _named(documents: tuple[Document, ...]) -> str:
    first = f"document {documents[0].number} of arrival {documents[0].arrival}"
    return first if len(documents) == 1 else f"{first} and {len(documents) - 1} more"
