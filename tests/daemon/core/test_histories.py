"""Random histories: whatever comes in whatever order, with crashes in between, the promises of the core hold."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core import arrivals, encoding
from daemon.core.commands import RunStage, command_id
from daemon.core.decisions import Policy
from daemon.core.events import (
    ConfigurationChanged,
    DecisionMade,
    EvaluationReported,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageEvent,
    StageInterrupted,
    TimerFired,
    Verb,
)
from daemon.core.plans import Amount, Span
from daemon.core.state import State, dump, fingerprint, load
from daemon.core.transition import evolve
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.core.conftest import Parts, World

NAMES = ("p", "q", "r")
OPERATIONS = (
    *("arrive",) * 6,
    *("succeed",) * 12,
    *("begin", "checkpoint", "fail", "die", "stop", "fire"),
    *("request", "request", "report", "again", "late", "crash"),
    *("stop", "succeed", "arrive", "succeed", "configure"),
)
VERBS: tuple[Verb, ...] = get_args(Verb)
ENDS = (RunHeld, RunPreempted, RunSucceeded, RunFailed, RunCancelled)

Steps = list[tuple[str, int]]
steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10**6)), min_size=30, max_size=200)


def real() -> tuple[Policy, ...]:
    """Make the policies that users configure, so eager that they have something to do."""
    return (
        RewarmReplay(after_tokens=100, max_age=timedelta(seconds=30)),
        PeriodicRetraining(after_increments=2),
        StageRecovery(retries=2),
        Promotion(approval="undecided"),
    )


def begin(parts: "type[Parts]", priority: int = 0) -> "World":
    """Make a world of two pipelines with small policies and one with the real ones, and two slots."""
    world = parts.World()
    starters = (
        parts.Starter("often"),
        parts.Starter("seldom", kind="retrain"),
        parts.Starter("rush", after=160, priority=priority),
    )
    world.configure(
        {
            "p": (*starters, parts.Retry(), parts.Gate()),
            "q": (*starters, parts.Retry(), parts.Gate("hold")),
            "r": real(),
        },
        slots=2,
    )
    return world


def step(world: "World", parts: "type[Parts]", operation: str, number: int) -> None:  # noqa: C901, PLR0912 - a case each
    """Do what an operation says, if it can be done; `number` decides everything else."""
    name = NAMES[number % 3]
    run = world.of(name).active
    ordered = run is not None and run.order is not None
    match operation:
        case "arrive":
            world.arrive(10 + number % 90, ("prose", "code")[number % 2], name)
        case "begin" if ordered:
            world.begin(name)
        case "succeed" if ordered:
            world.succeed(name, gain=0.1 - number % 3 * 0.1)
        case "checkpoint" if ordered:
            world.checkpoint(number % 100, name)
        case "fail" if ordered:
            world.fail(name)
        case "die" if ordered:
            world.fact(StageInterrupted(**world.names(name), reason="died"), name)
        case "stop" if ordered and run is not None and run.stop is not None:
            world.stopped(name)
        case "fire" if world.of(name).timers:
            world.fire(name)
        case "report":
            world.fact(EvaluationReported(metric="m", value=1.0), name, after=number % 100)
        case "request":
            verb: Verb = "resume" if world.of(name).paused else VERBS[number % len(VERBS)]
            amounts = {"prose": Amount(arrivals=1, tokens=10)}
            spans: tuple[Span, ...] = (Span(after=number % 50, upto=number % 50 + 1),)
            if verb == "adopt":  # as it is completed at the door
                amounts = world.of(name).pending if number % 7 else {}
                spans = arrivals.spans(world.of(name), world.state.position) if amounts else ()
            world.request(verb, name, spans=spans, amounts=amounts, model="/inbox/v3")
        case "again" | "late":
            told = [r for r in world.records if isinstance(r.event, StageEvent | TimerFired)]
            if told:
                record = told[-1] if operation == "again" else told[number % len(told)]
                world.fact(record.event, record.pipeline)
        case "crash":
            before = dump(world.state)
            world.state = load(before) if number % 2 else load(world.refolded())
            assert dump(world.state) == before
        case "configure":
            changed = dict(world.policies)
            if number % 5 == 0:
                changed.pop(name, None)
            else:
                changed = {n: begin(parts).policies[n] for n in NAMES}
                changed[name] = changed[name][number // 3 % 4 :] if number % 2 else changed[name]
            world.configure(changed, slots=1 + number % 2)
        case _:
            pass


def play(parts: "type[Parts]", history: Steps, priority: int = 0) -> "World":
    """Make a world and do one operation after the other."""
    world = begin(parts, priority)
    for operation, number in history:
        step(world, parts, operation, number)
    return world


@settings(max_examples=25)
@given(history=steps, priority=st.sampled_from([0, 1]))
def test_folding_what_was_recorded_gives_the_same_state(parts: "type[Parts]", history: Steps, priority: int) -> None:
    """The state is the fold of the recorded list, every event through its JSON, with contiguous positions."""
    world = play(parts, history, priority)
    assert world.refolded() == dump(world.state) == dump(load(dump(world.state)))
    assert [record.position for record in world.records] == list(range(1, len(world.records) + 1))
    assert all(a.recorded_at <= b.recorded_at for a, b in zip(world.records, world.records[1:], strict=False))


@settings(max_examples=25)
@given(history=steps, priority=st.sampled_from([0, 1]))
def test_runs_never_overlap(parts: "type[Parts]", history: Steps, priority: int) -> None:
    """In a pipeline a run starts only after the one before has ended, and never more run than there are slots."""
    world = play(parts, history, priority)
    active: dict[str, str] = {}
    slots = 1
    for record in world.records:
        event, name = record.event, record.pipeline or ""
        if isinstance(event, ConfigurationChanged):
            slots = event.slots
        elif isinstance(event, RunStarted | RunResumed):
            assert name not in active
            active[name] = event.run
            assert len(active) <= slots
        elif isinstance(event, ENDS) and active.get(name) == event.run:
            del active[name]
    assert active == {name: p.active.run for name, p in world.state.pipelines.items() if p.active is not None}


@settings(max_examples=25)
@given(history=steps, priority=st.sampled_from([0, 1]))
def test_no_identity_is_used_twice(parts: "type[Parts]", history: Steps, priority: int) -> None:
    """Every run has its own id, and every ordered attempt and every wish that starts a run its own command."""
    world = play(parts, history, priority)
    runs = Counter(event.run for event in world.all(RunStarted))
    attempts: Counter[tuple[str, str, int]] = Counter()
    commands = Counter(event.command for event in world.all(RunStarted))
    commands.update(event.command for event in world.all(RunResumed))
    for record in world.records:
        if not isinstance(record.event, DecisionMade):
            continue
        for ordinal, command in enumerate(record.event.commands):
            if isinstance(command, RunStage):
                attempts[command.run, command.stage, command.attempt] += 1
                commands[command_id(record.cause or 0, record.pipeline or "", record.event.policy, ordinal)] += 1
    assert not [key for counter in (runs, attempts, commands) for key, count in counter.items() if count > 1]


@settings(max_examples=25)
@given(history=steps)
def test_no_wish_starves(parts: "type[Parts]", history: Steps) -> None:
    """With equal priorities a standing wish sees at most as many other starts of its pipeline as there are wishes."""
    world = play(parts, history)
    state = State()
    seen: Counter[tuple[str, str]] = Counter()
    most = max(len(policies) for policies in begin(parts).policies.values())
    for record in world.records:
        state = evolve(state, record)
        name = record.pipeline
        if name not in state.pipelines:
            continue
        wishes = state.pipelines[name].wishes
        for key in [key for key in seen if key[0] == name and key[1] not in wishes]:
            del seen[key]
        if isinstance(record.event, RunStarted | RunResumed):
            seen.update((name, key) for key in wishes)
        assert all(count <= most for count in seen.values())


@settings(max_examples=25)
@given(history=steps)
def test_an_idle_slot_and_a_wish_never_wait_for_each_other(parts: "type[Parts]", history: Steps) -> None:
    """After every fact about a pipeline no wish stands that could be acted on."""
    world = begin(parts)
    for operation, number in history:
        before = len(world.records)
        step(world, parts, operation, number)
        if len(world.records) == before:
            continue
        active = sum(1 for pipeline in world.state.pipelines.values() if pipeline.active is not None)
        startable = [
            name
            for name, pipeline in world.state.pipelines.items()
            if pipeline.wishes and not pipeline.active and pipeline.paused is None and pipeline.settings is not None
        ]
        assert active >= world.state.slots or not startable


@settings(max_examples=25)
@given(history=steps, priority=st.sampled_from([0, 1]))
def test_no_run_is_stuck_or_lost(parts: "type[Parts]", history: Steps, priority: int) -> None:
    """A run has an ordered attempt or a wake-up; what has started has ended, or is active, yielded or held."""
    world = play(parts, history, priority)
    ended = {r.event.run for r in world.records if isinstance(r.event, RunSucceeded | RunFailed | RunCancelled)}
    living = set()
    for pipeline in world.state.pipelines.values():
        run = pipeline.active
        assert run is None or run.order is not None or any(key.endswith(f":{run.run}") for key in pipeline.timers)
        living |= {run.run for run in (pipeline.active, pipeline.yielded, pipeline.held) if run is not None}
        if pipeline.yielded is not None:
            resumes = [wish.resume for wish in pipeline.wishes.values()]
            assert pipeline.yielded.run in resumes or pipeline.settings is None
    held = {e.run for e in world.all(RunHeld)}
    started = {e.run for e in world.all(RunStarted)}
    assert started <= ended | living | held
    assert not living & ended


@settings(max_examples=25)
@given(history=steps, priority=st.sampled_from([0, 1]))
def test_no_timer_is_lost(parts: "type[Parts]", history: Steps, priority: int) -> None:
    """A wake-up is pending until it fires, is replaced, or ends with its run, its policy or its pipeline."""
    world = play(parts, history, priority)
    asked: dict[tuple[str, str], datetime] = {}
    given_out: dict[tuple[str, str], datetime] = {}
    for record in world.records:
        event, name = record.event, record.pipeline or ""
        if isinstance(event, DecisionMade):
            wakes = {(name, f"{event.policy}:{key}"): at for key, at in event.wakes.items()}
            asked.update({key: at for key, at in wakes.items() if key not in given_out or at > given_out[key]})
        elif isinstance(event, TimerFired) and asked.get((name, f"{event.policy}:{event.key}")) == event.due:
            given_out[name, f"{event.policy}:{event.key}"] = asked.pop((name, f"{event.policy}:{event.key}"))
        elif isinstance(event, ENDS) and not isinstance(event, RunPreempted):
            asked = {k: at for k, at in asked.items() if k[0] != name or not k[1].endswith(f":{event.run}")}
        elif isinstance(event, ConfigurationChanged):
            known = {(n, policy.name) for n, p in event.pipelines.items() for policy in p.policies}
            asked = {k: at for k, at in asked.items() if (k[0], k[1].partition(":")[0]) in known}
            given_out = {k: at for k, at in given_out.items() if (k[0], k[1].partition(":")[0]) in known}
    pending = {(name, key): at for name, p in world.state.pipelines.items() for key, at in p.timers.items()}
    assert pending == asked


@settings(max_examples=25)
@given(history=steps)
def test_data_is_in_one_place(parts: "type[Parts]", history: Steps) -> None:
    """Without withdrawals every arrival is pending, past, set aside, or held with its candidate, once."""
    excluded = {"accept", "withdraw", "backfill"}  # the door completes these by what the journal holds
    kept = [(op, n) for op, n in history if op != "request" or VERBS[n % len(VERBS)] not in excluded]
    world = play(parts, kept)
    arrived: Counter[str] = Counter(r.pipeline for r in world.records if r.event.kind == "data.arrived" and r.pipeline)
    for name, pipeline in world.state.pipelines.items():
        run = pipeline.active
        places = [pipeline.pending, pipeline.set_aside, pipeline.champion.past if pipeline.champion else {}]
        places += [r.plan.new for r in (pipeline.held,) if r is not None]
        places += [run.plan.new] if run is not None and run.held and not run.promoted else []
        assert sum(amount.arrivals for place in places for amount in place.values()) == arrived[name]
        assert pipeline.waiting == sum(amount.tokens for amount in pipeline.pending.values())


def test_the_configured_policies_carry_data_to_increments_and_a_retrain(parts: "type[Parts]") -> None:
    """What arrives during a base training becomes an increment on it; after two increments everything is retrained."""
    world = begin(parts)
    for _ in range(3):
        world.arrive(100, pipeline="r")
        world.arrive(100, pipeline="r")
        world.finish("r")
    started = [(event.policy, event.plan.kind, event.plan.start.version) for event in world.all(RunStarted)]
    assert started[:5] == [
        ("rewarm_replay", "base", None),
        ("rewarm_replay", "increment", 1),
        ("rewarm_replay", "increment", 2),
        ("rewarm_replay", "increment", 3),
        ("periodic_retraining", "retrain", 1),
    ]
    assert world.of("r").pending == {}


def test_the_state_does_not_grow_with_history(parts: "type[Parts]") -> None:
    """2,000 more arrivals with their runs, failures and promotions leave a state of about the same size."""
    world = begin(parts, priority=1)
    source = random.Random(5)
    sizes = []
    for number in range(15_000):
        step(world, parts, source.choice(("arrive", "succeed", "succeed", "fail", "fire", "late", "stop")), number)
        if number % 50 == 0:
            sizes.append(len(dump(world.state)))
            del world.records[:-500]
    assert world.state.pipelines["p"].runs.succeeded > 50
    assert max(sizes[150:]) <= 1.2 * max(sizes[:150])


SCRIPT = """
import json, sys
from datetime import datetime
from daemon.core import encoding
from daemon.core.arbitration import react
from daemon.core.events import Record
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import evolve

