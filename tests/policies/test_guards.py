"""Each guard: what it keeps from starting, until when, and who goes past it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from daemon.core.commands import FixPlan, PostponeRun, PreemptRun, StartRun, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.events import OperatorRequested, StageStarted, TimerFired
from daemon.core.ledger import Cost, Spent
from daemon.core.plans import Claim
from daemon.core.state import Order, Pipeline, Verdict, Wish
from policies.guards import Guards
from policies.guards.asking import BUDGET, GUARD
from policies.guards.quiet import Window, instants
from policies.rewarm_replay import RewarmReplay

Build = Any
ME = "rewarm_replay"
TRAIN = OperatorRequested(verb="train", by="ann")
BERLIN = {"from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}


def guarded(**guards: Any) -> RewarmReplay:  # noqa: ANN401 - their fields
    """Make a policy that is due from one token on, behind guards."""
    return RewarmReplay.model_validate({"after_tokens": 1, "guards": guards})


def said(policy: RewarmReplay, state: Pipeline, record: Any) -> Decision:  # noqa: ANN401 - a record
    """Return what the policy decides; it has to say something."""
    decision = policy.decide(state, record)
    assert decision is not None
    assert decision.reason.endswith(".")
    return decision


def waiting(build: Build, **fields: Any) -> Pipeline:  # noqa: ANN401 - a pipeline's
    """Make a pipeline with a champion, where ten tokens wait since noon."""
    made: Pipeline = build.pipeline(10, champion=build.model(), last_arrival_at=build.noon, **fields)
    return made


def wish(build: Build, policy: RewarmReplay, state: Pipeline, **fields: Any) -> dict[str, Wish]:  # noqa: ANN401 - an intent's
    """Make the wish that the policy would have made without its guards."""
    open_to_all = policy.model_copy(update={"guards": Guards()})
    (command,) = said(open_to_all, state, build.record()).commands
    assert isinstance(command, StartRun)
    return {ME: Wish(policy=ME, command="c", since=1, since_at=build.noon, intent=replace(command.intent, **fields))}


@pytest.mark.parametrize(("hours", "verdict"), [(0, "cooling_down"), (5.5, "cooling_down"), (6, "due"), (7, "due")])
def test_a_cooldown_counts_from_the_last_start(build: Build, hours: float, verdict: str) -> None:
    """Within six hours of its last start it is due and does not start; the wake-up is at their end."""
    state = waiting(build, begun={ME: build.noon, "other": build.after(hours=hours)})
    decision = said(guarded(cooldown="PT6H"), state, build.record(at=build.after(hours=hours)))
    assert decision.verdict == verdict
    assert bool(decision.commands) == (verdict == "due")
    if verdict != "due":
        assert decision.wakes == {GUARD: build.after(hours=6)}
        assert decision.reason.startswith("10 new tokens wait: an increment is due. The last run of rewarm_replay")
        assert decision.inputs["since_start_seconds"] == hours * 3600
        assert decision.thresholds["since_start_seconds"] == 6 * 3600
        assert decision.inputs["tokens"] == 10


def test_a_look_is_no_start_but_nothing_starts_beside_it(build: Build) -> None:
    """While its own run looks, and may train, it asks for no second one; somebody else's look is none of it."""
    policy = guarded(cooldown="PT6H")
    run = build.run("probe", plan=build.plan(new={}))
    looking = replace(run, intent=replace(run.intent, look=True))
    assert said(policy, waiting(build, active=looking), build.record()).verdict == "cooling_down"
    other = replace(looking, policy="other")
    assert said(policy, waiting(build, active=other), build.record()).verdict == "due"


def test_a_standing_wish_is_taken_back_with_the_reason(build: Build) -> None:
    """A wish that became guarded is withdrawn by the decision that names the guard."""
    policy = guarded(cooldown="PT6H")
    state = waiting(build, begun={ME: build.noon})
    state = replace(state, wishes=wish(build, policy, state))
    decision = said(policy, state, build.record(at=build.after(hours=1)))
    assert (decision.verdict, decision.commands) == ("cooling_down", (WithdrawWish(),))


