"""What is true after a position of the journal: bounded by the configuration, never by history."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from daemon.core.commands import ResumeRun, StartRun
from daemon.core.events import Comparison, Loss, PipelineSettings
from daemon.core.ledger import Cost, Reading, Shadow, Spent
from daemon.core.plans import (
    NO_REMEDY,
    NOTHING,
    Amounts,
    Checkpoint,
    Document,
    Intent,
    Law,
    Plan,
    Remedy,
    Span,
    subtract,
    tokens,
)

StopReason = Literal["cancel", "preempt"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A stage attempt that shall run: a command without an outcome. The dispatcher knows nothing else.

    `host` and `pid` are where it runs, once it has started; `lost` is the class of failure as which it was reported
    and by which it shall end.
    """

    command: str
    run: str
    stage: str
    attempt: int
    resume: bool
    ordered_at: datetime
    started: bool = False
    started_at: datetime | None = None
    remedy: Remedy = NO_REMEDY
    host: str = ""
    pid: int = 0
    lost: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the current attempt is."""

    step: int = 0
    steps: int = 0


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Failed attempts of the current stage: in all, and since there was progress (a newer checkpoint).

    `classes` counts them by class; `step` and `documents` are where the last one failed, `again` whether the one before
    failed there too.
    """

    total: int = 0
    without_progress: int = 0
    last: str = ""
    message: str = ""
    classes: dict[str, int] = {}
    step: int | None = None
    documents: tuple[Document, ...] = ()
    again: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a pipeline's stages."""

    run: str
    policy: str
    command: str
    plan: Plan
    intent: Intent
    priority: int
    preemptible: bool
    started_at: datetime
    started_position: int
    waiting_since: datetime | None = None
    waited: float = 0.0
    stage: str
    attempts: dict[str, int] = {}
    order: Order | None = None
    stop: StopReason | None = None
    stop_reason: str = ""
    stop_again: bool = False
    stop_until: datetime | None = None
    done: bool = False
    failures: Failures = Failures()
    progress: Progress = Progress()
    checkpoint_step: int = 0
    remedy: Remedy = NO_REMEDY
    seconds: float = 0.0
    shift: float | None = None
    probe_new: dict[str, Loss] = {}
    probe_past: dict[str, Loss] = {}
    near_duplicates: dict[str, float] = {}
    law: Law | None = None
    expected_gain: float | None = None
    evaluation: dict[str, Comparison] = {}
    preempted: int = 0
    held: bool = False
    approved: bool = False
    forced: bool = False
    promoted: bool = False

    @property
    def consumed(self) -> bool:
        """Whether its arrivals have left the pending ones: it was held once, or is promoted."""
        return self.held or self.promoted


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's suppressed start: waits to be acted on, withdrawn or expired; never acted on before `not_before`."""

    policy: str
    command: str
    since: int
    since_at: datetime
    priority: int = 0
    intent: Intent | None = None
    resume: str | None = None
    forced: bool = False
    passed_over: bool = False
    not_before: datetime | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the wish ends by itself."""
        return self.intent.expires_at if self.intent else None

    def wants(self, command: StartRun | ResumeRun) -> bool:
        """Return whether the command asks for just this; when it would expire does not matter."""
        if isinstance(command, ResumeRun):
            return (self.resume, self.forced) == (command.run, command.forced)
        mine, theirs = self.intent, command.intent
        if mine is None or mine is theirs:
            return mine is not None
        if mine.expires_at != theirs.expires_at:
            mine, theirs = replace(mine, expires_at=None), replace(theirs, expires_at=None)
        return mine == theirs

    def expires(self, now: datetime) -> bool:
        """Return whether the wish has expired."""
        at = self.expires_at
        return at is not None and at <= now


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's standing verdict and the position of the decision that brought it."""

    verdict: str
    position: int


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's schedule: since when it is configured just so, and its last tick."""

    specification: str
    since: datetime
    last: datetime | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A promoted model: its files, the trunk behind it, and the past that it was trained on.

    `best` is the lowest loss that a champion of its line ever had per domain, `trained` the tokens that they trained
    on in all, each counted as often as it was seen. `increments` is how many increments were promoted since the last
    full training, the model's own or that of its line at `full_at`, and `forgotten` how far each domain's loss has
    risen since then, as their evaluations measured it.
    """

    version: int
    run: str
    path: str
    sha256: str
    trunk: Checkpoint
    parent: int | None
    losses: dict[str, float]
    past: Amounts
    promoted_at: datetime
    position: int
    best: dict[str, float] = {}
    trained: int = 0
    increments: int = 0
    full_at: datetime | None = None
    forgotten: dict[str, float] = {}

    @property
    def fully_trained_at(self) -> datetime:
        """When the last full training of its line was promoted."""
        return self.full_at or self.promoted_at


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the pipeline's last run ended."""

    run: str
    outcome: str
    position: int
    at: datetime


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Runs by how they ended."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class Readmitted(Span, frozen=True, kw_only=True):
    """Arrivals that are pending again since a position: no run that had started by then has them."""

    since: int


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One model kept fresh. `settings` is None once the configuration no longer names it.

    `waited` are the token-seconds until `waited_at` that free data has waited; `looked` is what the last look measured
    and left pending, all of it before `looked_upto`. `settled` is the position at which the last run that trained
    ended: what was measured before it has had its effect. `retrained` is that of the last full training: where its
    model was promoted, or, of a retrain, its candidate judged. `begun` is when each policy's last run that trains
    began, `claims` until when keys are taken.
    """

    name: str
    settings: PipelineSettings | None = None
    paused: str | None = None
    frozen: str | None = None
    used_upto: int = 0
    pending: Amounts = {}
    waiting: int = 0
    set_aside: Amounts = {}
    readmitted: tuple[Readmitted, ...] = ()
    domains: dict[str, int] = {}
    last_arrival: int = 0
    last_arrival_at: datetime | None = None
    waiting_since: datetime | None = None
    waited: float = 0.0
    waited_at: datetime | None = None
    looked: Amounts = {}
    looked_at: datetime | None = None
    looked_upto: int = 0
    settled: int = 0
    retrained: int = 0
    failed_upto: int = 0
    active: Run | None = None
    yielded: Run | None = None
    held: Run | None = None
    wishes: dict[str, Wish] = {}
    timers: dict[str, datetime] = {}
    fired: dict[str, datetime] = {}
    schedules: dict[str, Scheduled] = {}
    verdicts: dict[str, Verdict] = {}
    champion: Model | None = None
    previous: Model | None = None
    base: Model | None = None
    versions: int = 0
    increments: int = 0
    last: Ended | None = None
    begun: dict[str, datetime] = {}
    claims: dict[str, datetime] = {}
    signals: dict[str, tuple[Reading, ...]] = {}
    spent: Spent = Spent()
    cost: Cost = Cost()
    shadows: dict[str, Shadow] = {}
    runs: Counts = Counts()
    ignored: dict[str, int] = {}


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """Which topic it is that a source reads: a name alone may come to mean another one."""

    cluster: str
    topic_id: str


def topic_key(source: str, topic: str) -> str:
    """Return the name under which a source's topic stands in the state."""
    return f"{source}/{topic}"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything: the fold of all records up to `position`."""

    position: int = 0
    recorded_at: datetime | None = None
    epoch: int = 0
    started_at: datetime | None = None
    configuration: str = ""
    slots: int = 1
    pipelines: dict[str, Pipeline] = {}
    dead_letters: int = 0
    degraded: dict[str, str] = {}
    topics: dict[str, Topic] = {}


def free_tokens(pipeline: Pipeline) -> int:
    """Return the pending tokens that no active run has taken."""
    return max(0, pipeline.waiting - tokens(_taken(pipeline)))


def free_arrivals(pipeline: Pipeline) -> int:
    """Return how many pending arrivals no active run has taken."""
    taken = _taken(pipeline)
    if not taken:
        return sum(amount.arrivals for amount in pipeline.pending.values())
    rest = (amount.arrivals - taken.get(domain, NOTHING).arrivals for domain, amount in pipeline.pending.items())
    return sum(each for each in rest if each > 0)


def free_amounts(pipeline: Pipeline) -> Amounts:
    """Return what is pending, per domain, and no active run has taken."""
    taken = _taken(pipeline)
    return subtract(pipeline.pending, taken) if taken else pipeline.pending


def free_waited(pipeline: Pipeline, now: datetime) -> float:
    """Return for how many token-seconds free data has waited."""
    if pipeline.waited_at is None:
        return pipeline.waited
    return pipeline.waited + free_tokens(pipeline) * max(0.0, (now - pipeline.waited_at).total_seconds())


def lowest(best: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, float]:
    """Return the lowest loss per domain, of those known before and those measured now."""
    return {**best, **{domain: min(loss, best.get(domain, loss)) for domain, loss in losses.items()}}


def _taken(pipeline: Pipeline) -> Amounts:
    """Return the active run's arrivals as long as they count as pending."""
    run = pipeline.active
    return {} if run is None or run.consumed else run.plan.new


def timer_key(policy: str, key: str) -> str:
    """Return the name under which a policy's wake-up is pending."""
    return f"{policy}:{key}"


def stands(pipeline: Pipeline, policy: str, verdict: str, wakes: Mapping[str, datetime]) -> bool:
    """Return whether a policy has said just this: its standing verdict, every wake-up pending or given already."""
    standing = pipeline.verdicts.get(policy)
    if standing is None or standing.verdict != verdict:
        return False
    for key, at in wakes.items():
        name = timer_key(policy, key)
        if pipeline.timers.get(name) != at:
            fired = pipeline.fired.get(name)
            if fired is None or fired < at:
                return False
    return True


def dump(state: State) -> bytes:
    """Return the state as canonical JSON: the same bytes for the same state, in every process."""
    return msgspec.json.encode(state, order="deterministic")


def load(data: bytes) -> State:
    """Return the state in a snapshot; raises msgspec.MsgspecError when it does not fit."""
    return msgspec.json.decode(data, type=State)


def fingerprint(data: bytes) -> str:
    """Return the hash of a dumped state."""
    return hashlib.sha256(data).hexdigest()
