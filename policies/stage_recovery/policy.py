"""Retry a failed stage with back-off, from its checkpoint and with what its failure calls for; or give it up."""

import zlib
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, ClassVar, Literal, cast

from msgspec.structs import replace
from pydantic import Field

from daemon.core.attempts import DRAINED
from daemon.core.commands import FailRun, KillStage, RunStage
from daemon.core.decisions import Decision
from daemon.core.errors import FailureClass
from daemon.core.events import (
    ConfigurationChanged,
    DaemonStarted,
    FailureReported,
    Numbers,
    Record,
    StageFailed,
    StageInterrupted,
    TimerFired,
)
from daemon.core.failures import Stray, at_work
from daemon.core.state import Failures, Pipeline, Run
from policies.base import BasePolicy
from policies.periods import Period, Wait
from policies.stage_recovery.table import LOST
from policies.stage_recovery.treatment import Bounds, Treatment, answer_to, treat

Limit = Annotated[int, Field(ge=0)]


class StageRecovery(BasePolicy):
    """Retry a failed attempt, resuming from its checkpoint, as long as it makes progress.

    What the next attempt does otherwise is its failure class's answer. The budget counts only failures without a newer
    checkpoint in between, beside limits of single classes; a ceiling counts all, whatever their class. The wait grows
    by a factor from `backoff` to `max_backoff` and is shortened by chance, which is the attempt's own. An attempt at
    work that is reported as lost is ended, as long as there is a retry left; its end is then judged like any other.
    """

    version: ClassVar[int] = 3
    kind: Literal["stage_recovery"] = "stage_recovery"
    retries: int = Field(default=3, ge=0, description="retries without progress, for one stage")
    ceiling: int = Field(default=20, ge=1, description="retries in all, for one stage")
    limits: dict[FailureClass, Limit] = Field(
        default={}, description="retries of single failure classes in all, for one stage"
    )
    backoff: Wait = Field(default=timedelta(seconds=2), description="wait before the first retry that must wait")
    factor: float = Field(default=2.0, ge=1, le=1000, description="growth of the wait with each failure")
    max_backoff: Period = Field(default=timedelta(minutes=10), description="longest wait")
    jitter: float = Field(default=0.2, ge=0, lt=1, description="share by which a wait may be shorter, by chance")
    quiet: Wait = Field(
        default=timedelta(seconds=30),
        description="how long after a retry a report of a loss counts only where it names the worker",
    )
    rollback_steps: int = Field(
        default=100, ge=0, description="how far before a repeated spike the stage goes back, at least"
    )
    skip_steps: int = Field(default=200, ge=1, description="batches left out around a repeated spike")
    max_skip: float = Field(default=0.1, ge=0, lt=1, description="largest share of a run's batches that is left out")

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return a retry, a wait before it, that an attempt is ended, or that the run is given up."""
        if isinstance(record.event, FailureReported):
            return self._reported(state, record.event, record.recorded_at)
        run = state.active
        if run is None or run.order is not None or run.done or run.stop is not None or not run.failures.total:
            return None
        if run.failures.last == DRAINED:
            return None  # the daemon stopped it, and orders it again
        match record.event:
            case TimerFired() if record.event.policy == self.label and record.event.key == run.run:
                return self._judge(run, record, waited=True)
            case StageFailed() | StageInterrupted() | ConfigurationChanged() | DaemonStarted():
                if any(key.endswith(f":{run.run}") for key in state.timers):
                    return None
                return self._judge(run, record)
            case _:
                return None

    @cached_property
    def _bounds(self) -> Bounds:
        return Bounds(rollback_steps=self.rollback_steps, skip_steps=self.skip_steps, max_skip=self.max_skip)

    def _reported(self, state: Pipeline, event: FailureReported, now: datetime) -> Decision:
        """Return what a report from outside brings; it may come late, and more than once."""
        inputs: Numbers = {
            "failure": event.failure,
            "run": event.run,
            "host": event.host,
            "worker": event.worker,
            "model_stage": event.model_stage,
        }
        found = at_work(state, event)
        if isinstance(found, Stray):
            return Decision(verdict=found.word, reason=found.reason, inputs=inputs)
        run, order = found
        attempt = f"attempt {order.attempt} of stage {order.stage}"
        if event.failure not in LOST:
            reason = f"{event.failure} was reported; {attempt} still holds its lock, its own end will decide."
            return Decision(verdict="watching", reason=reason, inputs=inputs)
        age = round((now - order.ordered_at).total_seconds(), 3)
        quiet = self.quiet.total_seconds()
        if order.attempt > 1 and not event.worker and age < quiet:
            return Decision(
                verdict="replaced_already",
                reason=f"{event.failure} was reported, of no worker by name: {attempt} took its place {age:g} s ago.",
                inputs={**inputs, "seconds": age},
                thresholds={"seconds": quiet},
            )
        before = run.failures
        failed = replace(
            before,
            total=before.total + 1,
            without_progress=before.without_progress + 1,
            last=event.failure,
            classes={**before.classes, event.failure: before.classes.get(event.failure, 0) + 1},
        )
        inputs = {**inputs, "failures": failed.total, "without_progress": failed.without_progress}
        spent = self._spent(failed)
        if spent is not None:
            return Decision(
                verdict="watching",
                reason=f"{event.failure} was reported, but no retry is left ({spent}): "
                f"the lock and the heartbeat of {attempt} decide.",
                inputs=inputs,
                thresholds=self._thresholds(event.failure),
            )
        evidence = f" ({event.evidence[:200]})" if event.evidence else ""
        return Decision(
            verdict="ending",
            reason=f"{event.failure} was reported{evidence}: {attempt} is ended, and the next takes its place.",
            inputs={**inputs, "checkpoint_step": run.checkpoint_step},
            thresholds=self._thresholds(event.failure),
            commands=(KillStage(run=run.run, stage=order.stage, attempt=order.attempt, failure=event.failure),),
        )

    def _limit(self, failure: str) -> int | None:
        return self.limits.get(cast("FailureClass", failure))

    def _thresholds(self, failure: str) -> Numbers:
        limit = self._limit(failure)
        return {"retries": self.retries, "ceiling": self.ceiling, **({} if limit is None else {"limit": limit})}

    def _spent(self, failures: Failures) -> str | None:
        """Return what of the budget is used up, if anything."""
        limit, of_class = self._limit(failures.last), failures.classes.get(failures.last, 0)
        if limit is not None and of_class > limit:
            return f"{of_class} failures of class {failures.last}"
        if failures.without_progress > self.retries:
            return f"{failures.without_progress} failures without progress"
        if failures.total > self.ceiling:
            return f"{failures.total} failures in all"
        return None

    def _judge(self, run: Run, record: Record, *, waited: bool = False) -> Decision:
        failures = run.failures
        inputs: Numbers = {
            "failure": failures.last,
            "failures": failures.total,
            "without_progress": failures.without_progress,
            "of_class": failures.classes.get(failures.last, 0),
            "checkpoint_step": run.checkpoint_step,
        }
        if failures.step is not None:
            inputs = {**inputs, "step": failures.step, "again": failures.again}
        thresholds = self._thresholds(failures.last)
        treatment = self._spent(failures) or treat(run, self._bounds)
        if isinstance(treatment, str):
            return Decision(
                verdict="given_up",
                reason=f"Stage {run.stage} is given up: {treatment} ({failures.message}).",
                inputs=inputs,
                thresholds=thresholds,
                commands=(FailRun(run=run.run, failure=failures.last),),
            )
        attempt = run.attempts.get(run.stage, 0) + 1
        changed = treatment.remedy != run.remedy
        wait = timedelta(0) if waited or changed else self._wait(run, attempt)
        if wait <= timedelta(0):
            inputs = {**inputs, "attempt": attempt, **treatment.inputs}
            return self._retry(run, treatment, attempt, inputs, {**thresholds, **treatment.thresholds})
        seconds = wait.total_seconds()
        return Decision(
            verdict="backing_off",
            reason=f"Stage {run.stage} ended ({failures.last}); it is tried again in {seconds:g} s.",
            inputs={**inputs, "wait": seconds},
            thresholds=thresholds,
            wakes={run.run: record.recorded_at + wait},
        )

    def _wait(self, run: Run, attempt: int) -> timedelta:
        """Return how long to wait: full, or shorter by chance, so that not all who failed together come together.

        The chance is a hash of the attempt (Amazon's Builders' Library, "Timeouts, retries and backoff with jitter").
        """
        count = run.failures.without_progress
        if count <= 1 and answer_to(run.failures.last).at_once:
            return timedelta(0)
        growth = self.factor ** min(64, max(0, count - 1))  # beyond any century, and still a number
        seconds = min(self.max_backoff.total_seconds(), self.backoff.total_seconds() * growth)
        if self.jitter:
            chance = zlib.crc32(f"{run.run}/{run.stage}/{attempt}".encode()) / 2**32
            seconds = round(seconds * (1 - self.jitter * chance), 3)
        return timedelta(seconds=seconds)

    def _retry(self, run: Run, treatment: Treatment, attempt: int, inputs: Numbers, thresholds: Numbers) -> Decision:
        failure, remedy = run.failures.last, treatment.remedy
        if remedy == run.remedy:
            where = f"resuming after step {run.checkpoint_step}" if run.checkpoint_step else "from its start"
            where = where if remedy.before is None else "resuming from the newest checkpoint that its remedies allow"
            how = f"{where}{', ' if treatment.told else ''}{treatment.told}"
        else:
            how = treatment.told
        return Decision(
            verdict=treatment.verdict,
            reason=f"Stage {run.stage} is tried again, {how} (attempt {attempt}, after {failure}).",
            inputs=inputs,
            thresholds=thresholds,
            commands=(RunStage(run=run.run, stage=run.stage, attempt=attempt, resume=True, remedy=remedy),),
        )
