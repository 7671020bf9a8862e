"""The four policies of the example over two months: how often they train when everything is done at once."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.core.arbitration import react
from daemon.core.events import (
    AnyEvent,
    Comparison,
    ConfigurationChanged,
    DataArrived,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    OperatorRequested,
    PipelineSettings,
    PolicySettings,
    Record,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import Checkpoint
from daemon.core.state import Run, State
from daemon.core.transition import evolve
from policies.base import BasePolicy
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

SHA = "0" * 64
START = datetime(2026, 3, 1, tzinfo=UTC)
Rise = Callable[[Run], float]


class History:
    """A pipeline whose stages are done at once, and whose candidates' losses a function gives."""

    def __init__(self, *policies: BasePolicy, rise: Rise = lambda run: -0.1) -> None:
        self.policies = {"p": policies}
        self.rise = rise
        self.state = State()
        self.now = START
        self.records: list[Record] = []
        known = tuple(PolicySettings(name=p.label, kind=p.label, version=1, configuration="{}") for p in policies)
        settings = PipelineSettings(stages=("ingest", "probe", "train", "evaluate", "promote"), policies=known)
        self.fact(ConfigurationChanged(hash="h", slots=1, pipelines={"p": settings}), None)

    def fact(self, event: AnyEvent, pipeline: str | None = "p") -> None:
        """Record a fact and what follows."""
        position = self.state.position + 1
        record = Record(
            position=position, recorded_at=self.now, source="/t", id=str(position), pipeline=pipeline, event=event
        )
        self.state, following = react(evolve(self.state, record), record, self.policies)
        self.records += [record, *following]

    def work(self) -> None:
        """Let stages succeed until nothing is ordered; more than a few runs in a row are a loop."""
        for _ in range(60):
            run = self.state.pipelines["p"].active
            if run is None or run.order is None:
                return
            self.succeed(run)
        pytest.fail("runs follow each other without an end")

    def succeed(self, run: Run) -> None:
        """Let the ordered attempt do its work."""
        assert run.order is not None
        names: Any = {"run": run.run, "stage": run.order.stage, "attempt": run.order.attempt}
        if run.order.stage == "evaluate":
            domains = {domain: self.compared(run) for domain in (*run.plan.past, *run.plan.new)}
            candidate = Checkpoint(path="c", sha256=SHA)
            self.fact(ModelEvaluated(**names, domains=domains, candidate=candidate))
        if run.order.stage == "promote":
            version = self.state.pipelines["p"].versions + 1
            promoted = ModelPromoted(
                **names,
                model_version=version,
                path=f"v{version}",
                sha256=SHA,
                trunk=Checkpoint(path="t", sha256=SHA),
                parent=run.plan.parent,
                spans=run.plan.spans,
                losses={},
            )
            self.fact(promoted)
        self.fact(StageSucceeded(**names, seconds=1.0))

    def compared(self, run: Run) -> Comparison:
        """Return a sure difference."""
        rise = self.rise(run)
        difference = Loss(mean=rise, low=rise, high=rise, documents=1, bytes=1)
        return Comparison(candidate=difference, champion=difference, difference=difference)

    def days(self, count: int) -> None:
        """Let days pass, with data each noon; wake-ups fire when they are due."""
        for _ in range(count):
            self.until(self.now + timedelta(days=1))
            self.fact(DataArrived(uri="a", domain="prose", tokens=100, bytes=100))
            self.work()

    def until(self, at: datetime) -> None:
        """Fire what is due on the way to an instant."""
        while (due := self.due()) is not None and due[0] <= at:
            self.now, key = max(self.now, due[0]), due[1]
            policy, _, name = key.partition(":")
            self.fact(TimerFired(policy=policy, key=name, due=due[0]))
            self.work()
        self.now = at

    def due(self) -> tuple[datetime, str] | None:
        """Return the earliest wake-up."""
        return min(((at, key) for key, at in self.state.pipelines["p"].timers.items()), default=None)

    def started(self) -> Counter[str]:
        """Return how many runs of each kind there were."""
        return Counter(record.event.plan.kind for record in self.records if isinstance(record.event, RunStarted))

    def outcomes(self) -> Counter[str]:
        """Return how the runs ended."""
        return Counter(record.event.outcome for record in self.records if isinstance(record.event, RunSucceeded))


def four(**retraining: object) -> tuple[BasePolicy, ...]:
    """Make the example's policies."""
    return (
        RewarmReplay(after_tokens=200),
        PeriodicRetraining.model_validate(retraining),
        StageRecovery(),
        Promotion(),
    )


@pytest.mark.parametrize("start", ["base", "scratch", "champion"])
def test_a_weekly_retrain_happens_once_a_week(start: str) -> None:
    """Wherever it starts from, steady arrivals neither starve it nor let it run more often."""
    history = History(*four(every=timedelta(days=7), **{"from": start}))
    history.days(64)
    assert history.started()["base"] == 1
    assert history.started()["retrain"] == 8
    assert 20 <= history.started()["increment"] <= 32


@pytest.mark.parametrize("start", ["base", "scratch", "champion"])
def test_a_retrain_comes_after_so_many_increments(start: str) -> None:
    """Every fourth increment is followed by one."""
    history = History(*four(after_increments=4, **{"from": start}))
    history.days(64)
    counts = history.started()
    assert counts["retrain"] == counts["increment"] // 4


@pytest.mark.parametrize("retraining", [{"after_increments": 4}, {"every": timedelta(days=7)}])
def test_refused_retrains_do_not_follow_each_other(retraining: dict[str, object]) -> None:
    """A retrain that is always refused is tried again with new reason only, and increments go on."""
    history = History(*four(**retraining), rise=lambda run: 0.5 if run.plan.kind == "retrain" else -0.1)
    history.days(64)
    assert history.outcomes()["rejected"] == history.started()["retrain"]
    assert history.started()["retrain"] <= history.started()["increment"]
    if "every" in retraining:
        assert history.started()["retrain"] <= 9
    assert history.started()["increment"] >= 20


def test_a_request_brings_one_retrain() -> None:
    """Whatever the numbers say, and once."""
    history = History(*four(after_increments=100))
    history.days(10)
    history.fact(OperatorRequested(verb="retrain", by="ann"))
    history.work()
    history.days(10)
    assert history.started()["retrain"] == 1


def test_a_stage_that_always_fails_ends_its_run_and_blocks() -> None:
    """Retries with a growing wait, then the run is given up; the next arrival brings another, not before."""
    history = History(*four(after_increments=4))
    history.days(2)
    history.days(1)
    history.now += timedelta(hours=1)
    history.fact(DataArrived(uri="a", domain="prose", tokens=100, bytes=100))
    failures = 0
    while (run := history.state.pipelines["p"].active) is not None:
        if run.order is None:
            due = history.due()
            assert due is not None
            history.now = max(history.now, due[0])
            policy, _, key = due[1].partition(":")
            history.fact(TimerFired(policy=policy, key=key, due=due[0]))
            continue
        failed = StageFailed(
            run=run.run, stage=run.order.stage, attempt=run.order.attempt, failure="transient", message="net"
        )
        history.fact(failed)
        failures += 1
    assert failures == 4
    last = history.state.pipelines["p"].last
    assert last is not None
    assert last.outcome == "failed"
    before = sum(history.started().values())
    history.until(history.now + timedelta(days=3))
    assert sum(history.started().values()) == before
    history.days(1)
    assert sum(history.started().values()) == before + 1
