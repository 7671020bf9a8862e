"""What the journal said before: the look-ups that a record's meaning in MLflow needs.

Every answer depends on the journal up to a position alone, so asking again gives the same answer.
"""

from collections.abc import Iterator

from daemon.core.events import (
    DataArrived,
    DataCurated,
    DecisionMade,
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageStarted,
)
from daemon.core.plans import Plan
from daemon.journal.base import Reader

PAGE = 1000
STORY = frozenset(
    event.kind
    for event in (
        RunStarted,
        RunResumed,
        PlanFixed,
        DataCurated,
        ProbeMeasured,
        ModelEvaluated,
        ModelPromoted,
        ModelRejected,
        ModelRolledBack,
        RunHeld,
        RunPreempted,
        RunPostponed,
        RunSucceeded,
        RunFailed,
        RunCancelled,
    )
)
"""The kinds that tell a run's story."""
MODELS = frozenset(
    event.kind for event in (ModelEvaluated, ModelPromoted, ModelRejected, ModelRolledBack, RunFailed, RunCancelled)
)
"""The kinds that move a pipeline's models."""


def shadowed(record: Record) -> bool:
    """Return whether it is a decision of a policy in shadow, which was not carried out."""
    return isinstance(record.event, DecisionMade) and record.event.shadow


class History:
    """A reader of the journal with questions that the recorder asks."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._started: dict[tuple[str, str], int] = {}

    def every(
        self, upto: int, kinds: frozenset[str], pipeline: str, run: str | None = None, after: int = 0
    ) -> Iterator[Record]:
        """Yield the records of some kinds at positions (after, upto]."""
        while page := self._reader.records(after, PAGE, upto=upto, kinds=kinds, pipeline=pipeline, run=run):
            yield from page
            after = page[-1].position

    def started(self, pipeline: str, run: str, upto: int) -> bool:
        """Return whether the run was started at or before a position."""
        position = self._started.get((pipeline, run))
        if position is None:
            first = next(self.every(upto, frozenset({RunStarted.kind}), pipeline, run), None)
            if first is None:
                return False
            position = self._started[pipeline, run] = first.position
        return position <= upto

    def decision_behind(self, command: str) -> DecisionMade | None:
        """Return the decision that carried a command; its id names cause, pipeline and policy."""
        cause, _, rest = command.partition("/")
        pipeline, _, rest = rest.partition("/")
        policy, _, _ = rest.rpartition("/")
        if not cause.isdecimal():
            return None
        page = self._reader.records(int(cause) - 1, PAGE, kinds={DecisionMade.kind}, pipeline=pipeline)
        for record in page:
            event = record.event
            if (record.cause or record.position) > int(cause):
                break
            if isinstance(event, DecisionMade) and event.policy == policy and event.commands and not event.shadow:
                return event
        return None

    def trace_behind(self, command: str) -> str:
        """Return the traceparent of the fact that led to a command, "" for none."""
        cause = command.partition("/")[0]
        if not cause.isdecimal():
            return ""
        page = self._reader.records(int(cause) - 1, 1, upto=int(cause))
        return next((record.carrier.traceparent for record in page if record.carrier is not None), "")

    def arrival(self, position: int) -> DataArrived | None:
        """Return the arrival at a position."""
        for record in self._reader.records(position - 1, 1):
            if isinstance(record.event, DataArrived):
                return record.event
        return None

    def latest_attempt(self, pipeline: str, run: str, stage: str, upto: int) -> int:
        """Return the newest attempt of a stage that had begun by a position (0 where none had)."""
        begun = self.every(upto, frozenset({StageStarted.kind}), pipeline, run)
        attempts = (r.event.attempt for r in begun if isinstance(r.event, StageStarted) and r.event.stage == stage)
        return max(attempts, default=0)

    def plans_before(self, pipeline: str, run: str, position: int) -> int:
        """Return how often the run's plan was fixed before a position."""
        return sum(1 for _ in self.every(position - 1, frozenset({PlanFixed.kind}), pipeline, run))

    def plan_of(self, pipeline: str, run: str, position: int) -> Plan | None:
        """Return the plan that was fixed last before a position."""
        found = None
        for record in self.every(position - 1, frozenset({PlanFixed.kind}), pipeline, run):
            if isinstance(record.event, PlanFixed):
                found = record.event.plan
        return found

    def shadows(self, pipeline: str, run: str, upto: int) -> list[Record]:
        """Return what policies in shadow decided about a run."""
        return [each for each in self.every(upto, frozenset({DecisionMade.kind}), pipeline, run) if shadowed(each)]

    def story(self, pipeline: str, run: str, upto: int) -> list[Record]:
        """Return the records that tell a run's story."""
        return list(self.every(upto, STORY, pipeline, run))

    def models(self, pipeline: str, upto: int) -> Iterator[Record]:
        """Yield the records that moved a pipeline's models."""
        return self.every(upto, MODELS, pipeline)
