"""When a probe looks at what waits, and what becomes of a run that has only looked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.arbitration import react
from daemon.core.commands import FixPlan, PostponeRun, StartRun
from daemon.core.decisions import Decision
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataArrived,
    DecisionMade,
    OperatorRequested,
    PipelineSettings,
    PolicySettings,
    ProbeMeasured,
    Record,
    RunPostponed,
    RunStarted,
    StageSucceeded,
    TimerFired,
)
from daemon.core.ledger import Cost, Reading
from daemon.core.plans import Intent
from daemon.core.state import Pipeline, State, Verdict
from daemon.core.transition import evolve
from policies.rewarm_replay import RewarmReplay
from policies.rewarm_replay.policy import left

Build = Any
BASE = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROBED = StageSucceeded(run="p-90", stage="probe", attempt=1, seconds=1.0)
TRAIN = OperatorRequested(verb="train", by="ann")
DRIFTING = {"any": [{"tokens": 2000}, {"signal": "shift", "above": 0.1}]}
LOOKING = {"when": DRIFTING, "look": {"tokens": 200}}


def made(**fields: object) -> RewarmReplay:
    """Return the policy that stands so in a file."""
    return RewarmReplay.model_validate(fields)


def shifted(value: float, position: int = 100) -> dict[str, tuple[Reading, ...]]:
    """Return a shift that a probe measured."""
    return {"shift": (Reading(value=value, at=BASE, position=position, version=1),)}


def begun(decision: Decision | None) -> Intent | None:
    """Return what a decision wishes to start."""
    assert decision is not None
    return next((command.intent for command in decision.commands if isinstance(command, StartRun)), None)


def test_a_probe_looks_before_the_amount_is_there(build: Build) -> None:
    """From `look` on a run that only looks is wished for; what it is held against is told beside `when`'s numbers."""
    policy, state = made(**LOOKING), build.ready(200)
    decision = policy.opinion(state, build.record())
    intent = begun(decision)
    assert (decision.verdict, intent and (intent.kind, intent.look)) == ("look", ("increment", True))
    assert decision.reason == "200 new tokens wait: a probe looks at what waits."
    assert decision.inputs == {"tokens": 200, "shift": None, "look_tokens": 200, "arrivals": 1}
    assert decision.thresholds == {"tokens": 2000, "shift": 0.1, "look_tokens": 200}
    assert policy.opinion(build.ready(199), build.record()).verdict == "waiting"
    due = begun(policy.opinion(build.ready(2000), build.record()))
    assert due is not None
    assert not due.look


def test_a_look_weighs_what_no_look_has_seen(build: Build) -> None:
    """After a look the next one comes with as much again, and its age counts from the look."""
    policy = made(**{**LOOKING, "look": {"any": [{"tokens": 200}, {"age": "PT6H"}]}})
    seen = {"code": build.amount(250, 1)}
    for tokens, hours, verdict in ((300, 8, "waiting"), (450, 8, "look"), (300, 13, "look")):
        state = build.ready(tokens, arrivals=2, looked=seen, looked_at=build.after(hours=7))
        decision = policy.opinion(state, build.record(at=build.after(hours=hours)))
        assert decision.verdict == verdict, tokens
        if verdict == "waiting":
            assert decision.inputs["look_tokens"] == 50
            assert decision.wakes == {"when": build.after(hours=13)}
    state = build.ready(250, looked=seen, looked_at=build.after(hours=7))
    assert policy.opinion(state, build.record(at=build.after(days=9))).verdict == "waiting"


def test_a_report_has_its_look_once(build: Build) -> None:
    """A monitor's alarm makes a probe look; after that look it takes another one."""
    policy = made(when={"signal": "shift", "above": 0.1}, look={"signal": "detected.psi", "above": 0.2})
    reading = Reading(value=0.3, at=build.after(hours=1), position=100, version=1)
    state = build.ready(500, signals={"detected.psi": (reading,)})
    assert policy.opinion(state, build.record(at=build.after(hours=3))).verdict == "look"
    seen = replace(state, looked={}, looked_at=build.after(hours=2))
    assert policy.opinion(seen, build.record(at=build.after(hours=3))).verdict == "waiting"
    told = replace(seen, signals={"detected.psi": (reading, replace(reading, at=build.after(hours=3)))})
    assert policy.opinion(told, build.record(at=build.after(hours=3))).verdict == "look"
    everything = replace(told, looked=told.pending)
    assert policy.opinion(everything, build.record(at=build.after(hours=3))).verdict == "waiting"


