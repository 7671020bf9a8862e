"""Policies in shadow: they decide and are recorded, and nothing that acts is any other for it."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.commands import CancelRun, StartRun
from daemon.core.decisions import Decision, Policy
from daemon.core.events import (
    AnyEvent,
    DataArrived,
    DataIngested,
    DecisionMade,
    Record,
    RunFailed,
    RunStarted,
    StageProgressed,
    TimerFired,
)
from daemon.core.plans import Claim, tokens
from daemon.core.shadows import view
from daemon.core.state import Pipeline, free_tokens, free_waited

if TYPE_CHECKING:
    from tests.daemon.core.conftest import MakeWorld, Parts, World


@dataclass(frozen=True)
class InShadow:
    """A policy that does not act."""

    policy: Policy
    shadow: bool = True

    @property
    def label(self) -> str:
        """Return its name."""
        return self.policy.label

    @property
    def version(self) -> int:
        """Return its version."""
        return self.policy.version

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return its answer."""
        return self.policy.decide(state, record)


def would(world: "World", policy: str = "shadow") -> list[DecisionMade]:
    """Return the starts that a policy in shadow would have made."""
    found = [d for d in world.decisions(policy=policy) if any(isinstance(c, StartRun) for c in d.commands)]
    assert all(each.shadow and each.suppressed_by == "shadow" for each in found)
    return found


