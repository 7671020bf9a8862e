"""What a simulation comes to, as numbers: one report for each set of policies, the same bytes for the same input."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from daemon.core.decisions import Policies, Policy
from daemon.core.events import ConfigurationChanged
from daemon.core.state import State, dump, fingerprint
from daemon.simulation.account import GOING_ON, Account, Sample, Span
from daemon.simulation.book import Book
from daemon.simulation.costs import Costs
from daemon.simulation.engine import Engine
from daemon.simulation.histories import HOUR, History
from daemon.simulation.tally import Tally
from policies.base import Starting


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one kind that one policy started, by how they ended."""

    kind: str
    policy: str
    outcomes: dict[str, int]


class Staleness(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from an arrival to the promotion of the model that contains it, over all that got so far.

    `mean` is over all `weight` tokens, what still waits counted until the end; `data_age` is the mean age of the newest
    data in the champion, over the time in which there was one.
    """

    arrivals: int
    mean: float | None
    weight: int
    data_age: float | None
    p50: float | None
    p90: float | None
    longest: float | None
    waiting: int
    waiting_longest: float | None


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """Wishes to start that had to wait, and for how many seconds; `standing` still do at the end."""

    waited: int
    longest: float | None
    standing: int


class Champions(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of the champion; its age in seconds: the mean over the time since the first, the longest, the last."""

    changes: int
    mean_age: float | None
    longest_age: float | None
    age_at_end: float | None


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """What policies said of starting, other than to start: how often, and for how many seconds in all."""

    times: int
    seconds: float


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one pipeline; `failures` are the runs that failed, by the class of the failure."""

    arrivals: int
    runs: tuple[Runs, ...]
    failures: dict[str, int]
    looks: int
    compute_hours: float
    money: float | None
    stage_hours: float
    stage_hours_by_stage: dict[str, float]
    attempts: dict[str, int]
    trained_tokens: int
    staleness: Staleness
    set_aside: int
    rejected: int
    withdrawn: int
    wishes: Wishes
    acting: int
    stored: int
    suppressed: dict[str, int]
    stood: dict[str, Stood]
    shadow: int
    shadow_starts: dict[str, int]
    champions: Champions
    rollbacks: int
    forgotten: float


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """What the picture of one pipeline is made of."""

    runs: tuple[Span, ...]
    samples: tuple[Sample, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one set of policies made of the history; `state` is the fingerprint of the state at its end."""

    name: str
    configuration: str
    slots: int
    policies: dict[str, tuple[str, ...]]
    facts: dict[str, int]
    records: int
    state: str
    pipelines: dict[str, PipelineReport]


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """A report, and what its picture is made of."""

    report: Report
    drawings: dict[str, Drawing]


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration to try, under a name."""

    name: str
    changed: ConfigurationChanged
    policies: Policies


def simulate(
    policies: PolicySet, history: History, costs: Costs, *, seed: int, approve_after: timedelta | None = None
) -> Simulated:
    """Let a history happen under a set of policies."""
    tally = Tally(history.begin, history.end)
    engine = Engine(
        changed=policies.changed,
        policies=policies.policies,
        history=history,
        costs=costs,
        seed=seed,
        approve_after=approve_after,
        observer=tally,
    )
    state = engine.run()
    return account_of(policies, tally, engine, state, history)


def account_of(policies: PolicySet, tally: Tally, engine: Engine, state: State, history: History) -> Simulated:
    """Return what came of a course of events that is over."""
    accounts = {name: tally.account(name) for name in sorted(policies.changed.pipelines)}
    report = Report(
        name=policies.name,
        configuration=policies.changed.hash,
        slots=policies.changed.slots,
        policies={
            name: tuple(policy.name for policy in settings.policies)
            for name, settings in sorted(policies.changed.pipelines.items())
        },
        facts=dict(sorted(engine.facts.items(), key=lambda item: (-item[1], item[0]))),
        records=state.position,
        state=fingerprint(dump(state)),
        pipelines={
            name: _pipeline(
                name, account, engine.books[name], state, history.end, price=_price(policies.policies.get(name, ()))
            )
            for name, account in accounts.items()
        },
    )
    drawings = {
        name: Drawing(
            runs=(*account.ended, *(run for run in account.runs.values() if run.outcome == GOING_ON)),
            samples=tuple(account.samples),
        )
        for name, account in accounts.items()
    }
    return Simulated(report=report, drawings=drawings)


def _price(policies: Iterable[Policy]) -> float | None:
    """Return what an hour of compute costs, where a budget says so."""
    budgets = [policy.guards.budget for policy in policies if isinstance(policy, Starting)]
    return next((budget.price for budget in budgets if budget is not None and budget.price is not None), None)


def _pipeline(
    name: str, account: Account, book: Book, state: State, end: datetime, *, price: float | None
) -> PipelineReport:
    pipeline = state.pipelines[name]
    hours = {stage: account.seconds[stage] / HOUR for stage in sorted(account.seconds)}
    return PipelineReport(
        arrivals=sum(pipeline.domains.values()),
        runs=tuple(_runs(account.runs.values())),
        failures=dict(sorted(account.failures.items())),
        looks=account.looks,
        compute_hours=_figure(account.compute / HOUR),
        money=None if price is None else round(account.compute / HOUR * price, 2),
        stage_hours=_figure(sum(hours.values())),
        stage_hours_by_stage={stage: _figure(each) for stage, each in hours.items()},
        attempts=dict(sorted(account.stages.items())),
        trained_tokens=account.trained_tokens,
        staleness=_staleness(account, book, end),
        set_aside=book.set_aside,
        rejected=book.rejected,
        withdrawn=book.withdrawn,
        wishes=_wishes(account, end),
        acting=account.acting,
        stored=account.stored,
        suppressed=dict(sorted(account.suppressed.items())),
        stood=_stood(account, end),
        shadow=account.shadow,
        shadow_starts={name: shadow.starts for name, shadow in sorted(pipeline.shadows.items())},
        champions=_champions(account.champions, end),
        rollbacks=account.rollbacks,
        forgotten=round(account.forgotten, 6),
    )


def _runs(spans: Iterable[Span]) -> list[Runs]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for span in spans:
        counts.setdefault((span.kind, span.policy), Counter())[span.outcome] += 1
    return [
        Runs(kind=kind, policy=policy, outcomes=dict(sorted(outcomes.items())))
        for (kind, policy), outcomes in sorted(counts.items())
    ]


def _staleness(account: Account, book: Book, end: datetime) -> Staleness:
    waited, waiting = sorted(account.waited), book.waiting()
    still = [((end - entry.at).total_seconds(), entry.amount.tokens) for entry in waiting]
    weight = account.weight + sum(tokens for _, tokens in still)
    weighed = account.weighed + sum(seconds * tokens for seconds, tokens in still)
    age = account.freshness.mean(end)
    return Staleness(
        arrivals=len(waited),
        mean=_figure(weighed / weight) if weight else None,
        weight=weight,
        data_age=None if age is None else _figure(age),
        p50=quantile(waited, 0.5),
        p90=quantile(waited, 0.9),
        longest=quantile(waited, 1.0),
        waiting=len(waiting),
        waiting_longest=_figure((end - waiting[0].at).total_seconds()) if waiting else None,
    )


def _stood(account: Account, end: datetime) -> dict[str, Stood]:
    for policy in list(account.opinions):
        account.stands(policy, None, end)
    return {
        verdict: Stood(times=int(times), seconds=_figure(seconds))
        for verdict, (times, seconds) in sorted(account.stood.items())
    }


def _wishes(account: Account, end: datetime) -> Wishes:
    standing = [(end - since).total_seconds() for since in account.standing.values()]
    waits = [wait for wait in (*account.waits, *standing) if wait > 0]  # the same instant is no waiting
    return Wishes(waited=len(waits), longest=_figure(max(waits)) if waits else None, standing=len(standing))


def _champions(changes: Sequence[datetime], end: datetime) -> Champions:
    ages = [(later - earlier).total_seconds() for earlier, later in pairwise([*changes, end])]
    total = sum(ages)
    mean = sum(age * age for age in ages) / 2 / total if total else None  # an age grows from 0 to its longest
    return Champions(
        changes=len(changes),
        mean_age=None if mean is None else _figure(mean),
        longest_age=_figure(max(ages)) if ages else None,
        age_at_end=_figure(ages[-1]) if ages else None,
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the ordered values does not exceed; None of none."""
    if not ordered:
        return None
    rank = -(-round(share * len(ordered) * 1_000_000) // 1_000_000)
    return _figure(ordered[max(0, min(len(ordered), rank) - 1)])


def _figure(value: float) -> float:
    return round(value, 3)
