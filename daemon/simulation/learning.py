"""The cost model of a journal: what its past runs took, brought and failed at."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from msgspec.structs import replace

from daemon.core.events import (
    DataCurated,
    DataIngested,
    DataRejected,
    ModelEvaluated,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunPostponed,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import Plan, tokens
from daemon.simulation.costs import DEFAULTS, MILLION, Costs, Duration, Measured, Normal, Share

KINDS: Final = frozenset(
    event.kind
    for event in (
        RunStarted,
        PlanFixed,
        RunSucceeded,
        RunFailed,
        RunCancelled,
        RunPostponed,
        StageSucceeded,
        StageFailed,
        StageInterrupted,
        DataIngested,
        DataRejected,
        ProbeMeasured,
        DataCurated,
        ModelEvaluated,
    )
)
"""The kinds of records that tell of costs."""
T = TypeVar("T")
DIED: Final = {"died": "worker_lost", "hang": "hang"}
ENOUGH: Final = 3
MOST: Final = 10_000


class Learner:
    """Takes a journal's records in order; `costs` is what they teach. Keeps the last 10,000 observations of a thing."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self._durations: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._counted: dict[str, list[float]] = defaultdict(list)
        self._shifts: list[float] = []
        self._drifts: dict[str, list[float]] = defaultdict(list)
        self._expected: list[float] = []
        self._kept: list[float] = []
        self._taken: dict[str, set[int]] = defaultdict(set)
        self._measured: dict[int, Measured] = {}
        self._gains: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._forgetting: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._failures: dict[str, Counter[str]] = defaultdict(Counter)
        self._attempts: Counter[str] = Counter()
        self._arrivals: Counter[str] = Counter()
        self._runs = 0

    def see(self, record: Record) -> None:
        """Learn from one record."""
        match record.event:
            case RunStarted() | PlanFixed() as event:
                self._plans[event.run] = event.plan
            case RunSucceeded() | RunFailed() | RunCancelled() | RunPostponed() as event:
                self._runs += self._plans.pop(event.run, None) is not None
                self._taken.pop(event.run, None)
            case StageSucceeded() as event:
                self._succeeded(event)
            case StageFailed() as event:
                self._failed(event.stage, event.failure)
            case StageInterrupted() as event if event.reason in DIED:
                self._failed(event.stage, DIED[event.reason])
            case DataIngested() as event:
                self._arrivals["ingested"] += 1
                self._taken[event.run].add(event.arrival)
                if event.estimate.tokens:
                    _keep(self._counted[event.domain], event.amount.tokens / event.estimate.tokens)
            case DataRejected():
                self._arrivals["rejected"] += 1
            case ProbeMeasured() as event:
                self._probed(event)
            case DataCurated() as event if event.tokens:
                _keep(self._kept, event.kept_tokens / event.tokens)
            case ModelEvaluated() as event:
                self._evaluated(event)

    def costs(self) -> Costs:
        """Return what was learned, with the defaults where nothing was."""
        seen = sum(self._arrivals.values())
        everything = [ratio for ratios in self._counted.values() for ratio in ratios]
        return Costs(
            durations={
                **DEFAULTS.durations,
                **{
                    stage: duration(pairs, DEFAULTS.duration(stage)) for stage, pairs in sorted(self._durations.items())
                },
            },
            other_stage=DEFAULTS.other_stage,
            counted=_normal([(ratio, 0.0) for ratio in everything], DEFAULTS.counted),
            counted_by_domain={
                domain: _normal([(ratio, 0.0) for ratio in ratios], DEFAULTS.counted)
                for domain, ratios in sorted(self._counted.items())
            },
            rejected=Share(share=self._arrivals["rejected"] / seen, seen=seen) if seen else DEFAULTS.rejected,
            shift=_normal([(shift, 0.0) for shift in self._shifts], DEFAULTS.shift),
            gain=_normal(_all(self._gains), DEFAULTS.gain),
            gain_by_domain=_by_domain(self._gains, DEFAULTS.gain),
            forgetting=_normal(_all(self._forgetting), DEFAULTS.forgetting),
            forgetting_by_domain=_by_domain(self._forgetting, DEFAULTS.forgetting),
            failures={
                stage: {name: number / count for name, number in sorted(self._failures[stage].items())}
                for stage, count in sorted(self._attempts.items())
            },
            attempts=dict(sorted(self._attempts.items())),
            other_failures=DEFAULTS.other_failures,
            drift={
                **DEFAULTS.drift,
                **{
                    how: _normal([(value, 0.0) for value in values], DEFAULTS.drift.get(how, DEFAULTS.shift))
                    for how, values in sorted(self._drifts.items())
                },
            },
            expected_gain=_normal([(gain, 0.0) for gain in self._expected], DEFAULTS.expected_gain),
            kept=Share(share=_figure(statistics.fmean(self._kept)), seen=len(self._kept))
            if self._kept
            else DEFAULTS.kept,
            measured=dict(sorted(self._measured.items())),
            runs=self._runs,
        )

    def _succeeded(self, event: StageSucceeded) -> None:
        self._attempts[event.stage] += 1
        plan = self._plans.get(event.run)
        # What went on from a checkpoint did only a part of the work: its time tells nothing of the whole.
        if plan is not None and not event.metrics.get("resumed_at"):
            _keep(self._durations[event.stage], (work(event.stage, plan), event.seconds))

    def _failed(self, stage: str, failure: str) -> None:
        self._attempts[stage] += 1
        self._failures[stage][failure] += 1

    def _probed(self, event: ProbeMeasured) -> None:
        if event.shift is not None:
            _keep(self._shifts, event.shift)
            taken = self._taken.get(event.run, set())
            for arrival in sorted(taken):
                self._measured[arrival] = _with(self._measured.pop(arrival, None), event, event.shift, len(taken) - 1)
            for arrival in list(self._measured)[: max(0, len(self._measured) - MOST)]:
                del self._measured[arrival]
        if event.expected_gain is not None:
            _keep(self._expected, event.expected_gain)
        for how, value in event.drift.items():
            _keep(self._drifts[how], value)

    def _evaluated(self, event: ModelEvaluated) -> None:
        plan = self._plans.get(event.run)
        for domain, comparison in event.domains.items() if plan is not None else ():
            difference = comparison.difference
            if difference is None or plan is None:
                continue
            half = (difference.high - difference.low) / 2
            if domain in plan.new:
                _keep(self._gains[domain], (-difference.mean, half))
            elif domain in plan.past:
                _keep(self._forgetting[domain], (difference.mean, half))


