"""Recover a failed stage: retry with back-off, resume from its checkpoint, or give up (facts per failure class)."""

from datetime import timedelta
from typing import ClassVar, Final, Literal

from pydantic import Field

from daemon.core.commands import FailRun, RunStage
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
from daemon.core.runs import DRAINED
from daemon.core.state import Pipeline, Run
from policies.base import BasePolicy, Period

HOPELESS: Final = frozenset({"user_error", "bad_sample", "time_limit"})
"""Classes that a retry cannot mend: the same input gives the same end."""
AT_ONCE: Final = frozenset({"worker_lost", "preempted", "hang"})
"""Classes whose cause went away with the process: the first retry needs no wait."""


class StageRecovery(BasePolicy):
    """Retry a failed attempt, resuming from its checkpoint, as long as it makes progress.

    The budget counts only failures without a newer checkpoint in between; a ceiling counts all. The wait grows
    by a factor from `backoff` to `max_backoff`; a first loss of the worker is retried at once.
    """

    version: ClassVar[int] = 1
    kind: Literal["stage_recovery"] = "stage_recovery"
    retries: int = Field(default=3, ge=0, description="retries without progress, for one stage")
    ceiling: int = Field(default=20, ge=1, description="retries in all, for one stage")
    backoff: timedelta = Field(
        default=timedelta(seconds=2), ge=timedelta(0), description="wait before the first retry that must wait"
    )
    factor: float = Field(default=2.0, ge=1, le=1000, description="growth of the wait with each failure")
    max_backoff: Period = Field(default=timedelta(minutes=10), description="longest wait")

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return a retry, a wait before it, or that the run is given up."""
        run = state.active
        if run is not None and run.order is not None and isinstance(record.event, FailureReported):
            return self._watch(run, record.event)
        if run is None or run.order is not None or run.done or run.stop is not None or not run.failures.total:
            return None
        if run.failures.last == DRAINED:
            return None  # the daemon stopped it, and orders it again
        match record.event:
            case TimerFired() if record.event.policy == self.label and record.event.key == run.run:
                return self._retry(run)
            case StageFailed() | StageInterrupted() | ConfigurationChanged() | DaemonStarted() | FailureReported():
                if any(key.endswith(f":{run.run}") for key in state.timers):
                    return None
                return self._judge(run, record)
            case _:
                return None

    def _watch(self, run: Run, event: FailureReported) -> Decision | None:
        """A report from outside about a living attempt changes nothing: its lock and heartbeat tell the same."""
        if event.run not in (None, run.run):
            return None
        return Decision(
            verdict="watching",
            reason=f"{event.failure} was reported; stage {run.stage} still holds its lock, its own end will decide.",
            inputs={"failure": event.failure, "host": event.host, "worker": event.worker},
        )

    def _judge(self, run: Run, record: Record) -> Decision:
        failures = run.failures
        inputs: Numbers = {
            "failure": failures.last,
            "failures": failures.total,
            "without_progress": failures.without_progress,
            "checkpoint_step": run.checkpoint_step,
        }
        thresholds: Numbers = {"retries": self.retries, "ceiling": self.ceiling}
        stop = None
        if failures.last in HOPELESS:
            stop = f"{failures.last} is not mended by a retry"
        elif failures.without_progress > self.retries:
            stop = f"{failures.without_progress} failures without progress"
        elif failures.total > self.ceiling:
            stop = f"{failures.total} failures in all"
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