def test_a_guard_that_stands_is_not_stored_again(build: Build) -> None:
    """With its verdict standing and its wake-up pending nothing is said, whatever arrives, until something changes."""
    policy = guarded(cooldown="PT6H", debounce="PT10M")
    state = waiting(build, begun={ME: build.noon}, verdicts={ME: Verdict(verdict="cooling_down", position=3)})
    record = build.record(at=build.after(hours=1))
    assert policy.decide(state, record) is not None
    armed = replace(state, timers={f"{ME}:{GUARD}": build.after(hours=6)})
    assert policy.decide(armed, record) is None
    opinion = policy.opinion(armed, record)
    assert opinion.verdict == "cooling_down"
    noisy = replace(armed, begun={}, verdicts={ME: Verdict(verdict="debouncing", position=3)})
    noisy = replace(noisy, last_arrival_at=record.recorded_at, timers={f"{ME}:{GUARD}": build.after(minutes=61)})
    assert policy.decide(noisy, record) is None, "an arrival does not move the wake-up that is pending"


@pytest.mark.parametrize("verb", ["train", "retrain"])
def test_a_persons_request_goes_past_every_guard(build: Build, verb: Any) -> None:  # noqa: ANN401 - a verb
    """`train` starts whatever is configured; its wish is kept; `retrain` is another policy's."""
    policy = guarded(
        cooldown="PT6H",
        debounce="PT10M",
        approval=True,
        once={"key": "x", "within": "P1D"},
        budget={"per_day": 0.001},
        quiet=[{"from": "00:00", "to": "00:00"}],
    )
    state = waiting(build, begun={ME: build.noon}, spent=Spent(day="2026-03-01", day_seconds=1e6))
    decision = said(policy, state, build.record(OperatorRequested(verb=verb, by="ann")))
    if verb == "retrain":
        assert decision.commands == ()
        return
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    assert command.intent.asked
    assert command.intent.expires_at is None
    stays = replace(
        state, wishes={ME: Wish(policy=ME, command="c", since=1, since_at=build.noon, intent=command.intent)}
    )
    for at in (build.after(minutes=1), build.after(days=3)):
        later = policy.decide(stays, build.record(at=at))
        assert later is None or not any(isinstance(each, WithdrawWish) for each in later.commands)
        assert later is None or all(each.intent.asked for each in later.commands if isinstance(each, StartRun))


DAY = Spent(day="2026-03-01", day_seconds=3 * 3600.0, month="2026-03", month_seconds=9 * 3600.0)
COST = Cost().after(1_000_000, 3600.0)


@pytest.mark.parametrize(
    ("budget", "tokens", "verdict", "until"),
    [
        ({"per_day": 3}, 1, "over_budget", datetime(2026, 3, 2, tzinfo=UTC)),
        ({"per_day": 4}, 900_000, "due", None),
        ({"per_day": 4}, 1_100_000, "over_budget", datetime(2026, 3, 2, tzinfo=UTC)),
        ({"per_month": 9.5}, 900_000, "over_budget", datetime(2026, 4, 1, tzinfo=UTC)),
        ({"per_day": 3, "per_month": 9}, 1, "over_budget", datetime(2026, 4, 1, tzinfo=UTC)),
        ({"per_day": 10, "price": 2.5}, 900_000, "due", None),
        ({"per_day": 9, "price": 2.5}, 900_000, "over_budget", datetime(2026, 3, 2, tzinfo=UTC)),
    ],
)
def test_a_start_has_to_fit_into_the_budget(
    build: Build, budget: dict[str, float], tokens: int, verdict: str, until: datetime | None
) -> None:
    """What was spent and what the run is expected to take stay below the day's and the month's amount."""
    state = build.pipeline(tokens, spent=DAY, cost=COST, last_arrival_at=build.noon)
    decision = said(guarded(budget=budget), state, build.record())
    assert decision.verdict == verdict
    assert decision.wakes == ({GUARD: until} if until else {})


def test_a_cost_that_is_unknown_fits_while_anything_is_left(build: Build) -> None:
    """The first run is allowed with two seconds left, not with none; one beyond a whole day gets a whole day."""
    policy = guarded(budget={"per_day": 1})
    for seconds, verdict in ((3598.0, "due"), (3600.0, "over_budget")):
        state = build.pipeline(10, spent=Spent(day="2026-03-01", day_seconds=seconds))
        assert said(policy, state, build.record()).verdict == verdict
    for spent, verdict in ((Spent(), "due"), (Spent(day="2026-03-01", day_seconds=60.0), "over_budget")):
        state = build.pipeline(5_000_000, spent=spent, cost=COST)
        assert said(policy, state, build.record()).verdict == verdict


def at_work(build: Build, processes: int = 1, **fields: Any) -> Any:  # noqa: ANN401 - a run and its fields
    """Make a run that trains since noon."""
    plan = build.plan()
    plan = replace(plan, training=replace(plan.training, engine=replace(plan.training.engine, processes=processes)))
    order = Order(command="c", run="p-90", stage="train", attempt=1, resume=False, ordered_at=build.noon, started=True)
    return build.run("train", plan=plan, order=replace(order, started_at=build.noon), **fields)


