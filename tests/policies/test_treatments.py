"""What the next attempt of a failed training does otherwise: given failures, the remedies in force for it."""

from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import RunStage
from daemon.core.decisions import Decision
from daemon.core.events import StageFailed, TimerFired
from daemon.core.plans import NO_REMEDY, Document, Engine, Remedy, Schedule, Span, Training
from policies.stage_recovery import StageRecovery
from policies.stage_recovery.treatment import MOST_DOCUMENTS

Build = Any
SPOILED = Document(arrival=12, number=3)
OTHER = Document(arrival=12, number=1)
STEPS = 10_000
LONG = Training(
    tokens=STEPS * 32,
    batch=4,
    context=8,
    replay=0.05,
    schedule=Schedule(kind="rewarm", peak=3e-3, floor=3e-4, plateau=1e-3),
    optimiser="keep",
    seed=3,
)
"""A training of 10,000 steps of 4 rows of 8 tokens."""


def decided(
    build: Build,
    last: str,
    *,
    count: int = 1,
    remedy: Remedy = NO_REMEDY,
    training: Training = LONG,
    policy: StageRecovery | None = None,
    waited: bool = False,
    **where: Any,  # noqa: ANN401 - fields of the failures
) -> Decision:
    """Ask about a training that failed so often in a row, the last time there."""
    failures = build.failures(last, count, **where)
    run = build.run(
        failures=failures,
        attempts={"train": count},
        remedy=remedy,
        plan=build.plan(training=training),
        checkpoint_step=800,
    )
    failed = StageFailed(run="p-90", stage="train", attempt=count, failure="transient", message="it broke")
    event = TimerFired(policy="stage_recovery", key="p-90", due=build.noon) if waited else failed
    decision = (policy or StageRecovery()).decide(build.pipeline(active=run), build.record(event))
    assert decision is not None
    return decision


def ordered(decision: Decision) -> Remedy:
    """Return the remedies that a decision orders, at once and from a checkpoint."""
    (command,) = decision.commands
    assert isinstance(command, RunStage)
    assert command.resume
    assert not decision.wakes
    return command.remedy


@pytest.mark.parametrize("failure", ["loss_spike", "not_finite", "bad_sample"])
def test_the_first_time_is_tried_again_in_place(build: Build, failure: str) -> None:
    """It may have been an error in passing: from the last checkpoint, at once, as before."""
    standing = Remedy(accumulate=2)
    decision = decided(build, failure, step=900, documents=(SPOILED,), remedy=standing)
    assert decision.verdict == "retry"
    assert ordered(decision) == standing
    assert "to see whether it comes again" in decision.reason
    assert decision.inputs["step"] == 900


@pytest.mark.parametrize(
    ("step", "fields", "expected"),
    [
        (900, {}, Remedy(skip=(Span(after=799, upto=999),), before=799)),
        (900, {"skip_steps": 20}, Remedy(skip=(Span(after=889, upto=909),), before=800)),
        (900, {"skip_steps": 1, "rollback_steps": 0}, Remedy(skip=(Span(after=899, upto=900),), before=899)),
        (900, {"max_skip": 0.002}, Remedy(skip=(Span(after=889, upto=909),), before=800)),
        (3, {}, Remedy(skip=(Span(after=0, upto=200),), before=0)),
        (STEPS, {}, Remedy(skip=(Span(after=9899, upto=STEPS),), before=9899)),
    ],
)
@pytest.mark.parametrize("failure", ["loss_spike", "not_finite"])
def test_what_comes_again_at_a_step_is_gone_around(
    build: Build, failure: str, step: int, fields: dict[str, Any], expected: Remedy
) -> None:
    """From a checkpoint so far before, without the batches around the step, of which no more than a share go."""
    decision = decided(build, failure, count=2, step=step, again=True, policy=StageRecovery(**fields))
    assert decision.verdict == "step_back"
    assert ordered(decision) == expected
    assert f"came again at step {step}" in decision.reason
    assert f"at or before step {expected.before}" in decision.reason


