"""What the daemon tells: its own life, decisions, and the steps of runs."""

from datetime import datetime
from typing import ClassVar, Literal

from daemon.core.commands import AnyCommand
from daemon.core.events.base import Count, Event, Numbers, PipelineSettings, Position, Sha256
from daemon.core.plans import Amounts, Intent, Plan, Span


class TimerFired(Event, frozen=True):
    """A wake-up that a policy had asked for is due."""

    kind: ClassVar[str] = "timer.fired"
    policy: str
    key: str
    due: datetime


class ScheduleFired(Event, frozen=True):
    """A tick of a policy's schedule; `scheduled_for` comes from the schedule, however late the tick is."""

    kind: ClassVar[str] = "schedule.fired"
    policy: str
    specification: str
    scheduled_for: datetime
    cron: str
    timezone: str


class DaemonStarted(Event, frozen=True):
    """A daemon took the journal; `replaced` names the leader without a sign of life that it ended for that."""

    kind: ClassVar[str] = "daemon.started"
    epoch: int
    release: str
    reducer: int
    host: str
    pid: int
    replaced: str = ""


class DaemonStopped(Event, frozen=True):
    """The daemon drained and ended by itself."""

    kind: ClassVar[str] = "daemon.stopped"
    reason: str


class ConfigurationChanged(Event, frozen=True):
    """The whole configuration that policies and the fold depend on, with its hash."""

    kind: ClassVar[str] = "configuration.changed"
    hash: str
    slots: int
    pipelines: dict[str, PipelineSettings]


class SourceDegraded(Event, frozen=True):
    """An input source cannot be read for now."""

    kind: ClassVar[str] = "source.degraded"
    name: str
    reason: str


class SourceRecovered(Event, frozen=True):
    """An input source can be read again."""

    kind: ClassVar[str] = "source.recovered"
    name: str


class PositionSet(Event, frozen=True):
    """From where a partition is read on, told before it is read: seen for the first time, or set by a person.

    `before` is where the journal stood in this very partition, None when it had not read it.
    """

    kind: ClassVar[str] = "position.set"
    position: Position
    before: int | None
    why: Literal["first_seen", "aligned"]
    by: str = ""


class InputRejected(Event, frozen=True):
    """A dead letter: an input that could not be accepted; its text is kept with the record.

    `source` and `id` are what it goes by where the text names none: a retry sends it again under them.
    """

    kind: ClassVar[str] = "input.rejected"
    reason: str
    message: str
    where: str
    source: str = ""
    id: str | None = None


class FilesExpired(Event, frozen=True):
    """What retention removes, by which rule: told first, carried out afterwards, repeated until it is done."""

    kind: ClassVar[str] = "files.expired"
    what: Literal["run", "checkpoints", "shard", "model"]
    name: str
    paths: tuple[str, ...]
    bytes: Count
    rule: str
    run: str | None = None


class DecisionMade(Event, frozen=True):
    """What a policy concluded from the causing record, and why; in `shadow` its commands are told, not carried out."""

    kind: ClassVar[str] = "decision.made"
    policy: str
    policy_version: int
    verdict: str
    reason: str
    inputs: Numbers = {}
    thresholds: Numbers = {}
    commands: tuple[AnyCommand, ...] = ()
    wakes: dict[str, datetime] = {}
    suppressed_by: str | None = None
    run: str | None = None
    shadow: bool = False


class RunStarted(Event, frozen=True):
    """A run took a slot; `command` is the StartRun that it carries out."""

    kind: ClassVar[str] = "run.started"
    run: str
    policy: str
    command: str
    wished_at: int
    passed_over: bool
    intent: Intent
    plan: Plan


class RunResumed(Event, frozen=True):
    """A held or preempted run took a slot again, at `stage`."""

    kind: ClassVar[str] = "run.resumed"
    run: str
    command: str
    stage: str
    forced: bool = False


class PlanFixed(Event, frozen=True):
    """The plan that the train stage follows."""

    kind: ClassVar[str] = "plan.fixed"
    run: str
    plan: Plan


class RunHeld(Event, frozen=True):
    """The candidate waits for a person; the slot is free."""

    kind: ClassVar[str] = "run.held"
    run: str
    reason: str


class RunPreempted(Event, frozen=True):
    """The run saved a checkpoint and yielded its slot, until an instant or until one is free."""

    kind: ClassVar[str] = "run.preempted"
    run: str
    stage: str
    until: datetime | None = None


class RunPostponed(Event, frozen=True):
    """The run has looked at the new data and did not train; its arrivals stay pending."""

    kind: ClassVar[str] = "run.postponed"
    run: str
    reason: str


class RunSucceeded(Event, frozen=True):
    """All stages of the run are done."""

    kind: ClassVar[str] = "run.succeeded"
    run: str
    outcome: Literal["promoted", "rejected", "finished"]


class RunFailed(Event, frozen=True):
    """The run was given up; its arrivals stay pending."""

    kind: ClassVar[str] = "run.failed"
    run: str
    stage: str
    failure: str
    reason: str


class RunCancelled(Event, frozen=True):
    """The run was ended on request; its arrivals stay pending."""

    kind: ClassVar[str] = "run.cancelled"
    run: str
    reason: str
    again: bool = False


class ModelRejected(Event, frozen=True):
    """A candidate was refused; its arrivals are set aside until an operator accepts or withdraws them."""

    kind: ClassVar[str] = "model.rejected"
    run: str
    reason: str
    spans: tuple[Span, ...]
    amounts: Amounts


class ModelRolledBack(Event, frozen=True):
    """The previous champion is champion again."""

    kind: ClassVar[str] = "model.rolled_back"
    run: str
    withdrawn_version: int
    model_version: int
    path: str
    sha256: Sha256
    reason: str
