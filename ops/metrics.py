"""Prometheus metrics of the daemon, in a registry of its own.

What happens is counted as it is committed; what stands (runs, champions, pending tokens) is read from the
state when somebody scrapes, so a series ends with the thing that it described. No label ever holds a run, an
event's id or a position.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.core.events import (
    DataRejected,
    DecisionMade,
    InputRejected,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import Amounts
from daemon.core.state import Model, Pipeline, Run, State

FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds: appends."""
ARRIVAL: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600)
"""Seconds: from what the producer calls now to the journal."""
SLOW: Final = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
"""Seconds: stages."""

Upcoming = Callable[[State], Iterable[tuple[str, str, datetime]]]
"""Tells pipeline, policy and next tick of each schedule, at next to no cost: the calendar is not ours to know."""


class Metrics:
    """What the loop tells; give it the registry that `/metrics` shows."""

    def __init__(self, registry: CollectorRegistry, *, release: str = "", upcoming: Upcoming | None = None) -> None:
        self._standing = _Standing(upcoming)
        registry.register(self._standing)
        ProcessCollector(registry=registry)
        Info("rewarm_build", "The running release.", registry=registry).info(
            {"version": release, "python": platform.python_version()}
        )
        of = ["pipeline"]
        self._appended = Counter(
            "rewarm_events_appended", "Records appended to the journal.", ["kind"], registry=registry
        )
        self._duplicates = Counter(
            "rewarm_events_duplicate", "Facts that came again with the same content.", registry=registry
        )
        self._dead = Counter("rewarm_dead_letters", "Inputs that were not accepted.", ["reason"], registry=registry)
        self._rejected = Counter(
            "rewarm_data_rejected", "Arrivals that could not be ingested.", [*of, "reason"], registry=registry
        )
        self._decisions = Counter(
            "rewarm_decisions",
            "Stored decisions of policies.",
            [*of, "policy", "verdict", "suppressed"],
            registry=registry,
        )
        self._shadows = Counter(
            "rewarm_shadow_decisions",
            "Stored decisions of policies in shadow, which are not carried out.",
            [*of, "policy", "verdict"],
            registry=registry,
        )
        self._runs = Counter("rewarm_runs", "Runs by how they ended or paused.", [*of, "outcome"], registry=registry)
        self._models = Counter(
            "rewarm_model_changes", "Champions by what happened.", [*of, "change"], registry=registry
        )
        self._stages = Counter(
            "rewarm_stage_runs", "Attempts of stages by how they ended.", [*of, "stage", "outcome"], registry=registry
        )
        self._failures = Counter(
            "rewarm_stage_failures", "Failed attempts by class.", [*of, "stage", "failure"], registry=registry
        )
        self._durations = Histogram(
            "rewarm_stage_duration_seconds",
            "How long attempts that succeeded took.",
            [*of, "stage"],
            buckets=SLOW,
            registry=registry,
        )
        self._append = Histogram(
            "rewarm_event_append_duration_seconds",
            "A transaction of the journal, fsync included.",
            buckets=FAST,
            registry=registry,
        )
        self._end_to_end = Histogram(
            "rewarm_event_end_to_end_duration_seconds",
            "From the producer's time of an event to its record.",
            buckets=ARRIVAL,
            registry=registry,
        )
        self._queue = Gauge("rewarm_queue_depth", "Inputs that wait for the loop.", registry=registry)
        self._answered = Counter(
            "rewarm_http_requests", "Answers over HTTP by route and status.", ["path", "status"], registry=registry
        )
        self._snapshot = Gauge(
            "rewarm_snapshot_position", "The journal position of the newest snapshot.", registry=registry
        )
        self._behind = Gauge(
            "rewarm_follower_behind_records", "Records that a follower has not yet.", ["follower"], registry=registry
        )

        self._leader = Gauge(
            "rewarm_leader", "1 while this daemon writes the journal, 0 as a standby.", registry=registry
        )
        self._takeovers = Counter(
            "rewarm_leader_changes", "Times that this standby became the leader.", ["cause"], registry=registry
        )
        self._deliveries = Counter(
            "rewarm_notify_deliveries", "Webhook deliveries by outcome.", ["target", "outcome"], registry=registry
        )

    def observe(self, records: Sequence[Record], state: State) -> None:
        """Count what was just committed; `state` is the one after it."""
        self._standing.state = state
        kinds: dict[str, int] = {}
        for record in records:
            event = record.event
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            if record.time is not None and event.origin in {"outside", "operator"}:
                self._end_to_end.observe(max(0.0, (record.recorded_at - record.time).total_seconds()))
            if event.origin != "outside":  # of those, thousands a second may come
                self._count(record, record.pipeline or "")
        for kind, number in kinds.items():
            self._appended.labels(kind).inc(number)

    def duplicates(self, count: int) -> None:
        """Count facts that were recorded before."""
        self._duplicates.inc(count)

    def queue(self, depth: int) -> None:
        """Tell how many inputs wait."""
        self._queue.set(depth)

    def leads(self, cause: str | None = None) -> None:
        """Tell that this daemon leads, as a standby since the lock was `free` or its holder `killed`."""
        self._leader.set(1)
        if cause is not None:
            self._takeovers.labels(cause).inc()

    def answered(self, path: str, status: int) -> None:
        """Count an answer over HTTP; `path` is the route's, never the one that was asked for."""
        self._answered.labels(path, str(status)).inc()

    def append_seconds(self, seconds: float) -> None:
        """Tell how long a transaction took."""
        self._append.observe(seconds)

    def snapshot(self, position: int) -> None:
        """Tell where the newest snapshot stands."""
        self._snapshot.set(position)

    def behind(self, follower: str, records: int) -> None:
        """Tell how far a follower is behind the journal."""
        self._behind.labels(follower).set(records)

    def delivery(self, target: str, outcome: str) -> None:
        """Count what became of a try to tell a webhook's target: delivered, failed, given_up or gone."""
        self._deliveries.labels(target, outcome).inc()

    def _count(self, record: Record, pipeline: str) -> None:
        match record.event:
            case InputRejected(reason=reason):
                self._dead.labels(reason).inc()
            case DataRejected(reason=reason):
                self._rejected.labels(pipeline, reason).inc()
            case DecisionMade(shadow=True) as event:
                self._shadows.labels(pipeline, event.policy, event.verdict).inc()
            case DecisionMade() as event:
                suppressed = "true" if event.suppressed_by is not None else "false"
                self._decisions.labels(pipeline, event.policy, event.verdict, suppressed).inc()
            case StageSucceeded() as event:
                self._stages.labels(pipeline, event.stage, "succeeded").inc()
                self._durations.labels(pipeline, event.stage).observe(event.seconds)
            case StageFailed() as event:
                self._stages.labels(pipeline, event.stage, "failed").inc()
                self._failures.labels(pipeline, event.stage, event.failure).inc()
            case StageInterrupted() as event:
                self._stages.labels(pipeline, event.stage, "interrupted").inc()
                self._failures.labels(pipeline, event.stage, event.reason).inc()
            case _:
                self._count_run(record, pipeline)

    def _count_run(self, record: Record, pipeline: str) -> None:
        match record.event:
            case RunSucceeded(outcome=outcome):
                self._runs.labels(pipeline, outcome).inc()
            case RunFailed():
                self._runs.labels(pipeline, "failed").inc()
            case RunCancelled():
                self._runs.labels(pipeline, "cancelled").inc()
            case RunHeld():
                self._runs.labels(pipeline, "held").inc()
            case RunPostponed():
                self._runs.labels(pipeline, "postponed").inc()
            case RunPreempted():
                self._runs.labels(pipeline, "preempted").inc()
            case ModelPromoted():
                self._models.labels(pipeline, "promoted").inc()
            case ModelRejected():
                self._models.labels(pipeline, "rejected").inc()
            case ModelRolledBack():
                self._models.labels(pipeline, "rolled_back").inc()
            case _:
                pass


