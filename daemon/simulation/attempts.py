"""What an attempt of a stage would tell, and when, by the cost model: the virtual counterpart of the dispatcher."""

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Final, Protocol, cast

from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    DataIngested,
    DataRejected,
    InterruptReason,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Amount, Checkpoint, Remedy, steps
from daemon.core.state import Order, Pipeline, Run
from daemon.simulation.book import Entry
from daemon.simulation.costs import Costs
from daemon.simulation.histories import a_host, seeded
from daemon.simulation.learning import work
from daemon.simulation.results import SHA, Results
from stages.base import Names

if TYPE_CHECKING:
    from daemon.core.errors import FailureClass

STOPPING: Final = timedelta(seconds=1)
AT_A_STEP: Final = frozenset({"loss_spike", "not_finite", "bad_sample", "out_of_memory"})
NO_CHECKPOINT: Final = frozenset({"cancel", "died"})

Told = tuple[datetime, AnyEvent]


class AtWork(Protocol):
    """An attempt as the engine sees it: what it tells next and when, until it has ended or is told to."""

    command: str
    began: datetime
    stage: str
    processes: int
    stopping: bool
    head: Told | None

    def tell(self) -> AnyEvent:
        """Return what `head` tells, and go on to what comes after it: None when that was its last word."""

    def stop(self, reason: InterruptReason, now: datetime) -> None:
        """Ask it to end, or kill it."""

    def trained(self, at: datetime) -> int:
        """Return how many tokens it has trained on when it ends at this instant."""