def learn(records: Iterable[Record]) -> Costs:
    """Return the cost model that a journal's records teach; only those of `KINDS` do."""
    learner = Learner()
    for record in records:
        learner.see(record)
    return learner.costs()


def work(stage: str, plan: Plan) -> float:
    """Return the tokens that a stage's time depends on: new data for ingest, all for curate, the budget for train."""
    if stage == "ingest":
        return float(tokens(plan.new))
    if stage == "curate":
        return float(tokens(plan.new) + tokens(plan.past))
    return float(plan.training.tokens) if stage == "train" else 0.0


def duration(pairs: Sequence[tuple[float, float]], default: Duration) -> Duration:
    """Return the line through (tokens, seconds) by least squares, neither part below zero.

    With fewer than three, or all of one size, it goes through the origin where the work has a size, and is the
    mean where it has none.
    """
    sizes, seconds = [size for size, _ in pairs], [second for _, second in pairs]
    sized = sum(sizes) > 0
    fixed, per_token = (0.0, sum(seconds) / sum(sizes)) if sized else (statistics.fmean(seconds), 0.0)
    if sized and len(pairs) >= ENOUGH and max(sizes) > min(sizes):
        line = statistics.linear_regression(sizes, seconds)
        if line.slope < 0:
            fixed, per_token = statistics.fmean(seconds), 0.0
        elif line.intercept >= 0:
            fixed, per_token = line.intercept, line.slope
    return Duration(
        fixed=_figure(fixed),
        per_million=_figure(per_token * MILLION),
        spread=_spread(pairs, fixed, per_token, default.spread),
        seen=len(pairs),
    )


def _spread(pairs: Sequence[tuple[float, float]], fixed: float, per_token: float, default: float) -> float:
    """Return the relative deviation of what was measured from the line."""
    expected = [(fixed + per_token * size, seconds) for size, seconds in pairs]
    ratios = [seconds / mean for mean, seconds in expected if mean > 0]
    return round(statistics.stdev(ratios), 9) if len(ratios) >= ENOUGH else default


def _normal(pairs: Sequence[tuple[float, float]], default: Normal) -> Normal:
    if not pairs:
        return default
    values = [value for value, _ in pairs]
    return Normal(
        mean=_figure(statistics.fmean(values)),
        deviation=_figure(statistics.stdev(values)) if len(values) > 1 else default.deviation,
        half=_figure(statistics.fmean(half for _, half in pairs)),
        seen=len(values),
    )


def _by_domain(found: Mapping[str, Sequence[tuple[float, float]]], default: Normal) -> dict[str, Normal]:
    """Return a figure per domain; one that was seen once takes its deviation from all of them."""
    whole = _normal([pair for pairs in found.values() for pair in pairs], default)
    return {domain: _normal(pairs, replace(whole, seen=0)) for domain, pairs in sorted(found.items())}


def _all(found: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    return [pair for pairs in found.values() for pair in pairs]


def _with(before: Measured | None, event: ProbeMeasured, shift: float, beside: int) -> Measured:
    """Return what is known of an arrival after one more probe: what was measured with fewer beside it tells more."""
    if before is None or before.beside > beside:
        return Measured(shift=shift, drift=dict(event.drift), beside=beside)
    if before.beside < beside:
        return before
    number = before.seen + 1
    drift = {
        how: _figure((before.drift.get(how, value) * before.seen + value) / number)
        for how, value in event.drift.items()
    }
    shift = (before.shift * before.seen + shift) / number
    return Measured(shift=_figure(shift), drift=drift, beside=beside, seen=number)


def _keep(values: "list[T]", value: T) -> None:
    values.append(value)
    if len(values) > MOST:
        del values[0]


def _figure(value: float) -> float:
    """Return a figure to nine significant digits."""
    return float(f"{value:.9g}")
