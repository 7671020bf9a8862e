"""Guards among everything else: requests, slots, preemption, ticks, and a daemon that was not there."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.core.events import DecisionMade, RunCancelled, RunPreempted, RunResumed, RunStarted
from daemon.core.plans import tokens
from tests.golden.tape import Tape

HOUR = timedelta(hours=1)
REST = "{kind: stage_recovery}, {kind: promotion}"
GROW = "kind: rewarm_replay, after_tokens: 100"


def tape(*policies: str, pipelines: str = "") -> Tape:
    """Start a daemon with these policies in pipeline `p`, on a Sunday at noon."""
    return Tape(f"pipelines: {{p: {{policies: [{', '.join(policies)}, {REST}]}}{pipelines}}}\n")


def verdicts(tape: Tape, policy: str) -> list[str]:
    """Return what a policy, or the core, has said, in order."""
    return [r.event.verdict for r in tape.records if isinstance(r.event, DecisionMade) and r.event.policy == policy]


def started(tape: Tape, pipeline: str = "p") -> list[RunStarted]:
    """Return the runs that were started."""
    return [r.event for r in tape.records if isinstance(r.event, RunStarted) and r.pipeline == pipeline]


def test_an_approval_names_the_decision_that_stands() -> None:
    """Another position is answered with the right one; the right one starts; what a pause holds stays approved."""
    told = tape(f"{{{GROW}, guards: {{approval: true, debounce: PT5M}}}}")
    told.arrive(120)
    told.wait(HOUR)
    (position,) = [each.position for each in told.of().verdicts.values() if each.verdict == "awaiting_approval"]
    assert started(told) == []
    told.request("approve", decision=position + 1)
    assert verdicts(told, "operator") == ["not_possible"]
    answer = next(r.event for r in reversed(told.records) if isinstance(r.event, DecisionMade))
    assert f"that of rewarm_replay, position {position} does." in answer.reason
    told.request("pause")
    told.request("approve", decision=position)
    told.arrive(20)
    told.sleep(HOUR)
    told.arrive(20)
    assert started(told) == []
    told.request("resume")
    (run,) = started(told)
    assert run.intent.asked
    told.finish()
    told.request("approve", decision=position)
    assert verdicts(told, "operator")[-1] == "not_possible"


def test_what_awaits_an_approval_is_not_forgotten_while_a_run_goes_on() -> None:
    """What its policy says of the run takes the place of the decision that waits: that is told anew, and approved."""
    told = tape(f"{{{GROW}, guards: {{approval: true, budget: {{per_day: 20}}}}}}")
    told.arrive(120)
    told.request("approve", decision=told.of().verdicts["rewarm_replay"].position)
    told.arrive(130)
    told.until("train")
    told.begin()
    told.fail("user_error")
    told.wait(HOUR)
    assert told.of().active is None
    standing = told.of().verdicts["rewarm_replay"]
    assert standing.verdict == "awaiting_approval"
    told.request("approve", decision=standing.position)
    assert len(started(told)) == 2


def test_a_request_to_train_is_always_answered() -> None:
    """With nothing that waits, or nobody who trains on request, the answer is that it is not possible."""
    told = tape(f"{{{GROW}}}", pipelines=", q: {policies: [{kind: periodic_retraining}]}")
    for name in ("p", "p", "q"):
        told.request("train", name)
    assert verdicts(told, "operator") == ["not_possible"] * 3
    told.arrive(10)
    told.request("train")
    assert len(started(told)) == 1
    assert verdicts(told, "operator") == ["not_possible"] * 3


def test_what_came_while_a_run_failed_is_weighed_with_its_data() -> None:
    """Together they are enough: nobody has to wait for the next arrival."""
    told = tape(f"{{{GROW}}}")
    told.arrive(120)
    told.until("train")
    told.arrive(60)
    told.begin()
    told.fail("user_error")
    assert told.of().active is None
    told.wait(timedelta(seconds=2))
    assert [tokens(run.plan.new) for run in started(told)] == [120, 181]


def test_a_freeze_is_answered_and_lets_runs_go_on() -> None:
    """Freeze and thaw are decisions with who asked; data trains meanwhile, and nothing is promoted."""
    told = tape(f"{{{GROW}}}")
    told.request("freeze", reason="release week")
    assert told.of().frozen == "ann: release week"
    told.arrive(120)
    told.finish()
    assert (told.of().champion, told.of().held is None) == (None, False)
    told.request("thaw")
    assert told.of().frozen is None
    assert verdicts(told, "operator") == ["frozen", "thawed"]


def test_a_tick_in_quiet_hours_is_not_forgotten() -> None:
    """What was due at three is trained when they end, at six, also where nothing else happens."""
    quiet = 'guards: {quiet: [{from: "02:00", to: "06:00"}]}'
    told = tape(f"{{{GROW}}}", f'{{kind: periodic_retraining, cron: "0 3 * * *", {quiet}}}')
    told.arrive(120)
    told.finish()
    told.wait(16 * HOUR)
    assert verdicts(told, "periodic_retraining")[-1] == "quiet_hours"
    assert [run.plan.kind for run in started(told)] == ["base"]
    told.wait(3 * HOUR)
    assert [run.plan.kind for run in started(told)] == ["base", "retrain"]
    assert told.run().started_at.replace(microsecond=0) <= datetime(2026, 3, 2, 6, 0, 1, tzinfo=UTC)
    told.finish()
    told.arrive(10)
    assert len(started(told)) == 2, "one tick is one retrain"


def test_a_wish_that_waits_for_a_slot_does_not_start_in_quiet_hours() -> None:
    """It is taken back when they begin, and wished for again when they end."""
    quiet = 'guards: {quiet: [{from: "14:00", to: "16:00"}]}'
    told = tape(f"{{{GROW}, {quiet}}}", pipelines=f", q: {{policies: [{{{GROW}}}, {REST}]}}")
    told.arrive(120, pipeline="q")
    told.arrive(120)
    assert started(told) == []
    assert told.of().wishes
    told.wait(3 * HOUR)
    assert not told.of().wishes
    told.finish("q")
    assert started(told) == []
    told.wait(2 * HOUR)
    assert len(started(told)) == 1


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=2)])
def test_a_run_goes_on_when_there_is_a_budget_again(late: timedelta) -> None:
    """It yields when the day's hours are used, with a checkpoint, and is resumed at midnight, or by a later daemon."""
    budget = "guards: {budget: {per_day: 2}}"
    told = tape(f"{{{GROW}, {budget}}}")
    told.arrive(120)
    told.until("train")
    told.begin()
    told.wait(3 * HOUR)
    assert told.run().stop == "preempt"
    told.checkpoint(100)
    told.interrupt("preempt")
    assert told.of().active is None
    (wish,) = told.of().wishes.values()
    assert wish.not_before == datetime(2026, 3, 2, tzinfo=UTC)
    told.arrive(10)
    assert told.of().active is None
    if late:
        told.sleep(late)
        told.start(f"pipelines: {{p: {{policies: [{{{GROW}, {budget}}}, {REST}]}}}}\n")
    told.wait(12 * HOUR)
    assert (told.order().stage, told.order().resume) == ("train", True)
    assert [type(r.event) for r in told.records if isinstance(r.event, RunPreempted | RunResumed)] == [
        RunPreempted,
        RunResumed,
    ]
    told.begin()
    told.finish()
    assert told.of().champion is not None