class Attempt:
    """One attempt from `began` on; `head` is what it tells next."""

    def __init__(
        self,
        pipeline: Pipeline,
        run: Run,
        order: Order,
        *,
        now: datetime,
        costs: Costs,
        random: Random,
        arrivals: Sequence[Entry],
        storm: float | None,
    ) -> None:
        self.command = order.command
        self.began = now
        self.stage = order.stage
        self.processes = run.plan.training.engine.processes if order.stage == "train" else 1
        self.stopping = False
        self.tokens = 0
        self._names = Names(run=order.run, stage=order.stage, attempt=order.attempt)
        self._run, self._costs, self._random, self._arrivals = run, costs, random, arrivals
        self._results = Results(self._names, pipeline, run, costs=costs, random=random, arrivals=arrivals)
        self._host = a_host(seeded(order.command))
        training = run.plan.training
        self._steps = steps(training)
        self._begun = min(run.checkpoint_step, self._steps) if order.resume and order.stage == "train" else 0
        self._step_tokens = training.tokens / self._steps
        left = 1 - self._begun / self._steps
        self._seconds = costs.duration(order.stage).seconds(work(order.stage, run.plan) * left, random)
        failure = costs.failure(order.stage, random, storm)
        self._fails_with = None if failure in remedied(order.remedy) else failure
        self._fails_after = self._seconds * random.random()
        self._events: Iterator[Told] = self._tell(order)
        self.head: Told | None = next(self._events)

    def tell(self) -> AnyEvent:
        """Return what `head` tells, and go on to what comes after it: None when that was its last word."""
        assert self.head is not None  # noqa: S101 - who asks has looked at its time
        event = self.head[1]
        self.head = next(self._events, None)
        return event

    def stop(self, reason: InterruptReason, now: datetime) -> None:
        """Ask it to end, or kill it: within a second it saves a checkpoint, where it can, and its end is told."""
        self.stopping = True
        at = now + STOPPING
        told: list[Told] = []
        passed = (now - self.began).total_seconds()
        if self.stage == "train" and reason not in NO_CHECKPOINT and self._step(passed) > self._begun:
            told.append((at, self._checkpoint(passed)))
        told.append((at, StageInterrupted(**self._names, reason=reason)))
        self._events = iter(told)
        self.head = next(self._events)

    def trained(self, at: datetime) -> int:
        """Return how many tokens it has trained on when it ends at this instant."""
        if self.stage != "train":
            return 0
        return round((self._step((at - self.began).total_seconds()) - self._begun) * self._step_tokens)

    def _tell(self, order: Order) -> Iterator[Told]:
        yield self.began, StageStarted(**self._names, command=order.command, host=self._host, pid=1)
        seconds, failure = self._seconds, self._fails_with
        limits = self._run.plan.limits
        if failure is not None:
            seconds = self._fails_after
        if seconds > limits.time_limit:
            seconds, failure = limits.time_limit, "time_limit"
        if order.stage == "train":
            yield from self._checkpoints(seconds, limits.checkpoint_every)
        if order.stage == "ingest":
            usable = yield from self._ingest(seconds, failed=failure is not None)
            if failure is None and self._arrivals and not usable:
                failure = "bad_sample"
        if failure is not None:
            silence = limits.heartbeat if failure == "hang" else 0.0
            yield self._at(seconds + silence), self._failed(failure, seconds)
            return
        end = self._at(seconds)
        yield from ((end, event) for event in self._results.tell(order.stage))
        metrics = {"resumed_at": float(self._begun)} if order.stage == "train" else {}
        yield end, StageSucceeded(**self._names, seconds=seconds, metrics=metrics)

    def _at(self, seconds: float) -> datetime:
        return self.began + timedelta(seconds=seconds)

    def _step(self, seconds: float) -> int:
        done = min(1.0, seconds / self._seconds)
        return self._begun + int((self._steps - self._begun) * done)

    def _checkpoint(self, seconds: float) -> CheckpointSaved:
        step = self._step(seconds)
        saved = Checkpoint(path=f"simulated/{self._names['run']}/{step}", sha256=SHA)
        return CheckpointSaved(**self._names, step=step, checkpoint=saved)

    def _checkpoints(self, seconds: float, every: float) -> Iterator[Told]:
        passed, last = every, self._begun
        while passed < seconds:
            if self._step(passed) > last:
                last = self._step(passed)
                yield self._at(passed), self._checkpoint(passed)
            passed += every

    def _failed(self, failure: str, seconds: float) -> AnyEvent:
        if failure == "worker_lost":
            return StageInterrupted(**self._names, reason="died", message="simulated")
        if failure == "hang":
            return StageInterrupted(**self._names, reason="hang", message="simulated")
        step = self._step(seconds) if self.stage == "train" and failure in AT_A_STEP else None
        return StageFailed(**self._names, failure=cast("FailureClass", failure), message="simulated", step=step)

    def _ingest(self, seconds: float, *, failed: bool) -> Generator[Told, None, bool]:
        """Tell of one arrival after the other, of half of them where it fails; return whether any is usable."""
        share = self._costs.rejected.share
        number, usable = len(self._arrivals), False
        for index, entry in enumerate(self._arrivals[: number // 2] if failed else self._arrivals, 1):
            at = self._at(seconds * index / number)
            if self._random.random() < share and not entry.exact:  # what was usable once still is
                yield (
                    at,
                    DataRejected(
                        **self._names,
                        arrival=entry.position,
                        domain=entry.domain,
                        estimate=entry.amount,
                        reason="simulated",
                        message="simulated",
                    ),
                )
                continue
            usable = True
            yield (
                at,
                DataIngested(
                    **self._names,
                    arrival=entry.position,
                    domain=entry.domain,
                    estimate=entry.amount,
                    amount=entry.amount if entry.exact else self._count(entry),
                    duplicates=0,
                    manifest="simulated",
                    sha256=SHA,
                ),
            )
        return usable

    def _count(self, entry: Entry) -> Amount:
        """Return the exact amount of an arrival that is ingested for the first time."""
        ratio = self._costs.counted_of(entry.domain).draw(self._random)
        before = entry.amount
        exact = max(0, round(before.tokens * ratio))
        return Amount(arrivals=1, documents=before.documents, bytes=before.bytes, tokens=exact)


def remedied(remedy: Remedy) -> frozenset[str]:
    """Return the failures that do not come again under a remedy: it is taken to help."""
    found: set[str] = set()
    if remedy.accumulate > 1:
        found.add("out_of_memory")
    if remedy.skip or remedy.before is not None:
        found |= {"loss_spike", "not_finite"}
    if remedy.without:
        found.add("bad_sample")
    return frozenset(found)