class _Standing(Collector):
    """Gauges that are read from the state at the moment of a scrape."""

    def __init__(self, upcoming: Upcoming | None) -> None:
        self.state = State()
        self._upcoming = upcoming

    def describe(self) -> Iterator[Metric]:
        """Return no description: it would have to be asked for before there is a state."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge of the state; the state is frozen, so another thread may replace it meanwhile."""
        state = self.state
        yield _single("rewarm_log_position", "The last position of the journal.", state.position)
        yield _single("rewarm_epoch", "How many writers the journal has had.", state.epoch)
        yield _single("rewarm_slots", "Runs that may go on at once.", state.slots)
        if state.recorded_at is not None:
            yield _single(
                "rewarm_log_last_record_timestamp_seconds", "When the last record was made.", _unix(state.recorded_at)
            )
        degraded = GaugeMetricFamily("rewarm_source_degraded", "1 while a source cannot be read.", labels=["source"])
        for name in state.degraded:
            degraded.add_metric([name], 1)
        yield degraded
        for name, text, labels, samples in _PIPELINE:
            family = GaugeMetricFamily(name, text, labels=["pipeline", *labels])
            for pipeline in state.pipelines.values():
                for values, number in samples(pipeline):
                    family.add_metric([pipeline.name, *values], number)
            yield family
        following = GaugeMetricFamily(
            "rewarm_schedule_next_tick_timestamp_seconds", "When a schedule ticks next.", labels=["pipeline", "policy"]
        )
        for name, policy, at in self._upcoming(state) if self._upcoming is not None else ():
            following.add_metric([name, policy], _unix(at))
        yield following


Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values beyond the pipeline's name, and a number."""