STARTED = StageStarted(run="p-90", stage="train", attempt=1, command="c", host="h", pid=1)


def test_an_active_run_yields_when_the_budget_is_used_up(build: Build) -> None:
    """It asks to be woken when the rest is used, by all processes together, and goes on the next day."""
    policy = guarded(budget={"per_day": 5})
    state = build.pipeline(active=at_work(build, processes=4), spent=DAY)
    decision = said(policy, state, build.record(STARTED))
    assert (decision.verdict, decision.commands) == ("spending", ())
    assert decision.wakes == {BUDGET: build.after(minutes=30)}
    fired = TimerFired(policy=ME, key=BUDGET, due=build.after(minutes=30))
    decision = said(policy, state, build.record(fired, build.after(minutes=30)))
    tomorrow = datetime(2026, 3, 2, tzinfo=UTC)
    assert decision.verdict == "over_budget"
    assert decision.commands == (PreemptRun(run="p-90", until=tomorrow),)
    assert decision.wakes == {BUDGET: tomorrow}
    assert decision.inputs == {"used_per_day": 5.0} == decision.thresholds
    early = said(policy, state, build.record(fired, build.after(minutes=10)))
    assert early.wakes == {BUDGET: build.after(minutes=30)}


def test_midnight_gives_a_new_day(build: Build) -> None:
    """An attempt that runs into the next day is looked at again at midnight: what it used before counts no more."""
    policy = guarded(budget={"per_day": 20})
    state = build.pipeline(active=at_work(build), spent=DAY)
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert said(policy, state, build.record(STARTED)).wakes == {BUDGET: midnight}
    fired = TimerFired(policy=ME, key=BUDGET, due=midnight)
    assert said(policy, state, build.record(fired, midnight)).wakes == {BUDGET: midnight + timedelta(hours=20)}


def test_who_is_not_bound_by_the_budget(build: Build) -> None:
    """A run that a person asked for, somebody else's, one that stops, one whose candidate is being promoted."""
    policy = guarded(budget={"per_day": 1})
    run = at_work(build)
    free = [
        replace(run, intent=replace(run.intent, asked=True)),
        replace(run, policy="other"),
        replace(run, stop="cancel"),
        replace(run, promoted=True),
    ]
    for each in free:
        assert policy.spending(build.pipeline(active=each, spent=DAY), build.record(STARTED)) is None
    assert policy.spending(build.pipeline(active=run, spent=DAY), build.record(STARTED)) is not None


@pytest.mark.parametrize(
    ("days", "hours", "zone", "now", "until"),
    [
        ("mon-fri", ("08:00", "18:00"), "Europe/Berlin", "2026-03-02T07:00Z", "2026-03-02T17:00Z"),
        ("mon-fri", ("08:00", "18:00"), "Europe/Berlin", "2026-03-02T06:59Z", None),
        ("mon-fri", ("08:00", "18:00"), "Europe/Berlin", "2026-03-02T17:00Z", None),
        ("mon-fri", ("08:00", "18:00"), "Europe/Berlin", "2026-03-01T12:00Z", None),  # a Sunday
        ("mon-fri", ("08:00", "18:00"), "Europe/Berlin", "2026-03-30T06:00Z", "2026-03-30T16:00Z"),  # in summer
        ("fri", ("22:00", "06:00"), "UTC", "2026-03-07T05:59Z", "2026-03-07T06:00Z"),  # over midnight, into Saturday
        ("fri", ("22:00", "06:00"), "UTC", "2026-03-06T05:59Z", None),
        ("sat,sun", ("00:00", "00:00"), "UTC", "2026-03-07T12:00Z", "2026-03-09T00:00Z"),  # two days in a row
        ("fri-mon", ("09:00", "10:00"), "UTC", "2026-03-02T09:30Z", "2026-03-02T10:00Z"),
        ("sun", ("01:00", "02:30"), "Europe/Berlin", "2026-10-25T01:15Z", "2026-10-25T01:30Z"),  # 02:15 again
        ("sun", ("01:00", "02:30"), "Europe/Berlin", "2026-03-29T00:59Z", "2026-03-29T01:30Z"),  # no 02:30 that day
        ("fri", ("00:30", "05:00"), "Africa/Cairo", "2026-04-23T22:00Z", "2026-04-24T02:00Z"),  # it is 01:00
    ],
)
def test_quiet_hours(build: Build, days: str, hours: tuple[str, str], zone: str, now: str, until: str | None) -> None:
    """Nothing starts within a window of a zone's wall clock, over midnight and over changes of the clock."""
    window = {"days": days, "from": hours[0], "to": hours[1], "timezone": zone}
    at = datetime.fromisoformat(now)
    decision = said(guarded(quiet=[window]), waiting(build), build.record(at=at))
    if until is None:
        assert decision.verdict == "due"
    else:
        assert (decision.verdict, decision.commands) == ("quiet_hours", ())
        assert decision.wakes == {GUARD: datetime.fromisoformat(until)}


