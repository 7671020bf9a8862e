"""When a retrain is due: by increments, by time, by the calendar, by request."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import StartRun, WithdrawWish
from daemon.core.events import (
    DataArrived,
    ModelPromoted,
    OperatorRequested,
    ScheduleFired,
    ScheduleSettings,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import Checkpoint
from daemon.core.state import Verdict, Wish
from policies.periodic_retraining import PeriodicRetraining

Build = Any
NAME = "periodic_retraining"
ASKED = OperatorRequested(verb="retrain", by="ann")
PROMOTED = ModelPromoted(
    run="p-90",
    stage="promote",
    attempt=1,
    model_version=2,
    path="v2",
    sha256="0" * 64,
    trunk=Checkpoint(path="t", sha256="0" * 64),
    parent=1,
    spans=(),
    losses={},
)


def with_champion(build: Build, pending: int = 0, **fields: Any) -> Any:  # noqa: ANN401 - a pipeline
    """Make a pipeline whose champion is its base, promoted at noon."""
    return build.pipeline(pending, champion=build.model(), base=build.model(), **fields)


@pytest.mark.parametrize(("increments", "verdict"), [(7, "waiting"), (8, "due"), (9, "due")])
def test_increments_make_a_retrain_due(build: Build, increments: int, verdict: str) -> None:
    """A retrain is due after so many promoted increments; it starts from the base and replays what the past is."""
    decision = PeriodicRetraining(after_increments=8).decide(
        with_champion(build, increments=increments), build.record()
    )
    assert decision is not None
    assert decision.verdict == verdict
    assert decision.inputs["increments"] == increments
    if verdict == "due":
        (command,) = decision.commands
        assert isinstance(command, StartRun)
        assert (command.intent.kind, command.intent.start) == ("retrain", "base")


@pytest.mark.parametrize("start", ["scratch", "base", "champion"])
def test_where_it_starts_is_configured(build: Build, start: str) -> None:
    """`from` names scratch, the base or the champion."""
    policy = PeriodicRetraining.model_validate({"from": start, "after_increments": 1})
    decision = policy.opinion(with_champion(build, increments=1), build.record())
    assert decision is not None
    assert isinstance(decision.commands[0], StartRun)
    assert decision.commands[0].intent.start == start


def test_without_a_first_model_there_is_nothing_to_say(build: Build) -> None:
    """Before the first promotion there is no opinion, whoever asks."""
    policy = PeriodicRetraining(after_increments=1)
    assert policy.opinion(build.pipeline(10), build.record()) is None
    assert policy.decide(build.pipeline(10), build.record(ASKED)) is None


def test_the_interval_is_a_wake_up(build: Build) -> None:
    """The policy asks to be woken a week after the base was promoted, and a retrain is due then."""
    policy = PeriodicRetraining(every=timedelta(days=7))
    waiting = policy.opinion(with_champion(build), build.record(at=build.after(days=6)))
    assert waiting is not None
    assert (waiting.verdict, waiting.wakes) == ("waiting", {"interval": build.after(days=7)})
    fired = TimerFired(policy=NAME, key="interval", due=build.after(days=7))
    for late in (0, 30):  # a daemon that was down fires it when it is back
        due = policy.decide(with_champion(build), build.record(fired, build.after(days=7 + late)))
        assert due is not None
        assert due.verdict == "due"


def test_the_interval_counts_from_the_last_retrain(build: Build) -> None:
    """The promotion of a retrain sets the next wake-up, although the base stays what it was; an increment does not."""
    policy = PeriodicRetraining(every=timedelta(days=7))
    at = build.after(days=7, hours=5)
    promoted = build.model(2, promoted_at=at)
    for kind, full_at in (("retrain", None), ("increment", build.noon)):
        run = build.run("promote", NAME, plan=build.plan(kind=kind), promoted=True)
        state = build.pipeline(champion=replace(promoted, full_at=full_at), base=build.model(), active=run)
        decision = policy.decide(state, build.record(PROMOTED, at))
        assert decision is not None
        if kind == "retrain":
            assert (decision.verdict, decision.wakes) == ("waiting", {"interval": at + timedelta(days=7)})
            assert decision.inputs["seconds"] == 0.0
        else:
            assert (decision.verdict, decision.inputs["seconds"]) == ("due", timedelta(days=7, hours=5).total_seconds())
    timers = {f"{NAME}:interval": at + timedelta(days=7)}
    later = build.pipeline(champion=promoted, base=build.model(), timers=timers)
    decision = policy.decide(later, build.record(at=build.after(days=8)))
    assert decision is not None
    assert (decision.verdict, decision.wakes) == ("waiting", {"interval": at + timedelta(days=7)})


def test_a_shorter_interval_acts_at_once(build: Build) -> None:
    """A pending wake-up further away than the interval is brought forward."""
    state = with_champion(build, timers={f"{NAME}:interval": build.after(days=30)})
    decision = PeriodicRetraining(every=timedelta(days=2)).opinion(state, build.record(at=build.after(days=1)))
    assert decision is not None
    assert decision.wakes == {"interval": build.after(days=3)}


def test_an_operator_can_ask(build: Build) -> None:
    """A request makes a retrain due without any number, also when the last run over this data failed."""
    policy = PeriodicRetraining(after_increments=8)
    for failed_upto in (0, 200):
        decision = policy.decide(with_champion(build, failed_upto=failed_upto), build.record(ASKED))
        assert decision is not None
        assert decision.verdict == "due"
        assert "operator" in decision.reason


def tick(build: Build, hours: float = 0, policy: str = NAME) -> Any:  # noqa: ANN401 - a record
    """Make the record of a tick, told so many hours late."""
    settings = ScheduleSettings(cron="0 12 * * sun", timezone="Europe/Berlin")
    event = ScheduleFired(
        policy=policy,
        specification=settings.specification,
        scheduled_for=build.noon,
        cron=settings.cron,
        timezone=settings.timezone,
    )
    return build.record(event, build.after(hours=hours))


@pytest.mark.parametrize("hours", [0, 30])
def test_a_tick_makes_a_retrain_due(build: Build, hours: float) -> None:
    """Each tick of its own calendar is an occasion, however late it is told; another policy's tick is none."""
    policy = PeriodicRetraining(cron="0 12 * * sun", timezone="Europe/Berlin", after_increments=8)
    decision = policy.decide(with_champion(build, increments=3), tick(build, hours))
    assert decision is not None
    assert decision.verdict == "due"
    assert decision.reason == "The schedule '0 12 * * sun' fired for 2026-03-01T12:00:00+00:00."
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    assert command.intent.kind == "retrain"
    assert policy.decide(with_champion(build, increments=3), tick(build, hours, "nightly")) is None


