"""A failure that was reported, from the report to the attempt that takes the place of the lost one."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.commands import KillStage, RunStage
from daemon.core.decisions import Decision
from daemon.core.events import (
    TERMINAL,
    DecisionMade,
    FailureReported,
    RunFailed,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageStarted,
)
from daemon.core.state import Failures, dump
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World

LOST = FailureReported(failure="worker_lost", evidence="no answer")
OPERATIONS = (
    *("begin",) * 4,
    *("report",) * 6,
    *("bury", "bury", "checkpoint", "succeed", "die", "hang", "fire", "fire", "drain", "cancel"),
)
REPORTS: tuple[dict[str, Any], ...] = (
    {},
    {"run": "p-2"},
    {"run": "p-2", "host": "h"},
    {"worker": "1"},
    {"worker": "h/2"},
    {"worker": "3"},
    {"run": "p-1"},
    {"host": "elsewhere"},
)


@pytest.fixture
def training(make_world: "MakeWorld", parts: "type[Parts]") -> "World":
    """A world whose first run has begun to train, with a checkpoint at step 7."""
    return at_work(make_world, parts)


def at_work(make_world: "MakeWorld", parts: "type[Parts]") -> "World":
    """Make a world whose first run has begun to train, with a checkpoint at step 7."""
    world = make_world(parts.Starter(), StageRecovery(), parts.Gate())
    world.arrive(100)
    world.until("train")
    begin(world)
    world.checkpoint(7)
    return world


def begin(world: "World") -> None:
    """Let the ordered attempt start: its number is its pid."""
    order = world.order()
    world.fact(StageStarted(**world.names(), command=order.command, host="h", pid=order.attempt))


def end(world: "World", message: str = "It is gone.") -> list[Any]:
    """Let the attempt's lock be free, and its last line be read."""
    return world.fact(StageInterrupted(**world.names(), reason="died", message=message), after=0.2)


def attempts(world: "World", stage: str = "train") -> list[int]:
    """Return the attempts of a stage that were ordered."""
    ordered = [c for d in world.decisions() for c in d.commands if isinstance(c, RunStage) and c.stage == stage]
    return [command.attempt for command in ordered]


def test_a_lost_worker_is_recovered(training: "World") -> None:
    """The report ends the attempt in its own transaction; its end brings the next one, from the checkpoint."""
    assert (training.order().host, training.order().pid, training.order().lost) == ("h", 1, "")
    (decided,) = training.decisions(training.fact(LOST))
    assert decided.verdict == "ending"
    assert decided.commands == (KillStage(run="p-2", stage="train", attempt=1, failure="worker_lost"),)
    assert (training.order().attempt, training.order().lost) == (1, "worker_lost")
    (decided,) = training.decisions(end(training))
    assert decided.verdict == "retry"
    assert "after step 7" in decided.reason
    assert (training.order().attempt, training.order().resume, training.order().lost) == (2, True, "")
    told = Failures(total=1, without_progress=1, last="worker_lost", message="It is gone.", classes={"worker_lost": 1})
    assert training.run().failures == told
    training.finish()
    assert [event.outcome for event in training.all(RunSucceeded)] == ["promoted"]


@pytest.mark.parametrize("failure", ["hang", "model_stage_lost"])
def test_the_class_that_was_reported_is_the_failures(training: "World", failure: Any) -> None:  # noqa: ANN401 - a class
    """However the process died, the account of failures has what was seen from outside."""
    training.fact(FailureReported(failure=failure))
    assert training.decisions(end(training))[0].verdict == "retry"
    assert training.run().failures.last == failure


