"""Records in words: one line each, with the numbers that matter."""

from collections.abc import Iterator

from daemon.cli.output import count, seconds, size, when
from daemon.core.arbitration import SHADOW
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    DataArrived,
    DataCurated,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    DecisionMade,
    FailureReported,
    FilesExpired,
    InputRejected,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    Position,
    PositionSet,
    ProbeMeasured,
    Reported,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    ScheduleFired,
    SourceDegraded,
    SourceRecovered,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import Plan, tokens
from daemon.story import Decided


def summary(event: AnyEvent) -> str:
    """Return what an event says in one line."""
    return _outside(event) or _stage(event) or _run(event) or _clock(event) or _daemon(event)


def _outside(event: AnyEvent) -> str:
    match event:
        case DataArrived():
            return f"{event.domain}: {amount(event)} at {event.uri}"
        case DataWithdrawn():
            why = f": {event.reason}" if event.reason else ""
            return f"arrival {event.arrival_id} of {event.arrival_source}{why}"
        case OperatorRequested():
            letter = None if event.dead_letter is None else f"dead letter {event.dead_letter}"
            aligned = ", ".join(position(each) for each in event.positions[:3])
            further = f" and {len(event.positions) - 3} more" if len(event.positions) > 3 else ""  # noqa: PLR2004 - as above
            period = f"{when(event.since)} to {when(event.until)}" if event.since and event.until else None
            restart = f"(needs a restart: {', '.join(event.needs_restart)})" if event.needs_restart else None
            decision = None if event.decision is None else f"decision {event.decision}"
            things = (event.run, decision, letter, event.model, aligned + further, period, restart)
            about = "".join(f" {name}" for name in things if name)
            return f"{event.verb}{about} by {event.by or 'unknown'}{': ' + event.reason if event.reason else ''}"
        case FailureReported():
            where = " ".join(part for part in (event.run, event.host, event.worker) if part)
            return f"{event.failure} {where} {event.evidence}".rstrip()
        case Reported():
            return f"{event.metric} = {event.value:g} {event.window}".rstrip()
        case _:
            return ""


def _stage(event: AnyEvent) -> str:  # noqa: PLR0911 - one return a case
    match event:
        case StageStarted():
            return f"{attempt(event.run, event.stage, event.attempt)} in process {event.pid} on {event.host}"
        case StageProgressed():
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in sorted(event.metrics.items()))
            return f"{attempt(event.run, event.stage, event.attempt)} {event.step:,}/{event.steps:,} {numbers}".rstrip()
        case CheckpointSaved():
            return f"{attempt(event.run, event.stage, event.attempt)} at step {event.step:,}"
        case StageSucceeded():
            return f"{attempt(event.run, event.stage, event.attempt)} in {seconds(event.seconds)}"
        case StageFailed():
            return f"{attempt(event.run, event.stage, event.attempt)}: {event.failure}: {event.message}"
        case StageInterrupted():
            return f"{attempt(event.run, event.stage, event.attempt)}: {event.reason} {event.message}".rstrip()
        case DataIngested():
            held = count(event.amount.documents, "document")
            return f"{event.domain}: {held}, {event.amount.tokens:,} tokens (arrival {event.arrival})"
        case DataRejected():
            return f"{event.domain}: {event.reason}: {event.message} (arrival {event.arrival})"
        case DataCurated():
            kept = f"{event.kept:,} of {count(event.documents, 'document')}, {event.kept_tokens:,} tokens"
            return f"{kept}; {curated(event)}"
        case ProbeMeasured():
            return "; ".join(_probed(event))
        case _:
            return _model(event)


def shift(event: ProbeMeasured, digits: int = 4) -> str:
    """Return a measured shift with its interval (probes of the first releases have none)."""
    if event.shift is None or event.shift_low is None or event.shift_high is None:
        return f"{event.shift:+.{digits}f}"
    return f"{event.shift:+.{digits}f} [{event.shift_low:+.{digits}f}, {event.shift_high:+.{digits}f}]"


def unmeasured(event: ProbeMeasured) -> str:
    """Return why a probe has no shift."""
    if event.new:
        return "no past to compare with"
    return "nothing new to compare" if event.past else "no champion yet"


def curated(event: DataCurated) -> str:
    """Return in words by which cut a band was kept."""
    if event.cut is None:
        return "there is no champion yet to score them"
    tried = f", the best of {len(event.trials)}" if len(event.trials) > 1 else ""
    return f"cut low {event.cut.low:g}, high {event.cut.high:g}{tried}"


