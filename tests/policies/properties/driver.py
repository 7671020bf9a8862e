"""A life: policies among arrivals, silences, failures, requests and restarts, on a virtual clock, all from a seed.

Every fact goes through the real `evolve` and `react`; what stages do is drawn. A property looks at what was recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from daemon.core.arbitration import react
from daemon.core.decisions import AWAITING, Policy
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    Comparison,
    ConfigurationChanged,
    DaemonStarted,
    DataArrived,
    DataWithdrawn,
    EvaluationReported,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    OperatorRequested,
    PipelineSettings,
    PolicySettings,
    ProbeMeasured,
    Record,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
    TimerFired,
    Verb,
)
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Order, Run, State, dump, load
from daemon.core.transition import REDUCER_VERSION, evolve

BEGIN = datetime(2026, 3, 25, 12, tzinfo=UTC)
STAGES = ("ingest", "probe", "train", "evaluate", "promote")
SHA = "0" * 64
STOP = timedelta(seconds=1)
MINUTES = {"ingest": 1.0, "probe": 4.0, "train": 60.0, "evaluate": 5.0, "promote": 0.1}
VERBS: tuple[Verb, ...] = (
    "train",
    "retrain",
    "cancel",
    "rollback",
    "approve",
    "promote",
    "retry",
    "freeze",
    "thaw",
    "pause",
)

Fold = Callable[[State, Record], State]


@dataclass(frozen=True)
class Setup:
    """What is configured, and how busy it gets."""

    policies: Mapping[str, Sequence[Policy]]
    slots: int = 1
    days: float = 12.0
    arrivals: float = 20.0
    """Arrivals a day and pipeline, in bursts."""
    requests: float = 1.0
    """Requests of a person a day and pipeline."""
    failing: float = 0.05
    reloads: float = 0.0
    """How often a day a policy is taken out of a pipeline, for some hours."""


@dataclass
class Life:
    """What was recorded, the sizes that the state had, and where it ended."""

    setup: Setup
    records: list[Record] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    state: State = field(default_factory=State)


@dataclass
class _Attempt:
    """What an attempt will tell, and when."""

    order: Order
    told: list[tuple[datetime, AnyEvent]]
    stopping: bool = False


def live(setup: Setup, seed: int, fold: Fold = evolve) -> Life:
    """Live through all of it; the last fifth has no arrivals and nobody asks, so that what waits can end."""
    return _Living(setup, Random(seed), fold).live()


class _Living:
    def __init__(self, setup: Setup, random: Random, fold: Fold) -> None:
        self.life = Life(setup)
        self.random, self.fold = random, fold
        self.policies = dict(setup.policies)
        self.now = BEGIN
        self.attempts: dict[str, _Attempt] = {}
        self.outside = self._history()
        self.epoch = 0

    def live(self) -> Life:
        self._tell(_changed(self.life.setup.slots, self.policies), None)
        end = BEGIN + timedelta(days=self.life.setup.days)
        while (soonest := self._soonest()) is not None and soonest[0] <= end:
            self.now, happens = max(self.now, soonest[0]), soonest[2]
            happens()
            self._look()
        return self.life

    def _soonest(self) -> tuple[datetime, int, Callable[[], None]] | None:
        """Return what is next: stages before wake-ups before the outside, where they fall together."""
        found: list[tuple[datetime, int, Callable[[], None]]] = []
        for name, attempt in self.attempts.items():
            found.append((attempt.told[0][0], 0, lambda name=name: self._stage(name)))  # type: ignore[misc]
        due = [(at, name, key) for name, p in self.life.state.pipelines.items() for key, at in p.timers.items()]
        if due:
            at, name, key = min(due)
            found.append((max(at, self.now), 1, lambda: self._fire(name, key, at)))
        if self.outside:
            found.append((self.outside[0][0], 2, self._outside))
        return min(found, key=lambda each: (each[0], each[1]), default=None)

    def _tell(self, event: AnyEvent, name: str | None) -> None:
        position = self.life.state.position + 1
        record = Record(
            position=position, recorded_at=self.now, source="/t", id=str(position), pipeline=name, event=event
        )
        state, following = react(self.fold(self.life.state, record), record, self.policies)
        if self.fold is not evolve:  # `react` folds by the real one: fold again what a broken one makes of it
            state = self.fold(self.life.state, record)
            for each in following:
                state = self.fold(state, each)
        self.life.state = state
        self.life.records += [record, *following]
        if position % 7 == 0:
            self.life.sizes.append(len(dump(state)))

    def _fire(self, name: str, key: str, at: datetime) -> None:
        policy, _, rest = key.partition(":")
        self._tell(TimerFired(policy=policy, key=rest, due=at), name)

    def _stage(self, name: str) -> None:
        attempt = self.attempts[name]
        _, event = attempt.told.pop(0)
        if not attempt.told:
            del self.attempts[name]
        self._tell(event, name)

    def _outside(self) -> None:
        _, name, what = self.outside.pop(0)
        what(name)

    def _look(self) -> None:
        """Begin what is ordered, end what is asked to end."""
        for name, pipeline in self.life.state.pipelines.items():
            run, attempt = pipeline.active, self.attempts.get(name)
            if run is None or run.order is None:
                self.attempts.pop(name, None)
            elif attempt is None or attempt.order.command != run.order.command:
                self.attempts[name] = _Attempt(run.order, self._course(name, run, run.order))
            elif not attempt.stopping and (run.stop is not None or run.order.lost):
                attempt.stopping = True
                names = _names(run.order)
                attempt.told = [(self.now + STOP, StageInterrupted(**names, reason=run.stop or "died"))]
                if run.stage == "train" and run.stop == "preempt":
                    saved = Checkpoint(path="c", sha256=SHA)
                    step = run.checkpoint_step + 1
                    attempt.told.insert(0, (self.now + STOP, CheckpointSaved(**names, step=step, checkpoint=saved)))

    def _course(self, name: str, run: Run, order: Order) -> list[tuple[datetime, AnyEvent]]:
        """Draw what an attempt tells."""
        names, random = _names(order), self.random
        began = self.now + timedelta(milliseconds=100)
        seconds = 60 * MINUTES[order.stage] * random.uniform(0.2, 2.0)
        if order.resume and order.stage == "train":
            seconds *= random.random()
        told: list[tuple[datetime, AnyEvent]] = [(began, StageStarted(**names, command=order.command, host="h", pid=1))]
        if order.stage == "train":
            for number in range(1, int(seconds // 600) + 1):
                saved = Checkpoint(path=f"{number}", sha256=SHA)
                event = CheckpointSaved(**names, step=run.checkpoint_step + number, checkpoint=saved)
                told.append((began + timedelta(seconds=600 * number), event))
        end = began + timedelta(seconds=seconds)
        if random.random() < self.life.setup.failing:
            ended: AnyEvent = StageInterrupted(**names, reason="died")
            if random.random() < 0.5:
                ended = StageFailed(**names, failure="transient", message="the net is down")
            return [*told, (end, ended)]
        if order.stage == "probe":
            told.append((end, ProbeMeasured(**names, new={}, past={}, shift=round(random.uniform(0, 0.6), 3))))
        elif order.stage == "evaluate":
            told.append((end, self._evaluated(run, names)))
        elif order.stage == "promote":
            told.append((end, self._promoted(name, run, names)))
        return [*told, (end, StageSucceeded(**names, seconds=seconds))]

    def _evaluated(self, run: Run, names: dict[str, Any]) -> ModelEvaluated:
        gain = self.random.uniform(-0.04, 0.1)
        domains = {
            domain: Comparison(candidate=_loss(2.0), champion=_loss(2.0 + gain), difference=_loss(-gain))
            for domain in sorted({*run.plan.past, *run.plan.new})
        }
        return ModelEvaluated(**names, domains=domains, candidate=Checkpoint(path="candidate", sha256=SHA))

    def _promoted(self, name: str, run: Run, names: dict[str, Any]) -> ModelPromoted:
        version = self.life.state.pipelines[name].versions + 1
        return ModelPromoted(
            **names,
            model_version=version,
            path=f"v{version}",
            sha256=SHA,
            trunk=Checkpoint(path=f"v{version}/trunk", sha256=SHA),
            parent=run.plan.parent,
            spans=run.plan.spans,
            losses={},
        )

    def _history(self) -> list[tuple[datetime, str, Callable[[str], None]]]:
        """Draw what comes from outside, in order."""
        setup, random = self.life.setup, self.random
        found: list[tuple[datetime, str, Callable[[str], None]]] = []
        days = 0.8 * setup.days
        for name in setup.policies:
            at = 0.0
            while at < days:
                for _ in range(random.randint(1, 6)):
                    at += random.expovariate(1440 / 4)  # days: about four minutes apart in a burst
                    found.append((BEGIN + timedelta(days=at), name, self._arrive))
                at += random.expovariate(setup.arrivals / 3.5)
            others = [(self._request, setup.requests), (self._withdraw, 0.5), (self._report, 2.0), (self._restart, 0.7)]
            others.append((self._reload, setup.reloads))
            for what, often in others:
                times = [BEGIN + timedelta(days=random.uniform(0, days)) for _ in range(round(often * days))]
                found += [(at, name, what) for at in times]
        return sorted(found, key=lambda each: (each[0], each[1]))

    def _arrive(self, name: str) -> None:
        size = self.random.randint(5, 60) * 1000
        domain = self.random.choice(("prose", "code"))
        self._tell(DataArrived(uri="file:a", domain=domain, tokens=size, bytes=size, documents=1), name)

    def _request(self, name: str) -> None:
        verb = self.random.choice(VERBS)
        pipeline = self.life.state.pipelines[name]
        if verb == "pause":
            self._tell(OperatorRequested(verb="pause", by="ann"), name)
            at = self.now + timedelta(hours=self.random.uniform(0, 6))
            self.outside.append((at, name, lambda name: self._tell(OperatorRequested(verb="resume", by="ann"), name)))
            self.outside.sort(key=lambda each: (each[0], each[1]))
            return
        waiting = [each.position for _, each in sorted(pipeline.verdicts.items()) if each.verdict == AWAITING]
        decision = waiting[0] if verb == "approve" and waiting and pipeline.held is None else None
        self._tell(OperatorRequested(verb=verb, by="ann", decision=decision), name)

    def _withdraw(self, name: str) -> None:
        """Withdraw the newest arrival, if no run has used it yet."""
        pipeline = self.life.state.pipelines[name]
        gone = {r.event.arrival for r in self.life.records if isinstance(r.event, DataWithdrawn)}
        for record in reversed(self.life.records):
            if record.pipeline == name and isinstance(record.event, DataArrived):
                event = record.event
                if record.position > pipeline.used_upto and record.position not in gone and pipeline.held is None:
                    size = event.tokens or 0
                    amount = Amount(arrivals=1, documents=1, bytes=size, tokens=size)
                    told = DataWithdrawn(
                        arrival_source="/t",
                        arrival_id=record.id,
                        arrival=record.position,
                        domain=event.domain,
                        amount=amount,
                    )
                    self._tell(told, name)
                return

    def _report(self, name: str) -> None:
        value = round(self.random.uniform(0, 1), 3)
        self._tell(EvaluationReported(metric="quality", value=value), name)

    def _reload(self, name: str) -> None:
        """Take a policy out of the configuration, and put all back some hours later."""
        full = self.life.setup.policies[name]
        gone = self.random.randrange(len(full))
        at = self.now + timedelta(hours=self.random.uniform(0, 12))
        self.outside.append((at, name, lambda name: self._configure(name, full)))
        self.outside.sort(key=lambda each: (each[0], each[1]))
        self._configure(name, [*full[:gone], *full[gone + 1 :]])

    def _configure(self, name: str, policies: Sequence[Policy]) -> None:
        self.policies[name] = policies
        self._tell(_changed(self.life.setup.slots, self.policies), None)

    def _restart(self, name: str) -> None:
        """Kill the daemon and start another: it has nothing but what it kept."""
        del name
        self.epoch += 1
        self.life.state = load(dump(self.life.state))
        self._tell(DaemonStarted(epoch=self.epoch, release="t", reducer=REDUCER_VERSION, host="h", pid=1), None)


def _names(order: Order) -> dict[str, Any]:
    return {"run": order.run, "stage": order.stage, "attempt": order.attempt}


def _loss(mean: float) -> Loss:
    return Loss(mean=mean, low=mean - 0.01, high=mean + 0.01, documents=10, bytes=1000)


def _changed(slots: int, configured: Mapping[str, Sequence[Policy]]) -> ConfigurationChanged:
    pipelines = {
        name: PipelineSettings(
            stages=STAGES,
            policies=tuple(
                PolicySettings(name=each.label, kind=each.label, version=each.version, configuration="{}")
                for each in policies
            ),
            signals={name: most for each in policies for name, most in getattr(each, "signals", {}).items()},
        )
        for name, policies in configured.items()
    }
    return ConfigurationChanged(hash="1", slots=slots, pipelines=pipelines)