def test_what_was_looked_at_before_is_with_the_run_that_looks_now(build: Build) -> None:
    """It is not taken off once more from what has come since: 250 new tokens make the next look due."""
    seen = {"code": build.amount(250, 1)}
    state = build.ready(700, 3, active=build.looking(450), looked=seen, looked_at=build.after(hours=1))
    decision = made(**LOOKING).opinion(state, build.record(at=build.after(hours=2)))
    assert (decision.verdict, decision.inputs["look_tokens"]) == ("look", 250)


@pytest.mark.parametrize(
    ("shift", "tokens", "verdict"), [(0.1, 500, "postponed"), (0.11, 500, "planned"), (None, 2000, "planned")]
)
def test_after_the_probe_of_a_look(build: Build, shift: float | None, tokens: int, verdict: str) -> None:
    """Where `when` holds by what was measured the plan is fixed as ever; else the run ends, and its data waits."""
    run = build.looking(tokens, shift=shift)
    signals = shifted(shift) if shift is not None else {}
    decision = made(**LOOKING).decide(build.ready(tokens, active=run, signals=signals), build.record(PROBED))
    assert decision is not None
    (command,) = decision.commands
    assert decision.verdict == verdict
    assert (decision.inputs["tokens"], decision.inputs["shift"]) == (tokens, shift)
    assert (decision.thresholds["tokens"], decision.thresholds["shift"]) == (2000, 0.1)
    if verdict == "planned":
        assert isinstance(command, FixPlan)
        assert command.plan.training.tokens >= tokens
        assert decision.reason.startswith("Shift of 0.11" if shift else "2,000 new tokens wait")
    else:
        assert command == PostponeRun(run="p-90")
        assert "stays pending" in decision.reason


def test_the_learning_curve_skips_what_is_not_worth_it(build: Build) -> None:
    """A gain that past runs do not promise postpones; the numbers say what was expected."""
    policy = made(when={"signal": "expected_gain", "above": 0.01}, look={"tokens": 200})
    run = build.looking()
    for value, verdict in ((0.009, "postponed"), (0.02, "planned")):
        reading = Reading(value=value, at=build.noon, position=100, version=1)
        decision = policy.decide(
            build.ready(500, active=run, signals={"expected_gain": (reading,)}), build.record(PROBED)
        )
        assert decision is not None
        assert (decision.verdict, decision.inputs["expected_gain"]) == (verdict, value)


def test_what_is_postponed_is_woken_for(build: Build) -> None:
    """A postponed run's data has waited since before the run: its age wakes, and so does the age of the next look."""
    policy = made(when={"any": [{"age": "P1D"}, {"signal": "shift", "above": 0.1}]}, look={"tokens": 200})
    state = build.ready(500, active=build.looking(), waiting_since=None, signals=shifted(0.0))
    decision = policy.decide(state, build.record(PROBED, at=build.after(hours=3)))
    assert decision is not None
    assert (decision.verdict, decision.wakes) == ("postponed", {"when": build.after(days=1)})
    assert decision.inputs["age_seconds"] == 3 * 3600


def test_regret_counts_the_time_of_the_look(build: Build) -> None:
    """What the run took has waited on while it looked: 500,000 tokens, an hour before it and one in it."""
    policy = made(when={"all": [{"regret": 0.5}, {"signal": "shift", "above": 0}]}, look={"tokens": 1})
    run = build.looking(500_000, waited=500_000 * 3600.0, started_at=build.after(hours=1))
    cost = Cost().after(1e6, 3600.0)
    for hours, verdict in ((1.9, "postponed"), (2, "planned")):
        state = build.ready(500_000, active=run, waiting_since=None, cost=cost, signals=shifted(0.2))
        decision = policy.decide(state, build.record(PROBED, at=build.after(hours=hours)))
        assert decision is not None
        assert (decision.verdict, decision.thresholds["regret_hours"]) == (verdict, 0.5)