def _probed(event: ProbeMeasured) -> Iterator[str]:
    yield f"there is {unmeasured(event)}" if event.shift is None else f"shift {shift(event)}"
    for domain, share in sorted(event.near_duplicates.items()):
        yield f"{domain} {share:.1%} near-duplicates"
    yield from (f"{how} {value:.4g}" for how, value in sorted(event.drift.items()))
    if event.expected_gain is not None:
        yield f"expected gain {event.expected_gain:.4f}"


def _model(event: AnyEvent) -> str:
    match event:
        case ModelEvaluated():
            return "; ".join(
                f"{domain} {each.candidate.mean:.4f}"
                + (f" ({each.difference.mean:+.4f})" if each.difference is not None else "")
                for domain, each in sorted(event.domains.items())
            )
        case ModelPromoted():
            return f"version {event.model_version} at {event.path}, sha256 {event.sha256[:12]}"
        case ModelRejected():
            return f"{event.run}: {event.reason}"
        case ModelRolledBack():
            return f"version {event.withdrawn_version} → {event.model_version}: {event.reason}"
        case _:
            return ""


def _run(event: AnyEvent) -> str:
    match event:
        case RunStarted():
            return f"{event.run}: {plan(event.plan)}"
        case PlanFixed():
            return f"{event.run}: {plan(event.plan)}"
        case RunResumed():
            return f"{event.run} at {event.stage}"
        case RunHeld() | RunCancelled() | RunPostponed():
            return f"{event.run}: {event.reason}"
        case RunPreempted():
            return f"{event.run} before {event.stage}"
        case RunSucceeded():
            return f"{event.run}: {event.outcome}"
        case RunFailed():
            return f"{event.run} in {event.stage}: {event.reason}"
        case _:
            return ""


def _clock(event: AnyEvent) -> str:
    match event:
        case TimerFired():
            return f"{event.policy}: {event.key}, due {when(event.due)}"
        case ScheduleFired():
            return f"{event.policy}: {event.cron} ({event.timezone}), due {when(event.scheduled_for)}"
        case _:
            return ""


def _daemon(event: AnyEvent) -> str:
    match event:
        case DecisionMade():
            return f"{event.policy} → {event.verdict}: {event.reason}{held_back(event)}"
        case FilesExpired():
            return f"{event.what} {event.name}: {count(len(event.paths), 'path')}, {size(event.bytes)}: {event.rule}"
        case DaemonStarted():
            instead = f", after ending the silent {event.replaced}" if event.replaced else ""
            return f"rewarm {event.release}, process {event.pid} on {event.host}, epoch {event.epoch}{instead}"
        case DaemonStopped():
            return event.reason
        case ConfigurationChanged():
            return f"{', '.join(event.pipelines) or 'no pipeline'} ({event.hash[:12]})"
        case SourceDegraded():
            return f"{event.name}: {event.reason}"
        case SourceRecovered():
            return event.name
        case PositionSet():
            before = "" if event.before is None else f", it stood at {event.before}"
            by = f" by {event.by}" if event.by else ""
            return f"{position(event.position)} ({event.why.replace('_', ' ')}{by}{before})"
        case InputRejected():
            return f"{event.reason}: {event.message} ({event.where})"
        case _:
            return ""


def held_back(decision: DecisionMade | Decided) -> str:
    """Return why a decision is without effect, in brackets; "": it is not."""
    why = decision.suppressed_by
    if decision.shadow:
        return f" [in shadow{f', {why}' if why not in (None, SHADOW) else ''}]"
    return f" [not now: {why}]" if why else ""


def position(at: Position) -> str:
    """Return a place in a partition from which it is read on."""
    return f"{at.source}/{at.topic}/{at.partition}@{at.offset}"


def attempt(run: str, stage: str, number: int) -> str:
    """Return the name of an attempt; the first needs no number."""
    return f"{run} {stage}" + (f" #{number}" if number > 1 else "")


def amount(event: DataArrived) -> str:
    """Return how much an arrival is announced to be."""
    parts = [count(event.documents, "document")] if event.documents is not None else []
    parts += [size(event.bytes)] if event.bytes is not None else []
    parts += [f"about {event.tokens:,} tokens"] if event.tokens is not None and not parts else []
    return ", ".join(parts) or "an unknown amount"


def plan(value: Plan) -> str:
    """Return what a run is to do, in short."""
    if value.start.folder is not None:
        return f"{value.kind} the model in {value.start.folder}, which has seen {tokens(value.new):,} tokens"
    start = {"scratch": "from scratch"}.get(value.start.kind, f"from version {value.start.version}'s trunk")
    replay = f", {value.training.replay:.0%} replayed" if value.training.replay else ""
    return f"{value.kind} {start}, {tokens(value.new):,} new tokens, {value.training.tokens:,} in all{replay}"