def test_what_waits_does_not_start_in_quiet_hours(build: Build) -> None:
    """A wish expires when they begin, and the policy is woken then, to ask for another when they end."""
    policy = guarded(quiet=[BERLIN])
    begins = datetime(2026, 3, 2, 7, tzinfo=UTC)
    decision = said(policy, waiting(build), build.record(at=datetime(2026, 3, 1, 20, tzinfo=UTC)))
    (command,) = decision.commands
    assert isinstance(command, StartRun)
    assert (decision.verdict, command.intent.expires_at, decision.wakes) == ("due", begins, {GUARD: begins})
    soon = policy.model_copy(update={"expires_after": timedelta(hours=1)})
    (command,) = said(soon, waiting(build), build.record(at=datetime(2026, 3, 1, 20, tzinfo=UTC))).commands
    assert isinstance(command, StartRun)
    assert command.intent.expires_at == datetime(2026, 3, 1, 21, tzinfo=UTC)


def test_every_instant_of_a_year_has_its_end_after_it() -> None:
    """Through both changes of the clock, whatever the window: an end lies after now, and a beginning too."""
    zones = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
    windows = [
        Window.model_validate({"from": begins, "to": ends, "timezone": zone})
        for zone in zones
        for begins, ends in (("02:10", "02:40"), ("22:00", "03:00"), ("01:30", "02:30"))
    ]
    for month, day in ((3, 7), (3, 28), (4, 4), (10, 3), (10, 24), (10, 31)):
        for minutes in range(0, 3 * 1440, 20):
            now = datetime(2026, month, day, tzinfo=UTC) + timedelta(minutes=minutes)
            for window in windows:
                end, begin = window.within(now), window.after(now)
                assert end is None or end > now
                assert begin is not None
                assert begin > now
                assert window.within(begin) is not None
    instants.cache_clear()


@pytest.mark.parametrize(
    ("silence", "oldest", "verdict"),
    [(9, 20, "debouncing"), (10, 20, "due"), (1, 60, "due"), (1, 59.9, "debouncing")],
)
def test_debounce_waits_for_silence_but_not_for_ever(build: Build, silence: float, oldest: float, verdict: str) -> None:
    """Ten minutes without an arrival, at most an hour since the oldest waits; what waits stays pending."""
    now = build.after(minutes=oldest)
    state = waiting(build)
    state = replace(state, last_arrival_at=now - timedelta(minutes=silence))
    decision = said(guarded(debounce="PT10M", debounce_at_most="PT1H"), state, build.record(at=now))
    assert decision.verdict == verdict
    if verdict == "debouncing":
        assert decision.wakes == {GUARD: min(now + timedelta(minutes=10 - silence), build.after(hours=1))}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("{champion}", "rewarm_replay: v1"),
        ("{kind} of {pipeline}", "rewarm_replay: increment of p"),
        ("{domains} {day} {week} {month} {base}", "rewarm_replay: code 2026-03-01 2026-W09 2026-03 none"),
        ("{{x}}", "rewarm_replay: {x}"),
    ],
)
def test_a_start_takes_its_key(build: Build, key: str, expected: str) -> None:
    """The key is filled in when it is due; the wish carries it."""
    (command,) = said(guarded(once={"key": key, "within": "P1D"}), waiting(build), build.record()).commands
    assert isinstance(command, StartRun)
    assert command.intent.claim == Claim(key=expected, seconds=86400.0)


def test_a_key_keeps_others_off_until_it_expires(build: Build) -> None:
    """The same key again is claimed; the champion's next version, and the key's end, let it start."""
    policy = guarded(once={"key": "{champion}", "within": "P1D", "scope": "pipeline"})
    state = waiting(build, claims={"v1": build.after(hours=9)})
    decision = said(policy, state, build.record())
    assert (decision.verdict, decision.wakes) == ("claimed", {GUARD: build.after(hours=9)})
    assert decision.inputs["key"] == "v1"
    assert said(policy, state, build.record(at=build.after(hours=9))).verdict == "due"
    assert said(policy, replace(state, champion=build.model(2)), build.record()).verdict == "due"


