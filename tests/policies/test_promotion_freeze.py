"""The freeze: a good candidate is held, and taken up by itself when it ends."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import HoldRun, ResumeRun, RunStage, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataArrived,
    OperatorRequested,
    StageSucceeded,
    TimerFired,
    Verb,
)
from daemon.core.state import Pipeline, Wish
from policies.promotion import Promotion

Build = Any
EVALUATED = StageSucceeded(run="p-90", stage="evaluate", attempt=1, seconds=1.0)
CHANGED = ConfigurationChanged(hash="0", slots=1, pipelines={})


def windows(build: Build, *hours: tuple[float, float], **fields: object) -> Promotion:
    """Make a gate with frozen windows, each from and until so many hours after noon."""
    frozen = [
        {"from": build.after(hours=begins), "until": build.after(hours=ends), "reason": "the fair"}
        for begins, ends in hours
    ]
    return Promotion.model_validate({"freeze": frozen, **fields})


def requested(verb: Verb) -> OperatorRequested:
    """Make a request."""
    return OperatorRequested(verb=verb, by="ada")


def ended(build: Build) -> TimerFired:
    """Make the wake-up at a window's end."""
    return TimerFired(policy="promotion", key="freeze", due=build.noon)


def judge(build: Build, policy: Promotion, difference: float = -0.1, frozen: str | None = None, **run: Any) -> Decision:  # noqa: ANN401 - its fields
    """Judge an increment on code after prose."""
    made = build.run("evaluate", done=True, evaluation={"code": build.comparison(difference)}, **run)
    state = build.pipeline(active=made, champion=build.model(), frozen=frozen)
    decision = policy.decide(state, build.record(EVALUATED))
    assert decision is not None
    return decision


def holding(build: Build, difference: Any = -0.1, frozen: str | None = None, **fields: Any) -> Pipeline:  # noqa: ANN401 - its fields
    """Make a pipeline that holds a candidate."""
    told = difference if isinstance(difference, tuple) else (difference,)
    held = build.run("evaluate", done=True, held=True, evaluation={"code": build.comparison(*told)})
    return build.pipeline(held=held, champion=build.model(), frozen=frozen, **fields)  # type: ignore[no-any-return]


def test_a_good_candidate_is_held_while_somebody_has_frozen_it(build: Build) -> None:
    """It says by whom; nothing has to wake it, for the thaw is a fact."""
    decision = judge(build, Promotion(), frozen="ada: the fair")
    assert (decision.verdict, decision.commands, decision.wakes) == ("hold", (HoldRun(run="p-90"),), {})
    assert "frozen by ada: the fair" in decision.reason
    assert decision.inputs["gain"] == 0.1


@pytest.mark.parametrize(
    ("begins", "ends", "verdict"),
    [(-1, 1, "hold"), (0, 1, "hold"), (1, 2, "promote"), (-1, 0, "promote")],
    ids=["within", "at its first instant", "before", "at its end"],
)
def test_a_window(build: Build, begins: float, ends: float, verdict: str) -> None:
    """A window holds from its first instant until the one after its last, and asks to be woken then."""
    decision = judge(build, windows(build, (begins, ends)))
    assert decision.verdict == verdict
    if verdict == "hold":
        assert "frozen until 2026-03-01 13:00 UTC (the fair)" in decision.reason
        assert decision.wakes == {"freeze": build.after(hours=1)}


@pytest.mark.parametrize("spans", [((-1, 1), (1, 3)), ((0.5, 3), (-1, 1)), ((-2, 0.1), (-1, 3), (4, 5))])
def test_windows_that_touch_are_one(build: Build, spans: tuple[tuple[float, float], ...]) -> None:
    """It is woken once, at the end of the last; their order does not matter."""
    assert judge(build, windows(build, *spans)).wakes == {"freeze": build.after(hours=3)}


def test_zones_are_told_in_utc(build: Build) -> None:
    """A window may be given in any zone."""
    window = {"from": "2026-03-01T12:30:00+01:00", "until": "2026-03-01T14:30:00+01:00"}
    decision = judge(build, Promotion.model_validate({"freeze": [window]}))
    assert "frozen until 2026-03-01 13:30 UTC." in decision.reason
    assert decision.wakes == {"freeze": build.after(hours=1.5)}


def test_a_bad_candidate_is_refused_all_the_same(build: Build) -> None:
    """A freeze holds what would go live; what would not is not kept for later."""
    assert judge(build, windows(build, (-1, 1)), difference=0.1, frozen="ada").verdict == "reject"


def test_what_a_person_lets_through_goes_through(build: Build) -> None:
    """A freeze is against what goes live by itself: who approves or forces now, means now."""
    policy = windows(build, (-1, 1))
    for let in ({"approved": True}, {"forced": True}):
        decision = judge(build, policy, frozen="ada", held=True, **let)
        assert (decision.verdict, len(decision.commands)) == ("promote", 1)
        assert isinstance(decision.commands[0], RunStage)


def test_the_first_model_is_held_too(build: Build) -> None:
    """Nothing goes live while it is frozen, a first model as little as another."""
    made = build.run("evaluate", done=True, evaluation={"code": build.comparison(-0.1)})
    decision = Promotion().decide(build.pipeline(active=made, frozen="ada"), build.record(EVALUATED))
    assert decision is not None
    assert decision.verdict == "hold"


