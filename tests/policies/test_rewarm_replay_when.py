"""When an increment is due by triggers, and when because a person asks for it."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import StartRun
from daemon.core.decisions import Decision
from daemon.core.events import DriftDetected, OperatorRequested
from daemon.core.ledger import Reading
from daemon.core.plans import Intent
from daemon.core.state import Verdict, Wish
from policies.rewarm_replay import RewarmReplay

Build = Any
TRAIN = OperatorRequested(verb="train", by="ann")
DRIFTING = {"any": [{"tokens": 2000}, {"signal": "shift", "above": 0.1}]}
LOOKING = {"when": DRIFTING, "look": {"tokens": 200}}


def made(**fields: object) -> RewarmReplay:
    """Return the policy that stands so in a file."""
    return RewarmReplay.model_validate(fields)


def begun(decision: Decision | None) -> Intent | None:
    """Return what a decision wishes to start."""
    assert decision is not None
    return next((command.intent for command in decision.commands if isinstance(command, StartRun)), None)


@pytest.mark.parametrize(
    ("when", "hours", "tokens", "verdict", "wakes"),
    [
        ({"tokens": 10}, 0, 9, "waiting", None),
        ({"tokens": 10}, 0, 10, "due", None),
        ({"all": [{"tokens": 5}, {"silence": "PT2H"}]}, 1, 9, "waiting", 2),
        ({"all": [{"tokens": 5}, {"silence": "PT2H"}]}, 2, 9, "due", None),
        ({"all": [{"tokens": 10}, {"silence": "PT2H"}]}, 1, 9, "waiting", None),
        ({"any": [{"tokens": 10}, {"age": "PT6H"}]}, 1, 9, "waiting", 6),
        ({"any": [{"tokens": 10}, {"age": "PT6H"}]}, 6, 9, "due", None),
        ({"age": "PT1H", "of": "champion"}, 2, 0, "waiting", None),
        ({"age": "PT1H", "of": "champion"}, 2, 1, "due", None),
        ({"signal": "detected.psi", "above": 0.2}, 0, 1, "waiting", None),
    ],
)
def test_when(build: Build, when: object, hours: int, tokens: int, verdict: str, wakes: int | None) -> None:
    """An increment is due when the trigger holds of what waits; it is asked again when time alone will do."""
    decision = made(when=when).opinion(build.ready(tokens), build.record(at=build.after(hours=hours)))
    assert decision.verdict == verdict
    assert decision.wakes == ({} if wakes is None else {"when": build.after(hours=wakes)})
    assert bool(decision.commands) == (verdict == "due")


def test_a_report_is_weighed_where_a_signal_is_looked_at(build: Build) -> None:
    """Drift that a monitor detects makes what waits due at once; whoever looks at no signal is not asked."""
    reading = Reading(value=0.3, at=build.noon, position=100, version=1)
    state = build.ready(5, signals={"detected.psi": (reading,)})
    told = DriftDetected(metric="psi", value=0.3)
    decision = made(when={"signal": "detected.psi", "above": 0.2}).decide(state, build.record(told))
    assert decision is not None
    assert (decision.verdict, decision.inputs["detected.psi"], decision.thresholds["detected.psi"]) == ("due", 0.3, 0.2)
    assert decision.reason == "Detected.psi of 0.3 lies above 0.2: an increment is due."
    assert RewarmReplay(after_tokens=1).decide(state, build.record(told)) is None


@pytest.mark.parametrize(
    ("fields", "tokens", "verdict"),
    [
        ({"when": {"signal": "label.f1", "below": 0.5}}, 1, "due"),
        ({"when": {"regret": 1}}, 1, "due"),
        ({"when": {"signal": "shift", "above": 1}, "look": {"tokens": 200}}, 199, "waiting"),
        ({"when": {"signal": "shift", "above": 1}, "look": {"tokens": 200}}, 200, "due"),
        (LOOKING, 200, "waiting"),
        (LOOKING, 1999, "waiting"),
        (LOOKING, 2000, "due"),
        ({"when": {"all": [{"tokens": 10}, {"increments": 1}]}}, 9, "waiting"),
        ({"when": {"all": [{"tokens": 10}, {"increments": 1}]}}, 10, "due"),
        ({"when": {"signal": "label.f1", "below": 0.5}}, 0, "waiting"),
    ],
)
def test_the_first_data(build: Build, fields: dict[str, object], tokens: int, verdict: str) -> None:
    """What cannot be told without a champion does not count; where nothing else is there, `look`, or any data."""
    decision = made(**fields).opinion(build.pipeline(tokens), build.record())
    assert decision.verdict == verdict
    intent = begun(decision)
    assert (intent is not None and (intent.kind, intent.look)) == (("base", False) if verdict == "due" else False)


@pytest.mark.parametrize("verdict", ["due", "waiting", "blocked"])
def test_train_is_an_increment_at_once(build: Build, verdict: str) -> None:
    """Whatever the numbers say: an increment on what waits; the first time, a base training."""
    failed = {"failed_upto": 999} if verdict == "blocked" else {}
    policy = made(when={"tokens": 5 if verdict == "due" else 5000})
    for champion, kind in ((build.model(), "increment"), (None, "base")):
        decision = policy.decide(build.ready(50, champion=champion, **failed), build.record(TRAIN))
        intent = begun(decision)
        assert intent is not None
        assert decision is not None
        assert (decision.verdict, intent.kind, intent.look, intent.asked) == ("due", kind, False, True)
        assert decision.reason.startswith("ann asked for")


def test_train_with_nothing_to_train_on(build: Build) -> None:
    """The person is told so; what a run has taken is not there either."""
    for state in (build.ready(), build.ready(500, active=build.run())):
        decision = RewarmReplay().decide(state, build.record(TRAIN))
        assert decision is not None
        assert (decision.verdict, decision.commands) == ("nothing_pending", ())


def test_what_was_asked_for_stands_until_it_begins(build: Build) -> None:
    """Later facts neither take the wish back nor make it one of the numbers; once it has begun, numbers count again."""
    policy = made(when={"tokens": 5000})
    asked = policy.decide(build.ready(50), build.record(TRAIN))
    wish = Wish(policy="rewarm_replay", command="1/p/x/0", since=5, since_at=build.noon, intent=begun(asked))
    known = {"verdicts": {"rewarm_replay": Verdict(verdict="due", position=5)}}
    waits = build.ready(50, wishes={"rewarm_replay": wish}, **known)
    assert policy.decide(waits, build.record()) is None
    assert policy.opinion(waits, build.record()).reason.startswith("A person asked for an increment")
    assert policy.opinion(replace(waits, wishes={}), build.record()).verdict == "waiting"


def test_silence_stores_no_wake_up_for_every_arrival(build: Build) -> None:
    """A wake-up that comes first asks anew; one that hardly comes later stays; one that comes much earlier is asked."""
    policy = made(when={"silence": "PT10H"})
    state = build.ready(5, verdicts={"rewarm_replay": Verdict(verdict="waiting", position=5)})
    for pending, expected in ((3.0, 3.0), (10.1, 10.1), (11.0, 10.0)):
        timers = {"rewarm_replay:when": build.after(hours=pending)}
        decision = policy.opinion(replace(state, timers=timers), build.record(at=build.after(hours=1)))
        assert decision.wakes == {"when": build.after(hours=expected)}
    overdue = replace(state, timers={"rewarm_replay:when": build.after(hours=1)})
    assert policy.opinion(overdue, build.record(at=build.after(hours=1))).wakes == {"when": build.after(hours=10)}


def test_the_short_form_means_any_of_the_two(build: Build) -> None:
    """`after_tokens` and `max_age` say the same as `when` with both."""
    short = RewarmReplay(after_tokens=100, max_age=timedelta(hours=6))
    long = made(when={"any": [{"tokens": 100}, {"age": "PT6H"}]})
    plain, voted = RewarmReplay(after_tokens=100), made(when={"any": [{"tokens": 100}]})
    for tokens, hours, failed in product((0, 99, 100), (0, 5, 6), (0, 999)):
        state, record = build.ready(tokens, failed_upto=failed), build.record(at=build.after(hours=hours))
        assert short.opinion(state, record) == long.opinion(state, record)
        assert plain.opinion(state, record) == voted.opinion(state, record)
    assert RewarmReplay().opinion(build.ready(5), build.record()).thresholds == {"tokens": 2_000_000}
