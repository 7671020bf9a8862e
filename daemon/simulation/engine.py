"""The virtual clock: what comes next, of the history, the stages, the timers and the schedules, is a fact.

Each fact goes through the same `evolve` and `react` as in the daemon; what stages do follows from the cost model.
Nothing is read or written; the wall clock has no say.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from daemon.core.arbitration import SOURCE as OWN
from daemon.core.arbitration import react
from daemon.core.decisions import AWAITING, Policies
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    ConfigurationChanged,
    DaemonStarted,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    EvaluationReported,
    LabelArrived,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    Record,
    RunCancelled,
    RunHeld,
    RunStarted,
    RunSucceeded,
)
from daemon.core.state import Order, Pipeline, Run, State
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.simulation.attempts import Attempt, AtWork
from daemon.simulation.book import Book
from daemon.simulation.costs import Costs
from daemon.simulation.histories import DAY, Fact, History, seeded
from daemon.simulation.tally import Tally
from daemon.sources import clock

if TYPE_CHECKING:
    from daemon.core.plans import Remedy

HISTORY: Final = "/simulated/history"
STAGES: Final = "/simulated/stages"
APPROVER: Final = "the simulation"
TAKES_ARRIVALS: Final = frozenset({"ingest", "probe"})
ENDS: Final = (RunSucceeded, RunHeld, RunCancelled)
"""After these a run's arrivals may be used up; a failed run's stay pending."""


class Approval(msgspec.Struct, frozen=True):
    """What a person is asked to approve: a held run's candidate, or the start that a decision is about."""

    pipeline: str
    run: str | None = None
    decision: int | None = None


Recorder = Callable[[Record, list[Record], State], None]
"""Is told each fact and what followed from it, before anything is begun; the state is that after both."""


