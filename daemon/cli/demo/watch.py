"""Following the journal while the demo works: folds new records, and shows what they say of runs and stages."""

import time
from collections.abc import Callable
from pathlib import Path

from daemon.cli.demo.screen import Screen
from daemon.cli.demo.steps import settled
from daemon.cli.output import seconds
from daemon.cli.words import plan, shift, unmeasured
from daemon.core.events import (
    AnyEvent,
    DataIngested,
    DataRejected,
    DecisionMade,
    ModelEvaluated,
    ModelPromoted,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunStarted,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import steps
from daemon.core.state import Pipeline, State
from daemon.core.transition import evolve
from daemon.journal.base import Reader, scan

POLL_SECONDS = 0.15
POLICY_VERDICTS = frozenset({"due", "planned", "promote", "reject", "hold", "held", "retry", "backing_off", "given_up"})
"""Verdicts that are worth a line while one watches."""


class Watch:
    """The state as it grows, and what of it goes to the screen."""

    def __init__(self, reader: Reader, state: State, pipeline: str, runs: Path, screen: Screen) -> None:
        """Begin after what `state` holds."""
        self.state = state
        self.failures: list[str] = []
        self._reader = reader
        self._name = pipeline
        self._runs = runs
        self._screen = screen
        self._told: dict[str, str] = {}
        self._announced: str | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as it stands."""
        return self.state.pipelines.get(self._name) or Pipeline(name=self._name)

    def look(self) -> None:
        """Take in what is new."""
        for record in scan(self._reader, self.state.position):
            self.state = evolve(self.state, record)
            if record.pipeline == self._name:
                self._show(record)

    def until_settled(self, alive: Callable[[], None]) -> None:
        """Return when nothing more follows from what has arrived, or a person has paused the pipeline.

        `alive` raises when nobody works any more.
        """
        self.look()
        self._resume()
        while not settled(self.pipeline):
            if self.pipeline.active is None and self.pipeline.paused is not None:
                self._screen.say(f"Paused by {self.pipeline.paused}: `rewarm request resume {self._name}` goes on.")
                return
            alive()
            time.sleep(POLL_SECONDS)
            self.look()

    def _resume(self) -> None:
        """Show a run that began before anybody watched."""
        run = self.pipeline.active
        if run is not None and run.order is not None and run.run != self._announced:
            self._announced = run.run
            self._screen.say(f"  {run.run} goes on: {plan(run.plan)}.")
            self._screen.begin(run.stage, run.progress.steps or None)

    def _show(self, record: Record) -> None:
        event = record.event
        match event:
            case DecisionMade(verdict=verdict) if verdict in POLICY_VERDICTS:
                waits = f" It waits: {event.suppressed_by}." if event.suppressed_by else ""
                self._screen.say(f"  {event.policy}: {event.reason}{waits}", "dim")
            case RunStarted():
                self._announced = event.run
                self._screen.say(f"  {event.run}: {plan(event.plan)}.")
            case PlanFixed():
                self._told.pop("train", None)
            case RunSucceeded():
                self._screen.say(f"  {event.run}: {event.outcome}.", "green")
            case RunHeld():
                self._screen.say(f"  {event.run} is held: {event.reason}", "yellow")
            case RunFailed() | RunCancelled():
                self._failed(event)
            case _:
                self._stage(event)

    def _stage(self, event: AnyEvent) -> None:
        match event:
            case StageStarted():
                self._told.pop(event.stage, None)
                run = self.pipeline.active
                total = steps(run.plan.training) if run is not None and event.stage == "train" else None
                self._screen.begin(event.stage, total)
            case StageProgressed():
                self._screen.advance(event.stage, event.step, event.steps, numbers(event.metrics))
            case StageSucceeded():
                self._screen.end(event.stage, self._told.get(event.stage) or ended(event))
            case StageFailed():
                self._screen.end(event.stage, f"{event.failure}: {event.message}", well=False)
            case StageInterrupted():
                self._screen.end(event.stage, f"interrupted ({event.reason})", well=False)
            case DataIngested():
                told = f"{event.amount.documents:,} documents, {event.amount.tokens:,} tokens"
                self._told["ingest"] = told
            case DataRejected():
                self._screen.say(f"  An arrival of {event.domain} cannot be used: {event.message}", "red")
            case ProbeMeasured():
                measured = unmeasured(event) if event.shift is None else f"shift {shift(event, 3)} nats/byte"
                self._told["probe"] = measured
            case ModelEvaluated():
                self._told["evaluate"] = ", ".join(
                    f"{domain} {each.candidate.mean:.3f}" for domain, each in sorted(event.domains.items())
                )
            case ModelPromoted():
                self._told["promote"] = f"version {event.model_version}"
            case _:
                pass

    def _failed(self, event: RunFailed | RunCancelled) -> None:
        if isinstance(event, RunCancelled):
            told = f"{event.run} was cancelled: {event.reason}"
        else:
            logs = sorted((self._runs / event.run / event.stage).glob("*/log.txt"), key=lambda p: p.stat().st_mtime)
            where = f" Its log: {logs[-1]}" if logs else ""
            told = f"{event.run} failed in {event.stage}: {event.reason}{where}"
        self.failures.append(told)
        self._screen.say(f"  {told}", "red")


def numbers(metrics: dict[str, float]) -> str:
    """Return a stage's numbers in short."""
    told = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    told += [f"rate {metrics['learning_rate']:.1e}"] if "learning_rate" in metrics else []
    told += [f"{metrics['tokens_per_second']:,.0f} tok/s"] if metrics.get("tokens_per_second") else []
    told += [f"{seconds(metrics['seconds_left'])} left"] if metrics.get("seconds_left") else []
    return "  ".join(told)


def ended(event: StageSucceeded) -> str:
    """Return what a stage that succeeded says at its end."""
    metrics = event.metrics
    if "tokens_per_second" in metrics:
        return numbers({name: value for name, value in metrics.items() if name in {"loss", "tokens_per_second"}})
    return seconds(event.seconds)