def _flag(value: object) -> Samples:
    return [((), float(value is not None))]


def _progress(run: Run | None) -> Samples:
    if run is None or run.progress.steps == 0:
        return []
    return [((run.stage,), run.progress.step / run.progress.steps)]


def _champion(pipeline: Pipeline, number: Callable[[Model], float]) -> Samples:
    return [] if pipeline.champion is None else [((), number(pipeline.champion))]


def _tokens(amounts: Amounts) -> Samples:
    return [((domain,), float(amount.tokens)) for domain, amount in amounts.items()]


_PIPELINE: Final[tuple[tuple[str, str, tuple[str, ...], Callable[[Pipeline], Samples]], ...]] = (
    ("rewarm_run_active", "1 while a run of the pipeline goes on.", (), lambda p: _flag(p.active)),
    ("rewarm_run_held", "1 while a candidate waits for a person.", (), lambda p: _flag(p.held)),
    ("rewarm_pipeline_paused", "1 while the pipeline is paused.", (), lambda p: _flag(p.paused)),
    (
        "rewarm_stage_in_progress",
        "1 for the stage that the active run is at.",
        ("stage",),
        lambda p: [((p.active.stage,), 1.0)] if p.active else [],
    ),
    ("rewarm_stage_progress_ratio", "How far the attempt is.", ("stage",), lambda p: _progress(p.active)),
    ("rewarm_wishes_waiting", "Wishes to start that wait.", (), lambda p: [((), float(len(p.wishes)))]),
    (
        "rewarm_schedule_last_tick_timestamp_seconds",
        "The instant that a schedule's last tick was due at.",
        ("policy",),
        lambda p: [((policy,), _unix(each.last)) for policy, each in p.schedules.items() if each.last is not None],
    ),
    ("rewarm_timers_pending", "Wake-ups that policies asked for.", (), lambda p: [((), float(len(p.timers)))]),
    ("rewarm_pending_tokens", "Tokens that came and are not used yet.", ("domain",), lambda p: _tokens(p.pending)),
    (
        "rewarm_set_aside_tokens",
        "Tokens of rejected candidates, waiting for a person.",
        ("domain",),
        lambda p: _tokens(p.set_aside),
    ),
    ("rewarm_champion_version", "The champion's version.", (), lambda p: _champion(p, lambda m: m.version)),
    (
        "rewarm_champion_promoted_timestamp_seconds",
        "When the champion was promoted; its age is time() minus this.",
        (),
        lambda p: _champion(p, lambda m: _unix(m.promoted_at)),
    ),
    (
        "rewarm_champion_loss_nats_per_byte",
        "The champion's held-out loss when it was promoted.",
        ("domain",),
        lambda p: [((domain,), loss) for domain, loss in p.champion.losses.items()] if p.champion else [],
    ),
    (
        "rewarm_last_arrival_timestamp_seconds",
        "When data last came.",
        (),
        lambda p: [((), _unix(p.last_arrival_at))] if p.last_arrival_at else [],
    ),
    (
        "rewarm_events_without_effect",
        "Records that the state could not use, by reason.",
        ("reason",),
        lambda p: [((reason,), float(count)) for reason, count in p.ignored.items()],
    ),
)


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _unix(at: datetime) -> float:
    return at.astimezone(UTC).timestamp()
