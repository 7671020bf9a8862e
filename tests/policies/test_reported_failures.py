"""What becomes of a failure that was reported from outside: of an attempt at work, or of none."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from daemon.core.commands import KillStage
from daemon.core.decisions import Decision
from daemon.core.errors import FailureClass
from daemon.core.events import FailureReported
from daemon.core.state import Ended, Order, Run
from policies.stage_recovery import LOST, StageRecovery

Build = Any
ROOT = Path(__file__).parents[2]
KILL = KillStage(run="p-90", stage="train", attempt=1, failure="worker_lost")


def working(build: Build, *, attempt: int = 1, started: bool = True, **fields: Any) -> Run:  # noqa: ANN401 - its fields
    """Make a run whose train stage is at work as process 77 on host a, ordered at noon."""
    order = Order(command="c", run="p-90", stage="train", attempt=attempt, resume=False, ordered_at=build.noon)
    if started:
        order = replace(order, started=True, host="a", pid=77)
    run: Run = build.run(attempts={"train": attempt}, order=order)
    return replace(run, **fields)


def asked(
    build: Build,
    active: Run | None,
    /,
    failure: FailureClass = "worker_lost",
    *,
    policy: StageRecovery | None = None,
    after: float = 1.0,
    **told: Any,  # noqa: ANN401 - its fields
) -> Decision:
    """Ask about a report that comes `after` seconds after noon."""
    at = build.after(seconds=after)
    state = build.pipeline(active=active, last=Ended(run="p-50", outcome="promoted", position=80, at=build.noon))
    decision = (policy or StageRecovery()).decide(state, build.record(FailureReported(failure=failure, **told), at))
    assert decision is not None
    return decision


@pytest.mark.parametrize("failure", get_args(FailureClass))
def test_every_class_has_its_answer(build: Build, failure: FailureClass) -> None:
    """What is lost is ended at once; what an attempt may get over is left to its own end."""
    decision = asked(build, working(build), failure)
    if failure in LOST:
        assert decision.verdict == "ending"
        assert decision.commands == (replace(KILL, failure=failure),)
    else:
        assert (decision.verdict, decision.commands) == ("watching", ())
        assert "still holds its lock" in decision.reason


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"run": "p-90"},
        {"host": "a"},
        {"worker": "77"},
        {"worker": "a/77"},
        {"run": "p-90", "host": "a", "worker": "a/77", "model_stage": 3},
        {"run": "", "host": "", "worker": ""},
    ],
)
def test_what_a_report_does_not_name_it_says_of_whatever_is_at_work(build: Build, told: dict[str, Any]) -> None:
    """Run, host and worker are the attempt's, or are left out."""
    assert asked(build, working(build), evidence="no answer", **told).commands == (KILL,)


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"run": "p-50"}, "failure_of_ended_run"),
        ({"run": "p-51"}, "failure_of_unknown_run"),
        ({"host": "b"}, "failure_elsewhere"),
        ({"worker": "78"}, "failure_elsewhere"),
        ({"worker": "b/77"}, "failure_elsewhere"),
        ({"run": "p-90", "host": "a", "worker": "b/77"}, "failure_elsewhere"),
        ({"run": "p-90", "host": "b", "worker": "77"}, "failure_elsewhere"),
    ],
)
@pytest.mark.parametrize("failure", ["worker_lost", "transient"])
def test_a_report_about_something_else_has_no_effect(
    build: Build, told: dict[str, Any], word: str, failure: FailureClass
) -> None:
    """Another run, one that has ended, another host or process: nothing is done, and the decision says why."""
    decision = asked(build, working(build), failure, **told)
    assert (decision.verdict, decision.commands, decision.wakes) == (word, (), {})
    assert (told["run"] if word.endswith("run") else "is process 77 on host a, not") in decision.reason
    assert decision.inputs["failure"] == failure


