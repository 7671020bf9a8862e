"""A world in memory: a state, its recorded list, small policies, and what a dispatcher would tell of stages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import pytest
from msgspec.structs import replace

from daemon.core import encoding
from daemon.core.arbitration import react
from daemon.core.commands import CancelRun, FailRun, HoldRun, RejectRun, RunStage, StartRun, WithdrawWish
from daemon.core.decisions import Decision, Policy
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    Comparison,
    ConfigurationChanged,
    DataArrived,
    DecisionMade,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    OperatorRequested,
    PipelineSettings,
    PolicySettings,
    Record,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
    TimerFired,
    Verb,
)
from daemon.core.plans import Amount, Checkpoint, Intent, IntentKind, Schedule, StartFrom, Training
from daemon.core.state import Order, Pipeline, Run, State, dump, free_tokens
from daemon.core.transition import evolve

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAGES = ("ingest", "probe", "train", "evaluate", "promote")
SHA = "0" * 64
TRAINING = Training(
    tokens=0,
    batch=4,
    context=8,
    replay=0.05,
    schedule=Schedule(kind="rewarm", peak=3e-4, floor=3e-5, plateau=1.65e-4),
    optimiser="keep",
    seed=0,
)

E = TypeVar("E", bound=AnyEvent)


def intent(
    kind: IntentKind = "increment",
    start: StartFrom = "champion",
    priority: int = 0,
    expires_at: datetime | None = None,
) -> Intent:
    """Make an intent with the least of everything."""
    return Intent(kind=kind, start=start, training=TRAINING, priority=priority, expires_at=expires_at)


@dataclass(frozen=True)
class Scripted:
    """A policy that answers what a function says."""

    label: str
    answer: Callable[[Pipeline, Record], Decision | None]
    version: int = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what the function says."""
        return self.answer(state, record)


@dataclass(frozen=True)
class Starter:
    """Wishes to start as long as enough free tokens wait; takes the wish back when they do not."""

    label: str = "starter"
    after: int = 100
    priority: int = 0
    expires_after: timedelta | None = None
    kind: IntentKind | None = None
    version: int = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return `due` with the wish, or `waiting`."""
        waiting = free_tokens(state)
        if waiting >= self.after:
            kind = self.kind or ("increment" if state.champion else "base")
            expires_at = record.recorded_at + self.expires_after if self.expires_after else None
            wanted = intent(kind, "champion" if state.champion else "scratch", self.priority, expires_at)
            return Decision(verdict="due", reason="Enough waits.", commands=(StartRun(intent=wanted),))
        if isinstance(record.event, ConfigurationChanged) and not state.wishes:
            return None
        commands = (WithdrawWish(),) if self.label in state.wishes else ()
        return Decision(verdict="waiting", reason="Too little waits.", inputs={"tokens": waiting}, commands=commands)


@dataclass(frozen=True)
class Gate:
    """Answers every evaluation with one verdict."""

    verdict: str = "promote"
    label: str = "gate"
    version: int = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the verdict once the evaluate stage is done."""
        run = state.active
        if run is None or not isinstance(record.event, StageSucceeded) or record.event.stage != "evaluate":
            return None
        if self.verdict == "promote" or run.approved:
            attempt = run.attempts.get("promote", 0) + 1
            return _said("promote", RunStage(run=run.run, stage="promote", attempt=attempt))
        if self.verdict == "reject":
            return _said("reject", RejectRun(run=run.run))
        return _said("hold", HoldRun(run=run.run))


@dataclass(frozen=True)
class Retry:
    """Asks to be woken under the run's id after a failure, then runs the stage again; gives up after `most`."""

    label: str = "retry"
    wait: timedelta = timedelta(seconds=10)
    most: int = 3
    version: int = 1

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wait, the retry or the end."""
        run = state.active
        if run is None or run.order is not None or run.done or run.stop is not None:
            return None
        if isinstance(record.event, StageFailed | StageInterrupted):
            if run.failures.total > self.most:
                return _said("given_up", FailRun(run=run.run, failure=run.failures.last))
            return Decision(verdict="backing_off", reason="It waits.", wakes={run.run: record.recorded_at + self.wait})
        if isinstance(record.event, TimerFired) and record.event.policy == self.label:
            attempt = run.attempts[run.stage] + 1
            return _said("retry", RunStage(run=run.run, stage=run.stage, attempt=attempt, resume=True))
        return None


def _said(verdict: str, *commands: RunStage | RejectRun | HoldRun | FailRun) -> Decision:
    return Decision(verdict=verdict, reason=f"It is {verdict}.", commands=commands)


def settings(policies: Sequence[Policy], stages: tuple[str, ...] = STAGES, priority: int = 0) -> PipelineSettings:
    """Make a pipeline's settings as the configuration would give them."""
    return PipelineSettings(
        stages=stages,
        priority=priority,
        policies=tuple(
            PolicySettings(name=p.label, kind="k", version=1, configuration="{}", shadow=getattr(p, "shadow", False))
            for p in policies
        ),
    )