def test_it_is_told_each_time_that_it_would_have_started(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What it would have taken is gone for it: it is due again when as much has come again, and nothing starts."""
    world = make_world(InShadow(parts.Starter("shadow")), parts.Gate())
    for _ in range(5):
        world.arrive(50)
    assert [each.inputs for each in would(world)] == [{}, {}]
    assert world.of().shadows["shadow"].starts == 2
    assert world.of().waiting == 250
    assert free_tokens(view(world.of(), "shadow", world.now)) == 50
    assert world.of().wishes == {}
    assert world.all(RunStarted) == []


def test_a_verdict_that_stands_is_stored_once(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """`waiting` in shadow costs no more records than outside of it."""
    world = make_world(InShadow(parts.Starter("shadow")))
    assert [(d.verdict, d.shadow, d.suppressed_by) for d in world.decisions(world.arrive(10))] == [
        ("waiting", True, None)
    ]
    assert world.arrive(10) == []


def test_beside_an_acting_policy_it_counts_what_no_one_took(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """What a run uses up leaves what the shadow took, and what comes afterwards is new to both."""
    world = make_world(InShadow(parts.Starter("shadow", after=150)), parts.Starter("acts", after=200), parts.Gate())
    world.arrive(150)
    world.arrive(60)  # the acting one starts: 210 tokens, of which the shadow took 150
    assert len(would(world)) == 1
    assert tokens(world.of().shadows["shadow"].taken) == 150
    world.arrive(40)
    world.finish_one()
    assert tokens(world.of().shadows["shadow"].taken) == 0
    assert free_tokens(view(world.of(), "shadow", world.now)) == 40
    world.arrive(110)
    assert len(would(world)) == 2


def test_a_shadow_start_during_a_run_keeps_what_the_run_does_not_use(
    make_world: "MakeWorld", parts: "type[Parts]"
) -> None:
    """It took all that was pending; of that the run's part goes, and the rest is still taken."""
    world = make_world(parts.Starter("acts"), InShadow(parts.Starter("shadow", after=50)), parts.Gate())
    world.arrive(100)
    world.arrive(70)
    assert tokens(world.of().shadows["shadow"].taken) == 170
    world.finish_one()
    assert tokens(world.of().shadows["shadow"].taken) == 70
    assert free_tokens(view(world.of(), "shadow", world.now)) == 0


def test_what_is_counted_anew_is_so_in_the_shadow_too(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """An estimate that ingest corrects does not leave tokens that nobody has."""
    world = make_world(InShadow(parts.Starter("shadow", after=100)), parts.Starter("acts", after=100), parts.Gate())
    world.arrive(100)
    arrival = world.of().last_arrival
    estimate = world.of().pending["prose"]
    exact = replace(estimate, tokens=700)
    names = world.names()
    world.fact(
        DataIngested(
            **names,
            arrival=arrival,
            domain="prose",
            estimate=estimate,
            amount=exact,
            duplicates=0,
            manifest="m",
            sha256="0" * 64,
        )
    )
    assert world.of().shadows["shadow"].taken == {"prose": exact}
    assert free_tokens(view(world.of(), "shadow", world.now)) == 0


def test_its_waiting_is_that_of_what_it_did_not_take(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Age and token-seconds begin with the first arrival after its start."""
    world = make_world(InShadow(parts.Starter("shadow", after=100)))
    world.arrive(100)
    world.arrive(10)
    first = world.now
    world.now += timedelta(seconds=9)
    world.arrive(10)
    seen = view(world.of(), "shadow", world.now)
    assert seen.waiting_since == first
    assert free_waited(seen, world.now) == 100.0
    assert world.of().waiting_since == first - timedelta(seconds=1)


def test_its_own_cooldown_and_claim_count(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The view knows when it would have begun, and which key it would have taken."""
    wanted = replace(parts.intent("base", "scratch"), claim=Claim(key="nightly", seconds=60))
    world = make_world(
        InShadow(
            parts.Scripted("shadow", lambda _, r: parts.starting(wanted) if isinstance(r.event, DataArrived) else None)
        )
    )
    world.arrive(10)
    seen = view(world.of(), "shadow", world.now)
    assert seen.begun == {"shadow": world.now}
    assert seen.claims == {"nightly": world.now + timedelta(seconds=60)}
    assert (world.of().begun, world.of().claims) == ({}, {})


def test_a_look_leaves_the_data(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """It would have looked: what it would have seen stays pending, and is looked at once."""
    look = replace(parts.intent("base", "scratch"), look=True)

    def decide(state: object, record: object) -> Decision | None:
        return parts.starting(look)

    world = make_world(InShadow(parts.Scripted("shadow", decide)))
    world.arrive(10)
    seen = view(world.of(), "shadow", world.now)
    assert (seen.looked, seen.looked_at, seen.waiting) == (world.of().pending, world.now, 10)
    assert (world.of().shadows["shadow"].starts, world.of().shadows["shadow"].looks) == (0, 1)


def test_wakes_come_back_in_shadow(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """After a start it is asked again, so that it can ask to be woken; the wake-up comes to it alone."""

    def decide(state: object, record: object) -> Decision | None:
        pending = getattr(state, "pending", {})
        if pending:
            return parts.starting(parts.intent("base", "scratch"))
        at = world.now + timedelta(minutes=1)
        return Decision(verdict="waiting", reason="It waits.", wakes={"interval": at})

    world = parts.World()
    world.configure({"p": (InShadow(parts.Scripted("shadow", decide)),)})
    world.arrive(10)
    assert [d.verdict for d in world.decisions(policy="shadow")] == ["waiting", "due", "waiting"]
    assert list(world.of().timers) == ["shadow:interval"]
    world.fire()
    assert len(world.all(TimerFired)) == 1


def test_a_wake_up_in_shadow_does_not_keep_a_failed_run(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A recovery in shadow alone: the run fails at once, as if it were not there, and no wake-up is left of it."""
    world = make_world(parts.Starter(), InShadow(parts.Retry()), parts.Gate())
    world.arrive()
    world.fail()
    assert [event.failure for event in world.all(RunFailed)] == ["transient"]
    told = world.decisions(policy="retry")
    assert [(d.verdict, d.shadow, d.wakes) for d in told] == [("backing_off", True, {})]
    assert world.of().timers == {}


def test_a_gate_in_shadow_alone_leaves_the_candidate_to_a_person(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """Its judgement is recorded, the sequence holds the candidate, and a person may approve it."""
    world = make_world(parts.Starter(), InShadow(parts.Gate()))
    world.arrive()
    world.until("evaluate")
    world.succeed()
    assert world.of().held is not None
    assert [(d.verdict, d.suppressed_by) for d in world.decisions(policy="gate")] == [("promote", "shadow")]


def test_a_gate_in_shadow_beside_another_is_recorded_only(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """The acting one judges; the other's verdict stands beside it, for each run once."""
    world = make_world(parts.Starter(), parts.Gate(), InShadow(parts.Gate("reject", label="strict")))
    for _ in range(2):
        world.arrive()
        world.finish()
    assert world.of().versions == 2
    assert [d.verdict for d in world.decisions(policy="strict")] == ["reject", "reject"]


def test_a_stubborn_command_is_noted_once_a_run(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A policy that goes on saying what nobody does costs no record for each sign of progress."""
    stubborn = InShadow(
        parts.Scripted(
            "stubborn",
            lambda state, _: (
                Decision(verdict="cancelled", reason="No.", commands=(CancelRun(run=state.active.run),))
                if state.active
                else None
            ),
        )
    )
    world = make_world(parts.Starter(), parts.Gate(), stubborn)
    world.arrive()
    world.begin()
    before = len(world.records)
    for step in range(5):
        world.fact(StageProgressed(**world.names(), step=step, steps=10))
    assert len(world.records) <= before + 6


def test_an_error_in_shadow_is_recorded_as_such(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A policy that raises in shadow stops nobody."""

    def decide(state: object, record: object) -> Decision | None:
        raise ZeroDivisionError

    world = make_world(parts.Starter(), InShadow(parts.Scripted("broken", decide)))
    world.arrive()
    assert world.of().active is not None
    assert [(d.verdict, d.shadow) for d in world.decisions(policy="broken")] == [("raised", True)]


def test_leaving_shadow_loses_nothing(parts: "type[Parts]") -> None:
    """All that it would have taken is pending when it begins to act, and one run takes it."""
    world = parts.World()
    world.configure({"p": (InShadow(parts.Starter("starter")), parts.Gate())})
    world.arrive(100)
    world.arrive(100)
    assert world.of().shadows["starter"].starts == 2
    world.configure({"p": (parts.Starter("starter"), parts.Gate())})
    assert world.of().shadows == {}
    (run,) = world.all(RunStarted)
    assert tokens(run.plan.new) == 200


def test_going_into_shadow_takes_the_wish_back(parts: "type[Parts]") -> None:
    """A wish that waits does not start a run of a policy that is not to act any more."""
    world = parts.World()
    world.configure({"p": (parts.Starter("starter"), parts.Gate())})
    world.request("pause")
    world.arrive(100)
    assert set(world.of().wishes) == {"starter"}
    world.configure({"p": (InShadow(parts.Starter("starter")), parts.Gate())})
    world.request("resume")
    assert world.of().wishes == {}
    assert world.all(RunStarted) == []
    assert world.of().shadows["starter"].starts == 1


def test_a_person_is_told_that_the_policy_is_in_shadow(make_world: "MakeWorld", parts: "type[Parts]") -> None:
    """A retrain that only a policy in shadow would start is answered with that."""
    world = make_world(InShadow(parts.Starter("shadow", after=1)))
    world.request("pause")
    world.arrive(10)
    world.request("resume")
    world.arrive(10)
    asked = world.decisions(world.request("retrain"), "operator")
    assert [d.verdict for d in asked] == ["not_possible"]


STEPS = st.lists(
    st.sampled_from(["arrive", "small", "begin", "succeed", "fail", "fire", "checkpoint", "pause", "resume", "cancel"]),
    max_size=60,
)


def course(parts: "type[Parts]", policies: list[Policy], steps: list[str]) -> list[AnyEvent]:
    """Return all records of a history."""
    world = parts.World()
    world.configure({"p": policies})
    for index, step in enumerate(steps):
        run = world.of().active
        match step:
            case "arrive":
                world.arrive(70, "prose" if index % 3 else "code")
            case "small":
                world.arrive(5)
            case "begin" if run is not None and run.order is not None and not run.order.started:
                world.begin()
            case "succeed" if run is not None and run.order is not None:
                world.stopped() if run.stop else world.succeed()
            case "fail" if run is not None and run.order is not None:
                world.fail()
            case "checkpoint" if run is not None and run.order is not None:
                world.checkpoint(index)
            case "pause" | "resume" | "cancel":
                world.request(step)
            case "fire" if any(not key.startswith("shadow") for key in world.of().timers):
                due = {k: at for k, at in world.of().timers.items() if not k.startswith("shadow")}
                key, at = min(due.items(), key=lambda each: (each[1], each[0]))
                world.now = max(world.now, at)
                world.fact(TimerFired(policy=key.partition(":")[0], key=key.partition(":")[2], due=at), "p", 0.0)
            case _:
                world.now += timedelta(seconds=1)
    return [record.event for record in world.records]


def acted(events: list[AnyEvent]) -> list[str]:
    """Return what was decided and done but for the shadows, runs and positions numbered in the order they come."""
    told: list[str] = []
    names: dict[str, str] = {}
    for event in events:
        if isinstance(event, DecisionMade) and not event.shadow:
            told.append(f"{event.policy} {event.verdict} {event.reason} {event.suppressed_by} {event.inputs}")
        elif isinstance(event, RunStarted):
            told.append(f"{event.run} {event.policy} {event.plan.kind} {event.plan.new} {event.passed_over}")
    text = "\n".join(told)
    for found in re.findall(r"p-\d+", text):
        names.setdefault(found, f"run {len(names)}")
    return re.sub(r"p-\d+", lambda match: names[match[0]], text).splitlines()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@pytest.mark.parametrize("first", [False, True])
def test_a_shadow_changes_nothing_of_what_is_done(first: bool, steps: list[str], parts: "type[Parts]") -> None:
    """With and without starters, gates and recoveries in shadow: the same decisions, runs and plans, in order."""
    acting: list[Policy] = [parts.Starter(), parts.Retry(), parts.Gate()]
    shadows: list[Policy] = [
        InShadow(parts.Starter("shadow", after=60, priority=9)),
        InShadow(parts.Retry("shadow-retry", wait=timedelta(seconds=3), most=1)),
        InShadow(parts.Gate("reject", label="shadow-gate")),
    ]
    beside = [*shadows, *acting] if first else [*acting, *shadows]
    assert acted(course(parts, beside, steps)) == acted(course(parts, acting, steps))


@pytest.mark.parametrize("leaks", [False, True])
def test_who_acts_is_shown_nothing_of_a_shadow(
    leaks: bool, parts: "type[Parts]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that looks at the wake-ups of others says the same beside one in shadow; the property sees a leak."""
    if leaks:
        monkeypatch.setattr("daemon.core.shadowing.acting", lambda pipeline: pipeline)

    def wakes(_: Pipeline, record: Record) -> Decision:
        return Decision(verdict="waiting", reason="It waits.", wakes={"x": record.recorded_at + timedelta(hours=1)})

    def peeks(state: Pipeline, _: Record) -> Decision:
        return Decision(verdict="watched" if state.timers else "alone", reason="It peeks.")

    acting: list[Policy] = [parts.Scripted("peeks", peeks)]
    beside = [*acting, InShadow(parts.Scripted("shadow", wakes))]
    same = acted(course(parts, beside, ["small", "small"])) == acted(course(parts, acting, ["small", "small"]))
    assert same is not leaks