def records():
    for line in open(sys.argv[1]):
        row = json.loads(line)
        yield Record(
            position=row["position"], recorded_at=datetime.fromisoformat(row["recorded_at"]), source="/", id="1",
            pipeline=row["pipeline"], cause=row["cause"], event=encoding.decode(row["kind"], 1, row["event"]),
        )

state = State()
for record in records():
    state = evolve(state, record)
print(fingerprint(dump(state)))
"""


@pytest.mark.parametrize(("seed", "zone"), [("1", "UTC"), ("2", "Asia/Kathmandu")])
def test_other_processes_fold_to_the_same_hash(parts: "type[Parts]", tmp_path: Path, seed: str, zone: str) -> None:
    """Neither the order of hashes nor the time zone of a process has a say in the state."""
    source = random.Random(11)
    world = play(parts, [(source.choice(OPERATIONS), source.randrange(10**6)) for _ in range(1500)], priority=1)
    path = tmp_path / "history.jsonl"
    with path.open("w") as lines:
        for record in world.records:
            row = {
                "position": record.position,
                "recorded_at": record.recorded_at.isoformat(),
                "pipeline": record.pipeline,
                "cause": record.cause,
                "kind": record.event.kind,
                "event": encoding.encode(record.event).decode(),
            }
            lines.write(json.dumps(row) + "\n")
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    hashed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert hashed == fingerprint(dump(world.state))
