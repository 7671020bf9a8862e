"""Recover a failed stage: retry with back-off, resume from its checkpoint, or give up (facts per failure class)."""

from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

from msgspec.structs import replace
from pydantic import Field

from daemon.core.attempts import DRAINED
from daemon.core.commands import FailRun, KillStage, RunStage
from daemon.core.decisions import Decision
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
from policies.base import BasePolicy, Period

HOPELESS: Final = frozenset({"user_error", "bad_sample", "time_limit"})
"""Classes that a retry cannot mend: the same input gives the same end."""
AT_ONCE: Final = frozenset({"worker_lost", "model_stage_lost", "preempted", "hang"})
"""Classes whose cause went away with the process: the first retry needs no wait."""
LOST: Final = frozenset({"worker_lost", "model_stage_lost", "hang"})
"""Classes that, reported of an attempt at work, end it: what they speak of does not come back by itself."""


class StageRecovery(BasePolicy):
    """Retry a failed attempt, resuming from its checkpoint, as long as it makes progress.

    The budget counts only failures without a newer checkpoint in between; a ceiling counts all. The wait grows
    by a factor from `backoff` to `max_backoff`; a first loss of the worker is retried at once. An attempt at work
    that is reported as lost is ended, as long as there is a retry left; its end is then judged like any other.
    """

    version: ClassVar[int] = 2
    kind: Literal["stage_recovery"] = "stage_recovery"
    retries: int = Field(default=3, ge=0, description="retries without progress, for one stage")
    ceiling: int = Field(default=20, ge=1, description="retries in all, for one stage")
    backoff: timedelta = Field(
        default=timedelta(seconds=2), ge=timedelta(0), description="wait before the first retry that must wait"
    )
    factor: float = Field(default=2.0, ge=1, le=1000, description="growth of the wait with each failure")
    max_backoff: Period = Field(default=timedelta(minutes=10), description="longest wait")
    quiet: timedelta = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        description="how long after a retry a report of a loss counts only where it names the worker",
    )

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
                return self._retry(run)
            case StageFailed() | StageInterrupted() | ConfigurationChanged() | DaemonStarted():
                if any(key.endswith(f":{run.run}") for key in state.timers):
                    return None
                return self._judge(run, record)
            case _:
                return None

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
        failed = replace(run.failures, total=run.failures.total + 1, without_progress=run.failures.without_progress + 1)
        inputs = {**inputs, "failures": failed.total, "without_progress": failed.without_progress}
        thresholds: Numbers = {"retries": self.retries, "ceiling": self.ceiling}
        spent = self._spent(failed)
        if spent is not None:
            return Decision(
                verdict="watching",
                reason=f"{event.failure} was reported, but no retry is left ({spent}): "
                f"the lock and the heartbeat of {attempt} decide.",
                inputs=inputs,
                thresholds=thresholds,
            )
        evidence = f" ({event.evidence[:200]})" if event.evidence else ""
        return Decision(
            verdict="ending",
            reason=f"{event.failure} was reported{evidence}: {attempt} is ended, and the next takes its place.",
            inputs={**inputs, "checkpoint_step": run.checkpoint_step},
            thresholds=thresholds,
            commands=(KillStage(run=run.run, stage=order.stage, attempt=order.attempt, failure=event.failure),),
        )

    def _spent(self, failures: Failures) -> str | None:
        """Return what of the budget is used up, if anything."""
        if failures.without_progress > self.retries:
            return f"{failures.without_progress} failures without progress"
        if failures.total > self.ceiling:
            return f"{failures.total} failures in all"
        return None

    def _judge(self, run: Run, record: Record) -> Decision:
        failures = run.failures
        inputs: Numbers = {
            "failure": failures.last,
            "failures": failures.total,
            "without_progress": failures.without_progress,
            "checkpoint_step": run.checkpoint_step,
        }
        thresholds: Numbers = {"retries": self.retries, "ceiling": self.ceiling}
        hopeless = failures.last in HOPELESS
        stop = f"{failures.last} is not mended by a retry" if hopeless else self._spent(failures)
        if stop is not None:
            return Decision(
                verdict="given_up",
                reason=f"Stage {run.stage} is given up: {stop} ({failures.message}).",
                inputs=inputs,
                thresholds=thresholds,
                commands=(FailRun(run=run.run, failure=failures.last),),
            )
        wait = self._wait(failures.last, failures.without_progress)
        if wait <= timedelta(0):
            return self._retry(run)
        return Decision(
            verdict="backing_off",
            reason=f"Stage {run.stage} ended ({failures.last}); it is tried again in {wait.total_seconds():g} s.",
            inputs=inputs,
            thresholds=thresholds,
            wakes={run.run: record.recorded_at + wait},
        )

    def _wait(self, failure: str, count: int) -> timedelta:
        if count <= 1 and failure in AT_ONCE:
            return timedelta(0)
        growth = self.factor ** min(64, max(0, count - 1))  # beyond any century, and still a number
        seconds = min(self.max_backoff.total_seconds(), self.backoff.total_seconds() * growth)
        return timedelta(seconds=seconds)

    def _retry(self, run: Run) -> Decision:
        attempt = run.attempts.get(run.stage, 0) + 1
        resume = run.failures.last != "bad_checkpoint"
        where = f"resuming after step {run.checkpoint_step}" if run.checkpoint_step and resume else "from its start"
        return Decision(
            verdict="retry",
            reason=f"Stage {run.stage} is tried again, {where} (attempt {attempt}, after {run.failures.last}).",
            inputs={"failure": run.failures.last, "attempt": attempt, "checkpoint_step": run.checkpoint_step},
            thresholds={"retries": self.retries, "ceiling": self.ceiling},
            commands=(RunStage(run=run.run, stage=run.stage, attempt=attempt, resume=resume),),
        )