class Engine:
    """One course of events: a history under one configuration. `run` it once.

    `begin` makes the attempts: a subclass may have real ones.
    """

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
        recorder: Recorder | None = None,
    ) -> None:
        self.state = State()
        self.books = {name: Book() for name in sorted(changed.pipelines)}
        self.facts: dict[str, int] = {}
        self.records = 0
        self._changed, self._policies = changed, policies
        self._history, self._costs, self._seed = history, costs, seed
        self._approve_after = approve_after
        self._observer, self._recorder = observer, recorder
        self._attempts: dict[str, AtWork] = {}
        self._started = dict.fromkeys(self.books, 0)
        self._saved: dict[str, tuple[str, Remedy]] = {}
        self._approvals: dict[Approval, datetime] = {}
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
            self.books[name].arrived(position, fact.at, event, followed=fact.key is not None, recorded=fact.recorded)
            if fact.key is not None:
                self._positions[fact.key] = position
        elif isinstance(event, DataWithdrawn) and event.arrival is not None:
            arrival = self._positions.pop(event.arrival, None)
            event = replace(event, arrival=arrival)
            if arrival is not None:
                account, amount = self.books[name].withdraw(arrival, self.state.pipelines[name].champion)
                event = replace(event, amount=amount, account=account)
        elif self._history.ages and isinstance(event, EvaluationReported | LabelArrived):
            event = self._aged(name, event, fact.at)
        self._tell(fact.at, name, event, HISTORY)

    def _aged(
        self, name: str, event: EvaluationReported | LabelArrived, now: datetime
    ) -> EvaluationReported | LabelArrived:
        """Return what a monitor reports of a champion whose newest data is as old as it is."""
        newest = self.books[name].newest
        if newest is None:
            return event
        lost = self._costs.ageing * (now - newest).total_seconds() / DAY
        return replace(event, value=round(event.value - lost, 4))

    def _happen(self, now: datetime) -> None:
        """Tell what is due: of stages first, then approvals, then wake-ups, then ticks."""
        for name, attempt in self._attempts.items():
            if attempt.head is not None and attempt.head[0] <= now:
                self._from_stage(now, name, attempt)
                return
        for each, at in self._approvals.items():
            if at <= now:
                del self._approvals[each]
                asked = OperatorRequested(verb="approve", run=each.run, decision=each.decision, by=APPROVER)
                self._tell(now, each.pipeline, asked, HISTORY)
                self._look()
                return
        due = clock.due(self.state, now)
        for offer in due.offers if due is not None else ():
            if offer.event is not None:
                self._tell(now, offer.pipeline, offer.event, offer.source)
        self._look()

    def _from_stage(self, now: datetime, name: str, attempt: AtWork) -> None:
        """Tell what an attempt tells next; where that was its last word, see what is ordered now."""
        event, book = attempt.tell(), self.books[name]
        if attempt.head is None:
            del self._attempts[name]
            self._observer.worked(name, attempt, now)
        if isinstance(event, DataIngested):
            book.counted(event.arrival, event.amount)
        elif isinstance(event, DataRejected):
            book.reject(event.arrival)
        elif isinstance(event, CheckpointSaved) and (run := self.state.pipelines[name].active) is not None:
            self._saved[name] = run.run, replace(run.remedy, accumulate=1)
        self._tell(now, name, event, STAGES)
        if isinstance(event, ModelPromoted):
            self._observer.trained(name, book.promoted(event.spans, now), now)
        if attempt.head is None:
            self._look()
        else:
            self._soonest()

    def _tell(self, now: datetime, name: str | None, event: AnyEvent, source: str) -> None:
        """Record and fold a fact with all that follows from it."""
        position = self.state.position + 1
        record = Record(position=position, recorded_at=now, source=source, id=str(position), event=event, pipeline=name)
        self.state, decided = react(evolve(self.state, record), record, self._policies)
        if self._recorder is not None:
            self._recorder(record, decided, self.state)
        kind = event.kind
        self.facts[kind] = self.facts.get(kind, 0) + 1
        if decided:
            self.records += len(decided)
            for each in decided:
                if isinstance(each.event, RunStarted):
                    self._started[each.pipeline or ""] += 1
                elif isinstance(each.event, ModelRolledBack):
                    self.books[each.pipeline or ""].rolled_back()
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
            self._observer.trained(name, used, now)
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
                self._attempts[name] = self.begin(name, pipeline, run, run.order, now)
            elif not attempt.stopping and (run.stop is not None or run.order.lost):
                attempt.stop(run.stop or "died", now)
            if self._approve_after is not None:
                self._await(name, pipeline, now + self._approve_after)
        self._due = clock.next_due(self.state)
        for at in self._approvals.values():
            self._due = at if self._due is None else min(self._due, at)
        self._soonest()

    def begin(self, name: str, pipeline: Pipeline, run: Run, order: Order, now: datetime) -> AtWork:
        """Return what an order that was given just now would tell."""
        remedy = replace(order.remedy, accumulate=1)
        if remedy.before is not None and self._saved.get(name) != (run.run, remedy):  # else the checkpoint is its own
            run = replace(run, checkpoint_step=min(run.checkpoint_step, remedy.before))
        storms = [storm.failing for storm in self._history.storms if storm.begin <= now < storm.end]
        return Attempt(
            pipeline,
            run,
            order,
            now=now,
            costs=self._costs,
            random=seeded(self._seed, name, self._started[name], order.stage, order.attempt),
            arrivals=self.books[name].within(run.plan.spans) if order.stage in TAKES_ARRIVALS else (),
            storm=max(storms, default=None),
        )

    def _await(self, name: str, pipeline: Pipeline, at: datetime) -> None:
        """Have what waits for a person approved after a while: a held candidate, and starts."""
        asked = [Approval(name, decision=v.position) for v in pipeline.verdicts.values() if v.verdict == AWAITING]
        if pipeline.held is not None:
            asked.append(Approval(name, run=pipeline.held.run))
        for approval in [each for each in self._approvals if each.pipeline == name and each not in asked]:
            del self._approvals[approval]
        for approval in asked:
            self._approvals.setdefault(approval, at)

    def _soonest(self) -> None:
        soonest = self._due
        for attempt in self._attempts.values():
            if attempt.head is not None and (soonest is None or attempt.head[0] < soonest):
                soonest = attempt.head[0]
        self._next = soonest