def test_train_while_a_run_looks_lets_it_train(build: Build) -> None:
    """The run that looks goes on to train, whatever it measures."""
    policy = made(**LOOKING)
    state = build.ready(500, active=replace(build.looking(), done=False), signals=shifted(0.0))
    asked = policy.decide(state, build.record(TRAIN))
    assert asked is not None
    assert (asked.verdict, asked.commands) == ("asked", ())
    state = replace(state, active=build.looking(), verdicts={"rewarm_replay": Verdict(verdict="asked", position=101)})
    assert policy.decide(state, build.record()) is None
    decision = policy.decide(state, build.record(PROBED))
    assert decision is not None
    assert decision.verdict == "planned"
    assert decision.reason.startswith("A person asked for it.")


class World:
    """A pipeline with a champion in which a policy decides, and stages are done when a test says so."""

    def __init__(self, build: Build, policy: RewarmReplay) -> None:
        self.policies = {"p": (policy,)}
        self.now = build.noon
        self.records: list[Record] = []
        self.state = State()
        known = PolicySettings(name=policy.label, kind=policy.kind, version=1, configuration="{}")
        settings = PipelineSettings(
            stages=("ingest", "probe", "train"), policies=(known,), signals=dict(policy.signals)
        )
        self.fact(ConfigurationChanged(hash="h", slots=1, pipelines={"p": settings}), None)
        champion = build.model(promoted_at=build.noon, position=1)
        self.state = replace(self.state, pipelines={"p": replace(self.pipeline, champion=champion, base=champion)})

    @property
    def pipeline(self) -> Pipeline:
        """What the pipeline is now."""
        return self.state.pipelines["p"]

    def fact(self, event: AnyEvent, pipeline: str | None = "p") -> None:
        """Record a fact and what follows."""
        at = self.state.position + 1
        record = Record(position=at, recorded_at=self.now, source="/t", id=str(at), pipeline=pipeline, event=event)
        self.state, following = react(evolve(self.state, record), record, self.policies)
        self.records += [record, *following]

    def arrive(self, tokens: int) -> None:
        """Let data arrive."""
        self.fact(DataArrived(uri="a", domain="code", documents=1, bytes=1, tokens=tokens))

    def probe(self, shift: float) -> None:
        """Let the active run ingest and measure."""
        run = self.pipeline.active
        assert run is not None
        self.fact(StageSucceeded(run=run.run, stage="ingest", attempt=1, seconds=1.0))
        self.fact(ProbeMeasured(run=run.run, stage="probe", attempt=1, new={}, past={}, shift=shift))
        self.fact(StageSucceeded(run=run.run, stage="probe", attempt=1, seconds=1.0))

    def said(self) -> list[str]:
        """Return the policy's verdicts, in order."""
        made = [record.event for record in self.records if isinstance(record.event, DecisionMade)]
        return [event.verdict for event in made if event.policy == "rewarm_replay"]


def test_looks_until_the_shift_is_there(build: Build) -> None:
    """Two looks postpone, the third trains on all three; each looks at what came since the one before."""
    world = World(build, made(**LOOKING))
    for shift in (0.01, 0.05, 0.3):
        world.arrive(150)
        assert world.pipeline.active is None
        world.arrive(150)
        world.probe(shift)
    assert world.said() == [
        *("waiting", "look", "postponed"),
        *("waiting", "look", "postponed"),
        *("waiting", "look", "planned"),
    ]
    assert sum(isinstance(record.event, RunPostponed) for record in world.records) == 2
    run = world.pipeline.active
    assert run is not None
    assert (run.stage, run.plan.new["code"].tokens) == ("train", 900)
    world.fact(StageSucceeded(run=run.run, stage="train", attempt=1, seconds=1.0))
    assert world.pipeline.waiting == 0
    world.arrive(150)
    assert world.pipeline.active is None, "the shift was trained on: it is no reason any more"


def test_what_arrives_during_a_look_is_looked_at_next(build: Build) -> None:
    """Enough of it: the next look follows at once; too little: it waits for more."""
    world = World(build, made(**LOOKING))
    world.arrive(200)
    world.arrive(250)
    world.probe(0.0)
    run = world.pipeline.active
    assert run is not None
    assert run.intent.look
    assert run.plan.new["code"].tokens == 450
    assert sum(isinstance(record.event, RunStarted) for record in world.records) == 2
    world.arrive(50)
    world.probe(0.0)
    assert world.pipeline.active is None