def test_the_calendar_is_what_the_clock_is_told(build: Build) -> None:
    """`ticks` is what was configured; without `cron` there is none."""
    assert PeriodicRetraining(after_increments=8).ticks is None
    policy = PeriodicRetraining(cron="0 3 * * sun", timezone="Europe/Berlin", catch_up="all")
    assert policy.ticks == ScheduleSettings(cron="0 3 * * sun", timezone="Europe/Berlin", catch_up="all")
    assert PeriodicRetraining(cron="0 3 * * sun").ticks == ScheduleSettings(cron="0 3 * * sun", catch_up="last")


def test_a_tick_before_the_first_model_says_so(build: Build) -> None:
    """There is nothing to train again yet: a verdict tells it, and no run is wished for."""
    decision = PeriodicRetraining(cron="0 12 * * sun").decide(build.pipeline(10), tick(build))
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("no_model", ())


@pytest.mark.parametrize("place", ["active", "yielded", "held"])
def test_a_tick_while_its_own_retrain_lives(build: Build, place: str) -> None:
    """It is answered `running`, and makes no second one due; while another policy's run goes on it makes one due."""
    policy = PeriodicRetraining(cron="0 12 * * sun")
    run = build.run("train", NAME, plan=build.plan(kind="retrain"))
    decision = policy.decide(with_champion(build, **{place: run}), tick(build))
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("running", ())
    other = policy.decide(with_champion(build, **{place: build.run("train")}), tick(build))
    assert other is not None
    assert other.verdict == "due"