def test_a_spike_elsewhere_without_progress_comes_again_too(build: Build) -> None:
    """On a device no two runs are the same to the bit: the second without a newer checkpoint is no accident."""
    assert decided(build, "loss_spike", count=2, step=905, again=False).verdict == "step_back"
    assert decided(build, "loss_spike", count=2, step=905, without_progress=1).verdict == "retry"
    assert decided(build, "loss_spike", count=2, step=905, classes={"loss_spike": 1, "hang": 1}).verdict != "step_back"


def test_another_spike_is_gone_around_as_well(build: Build) -> None:
    """What was left out stays left out, and what touches is one."""
    before = Remedy(skip=(Span(after=799, upto=999),), before=799, accumulate=4)
    far = ordered(decided(build, "loss_spike", count=3, step=5000, remedy=before))
    assert far == Remedy(skip=(Span(after=799, upto=999), Span(after=4899, upto=5099)), before=4899, accumulate=4)
    near = ordered(decided(build, "loss_spike", count=3, step=1050, remedy=before))
    assert near == Remedy(skip=(Span(after=799, upto=1149),), before=949, accumulate=4)


def test_no_more_than_a_share_of_the_run_is_left_out(build: Build) -> None:
    """Then the run is given up, and the reason says by what; so it is where no step is known."""
    before = Remedy(skip=(Span(after=0, upto=1000),), before=0)
    decision = decided(build, "loss_spike", count=2, step=5000, remedy=before)
    assert decision.verdict == "given_up"
    assert "of its 10000 batches 1000 are left out already, where max_skip allows for 0.1" in decision.reason
    assert "no step is named" in decided(build, "loss_spike", count=2).reason
    never = StageRecovery(max_skip=0)
    assert decided(build, "loss_spike", count=2, step=5000, policy=never).verdict == "given_up"


@pytest.mark.parametrize("failure", ["not_finite", "bad_sample"])
def test_a_document_that_repeats_is_quarantined(build: Build, failure: str) -> None:
    """Instead of the batches around it: it alone, and from before the step, beside those that are out already."""
    decision = decided(build, failure, count=2, step=900, documents=(SPOILED,), again=True)
    assert decision.verdict == "quarantine"
    assert ordered(decision) == Remedy(without=(SPOILED,), before=899)
    assert "without document 3 of arrival 12" in decision.reason
    again = decided(build, failure, count=3, step=950, documents=(OTHER,), remedy=ordered(decision))
    assert ordered(again) == Remedy(without=(OTHER, SPOILED), before=949)
    assert again.inputs["documents"] == 2


@pytest.mark.parametrize("failure", ["not_finite", "bad_sample"])
def test_a_document_that_a_curation_names_is_left_out_of_it(build: Build, failure: str) -> None:
    """Tried again once, then without it: no batch is named, for it is scored; without a name it is given up."""
    known = {"attempts": {"curate": 2}, "stage": "curate"}
    verdicts = []
    for count, documents in ((1, (SPOILED,)), (2, (SPOILED,)), (1, ()), (2, ())):
        run = build.run(failures=build.failures(failure, count, documents=documents), **known)
        failed = StageFailed(run="p-90", stage="curate", attempt=2, failure="transient", message="it broke")
        decision = StageRecovery().decide(build.pipeline(active=run), build.record(failed))
        assert decision is not None
        verdicts.append(decision.verdict)
        if decision.verdict == "quarantine":
            assert ordered(decision) == Remedy(without=(SPOILED,))
    unnamed = {"not_finite": ["retry", "given_up"], "bad_sample": ["given_up", "given_up"]}
    assert verdicts == ["retry", "quarantine", *unnamed[failure]]