def test_it_weighs_the_pipeline_as_it_will_be(build: Build) -> None:
    """What the policy looks at after the probe is what the fold leaves once the run is postponed."""
    run = build.looking(
        500, waited=900.0, started_at=build.after(hours=1), plan=build.plan(new={"code": build.amount(500)})
    )
    state = build.ready(
        700, 2, active=run, waiting_since=build.after(hours=2), waited=70.0, waited_at=build.after(hours=2)
    )
    now = build.after(hours=3)
    after = evolve(
        State(pipelines={"p": state}), build.record(RunPostponed(run="p-90", reason="Too little."), at=now)
    ).pipelines["p"]
    assert replace(after, last=None) == left(state, run, now)
    assert (after.waiting_since, after.looked) == (build.noon, run.plan.new)


def test_data_whose_look_was_postponed_comes_due_by_its_age(build: Build) -> None:
    """No fact but the wake-up is needed after a look that was postponed."""
    world = World(build, made(when={"any": [{"age": "P1D"}, {"signal": "shift", "above": 0.1}]}, look={"tokens": 1}))
    world.arrive(5)
    world.now = build.after(hours=2)
    world.probe(0.0)
    timers = world.pipeline.timers
    assert timers == {"rewarm_replay:when": build.after(days=1)}
    world.now = build.after(days=1)
    world.fact(TimerFired(policy="rewarm_replay", key="when", due=world.now))
    run = world.pipeline.active
    assert run is not None
    assert not run.intent.look


@pytest.mark.parametrize("tokens", [50, 2000])
def test_what_comes_while_a_run_looks_as_asked_is_weighed_after(build: Build, tokens: int) -> None:
    """It is not forgotten: a wake-up comes at once where it is due, else when it is by its age."""
    world = World(build, made(when={"any": [{"tokens": 2000}, {"age": "P1D"}]}, look={"tokens": 200}))
    world.arrive(200)
    world.fact(TRAIN)
    world.arrive(tokens)
    world.probe(0.0)
    run = world.pipeline.active
    assert run is not None
    assert run.stage == "train"
    expected = timedelta(seconds=1) if tokens == 2000 else timedelta(days=1)
    assert world.pipeline.timers == {"rewarm_replay:when": build.noon + expected}


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 300)),
    st.tuples(st.just("probe"), st.floats(0, 0.2)),
    st.tuples(st.just("train"), st.none()),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 30)),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=8, max_size=60))
def test_looks_lose_no_data(build: Build, steps: list[tuple[str, Any]]) -> None:
    """Whatever is looked at, postponed, asked for and trained on: what arrived is pending or was trained on, once."""
    when = {"any": [{"tokens": 900}, {"signal": "shift", "above": 0.1}, {"age": "P1D"}]}
    world = World(build, made(when=when, look={"tokens": 200}))
    arrived = trained = 0
    for step, value in steps:
        run = world.pipeline.active
        if step == "arrive":
            arrived += value
            world.arrive(value)
        elif step == "probe" and run is not None and run.stage == "ingest":
            world.probe(value)
        elif step == "train" and run is not None and run.stage == "train":
            trained += run.plan.new["code"].tokens
            world.fact(StageSucceeded(run=run.run, stage="train", attempt=1, seconds=1.0))
        elif step == "ask":
            world.fact(TRAIN)
        elif step == "wait":
            world.now += value * timedelta(hours=1)
            for key, due in sorted(world.pipeline.timers.items()):
                if due <= world.now:
                    world.fact(TimerFired(policy="rewarm_replay", key=key.partition(":")[2], due=due))
        assert world.pipeline.waiting == arrived - trained
        assert not world.pipeline.ignored
        run = world.pipeline.active
        assert run is None or run.stage != "train" or not run.intent.look
        oldest = world.pipeline.waiting_since
        if run is None and oldest is not None and world.pipeline.pending and world.now < oldest + timedelta(days=1):
            assert world.pipeline.timers["rewarm_replay:when"] <= oldest + timedelta(days=1)