def loss(mean: float) -> Loss:
    """Make a loss with a narrow interval."""
    return Loss(mean=mean, low=mean - 0.01, high=mean + 0.01, documents=10, bytes=1000)


@dataclass
class World:
    """What the loop keeps: every record goes through `evolve` and `react`, and is recorded with what follows."""

    policies: dict[str, Sequence[Policy]] = field(default_factory=dict)
    state: State = field(default_factory=State)
    records: list[Record] = field(default_factory=list)
    now: datetime = NOON
    serial: int = 0

    def fact(self, event: AnyEvent, pipeline: str | None = "p", after: float = 1.0) -> list[Record]:
        """Record a fact `after` seconds and all that follows from it; return what followed."""
        self.now += timedelta(seconds=after)
        self.serial += 1
        record = Record(
            position=self.state.position + 1,
            recorded_at=self.now,
            source="/test",
            id=str(self.serial),
            pipeline=pipeline,
            event=event,
        )
        self.state, following = react(evolve(self.state, record), record, self.policies)
        self.records += [record, *following]
        return following

    def configure(
        self,
        pipelines: Mapping[str, Sequence[Policy]],
        stages: tuple[str, ...] = STAGES,
        slots: int = 1,
        priorities: Mapping[str, int] | None = None,
    ) -> list[Record]:
        """Change the configuration."""
        self.policies = dict(pipelines)
        known = {
            name: settings(policies, stages, (priorities or {}).get(name, 0)) for name, policies in pipelines.items()
        }
        return self.fact(ConfigurationChanged(hash=str(self.serial), slots=slots, pipelines=known), None)

    def arrive(self, tokens: int = 100, domain: str = "prose", pipeline: str = "p") -> list[Record]:
        """Let data arrive."""
        return self.fact(DataArrived(uri="file:a", domain=domain, tokens=tokens, bytes=tokens, documents=1), pipeline)

    def request(self, verb: Verb, pipeline: str = "p", **details: Any) -> list[Record]:  # noqa: ANN401 - its fields
        """Let a person ask."""
        return self.fact(OperatorRequested(verb=verb, by="ann", **details), pipeline)

    def fire(self, pipeline: str = "p") -> list[Record]:
        """Fire the earliest wake-up that is pending."""
        key, due = min(self.of(pipeline).timers.items(), key=lambda item: (item[1], item[0]))
        policy, _, rest = key.partition(":")
        self.now = max(self.now, due)
        return self.fact(TimerFired(policy=policy, key=rest, due=due), pipeline, 0.0)

    def of(self, pipeline: str = "p") -> Pipeline:
        """Return a pipeline's state."""
        return self.state.pipelines[pipeline]

    def run(self, pipeline: str = "p") -> Run:
        """Return the active run."""
        run = self.of(pipeline).active
        assert run is not None
        return run

    def order(self, pipeline: str = "p") -> Order:
        """Return the stage attempt that shall run now: what a dispatcher would read."""
        order = self.run(pipeline).order
        assert order is not None
        return order

    def names(self, pipeline: str = "p") -> dict[str, Any]:
        """Return the fields that name the current attempt."""
        order = self.order(pipeline)
        return {"run": order.run, "stage": order.stage, "attempt": order.attempt}

    def begin(self, pipeline: str = "p") -> list[Record]:
        """Let the ordered attempt start."""
        return self.fact(
            StageStarted(**self.names(pipeline), command=self.order(pipeline).command, host="h", pid=1), pipeline
        )

    def succeed(self, pipeline: str = "p", gain: float = 0.1) -> list[Record]:
        """Let the ordered attempt do its work."""
        names = self.names(pipeline)
        stage = names["stage"]
        if stage == "evaluate":
            domains = {
                domain: Comparison(candidate=loss(2.0), champion=loss(2.0 + gain), difference=loss(-gain))
                for domain in (*self.run(pipeline).plan.past, *self.run(pipeline).plan.new)
            }
            candidate = Checkpoint(path="candidate", sha256=SHA)
            self.fact(ModelEvaluated(**names, domains=domains, candidate=candidate), pipeline)
        if stage == "promote":
            self.fact(self.promotion(pipeline), pipeline)
        return self.fact(StageSucceeded(**names, seconds=1.0), pipeline)

    def promotion(self, pipeline: str = "p") -> ModelPromoted:
        """Make what a promote stage tells once its files are published."""
        plan, version = self.run(pipeline).plan, self.of(pipeline).versions + 1
        return ModelPromoted(
            **self.names(pipeline),
            model_version=version,
            path=f"v{version}",
            sha256=SHA,
            trunk=Checkpoint(path=f"v{version}/trunk", sha256=SHA),
            parent=plan.parent,
            spans=plan.spans,
            losses={},
        )

    def checkpoint(self, step: int, pipeline: str = "p") -> list[Record]:
        """Let the attempt save a checkpoint."""
        saved = Checkpoint(path=f"step-{step}", sha256=SHA)
        return self.fact(CheckpointSaved(**self.names(pipeline), step=step, checkpoint=saved), pipeline)

    def fail(self, pipeline: str = "p") -> list[Record]:
        """Let the attempt fail."""
        return self.fact(StageFailed(**self.names(pipeline), failure="transient", message="the net is down"), pipeline)

    def stopped(self, pipeline: str = "p") -> list[Record]:
        """Let the attempt end as it was asked to."""
        reason = self.run(pipeline).stop
        assert reason is not None
        return self.fact(StageInterrupted(**self.names(pipeline), reason=reason), pipeline)

    def until(self, stage: str, pipeline: str = "p") -> None:
        """Let stages succeed until `stage` is ordered."""
        while self.order(pipeline).stage != stage:
            self.succeed(pipeline)

    def finish(self, pipeline: str = "p") -> None:
        """Let stages succeed until no run is left."""
        while (run := self.of(pipeline).active) is not None and run.order is not None:
            self.succeed(pipeline)

    def finish_one(self, pipeline: str = "p") -> None:
        """Let stages succeed until the run that is active now has ended."""
        run = self.run(pipeline).run
        while (active := self.of(pipeline).active) is not None and active.run == run:
            self.succeed(pipeline)

    def decisions(self, records: Iterable[Record] | None = None, policy: str | None = None) -> list[DecisionMade]:
        """Return the decisions among the records (by default all), of a policy or of all."""
        events = [r.event for r in (self.records if records is None else records)]
        return [e for e in events if isinstance(e, DecisionMade) and policy in (None, e.policy)]

    def all(self, kind: type[E]) -> list[E]:
        """Return all recorded events of a class."""
        return [record.event for record in self.records if isinstance(record.event, kind)]

    def refolded(self) -> bytes:
        """Return the state that the recorded list gives when every event went through its JSON, as canonical JSON."""
        state = State()
        for record in self.records:
            event = encoding.decode(record.event.kind, record.event.version, encoding.encode(record.event))
            state = evolve(state, replace(record, event=event))
        return dump(state)


