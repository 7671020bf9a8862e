"""The virtual clock: what comes next, of the history, the stages, the timers and the schedules, is a fact.

Each fact goes through the same `evolve` and `react` as in the daemon; what stages do follows from the cost model.
Nothing is read or written; the wall clock has no say.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from daemon.core.arbitration import SOURCE as OWN
from daemon.core.arbitration import react
from daemon.core.decisions import Policies
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DaemonStarted,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    OperatorRequested,
    Record,
    RunCancelled,
    RunHeld,
    RunStarted,
    RunSucceeded,
)
from daemon.core.state import Order, Pipeline, Run, State
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.simulation.attempts import Attempt
from daemon.simulation.book import Book
from daemon.simulation.costs import Costs
from daemon.simulation.histories import Fact, History, seeded
from daemon.simulation.tally import Tally
from daemon.sources import clock

HISTORY: Final = "/simulated/history"
STAGES: Final = "/simulated/stages"
APPROVER: Final = "the simulation"
ENDS: Final = (RunSucceeded, RunHeld, RunCancelled)
"""After these a run's arrivals may be used up; a failed run's stay pending."""


class Engine:
    """One course of events: a history under one configuration. `run` it once."""

    def __init__(
        self,
        *,
        changed: ConfigurationChanged,
        policies: Policies,
        history: History,
        costs: Costs,
        seed: int,
        approve_after: timedelta | None,
        observer: Tally,
    ) -> None:
        self.state = State()
        self.books = {name: Book() for name in sorted(changed.pipelines)}
        self.facts: dict[str, int] = {}
        self.records = 0
        self._changed, self._policies = changed, policies
        self._history, self._costs, self._seed = history, costs, seed
        self._approve_after = approve_after
        self._observer = observer
        self._attempts: dict[str, Attempt] = {}
        self._started = dict.fromkeys(self.books, 0)
        self._approvals: dict[str, tuple[datetime, str]] = {}
        self._positions: dict[int, int] = {}
        self._due: datetime | None = None
        self._next: datetime | None = None

    def run(self) -> State:
        """Let everything happen until the history's end; return the state there."""
        begin, end = self._history.begin, self._history.end
        self._tell(begin, None, self._changed, OWN)
        started = DaemonStarted(epoch=1, release="simulated", reducer=REDUCER_VERSION, host="simulated", pid=1)
        self._tell(begin, None, started, OWN)
        sample = self._observer.passed(begin, self.state)
        for fact in self._history.facts():
            while (soonest := self._next) is not None and soonest < fact.at:
                sample = self._sampled(sample, soonest)
                self._happen(soonest)
            sample = self._sampled(sample, fact.at)
            self._from_outside(fact)
        while (soonest := self._next) is not None and soonest <= end:
            sample = self._sampled(sample, soonest)
            self._happen(soonest)
        self._sampled(sample, end)
        for name, attempt in self._attempts.items():
            self._observer.worked(name, attempt, end)
        return self.state

    def _sampled(self, sample: datetime, now: datetime) -> datetime:
        while sample <= now:
            sample = self._observer.passed(sample, self.state)
        return sample

    def _from_outside(self, fact: Fact) -> None:
        """Tell a fact of the history; what is withdrawn is found where it lies here, not where it lay then."""
        event, name = fact.event, fact.pipeline
        if isinstance(event, DataArrived):
            position = self.state.position + 1
            # before it is told: a run may start with it
            self.books[name].arrived(position, fact.at, event, followed=fact.key is not None)
            if fact.key is not None:
                self._positions[fact.key] = position
        elif isinstance(event, DataWithdrawn) and event.arrival is not None:
            arrival = self._positions.pop(event.arrival, None)
            event = replace(event, arrival=arrival)
            if arrival is not None:
                account, amount = self.books[name].withdraw(arrival, self.state.pipelines[name].champion)
                event = replace(event, amount=amount, account=account)
        self._tell(fact.at, name, event, HISTORY)

    def _happen(self, now: datetime) -> None:
        """Tell what is due: of stages first, then approvals, then wake-ups, then ticks."""
        for name, attempt in self._attempts.items():
            if attempt.head is not None and attempt.head[0] <= now:
                self._from_stage(now, name, attempt)
                return
        for name, (at, run) in self._approvals.items():
            if at <= now:
                del self._approvals[name]
                self._tell(now, name, OperatorRequested(verb="approve", run=run, by=APPROVER), HISTORY)
                self._look()
                return
        due = clock.due(self.state, now)
        for offer in due.offers if due is not None else ():
            if offer.event is not None:
                self._tell(now, offer.pipeline, offer.event, offer.source)
        self._look()

    def _from_stage(self, now: datetime, name: str, attempt: Attempt) -> None:
        """Tell what an attempt tells next; where that was its last word, see what is ordered now."""
        event, book = attempt.tell(), self.books[name]
        if attempt.head is None:
            del self._attempts[name]
            self._observer.worked(name, attempt, now)
        if isinstance(event, DataIngested):
            book.counted(event.arrival, event.amount)
        elif isinstance(event, DataRejected):
            book.reject(event.arrival)
        self._tell(now, name, event, STAGES)
        if isinstance(event, ModelPromoted):
            self._observer.trained(name, book.promoted(event.spans, now))
        if attempt.head is None:
            self._look()
        else:
            self._soonest()

    def _tell(self, now: datetime, name: str | None, event: AnyEvent, source: str) -> None:
        """Record and fold a fact with all that follows from it."""
        position = self.state.position + 1
        record = Record(position=position, recorded_at=now, source=source, id=str(position), event=event, pipeline=name)
        self.state, decided = react(evolve(self.state, record), record, self._policies)
        kind = event.kind
        self.facts[kind] = self.facts.get(kind, 0) + 1
        if decided:
            self.records += len(decided)
            for each in decided:
                if isinstance(each.event, RunStarted):
                    self._started[each.pipeline or ""] += 1
                elif isinstance(each.event, ENDS):
                    self._settle(now, each.pipeline or "", each.event)
            self._observer.observe(record, decided, self.state)
            self._look()
        elif isinstance(event, ModelPromoted):
            self._observer.observe(record, decided, self.state)

    def _settle(self, now: datetime, name: str, event: AnyEvent) -> None:
        """Take out of the book what a run that has ended used up, and is in no living run."""
        pipeline = self.state.pipelines[name]
        living = [run.plan.spans for run in (pipeline.active, pipeline.yielded, pipeline.held) if run is not None]
        used = self.books[name].used(
            pipeline.used_upto, (*pipeline.readmitted, *(s for spans in living for s in spans))
        )
        if isinstance(event, RunSucceeded) and event.outcome == "finished":
            self._observer.trained(name, [(now - entry.at).total_seconds() for entry in used])
        else:
            self.books[name].set_aside += len(used)

    def _look(self) -> None:
        """See what the state orders, and when something is due next."""
        now = self.state.recorded_at or self._history.begin
        for name, pipeline in self.state.pipelines.items():
            run = pipeline.active
            attempt = self._attempts.get(name)
            if run is None or run.order is None:
                if attempt is not None:
                    del self._attempts[name]
                    self._observer.worked(name, attempt, now)
            elif attempt is None or attempt.command != run.order.command:
                self._attempts[name] = self._begin(name, pipeline, run, run.order, now)
            elif not attempt.stopping and (run.stop is not None or run.order.lost):
                attempt.stop(run.stop or "died", now)
            if self._approve_after is not None:
                self._await(name, pipeline, now + self._approve_after)
        self._due = clock.next_due(self.state)
        for at, _ in self._approvals.values():
            self._due = at if self._due is None else min(self._due, at)
        self._soonest()

    def _begin(self, name: str, pipeline: Pipeline, run: Run, order: Order, now: datetime) -> Attempt:
        storms = [storm.failing for storm in self._history.storms if storm.begin <= now < storm.end]
        return Attempt(
            pipeline,
            run,
            order,
            now=now,
            costs=self._costs,
            random=seeded(self._seed, name, self._started[name], order.stage, order.attempt),
            arrivals=self.books[name].within(run.plan.spans) if order.stage == "ingest" else (),
            storm=max(storms, default=None),
        )

    def _await(self, name: str, pipeline: Pipeline, at: datetime) -> None:
        """Have a held candidate approved after a while."""
        waiting = self._approvals.get(name)
        if pipeline.held is None:
            self._approvals.pop(name, None)
        elif waiting is None or waiting[1] != pipeline.held.run:
            self._approvals[name] = (at, pipeline.held.run)

    def _soonest(self) -> None:
        soonest = self._due
        for attempt in self._attempts.values():
            if attempt.head is not None and (soonest is None or attempt.head[0] < soonest):
                soonest = attempt.head[0]
        self._next = soonest
