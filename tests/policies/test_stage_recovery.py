"""What becomes of a failed attempt."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from daemon.core.commands import FailRun, RunStage
from daemon.core.decisions import Decision
from daemon.core.errors import FailureClass
from daemon.core.events import (
    DaemonStarted,
    DataArrived,
    StageFailed,
    StageInterrupted,
    TimerFired,
)
from policies.stage_recovery import ANSWERS, StageRecovery

Build = Any
NAME = "stage_recovery"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "recover.md"
PLAIN = StageRecovery(jitter=0)
"""Its waits are what they are without chance."""
FAILED = StageFailed(run="p-90", stage="train", attempt=1, failure="transient", message="it broke")


def judged(
    build: Build, policy: StageRecovery, last: str, count: int = 1, total: int | None = None, **fields: object
) -> Decision:
    """Ask about a stage, train if nothing else is said, that failed so often."""
    stage = str(fields.setdefault("stage", "train"))
    fields = {"failures": build.failures(last, count, total), "attempts": {stage: total or count}, **fields}
    run = build.run(**fields)
    decision = policy.decide(build.pipeline(active=run), build.record(FAILED))
    assert decision is not None
    return decision


ALWAYS = {"transient", "disk_full", "straggler", "worker_lost", "model_stage_lost", "preempted", "hang"}


@pytest.mark.parametrize("failure", get_args(FailureClass))
def test_every_failure_class_has_its_answer(build: Build, failure: FailureClass) -> None:
    """In a stage that knows no remedies: what a retry cannot mend is given up, the rest is retried, now or later."""
    decision = judged(build, PLAIN, failure, stage="evaluate")
    if failure in {"user_error", "time_limit", "bad_sample"}:
        assert decision.verdict == "given_up"
        assert decision.commands == (FailRun(run="p-90", failure=failure),)
    elif ANSWERS[failure].at_once:
        assert decision.verdict == "retry"
        assert decision.commands == (RunStage(run="p-90", stage="evaluate", attempt=2, resume=True),)
    else:
        assert decision.verdict == "backing_off"
        assert decision.wakes == {"p-90": build.after(seconds=2)}
        assert not decision.commands


@pytest.mark.parametrize("failure", get_args(FailureClass))
def test_what_comes_again_is_confirmed_once_or_waited_for(build: Build, failure: str) -> None:
    """A second failure of a class without progress: what was to be confirmed is, and the run is given up."""
    decision = judged(build, PLAIN, failure, 2, stage="evaluate")
    if failure in ALWAYS | {"out_of_memory"}:
        assert decision.wakes == {"p-90": build.after(seconds=4)}
    else:
        assert decision.verdict == "given_up"
        assert f"{failure} is not mended by a retry" in decision.reason


def test_the_table_names_every_class_once() -> None:
    """Whatever class a stage may fail with has an answer, and each answer is one of the page's."""
    assert set(ANSWERS) == set(get_args(FailureClass))
    page = PAGE.read_text(encoding="utf-8")
    for failure, answer in ANSWERS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{failure}` |"))
        told = re.findall(r"\*\*(\w+)\*\*", row)
        assert told == [answer.first, answer.repeated, answer.elsewhere]
        assert ("at once" in row) is answer.at_once


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 20), (6, 20), (50, 20), (2000, 20), (10**9, 20)]
)
def test_the_wait_grows_to_its_bound(build: Build, count: int, seconds: float) -> None:
    """Each failure without progress doubles the wait, up to the longest; no count is too large to reckon with."""
    policy = StageRecovery(jitter=0, retries=10**10, ceiling=10**10, max_backoff=timedelta(seconds=20))
    decision = judged(build, policy, "transient", count)
    assert decision.wakes == {"p-90": build.after(seconds=seconds)}


def test_the_widest_settings_can_be_reckoned_with(build: Build) -> None:
    """The largest factor and the longest waits never overflow."""
    policy = StageRecovery(
        jitter=0,
        retries=10**6,
        ceiling=10**6,
        factor=1000,
        backoff=timedelta(days=36_525),
        max_backoff=timedelta(days=36_525),
    )
    assert judged(build, policy, "transient", 10**5).wakes == {"p-90": build.after(days=36_525)}


def test_a_lost_worker_waits_from_the_second_loss_on(build: Build) -> None:
    """Losing the worker again without progress is no chance any more."""
    assert judged(build, PLAIN, "worker_lost", 2).wakes == {"p-90": build.after(seconds=4)}


def test_no_back_off_means_at_once(build: Build) -> None:
    """With a back-off of zero every retry is at once."""
    assert judged(build, StageRecovery(backoff=timedelta(0)), "transient", 3).verdict == "retry"


@pytest.mark.parametrize(
    ("count", "total", "verdict"),
    [(3, 3, "backing_off"), (4, 4, "given_up"), (1, 20, "backing_off"), (1, 21, "given_up"), (0, 5, "backing_off")],
)
def test_the_budget_counts_failures_without_progress_and_the_ceiling_all(
    build: Build, count: int, total: int, verdict: str
) -> None:
    """Three retries without a newer checkpoint, twenty in all."""
    run = build.run(failures=build.failures("transient", count, total))
    decision = StageRecovery().decide(build.pipeline(active=run), build.record(FAILED))
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.inputs["without_progress"] == count
    assert decision.thresholds == {"retries": 3, "ceiling": 20}
    if verdict == "given_up":
        assert "it broke" in decision.reason


def test_no_retries_at_all(build: Build) -> None:
    """With `retries: 0` the first failure is the last."""
    assert judged(build, StageRecovery(retries=0), "worker_lost").verdict == "given_up"


def test_the_wake_up_brings_the_retry_from_the_checkpoint(build: Build) -> None:
    """When the wait is over the next attempt resumes after the last step that was saved."""
    run = build.run(failures=build.failures("transient"), checkpoint_step=40)
    fired = TimerFired(policy=NAME, key="p-90", due=build.noon)
    decision = StageRecovery().decide(build.pipeline(active=run), build.record(fired))
    assert decision is not None
    assert decision.verdict == "retry"
    assert "after step 40" in decision.reason
    assert decision.commands == (RunStage(run="p-90", stage="train", attempt=2, resume=True),)


@pytest.mark.parametrize(("policy", "key"), [("other", "p-90"), (NAME, "p-1")])
def test_other_wake_ups_are_not_its_own(build: Build, policy: str, key: str) -> None:
    """A wake-up of another policy, or for another run, brings no retry."""
    state = build.pipeline(active=build.run(failures=build.failures("transient")))
    assert StageRecovery().decide(state, build.record(TimerFired(policy=policy, key=key, due=build.noon))) is None


def test_while_a_wake_up_is_pending_nothing_is_decided_twice(build: Build) -> None:
    """A restarted daemon finds the wait that was decided."""
    run = build.run(failures=build.failures("transient"))
    state = build.pipeline(active=run, timers={f"{NAME}:p-90": build.after(seconds=2)})
    for event in (FAILED, DaemonStarted(epoch=2, release="0", reducer=1, host="h", pid=1)):
        assert StageRecovery().decide(state, build.record(event)) is None


def test_a_failure_without_a_wait_is_judged_when_it_is_seen_again(build: Build) -> None:
    """A configuration that gains this policy, or a daemon that is back, picks up a failure that nobody judged."""
    run = build.run(failures=build.failures("worker_lost"))
    started = DaemonStarted(epoch=2, release="0", reducer=1, host="h", pid=1)
    decision = StageRecovery().decide(build.pipeline(active=run), build.record(started))
    assert decision is not None
    assert decision.verdict == "retry"


@pytest.mark.parametrize("fields", [{"done": True}, {"stop": "cancel"}, {"stop": "preempt"}])
def test_what_is_done_or_stopped_is_left_alone(build: Build, fields: dict[str, object]) -> None:
    """A stage that succeeded, or a run that is being ended, is not recovered."""
    state = build.pipeline(active=build.run(failures=build.failures("transient"), **fields))
    assert StageRecovery().decide(state, build.record(FAILED)) is None


def test_what_a_drain_stopped_is_left_alone(build: Build) -> None:
    """It goes on without being asked for; failures before it say nothing about it."""
    drained = StageInterrupted(run="p-90", stage="train", attempt=3, reason="drain")
    state = build.pipeline(active=build.run(failures=build.failures("drain", 2)))
    assert StageRecovery(retries=0).decide(state, build.record(drained)) is None


def test_without_a_run_or_a_failure_there_is_nothing_to_recover(build: Build) -> None:
    """An idle pipeline, a run without failures, and facts about data bring no decision."""
    interrupted = StageInterrupted(run="p-90", stage="train", attempt=1, reason="cancel")
    assert StageRecovery().decide(build.pipeline(), build.record(FAILED)) is None
    assert StageRecovery().decide(build.pipeline(active=build.run()), build.record(interrupted)) is None
    failed = build.pipeline(active=build.run(failures=build.failures("transient")))
    assert StageRecovery().decide(failed, build.record(DataArrived(uri="a", domain="d"))) is None