def test_where_nothing_is_at_work_nothing_is_lost(build: Build) -> None:
    """Without a run, before a stage has begun, after it has ended, and while the run is being stopped."""
    waiting = working(build, order=None, failures=build.failures("hang"))
    for run, word in (
        (None, "failure_of_no_run"),
        (working(build, started=False), "failure_before_start"),
        (waiting, "failure_known"),
        (working(build, stop="cancel"), "failure_of_stopped_run"),
    ):
        assert (asked(build, run).verdict, asked(build, run).commands) == (word, ())
    assert asked(build, None, run="p-50").verdict == "failure_of_ended_run"


def test_a_loss_that_is_known_is_not_recovered_again(build: Build) -> None:
    """While the attempt is being ended every other report of it has no effect."""
    run = working(build)
    assert run.order is not None
    decision = asked(build, replace(run, order=replace(run.order, lost="hang")), worker="77")
    assert (decision.verdict, decision.commands) == ("failure_known", ())
    assert "hang was reported before" in decision.reason


@pytest.mark.parametrize(
    ("attempt", "after", "worker", "verdict"),
    [
        (1, 0, None, "ending"),
        (2, 0, None, "replaced_already"),
        (2, 29.9, None, "replaced_already"),
        (2, 30, None, "ending"),
        (2, 1, "77", "ending"),
        (2, 1, "76", "failure_elsewhere"),
        (3, 29.9, "", "replaced_already"),
    ],
)
def test_a_late_report_does_not_end_the_attempt_that_took_the_place(
    build: Build, attempt: int, after: float, worker: str | None, verdict: str
) -> None:
    """For 30 seconds a report of a loss must name the worker, where the attempt is not the first."""
    decision = asked(build, working(build, attempt=attempt), run="p-90", worker=worker, after=after)
    assert decision.verdict == verdict
    assert bool(decision.commands) is (verdict == "ending")


def test_the_quiet_is_configured(build: Build) -> None:
    """With `quiet: PT0S` every report counts, with a longer one fewer do."""
    run = working(build, attempt=2)
    assert asked(build, run, policy=StageRecovery(quiet=timedelta(0)), after=0).verdict == "ending"
    assert asked(build, run, policy=StageRecovery(quiet=timedelta(minutes=5)), after=299).verdict == "replaced_already"


@pytest.mark.parametrize(
    ("count", "total", "verdict"), [(2, 2, "ending"), (3, 3, "watching"), (0, 19, "ending"), (0, 20, "watching")]
)
def test_a_report_costs_a_retry_and_ends_nothing_where_none_is_left(
    build: Build, count: int, total: int, verdict: str
) -> None:
    """What could not be tried again is not ended by hearsay: its lock and its heartbeat decide."""
    failures = replace(build.failures("hang"), total=total, without_progress=count)
    decision = asked(build, working(build, failures=failures))
    assert decision.verdict == verdict
    assert decision.inputs["without_progress"] == count + 1
    assert decision.thresholds == {"retries": 3, "ceiling": 20}
    assert ("no retry is left" in decision.reason) is (verdict == "watching")


def test_the_evidence_is_told_in_short(build: Build) -> None:
    """The decision's sentence has the beginning of it; the event has all."""
    assert "(no answer)" in asked(build, working(build), evidence="no answer").reason
    assert len(asked(build, working(build), evidence="x" * 4096).reason) < 400


def test_every_reason_is_on_the_page() -> None:
    """Whatever verdict says that a report had no effect, its page says what it means."""
    page = (ROOT / "docs" / "how-to" / "report-a-failure.md").read_text(encoding="utf-8")
    words = set(re.findall(r'word="(\w+)"', (ROOT / "daemon" / "core" / "failures.py").read_text(encoding="utf-8")))
    assert set(re.findall(r"^\| `(failure_\w+|replaced_already)` \|", page, re.MULTILINE)) == words | {
        "replaced_already"
    }