def test_what_the_attempt_said_last_counts(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """One that had ended its work, failed by itself, or was stopped by a drain before it was killed, did just that."""
    world = at_work(make_world, parts)
    world.fact(LOST)
    world.succeed()
    assert world.order().stage == "evaluate"
    world = at_work(make_world, parts)
    world.fact(LOST)
    world.fact(StageFailed(**world.names(), failure="out_of_memory", message="no room"))
    assert world.run().failures.last == "out_of_memory"
    world = at_work(make_world, parts)
    world.fact(LOST)
    world.fact(StageInterrupted(**world.names(), reason="drain"))
    assert (world.order().attempt, world.run().failures.total) == (2, 0)


def test_a_run_that_is_cancelled_meanwhile_is_cancelled(training: "World") -> None:
    """The kill stands, and nothing is tried again."""
    training.fact(LOST)
    training.request("cancel")
    assert training.order().lost == "worker_lost"
    training.stopped()
    assert training.of().active is None


def test_the_model_that_is_live_stays_live(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A promote stage that is lost after it published ends its run as promoted, with one version."""
    world = at_work(make_world, parts)
    world.until("promote")
    begin(world)
    world.fact(world.promotion())
    world.fact(LOST)
    end(world)
    assert [event.outcome for event in world.all(RunSucceeded)] == ["promoted"]
    assert world.of().versions == 1


def test_reports_without_effect_are_counted_by_their_reason(training: "World") -> None:
    """Whatever concerns nothing at work changes a counter; the decision that says so is stored once."""
    for _ in range(2):
        training.fact(replace(LOST, run="p-77"))
        training.fact(replace(LOST, host="b"))
    training.fact(replace(LOST, host="b"))
    assert training.of().ignored == {"failure_of_unknown_run": 2, "failure_elsewhere": 3}
    verdicts = [decision.verdict for decision in training.decisions(policy="stage_recovery")]
    assert verdicts == ["failure_of_unknown_run", "failure_elsewhere"] * 2
    before = training.order()
    training.finish()
    assert before.attempt == 1
    (decided,) = training.decisions(training.fact(replace(LOST, run="p-2")), "stage_recovery")
    assert decided.reason == "Run p-2 has ended already (promoted)."
    assert decided.run == "p-2"
    assert training.fact(replace(LOST, run="p-2")) == []
    assert training.of().active is None
    assert training.of().ignored["failure_of_ended_run"] == 2


def test_a_run_that_waits_has_nothing_at_work(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A held run is told apart from one that nobody knows, whatever has ended since."""
    world = make_world(parts.Starter(), StageRecovery(), parts.Gate("hold"))
    world.arrive(100)
    world.finish()
    (decided,) = world.decisions(world.fact(replace(LOST, run="p-2")))
    assert (decided.verdict, decided.run) == ("failure_of_waiting_run", "p-2")
    assert decided.reason == "Run p-2 is held: nothing of it is at work."


@pytest.mark.parametrize(
    ("attempt", "stage", "why"),
    [
        (2, "train", "attempt 2 of stage train of run p-2 is not at work"),
        (1, "probe", "attempt 1 of stage probe of run p-2 is not at work"),
    ],
)
def test_only_what_is_at_work_is_ended(
    make_world: "MakeWorld", parts: "type[Parts]", attempt: int, stage: str, why: str
) -> None:
    """Whatever a policy asks for, another attempt or stage is left alone; so is one that is being ended."""
    kill = KillStage(run="p-2", stage=stage, attempt=attempt, failure="hang")
    right = KillStage(run="p-2", stage="train", attempt=1, failure="hang")

    def answer(_: object, record: Any) -> Decision | None:  # noqa: ANN401 - a record
        if not isinstance(record.event, FailureReported):
            return None
        return Decision(verdict="odd", reason="It wants.", commands=(right if record.event.host else kill,))

    world = make_world(parts.Starter(), parts.Scripted("odd", answer))
    world.arrive(100)
    world.until("train")
    begin(world)
    (decided,) = world.decisions(world.fact(LOST), "odd")
    assert (decided.suppressed_by, world.order().lost) == (why, "")
    world.fact(replace(LOST, host="h"))
    assert world.order().lost == "hang"
    (decided,) = world.decisions(world.fact(replace(LOST, host="h")), "odd")
    assert decided.suppressed_by == "attempt 1 of stage train is being ended already"


@settings(max_examples=60)
@given(
    told=st.permutations(["report"] * 5 + ["end", "begin"]),
    named=st.sampled_from([{}, {"run": "p-2"}, {"host": "h"}, {"worker": "1"}, {"worker": "h/1", "run": "p-2"}]),
    gap=st.floats(0, 3),
)
def test_however_often_a_loss_is_told_it_is_recovered_once(
    parts: "type[Parts]", told: list[str], named: dict[str, Any], gap: float
) -> None:
    """Five reports, the attempt's own end, and the next one's beginning, in any order: one more attempt."""
    world = parts.World()
    world.configure({"p": (parts.Starter(), StageRecovery(), parts.Gate())})
    world.arrive(100)
    world.until("train")
    begin(world)
    for what in told:
        attempt = world.order().attempt
        if what == "report":
            world.fact(replace(LOST, **named), after=gap)
        elif what == "end" and attempt == 1:
            end(world)
        elif what == "begin" and attempt == 2:
            begin(world)
    assert attempts(world) == [1, 2]
    assert world.order().attempt == 2
    assert world.order().lost == ""
    assert world.run().failures.total == 1


def step(world: "World", operation: str, number: int) -> None:
    """Do what an operation says to the active run, if it can be done; `number` decides everything else."""
    order = world.run().order
    started = order is not None and order.started
    match operation:
        case "report":
            failure: Any = ("worker_lost", "hang", "model_stage_lost", "transient")[number // 8 % 4]
            world.fact(FailureReported(failure=failure, **REPORTS[number % len(REPORTS)]), after=number % 20)
        case "fire" if world.of().timers:
            world.fire()
        case "begin" if order is not None and not started:
            begin(world)
        case "bury" if order is not None and order.lost:
            end(world)
        case "checkpoint" if started:
            world.checkpoint(number % 100)
        case "succeed" if started and number % 3 == 0:
            world.succeed()
        case "die" | "hang" | "drain" if started:
            reason: Any = {"die": "died"}.get(operation, operation)
            world.fact(StageInterrupted(**world.names(), reason=reason))
        case "cancel" if number % 7 == 0:
            world.request("cancel")
        case _:
            pass


@settings(max_examples=60)
@given(history=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10**6)), min_size=20, max_size=120))
def test_whatever_is_reported_the_promises_hold(parts: "type[Parts]", history: list[tuple[str, int]]) -> None:
    """An attempt is ordered when the one before has ended, killed once, and only where a retry is left."""
    world = parts.World()
    world.configure({"p": (parts.Starter(), StageRecovery(retries=2, ceiling=4), parts.Gate())})
    world.arrive(100)
    for operation, number in history:
        if world.of().active is not None:
            step(world, operation, number)
    ended: set[tuple[str, int]] = set()
    killed: Counter[tuple[str, int]] = Counter()
    for record in world.records:
        event = record.event
        if isinstance(event, TERMINAL):
            ended.add((event.stage, event.attempt))
            last = event
        elif isinstance(event, RunFailed):
            assert (last.stage, last.attempt) not in killed  # no report has cost a run its life
        for command in event.commands if isinstance(event, DecisionMade) else ():
            if isinstance(command, RunStage) and command.attempt > 1:
                assert (command.stage, command.attempt - 1) in ended
            elif isinstance(command, KillStage):
                killed[command.stage, command.attempt] += 1
                assert (command.stage, command.attempt) not in ended
    assert not killed or max(killed.values()) == 1
    assert world.refolded() == dump(world.state)