def test_a_document_that_is_out_already_is_not_the_cause(build: Build) -> None:
    """Nor is anything mended where none is named, or where hundreds would have to go."""
    out = Remedy(without=(SPOILED,), before=899)
    for decision in (
        decided(build, "bad_sample", count=2, step=900, documents=(SPOILED,), remedy=out),
        decided(build, "bad_sample", count=2, step=900, again=True),
        decided(build, "bad_sample"),
    ):
        assert decision.verdict == "given_up"
    many = tuple(Document(arrival=1, number=number) for number in range(MOST_DOCUMENTS + 1))
    assert decided(build, "not_finite", count=2, step=9, documents=many).verdict == "given_up"


def test_out_of_memory_halves_the_parts_down_to_a_row(build: Build) -> None:
    """Of a batch of 16: 1, 2, 4, 8, 16 parts; then it is told what to configure."""
    training = replace(LONG, batch=16)
    policy, remedy, parts = StageRecovery(retries=9), NO_REMEDY, []
    for count in range(1, 5):
        decision = decided(build, "out_of_memory", count=count, remedy=remedy, training=training, policy=policy)
        assert decision.verdict == "split"
        remedy = ordered(decision)
        parts.append((remedy.accumulate, decision.inputs["parts"]))
    assert parts == [(2, 2), (4, 4), (8, 8), (16, 16)]
    last = decided(build, "out_of_memory", count=5, remedy=remedy, training=training, policy=policy)
    assert last.verdict == "given_up"
    assert "row by row already" in last.reason
    assert "recompute: true" in last.reason


def test_several_processes_have_fewer_rows_each(build: Build) -> None:
    """What is configured counts: 16 rows over 4 processes in 2 parts leave one halving."""
    training = replace(LONG, batch=16, engine=Engine(accumulate=2, processes=4, recompute=True))
    decision = decided(build, "out_of_memory", training=training)
    assert "in 4 parts instead of 2" in decision.reason
    last = decided(build, "out_of_memory", count=2, training=training, remedy=ordered(decision))
    assert last.verdict == "given_up"
    assert "recompute" not in last.reason


def test_a_bad_checkpoint_is_confirmed_then_an_older_one_then_none(build: Build) -> None:
    """It is read once more after a wait; then the one before; then the start; then there is nothing left."""
    policy = StageRecovery(retries=9, jitter=0)
    first = decided(build, "bad_checkpoint", step=800, policy=policy)
    assert first.verdict == "backing_off"
    retried = decided(build, "bad_checkpoint", step=800, policy=policy, waited=True)
    assert (retried.verdict, ordered(retried)) == ("retry", NO_REMEDY)
    older = decided(build, "bad_checkpoint", count=2, step=800, again=True, policy=policy)
    assert (older.verdict, ordered(older)) == ("step_back", Remedy(before=799))
    start = decided(build, "bad_checkpoint", count=3, step=640, remedy=ordered(older), policy=policy)
    assert ordered(start) == Remedy(before=0)
    assert "from its start" in start.reason
    none = decided(build, "bad_checkpoint", count=4, step=640, remedy=ordered(start), policy=policy)
    assert none.verdict == "given_up"


def test_a_bad_start_is_confirmed_and_nothing_else_is_tried(build: Build) -> None:
    """There is no older one of what the plan starts from."""
    assert decided(build, "bad_checkpoint").verdict == "backing_off"
    decision = decided(build, "bad_checkpoint", count=2)
    assert decision.verdict == "given_up"
    assert "restore it" in decision.reason


@pytest.mark.parametrize("failure", ["transient", "disk_full", "straggler", "worker_lost", "preempted", "hang"])
def test_remedies_stay_in_force_whatever_fails_next(build: Build, failure: str) -> None:
    """A lost worker's next attempt leaves out what the one before left out."""
    remedy = Remedy(accumulate=2, skip=(Span(after=1, upto=3),), before=1, without=(SPOILED,))
    assert ordered(decided(build, failure, remedy=remedy, waited=True)) == remedy