@pytest.mark.parametrize("gone", [False, True])
def test_what_has_yielded_goes_on_before_its_policy_starts_anew(gone: bool) -> None:
    """A start would take its data and end it, however long that wish stands; nor is it forgotten with its policy."""
    told = tape(f"{{{GROW}, guards: {{budget: {{per_day: 2, per_month: 3}}}}}}")
    told.arrive(120)
    told.until("train")
    told.begin()
    run = told.run().run
    for days in (1, 32):
        told.arrive(300)
        told.wait(2 * HOUR)
        assert told.run().stop == "preempt"
        told.interrupt("preempt")
        if gone:
            told.start(f"pipelines: {{p: {{policies: [{{kind: rewarm_replay, name: other}}, {REST}]}}}}\n")
            break
        told.wait(days * 24 * HOUR)
        told.begin()
    assert (told.run().run, [each.run for each in started(told)]) == (run, [run])
    told.finish()
    assert told.of().champion is not None
    assert not [r.event for r in told.records if isinstance(r.event, RunCancelled)]


def test_two_runs_cannot_wait_for_a_budget_at_once() -> None:
    """Where another run has yielded already, the one without a budget is cancelled, and begins anew the next day."""
    told = tape(
        f"{{{GROW}}}",
        "{kind: periodic_retraining, every: PT30H, priority: 5, guards: {budget: {per_day: 2}}}",
    )
    told.arrive(120)
    told.finish()
    told.wait(29 * HOUR)
    told.arrive(120)
    told.until("train")
    told.begin()
    told.wait(2 * HOUR)
    told.interrupt("preempt")
    assert told.run().plan.kind == "retrain"
    retrain = told.run().run
    told.until("train")
    told.begin()
    told.wait(3 * HOUR)
    told.interrupt("preempt")
    cancelled = [r.event for r in told.records if isinstance(r.event, RunCancelled)]
    assert [(each.run, each.again) for each in cancelled] == [(retrain, True)]
    assert told.run().plan.kind == "increment", "the one that had yielded goes on"
    told.finish()
    assert told.of().active is None
    told.wait(12 * HOUR)
    assert told.run().plan.kind == "retrain"
    assert told.run().started_at.date().isoformat() == "2026-03-03"