def test_a_tick_over_data_that_failed_passes(build: Build) -> None:
    """Where the last run over this data ended without a model the tick starts nothing, nor takes a wish back."""
    policy = PeriodicRetraining(cron="0 12 * * sun")
    wish = Wish(policy=NAME, command="1/p/x/0", since=50, since_at=build.noon)
    for wishes in ({}, {NAME: wish}):
        decision = policy.decide(with_champion(build, failed_upto=90, wishes=wishes), tick(build))
        assert decision is not None
        assert (decision.verdict, decision.commands) == ("blocked", ())
    more = policy.decide(with_champion(build, pending=10, failed_upto=90), tick(build))
    assert more is not None
    assert more.verdict == "due"


def test_a_tick_after_a_refused_retrain_is_a_new_occasion(build: Build) -> None:
    """The number waits for another increment; the calendar does not."""
    policy = PeriodicRetraining(cron="0 12 * * sun", after_increments=8)
    refused = with_champion(build, pending=10, increments=8, retrained=95)
    by_number, by_tick = policy.opinion(refused, build.record()), policy.decide(refused, tick(build))
    assert by_number is not None
    assert by_tick is not None
    assert (by_number.verdict, by_tick.verdict) == ("judged", "due")


def test_a_wish_of_a_tick_waits_until_there_was_a_retrain(build: Build) -> None:
    """What comes meanwhile does not take it back: not arrivals, not increments; a retrain that was promoted does."""
    policy = PeriodicRetraining(cron="0 12 * * sun", after_increments=8)
    wish = Wish(policy=NAME, command="1/p/x/0", since=50, since_at=build.noon)
    for retrained, commands in ((10, ()), (60, (WithdrawWish(),))):
        state = build.pipeline(10, champion=build.model(9), base=build.model(), increments=3, wishes={NAME: wish})
        state = replace(state, retrained=retrained)
        decision = policy.decide(state, build.record(at=build.after(hours=1)))
        assert decision is not None
        assert (decision.verdict, decision.commands) == ("waiting", commands)


def test_occasions_stand_beside_each_other(build: Build) -> None:
    """With a calendar the number and the interval act as ever, and a tick leaves the pending wake-up as it is."""
    policy = PeriodicRetraining(cron="0 12 * * sun", after_increments=8, every=timedelta(days=30))
    by_number = policy.decide(with_champion(build, increments=8), build.record())
    fired = TimerFired(policy=NAME, key="interval", due=build.after(days=30))
    by_time = policy.decide(with_champion(build), build.record(fired, build.after(days=30)))
    waiting = policy.decide(with_champion(build), build.record(at=build.after(days=1)))
    for decision, verdict in ((by_number, "due"), (by_time, "due"), (waiting, "waiting")):
        assert decision is not None
        assert decision.verdict == verdict
    assert waiting is not None
    assert waiting.wakes == {"interval": build.after(days=30)}
    timers = {f"{NAME}:interval": build.after(days=30)}
    ticked = policy.decide(with_champion(build, timers=timers), tick(build))
    assert ticked is not None
    assert (ticked.verdict, ticked.wakes) == ("due", {})


def test_a_wish_that_was_asked_for_is_kept(build: Build) -> None:
    """A wish younger than the last full training stands although no number asks for it; an older one goes."""
    policy = PeriodicRetraining(after_increments=8)
    for since, commands in ((50, ()), (5, (WithdrawWish(),))):
        wish = Wish(policy=NAME, command="1/p/x/0", since=since, since_at=build.noon)
        decision = policy.decide(with_champion(build, wishes={NAME: wish}, retrained=10), build.record())
        assert decision is not None
        assert (decision.verdict, decision.commands) == ("waiting", commands)


def test_a_failed_run_blocks_until_there_is_more(build: Build) -> None:
    """After a run that ended without a model the number alone starts nothing; its wish is taken back."""
    policy = PeriodicRetraining(after_increments=8)
    wish = Wish(policy=NAME, command="1/p/x/0", since=50, since_at=build.noon)
    failed = with_champion(build, increments=9, failed_upto=90, wishes={NAME: wish})
    decision = policy.decide(failed, build.record())
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("blocked", (WithdrawWish(),))
    more = with_champion(build, pending=10, increments=9, failed_upto=90)
    unblocked = policy.decide(more, build.record())
    assert unblocked is not None
    assert unblocked.verdict == "due"