class MakeWorld(Protocol):
    """Make a world with one pipeline `p` that has these policies."""

    def __call__(self, *policies: Policy, stages: tuple[str, ...] = STAGES) -> World: ...  # noqa: D102


@pytest.fixture
def make_world() -> Iterable[MakeWorld]:
    """Make worlds, and check in the end that each is the fold of what it recorded."""
    worlds: list[World] = []

    def make(*policies: Policy, stages: tuple[str, ...] = STAGES) -> World:
        world = World()
        world.configure({"p": policies}, stages)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        assert world.refolded() == dump(world.state)
        assert [record.position for record in world.records] == list(range(1, len(world.records) + 1))


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Make a world whose one pipeline starts at 100 tokens, retries and promotes."""
    return make_world(Starter(), Retry(), Gate())


@pytest.fixture
def promoted(world: World) -> World:
    """Make a world whose first model is champion."""
    world.arrive()
    world.finish()
    return world


@pytest.fixture(scope="session")
def parts() -> "type[Parts]":
    """Hand out the policies and values that tests build their own worlds from."""
    return Parts


class Parts:
    """The policies and values of this folder, for tests that cannot import them."""

    Starter = Starter
    Gate = Gate
    Retry = Retry
    Scripted = Scripted
    World = World
    intent = staticmethod(intent)
    loss = staticmethod(loss)
    settings = staticmethod(settings)

    @staticmethod
    def starting(wanted: Intent) -> Decision:
        """Make a decision that wishes to start."""
        return Decision(verdict="due", reason="It is time.", commands=(StartRun(intent=wanted),))

    @staticmethod
    def cancelling(run: str) -> Decision:
        """Make a decision that cancels a run."""
        return Decision(verdict="cancelled", reason="It is enough.", commands=(CancelRun(run=run),))

    @staticmethod
    def amount(tokens: int, arrivals: int = 1) -> Amount:
        """Make what `World.arrive` counts for so many tokens."""
        return Amount(arrivals=arrivals, documents=arrivals, bytes=tokens, tokens=tokens)