def test_a_key_is_asked_for_once_more_when_its_wish_is_acted_on() -> None:
    """Two policies that wish with one key while a slot is missing: the second wish is void when the first has begun."""
    once = "guards: {once: {key: x, within: PT5H, scope: pipeline}}"
    told = tape(
        f"{{{GROW}, name: one, {once}}}",
        f"{{{GROW}, name: two, {once}}}",
        pipelines=f", q: {{policies: [{{{GROW}}}, {REST}]}}",
    )
    told.arrive(120, pipeline="q")
    told.arrive(120)
    assert len(told.of().wishes) == 2
    told.finish("q")
    told.finish()
    assert [run.policy for run in started(told)] == ["one"]
    assert told.of().wishes == {}


def test_a_run_that_begins_anew_is_not_kept_off_by_its_own_key() -> None:
    """Cancelled because the champion changed under it, it starts again at once, with its key, in its cooldown."""
    guards = "guards: {once: {key: x, within: P1D}, cooldown: P1D}"
    told = tape(f"{{{GROW}, name: grow}}")
    for _ in range(2):
        told.arrive(120)
        told.finish()
    told.start(f"pipelines: {{p: {{policies: [{{{GROW}, {guards}}}, {REST}]}}}}\n")
    told.arrive(120)
    told.until("train")
    first = told.run().run
    told.request("rollback")
    told.interrupt("cancel")
    assert told.run().run != first
    assert told.run().policy == "rewarm_replay"
    assert list(told.of().claims) == ["rewarm_replay: x"]


def test_a_cooldown_outlasts_a_reload_without_its_policy() -> None:
    """A policy that is taken out and put back knows when its last run began."""
    grow = f"{{{GROW}, guards: {{cooldown: PT6H}}}}"
    told = tape(grow)
    told.arrive(120)
    told.finish()
    told.start(f"pipelines: {{p: {{policies: [{REST}]}}}}\n")
    told.start(f"pipelines: {{p: {{policies: [{grow}, {REST}]}}}}\n")
    told.arrive(120)
    assert len(started(told)) == 1
    told.wait(7 * HOUR)
    assert len(started(told)) == 2