@pytest.mark.parametrize("place", ["active", "yielded", "held"])
def test_while_its_run_lives_no_other_is_wished_for(build: Build, place: str) -> None:
    """The number that made a retrain due makes no second one due beside it; a request does."""
    policy = PeriodicRetraining(after_increments=8)
    run = build.run("train", NAME, plan=build.plan(kind="retrain"))
    state = with_champion(build, pending=10, increments=9, **{place: run})
    decision = policy.decide(state, build.record())
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("running", ())
    asked = policy.decide(state, build.record(ASKED))
    assert asked is not None
    assert asked.verdict == "due"


def test_a_refused_retrain_is_not_repeated_at_once(build: Build) -> None:
    """Once its candidate is judged and not promoted, it waits for another increment, or for the interval."""
    policy = PeriodicRetraining(after_increments=8, every=timedelta(days=7))
    run = build.run("evaluate", NAME, plan=build.plan(kind="retrain"), done=True)
    told = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)
    judged = policy.decide(with_champion(build, increments=8, active=run), build.record(told, build.after(days=1)))
    assert judged is not None
    assert (judged.verdict, judged.wakes) == ("judged", {"interval": build.after(days=8)})

    verdicts = {NAME: Verdict(verdict="judged", position=95)}
    timers = {f"{NAME}:interval": build.after(days=8)}
    refused = with_champion(build, pending=10, increments=8, verdicts=verdicts, timers=timers, retrained=95)
    still = policy.opinion(refused, build.record(at=build.after(days=2)))
    assert still is not None
    assert (still.verdict, still.commands) == ("judged", ())
    assert policy.decide(refused, build.record(at=build.after(days=2))) is None, "it is said already"

    blocked = replace(refused, verdicts={NAME: Verdict(verdict="blocked", position=97)})
    failed_since = policy.opinion(blocked, build.record(at=build.after(days=2)))
    assert failed_since is not None
    assert failed_since.verdict == "judged", "whatever it has said since then"

    another = replace(refused, champion=build.model(11), increments=9)
    again = policy.decide(another, build.record(at=build.after(days=3)))
    assert again is not None
    assert again.verdict == "due"

    fired = TimerFired(policy=NAME, key="interval", due=build.after(days=8))
    over = with_champion(build, increments=8, verdicts=verdicts, retrained=95)
    by_guard = policy.decide(over, build.record(TimerFired(policy=NAME, key="guard", due=build.after(days=2))))
    assert by_guard is None, "quiet hours that begin are no occasion"
    by_time = policy.decide(over, build.record(fired, build.after(days=8)))
    assert by_time is not None
    assert by_time.verdict == "due"


def test_facts_that_do_not_concern_it(build: Build) -> None:
    """A stage of another policy's run, and another stage of its own, bring no decision."""
    policy = PeriodicRetraining(after_increments=1)
    told = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)
    other = with_champion(build, increments=1, active=build.run("evaluate", done=True))
    assert policy.decide(other, build.record(told)) is None
    assert policy.decide(with_champion(build, increments=1), build.record(told)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"every": 0.5},
        {"every": -1},
        {"after_increments": 0},
        {"from": "nowhere"},
        {"cron": 5},
        {"cron": "* " * 200},
        {"cron": "0 3 * * sun", "catch_up": "some"},
        {"timezone": "Europe/Berlin"},
        {"catch_up": "all", "after_increments": 8},
    ],
)
def test_configurations_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    """Intervals below a second, no increments at all, what a calendar lacks, and how to read one that is not there."""
    with pytest.raises(ValueError, match="validation error"):
        PeriodicRetraining.model_validate(fields)


def test_arrivals_are_facts_it_considers(build: Build) -> None:
    """An arrival brings an opinion, with the numbers, as `plan` shows it."""
    state = with_champion(build, pending=10, increments=3)
    arrived = build.record(DataArrived(uri="b", domain="code", tokens=1))
    decision = PeriodicRetraining(after_increments=8).decide(state, arrived)
    assert decision is not None
    assert decision == PeriodicRetraining(after_increments=8).opinion(state, arrived)
    assert decision.thresholds == {"increments": 8, "seconds": None}