def test_a_start_waits_for_an_approval(build: Build) -> None:
    """It is due when a person names just that decision; an approved wish stays, whatever else is configured."""
    policy = guarded(approval=True)
    state = waiting(build)
    first = said(policy, state, build.record())
    assert (first.verdict, first.commands, first.wakes) == ("awaiting_approval", (), {})
    state = replace(state, verdicts={ME: Verdict(verdict="awaiting_approval", position=70)})
    assert policy.decide(state, build.record()) is None
    for position, verdict in ((69, "awaiting_approval"), (None, "awaiting_approval"), (70, "due")):
        asked = OperatorRequested(verb="approve", by="ann", decision=position)
        assert said(policy, state, build.record(asked)).verdict == verdict
    (command,) = said(policy, state, build.record(asked)).commands
    assert isinstance(command, StartRun)
    wishes = {ME: Wish(policy=ME, command="c", since=1, since_at=build.noon, intent=command.intent)}
    approved = replace(state, wishes=wishes, verdicts={ME: Verdict(verdict="due", position=71)})
    assert policy.decide(approved, build.record(at=build.after(days=1))) is None


def test_a_run_that_looked_is_postponed_where_a_guard_holds(build: Build) -> None:
    """Its plan is not fixed in quiet hours: it ends, and what it looked at stays pending; one that was asked trains."""
    policy = guarded(quiet=[{"from": "11:00", "to": "13:00"}])
    run = build.run("probe")
    run = replace(run, intent=replace(run.intent, look=True))
    fixed = Decision(verdict="planned", reason="Train.", commands=(FixPlan(run="p-90", plan=run.plan),))
    decision = policy.trains(waiting(build, active=run), build.record(), fixed)
    assert (decision.verdict, decision.commands) == ("quiet_hours", (PostponeRun(run="p-90"),))
    assert decision.wakes == {GUARD: build.after(hours=1)}
    past: tuple[Any, ...] = (
        (run, build.after(hours=1)),
        (replace(run, intent=replace(run.intent, asked=True)), build.noon),
        (replace(run, intent=replace(run.intent, look=False)), build.noon),
    )
    for each, now in past:
        assert policy.trains(waiting(build, active=each), build.record(at=now), fixed) is fixed


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        ({"once": {"key": "{champoin}", "within": "P1D"}}, "no placeholder {champoin}"),
        ({"once": {"key": "{}", "within": "P1D"}}, "no placeholder {}"),
        ({"once": {"key": "{day:x}", "within": "P1D"}}, "no placeholder {day}"),
        ({"once": {"key": "{day", "within": "P1D"}}, "placeholders in braces"),
        ({"budget": {}}, "per_day"),
        ({"budget": {"per_day": 0}}, "greater than 0"),
        ({"quiet": [{"from": "8:00", "to": "18:00"}]}, "08:00"),
        ({"quiet": [{"from": "08:00", "to": "24:00"}]}, "08:00"),
        ({"quiet": [{"from": "08:00", "to": 1080}]}, "in quotes"),  # what YAML makes of 18:00 without them
        ({"quiet": [{"days": "monday", "from": "08:00", "to": "18:00"}]}, "mon-fri"),
        ({"quiet": [{**BERLIN, "timezone": "Europe/Nowhere"}]}, "no time zone"),
        ({"quiet": [{**BERLIN, "timezone": "../etc"}]}, "no time zone"),
        ({"debounce_at_most": "PT1H"}, "give both"),
        ({"debounce": "PT2H", "debounce_at_most": "PT1H"}, "give both"),
        ({"cooldown": 0}, "greater than 0"),
        ({"cooldwn": "PT1H"}, "Extra inputs"),
    ],
)
def test_mistakes_are_refused(guards: dict[str, object], message: str) -> None:
    """What cannot be meant is a configuration error that says what can."""
    with pytest.raises(ValidationError, match=message.replace("{", r"\{").replace("}", r"\}")):
        guarded(**guards)


def test_without_guards_nothing_is_kept_back(build: Build) -> None:
    """A policy without guards starts as soon as it is due, and asks for no wake-up of a guard."""
    policy = RewarmReplay(after_tokens=1)
    assert said(policy, waiting(build, begun={ME: build.noon}), build.record()).wakes == {}
    assert said(policy, waiting(build), build.record(TRAIN)).wakes == {}
