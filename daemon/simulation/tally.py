"""The tally of a simulation: runs, compute, staleness, wishes and decisions, pipeline by pipeline."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from daemon.core import signals
from daemon.core.commands import StartRun
from daemon.core.events import (
    AnyEvent,
    DecisionMade,
    ModelPromoted,
    ModelRolledBack,
    Record,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    run_of,
)
from daemon.core.state import Pipeline, State
from daemon.simulation.account import GOING_ON, Account, Sample, Span
from daemon.simulation.attempts import AtWork
from daemon.simulation.book import Entry
from policies.guards import VERDICTS

HELD: Final = "held"
SUPERSEDED: Final = "superseded"
YIELDED: Final = "preempted"
SPENDING: Final = "spending"
"""What a policy with a budget says of the run that it has begun."""
SAMPLES: Final = 400
HINDRANCES: Final = (
    ("no free slot", "no free slot"),
    ("paused", "paused"),
    ("another wish", "another wish goes first"),
    ("the pipeline is not configured", "not configured"),
    ("The wish", "the wish was void"),
)


class Tally:
    """Observes an engine; `accounts` holds what it saw of each pipeline."""

    def __init__(self, begin: datetime, end: datetime) -> None:
        self.accounts: dict[str, Account] = {}
        self._begin, self._end = begin, end
        self._step = max(timedelta(seconds=1), (end - begin) / SAMPLES)

    def account(self, pipeline: str) -> Account:
        """Return a pipeline's account."""
        return self.accounts.setdefault(pipeline, Account())

    def observe(self, record: Record, decided: list[Record], state: State) -> None:
        """Take note of a fact and of what followed from it."""
        now = record.recorded_at
        if isinstance(record.event, ModelPromoted) and record.pipeline is not None:
            self._champion(record.pipeline, state, now)
        for each in decided:
            account, event = self.account(each.pipeline or ""), each.event
            if isinstance(event, DecisionMade):
                _decided(account, event, now)
            elif isinstance(event, RunStarted):
                account.looks += event.intent.look
                account.runs[event.run] = Span(
                    run=event.run, kind=event.plan.kind, policy=event.policy, outcome=GOING_ON, begin=now, end=self._end
                )
            elif isinstance(event, RunResumed):
                _resumed(account, event.run, now, self._end)
            elif isinstance(event, ModelRolledBack):
                account.champions.append(now)
                account.rollbacks += 1
                account.freshness.rolled_back(now)
            elif (outcome := _outcome(event)) is not None:
                _ended(account, run_of(event) or "", outcome, now)
                if isinstance(event, RunFailed):
                    account.failures[event.failure] += 1
        for name in dict.fromkeys(each.pipeline or "" for each in decided):
            account, pipeline = self.account(name), state.pipelines[name]
            account.peak = max(account.peak, pipeline.waiting)
            self._wishes(account, pipeline, now)

    def passed(self, now: datetime, state: State) -> datetime:
        """Sample every pipeline; return when to do so again."""
        for name, pipeline in state.pipelines.items():
            account = self.account(name)
            lately = sorted(account.lately)
            account.samples.append(
                Sample(
                    at=now,
                    pending=max(account.peak, pipeline.waiting),
                    middle=lately[len(lately) // 2] if lately else None,
                    longest=lately[-1] if lately else None,
                )
            )
            account.peak, account.lately = pipeline.waiting, []
        return now + self._step

    def worked(self, pipeline: str, attempt: AtWork, until: datetime) -> None:
        """Take note of an attempt that was at work until an instant."""
        account = self.account(pipeline)
        account.stages[attempt.stage] += 1
        seconds = (until - attempt.began).total_seconds()
        account.seconds[attempt.stage] = account.seconds.get(attempt.stage, 0.0) + seconds
        account.compute += seconds * attempt.processes
        account.trained_tokens += attempt.trained(until)

    def trained(self, pipeline: str, entries: Sequence[Entry], now: datetime) -> None:
        """Take note of the arrivals of a new champion, and of how long each has waited for it."""
        account = self.account(pipeline)
        waited = [(now - entry.at).total_seconds() for entry in entries]
        account.waited.extend(waited)
        account.lately += waited
        for entry, seconds in zip(entries, waited, strict=True):
            account.weighed += seconds * entry.amount.tokens
            account.weight += entry.amount.tokens
        account.freshness.promoted(max((entry.at for entry in entries), default=None), now)

    def _champion(self, name: str, state: State, now: datetime) -> None:
        pipeline, account = state.pipelines[name], self.account(name)
        champion, run = pipeline.champion, pipeline.active
        if champion is None or champion.promoted_at != now:
            return
        account.champions.append(now)
        run = run if run is not None and run.run == champion.run else None
        rises = list(signals.forgetting(run.plan, run.evaluation).values()) if run is not None else []
        account.forgotten += sum(max(0.0, rise) for rise in rises) / len(rises) if rises else 0.0

    def _wishes(self, account: Account, pipeline: Pipeline, now: datetime) -> None:
        """Note which wishes have to wait, and for how long those waited that do no more."""
        standing = {key: wish.since_at for key, wish in pipeline.wishes.items()}
        for key, since in list(account.standing.items()):
            if standing.get(key) != since:
                account.waits.append((now - since).total_seconds())
        account.standing = standing


def _decided(account: Account, event: DecisionMade, now: datetime) -> None:
    account.stored += 1
    if _is_about_starting(account, event):
        starts = any(isinstance(command, StartRun) for command in event.commands)
        account.stands(event.policy, None if starts else event.verdict, now)
    if event.shadow:
        account.shadow += 1
    elif event.suppressed_by is not None:
        account.suppressed[hindrance(event.suppressed_by)] += 1
    elif event.commands:
        account.acting += 1


def _is_about_starting(account: Account, event: DecisionMade) -> bool:
    """Return whether a decision says something of starting, and not of the run whose stage had just told something."""
    if event.shadow or event.verdict == SPENDING or any(run_of(command) is not None for command in event.commands):
        return False
    return event.run is None or event.verdict in VERDICTS or event.policy in account.opinions


def _outcome(event: AnyEvent) -> str | None:
    """Return how a run ended, if this is its end."""
    match event:
        case RunSucceeded():
            return event.outcome
        case RunFailed():
            return "failed"
        case RunCancelled():
            return "cancelled"
        case RunHeld():
            return HELD
        case RunPostponed():
            return "postponed"
        case RunPreempted():
            return YIELDED
        case _:
            return None


def _ended(account: Account, run: str, outcome: str, at: datetime) -> None:
    span = account.runs.get(run)
    if span is not None:
        account.runs[run] = replace(span, outcome=outcome, end=at)
        if span.outcome == GOING_ON:
            account.ended.append(account.runs[run])
    if outcome == HELD:
        before = account.runs.get(account.held)
        if before is not None and before.run != run and before.outcome == HELD:
            account.runs[before.run] = replace(before, outcome=SUPERSEDED)
        account.held = run


def _resumed(account: Account, run: str, now: datetime, end: datetime) -> None:
    span = account.runs.get(run)
    if span is not None:
        account.runs[run] = replace(span, outcome=GOING_ON, begin=now, end=end)


def hindrance(reason: str) -> str:
    """Return what suppressed a decision without the names in it."""
    for beginning, word in HINDRANCES:
        if reason.startswith(beginning):
            return word
    if reason.startswith("run ") and reason.endswith(" is active"):
        return "a run is active"
    return "its run was not there for it"