@pytest.mark.parametrize("how", ["thaw", "timer", "configuration"])
def test_the_end_of_a_freeze_takes_the_candidate_up(build: Build, how: str) -> None:
    """At the thaw, at the window's end, or when the window is taken out of the configuration; nothing is forced."""
    events: dict[str, AnyEvent] = {"thaw": requested("thaw"), "timer": ended(build), "configuration": CHANGED}
    state = holding(build, timers={"promotion:freeze": build.after(hours=9)})
    decision = Promotion().decide(state, build.record(events[how]))
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("thawed", (ResumeRun(run="p-90"),))
    assert "p-90 is taken up again" in decision.reason


@pytest.mark.parametrize(
    ("difference", "approval"),
    [((-0.1, -0.2, 0.1), "undecided"), (-0.1, "always"), (0.1, "auto")],
    ids=["undecided", "every one needs a person", "bad by now"],
)
def test_a_candidate_that_waits_for_a_person_goes_on_waiting(build: Build, difference: Any, approval: Any) -> None:  # noqa: ANN401 - numbers
    """Only what was held for the freeze alone is taken up."""
    for event in (requested("thaw"), ended(build)):
        assert Promotion(approval=approval).decide(holding(build, difference), build.record(event)) is None


def test_nothing_is_held_nothing_happens(build: Build) -> None:
    """A thaw without a candidate brings nothing."""
    for event in (requested("thaw"), requested("freeze"), ended(build), CHANGED):
        assert Promotion().decide(build.pipeline(champion=build.model()), build.record(event)) is None


def test_another_configuration_alone_takes_nothing_up(build: Build) -> None:
    """Without a window that it waits for, a held candidate waits for a person or for a thaw."""
    assert Promotion().decide(holding(build), build.record(CHANGED)) is None


def test_two_freezes_end_with_the_later(build: Build) -> None:
    """A thaw within a window waits for its end; a window's end while somebody has frozen it waits for the thaw."""
    policy = windows(build, (-1, 1))
    waits = policy.decide(holding(build), build.record(requested("thaw")))
    assert waits is not None
    assert (waits.verdict, waits.commands, waits.wakes) == ("hold", (), {"freeze": build.after(hours=1)})
    assert Promotion().decide(holding(build, frozen="ada"), build.record(ended(build))) is None


def test_a_freeze_that_comes_before_the_slot_takes_the_wish_back(build: Build) -> None:
    """What was thawed and has not begun yet is held again: by the verb, or by a window, for which it is woken."""
    wish = Wish(policy="promotion", command="1/p/promotion/0", since=1, since_at=build.noon, resume="p-90")
    state = holding(build, frozen="ada", wishes={"promotion:resume": wish})
    decision = Promotion().decide(state, build.record(requested("freeze")))
    assert decision is not None
    assert (decision.verdict, decision.commands) == ("hold", (WithdrawWish(wish="promotion:resume"),))

    policy = windows(build, (1, 2))
    thawed = policy.decide(holding(build), build.record(requested("thaw")))
    assert thawed is not None
    assert thawed.wakes == {"freeze": build.after(hours=1)}
    again = policy.decide(replace(state, frozen=None), build.record(ended(build), at=build.after(hours=1)))
    assert again is not None
    assert (again.verdict, again.wakes) == ("hold", {"freeze": build.after(hours=2)})
    assert again.commands == (WithdrawWish(wish="promotion:resume"),)
    assert Promotion().decide(replace(state, frozen=None), build.record(ended(build))) is None  # it waits for its slot


def test_its_opinion_tells_of_the_freeze(build: Build) -> None:
    """`explain` shows until when it is frozen and what waits."""
    record = build.record(TimerFired(policy="", key="", due=build.noon))
    told = windows(build, (-1, 1)).opinion(holding(build), record)
    assert told is not None
    assert told.verdict == "frozen"
    assert told.reason == (
        "Nothing goes live by itself while it is frozen until 2026-03-01 13:00 UTC (the fair): "
        "the candidate of p-90 waits for its end."
    )
    assert told.wakes == {"freeze": build.after(hours=1)}
    assert windows(build, (1, 2)).opinion(holding(build), record) is None


def test_other_facts_bring_nothing(build: Build) -> None:
    """New data, another policy's wake-up, another verb."""
    others: list[AnyEvent] = [
        DataArrived(uri="a", domain="code"),
        TimerFired(policy="other", key="freeze", due=build.noon),
        TimerFired(policy="promotion", key="other", due=build.noon),
        requested("pause"),
    ]
    for event in others:
        assert Promotion().decide(holding(build), build.record(event)) is None


@pytest.mark.parametrize(
    "window",
    [
        {"from": "2026-03-02T00:00:00Z", "until": "2026-03-01T00:00:00Z"},
        {"from": "2026-03-01T00:00:00Z", "until": "2026-03-01T00:00:00Z"},
        {"from": "2026-03-01T00:00:00", "until": "2026-03-02T00:00:00"},
        {"until": "2026-03-01T00:00:00Z"},
    ],
    ids=["backwards", "empty", "without a zone", "without an end"],
)
def test_impossible_windows_are_refused(window: dict[str, str]) -> None:
    """A window has a first instant, an end after it, and says in which zone."""
    with pytest.raises(ValueError, match="freeze"):
        Promotion.model_validate({"freeze": [window]})


def test_a_window_begins_by_itself(build: Build) -> None:
    """Time alone freezes: no fact says so."""
    policy = windows(build, (1, 2))
    made = build.run("evaluate", done=True, evaluation={"code": build.comparison(-0.1)})
    state = build.pipeline(active=made, champion=build.model())

    def at(instant: datetime) -> str:
        decision = policy.decide(state, build.record(EVALUATED, at=instant))
        assert decision is not None
        return decision.verdict

    begins = build.after(hours=1)
    assert [at(begins - timedelta(microseconds=1)), at(begins), at(build.after(hours=2))] == [
        "promote",
        "hold",
        "promote",
    ]
