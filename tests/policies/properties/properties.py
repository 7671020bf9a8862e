"""What must hold of every life. Each property is a function that returns what breaks it: nothing, if it holds."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from daemon.core.commands import WithdrawWish
from daemon.core.events import (
    DataArrived,
    DataWithdrawn,
    DecisionMade,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    Record,
    RunCancelled,
    RunHeld,
    RunPreempted,
    RunResumed,
    RunStarted,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Intent
from daemon.core.state import Pipeline, State, Wish
from daemon.core.transition import evolve
from policies.base import Starting
from policies.guards import Guards
from tests.policies.properties.driver import Life

MOST_GROWTH = 3
MOST_ENTRIES = 8
"""Of a kind, for each policy: wake-ups, wishes, keys that are taken."""
DAY, MONTH = "%Y-%m-%d", "%Y-%m"
STOPS = 1.5
"""Seconds by which an attempt that is told to stop may outlast the instant at which it is."""

Started = tuple[Record, str, str, Intent]
"""When a training began: its record, pipeline, policy and intent."""


def no_two_starts_within_a_cooldown(life: Life) -> list[str]:
    """Trainings of a policy lie at least its cooldown apart; what a person asks for, or begins anew, may be sooner."""
    last: dict[tuple[str, str], datetime] = {}
    broken = []
    for record, name, policy, intent in _trainings(life):
        guards = _guards(life, name, policy)
        before, at = last.get((name, policy)), record.recorded_at
        if guards.cooldown and before and at < before + guards.cooldown and not _free(record, intent):
            broken.append(f"{policy} of {name} started at {before} and at {at}")
        last[name, policy] = at
    return broken


def nothing_starts_in_quiet_hours(life: Life) -> list[str]:
    """Neither a training nor a look begins within a window."""
    return [
        f"{policy} of {name} started at {record.recorded_at}"
        for record, name, policy, intent in _starts(life)
        if not _free(record, intent)
        and any(window.within(record.recorded_at) for window in _guards(life, name, policy).quiet)
    ]


def a_key_is_taken_once(life: Life) -> list[str]:
    """Of starts with the same key one happens until it expires; one that is cancelled to begin again gives it back."""
    taken: dict[tuple[str, str], datetime] = {}
    keys: dict[str, tuple[str, str]] = {}
    broken = []
    trainings = {record.position: (name, policy, intent) for record, name, policy, intent in _trainings(life)}
    for record in life.records:
        event, now = record.event, record.recorded_at
        if isinstance(event, RunCancelled) and event.again and event.run in keys:
            taken.pop(keys[event.run], None)
        if record.position not in trainings or not isinstance(event, RunStarted | PlanFixed):
            continue
        name, policy, intent = trainings[record.position]
        if intent.claim is None:
            continue
        key = name, intent.claim.key
        if now < taken.get(key, now) and not _free(record, intent):
            broken.append(f"{policy} of {name} started with {intent.claim.key} at {now}")
        taken[key], keys[event.run] = now + timedelta(seconds=intent.claim.seconds), key
    return broken


def a_person_approves_each_start(life: Life) -> list[str]:
    """Where starts are to be approved, there is none that nobody asked for."""
    return [
        f"{policy} of {name} started at {record.recorded_at}"
        for record, name, policy, intent in _starts(life)
        if _guards(life, name, policy).approval and not intent.asked
    ]


def budgets_are_never_exceeded(life: Life) -> list[str]:
    """Of each UTC day and month no more is computed than its budget, but for the second that a stop takes.

    What a person asked for is not counted, nor what nobody interrupts: the publication of a candidate, and what a
    candidate goes through that was held.
    """
    limits: dict[tuple[str, str], float] = {}
    for name, found in life.setup.policies.items():
        budgets = [p.guards.budget for p in found if isinstance(p, Starting) and p.guards.budget is not None]
        for form, given in ((DAY, [b.per_day for b in budgets]), (MONTH, [b.per_month for b in budgets])):
            if bounds := [each for each in given if each is not None]:
                limits[name, form] = min(bounds)
    free = {r.event.run for r in life.records if isinstance(r.event, RunStarted) and r.event.intent.asked}
    begun: dict[tuple[str, str, str, int], datetime] = {}
    spent: Counter[tuple[str, str, str]] = Counter()
    stops: Counter[tuple[str, str, str]] = Counter()
    for record in life.records:
        event, name, now = record.event, record.pipeline or "", record.recorded_at
        if isinstance(event, RunHeld):
            free.add(event.run)
        elif isinstance(event, StageStarted) and event.stage != "promote" and event.run not in free:
            begun[name, event.run, event.stage, event.attempt] = now
        elif isinstance(event, StageSucceeded | StageFailed | StageInterrupted):
            at = begun.pop((name, event.run, event.stage, event.attempt), None)
            while at is not None and at < now:
                midnight = at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
                upto = min(now, midnight)
                for form in (DAY, MONTH):
                    spent[name, form, at.strftime(form)] += (upto - at).total_seconds()  # type: ignore[assignment]
                at = upto
            for form in (DAY, MONTH):
                stops[name, form, now.strftime(form)] += isinstance(event, StageInterrupted)
    return [
        f"{seconds / 3600:.3f} h were computed in {name} in {when}, of {most} h"
        for (name, form, when), seconds in spent.items()
        if (most := limits.get((name, form))) is not None and seconds > most * 3600 + STOPS * stops[name, form, when]
    ]


def no_payload_is_lost(life: Life) -> list[str]:
    """Every arrival is in exactly one place: trained on, pending, set aside or withdrawn."""
    broken = []
    for name, pipeline in life.state.pipelines.items():
        records = [record for record in life.records if record.pipeline == name]
        arrived = {r.position for r in records if isinstance(r.event, DataArrived)}
        withdrawn = {r.event.arrival for r in records if isinstance(r.event, DataWithdrawn)}
        spans = [
            (r.event.run, span)
            for r in records
            if isinstance(r.event, ModelPromoted | ModelRejected)
            for span in r.event.spans
        ]
        held = pipeline.held
        spans += [(held.run, span) for span in held.plan.spans] if held is not None else []
        used: dict[int, set[str]] = defaultdict(set)
        for run, span in spans:
            for position in arrived:
                if span.after < position <= span.upto:
                    used[position].add(run)
        twice = [position for position, runs in used.items() if len(runs) > 1]
        broken += [f"arrival {position} of {name} was used by {used[position]}" for position in twice]
        places = [pipeline.pending, pipeline.set_aside, pipeline.champion.past if pipeline.champion else {}]
        places += [held.plan.new] if held is not None else []
        active = pipeline.active
        places += [active.plan.new] if active is not None and active.consumed and not active.promoted else []
        counted = sum(amount.arrivals for place in places for amount in place.values())
        if counted != len(arrived - withdrawn):
            broken.append(f"{len(arrived - withdrawn)} arrivals of {name} are left, and {counted} are counted")
        waits = sum(amount.arrivals for amount in pipeline.pending.values())
        left = len(arrived - withdrawn - set(used) - _superseded(records))
        if waits != left and not any(run.consumed for run in (active, pipeline.yielded) if run is not None):
            broken.append(f"{left} arrivals of {name} were never used, and {waits} are pending")
    return broken


def no_start_while_data_still_comes(life: Life) -> list[str]:
    """Before a start there was silence as long as `debounce`, or the oldest arrival has waited long enough."""
    last: dict[str, datetime] = {}
    broken = []
    state = State()
    for record in life.records:
        event, name, now = record.event, record.pipeline or "", record.recorded_at
        if isinstance(event, DataArrived):
            last[name] = now
        if isinstance(event, RunStarted) and not _free(record, event.intent) and name in last:
            guards = _guards(life, name, event.policy)
            oldest = state.pipelines[name].waiting_since or now
            longest = guards.debounce_at_most or 10 * (guards.debounce or timedelta(0))
            if guards.debounce and now < last[name] + guards.debounce and now < oldest + longest:
                broken.append(f"{event.policy} of {name} started at {now}, the last arrival came at {last[name]}")
        state = evolve(state, record)
    return broken


def preempted_work_is_resumed_or_cancelled(life: Life) -> list[str]:
    """A run that has yielded is taken up again, or cancelled with a reason, or it waits with a wish to go on."""
    yielded: dict[str, str] = {}
    broken = []
    for record in life.records:
        event = record.event
        if isinstance(event, RunPreempted):
            yielded[event.run] = record.pipeline or ""
        elif isinstance(event, RunResumed | RunCancelled) and event.run in yielded:
            del yielded[event.run]
            if isinstance(event, RunCancelled) and not event.reason:
                broken.append(f"{event.run} was cancelled without a reason")
    for run, name in yielded.items():
        pipeline = life.state.pipelines[name]
        waits = pipeline.yielded is not None and pipeline.yielded.run == run
        if not waits or run not in {wish.resume for wish in pipeline.wishes.values()}:
            broken.append(f"{run} has yielded and is forgotten")
    return broken


def never_two_champions(life: Life) -> list[str]:
    """The champion is what was promoted or rolled back to last, and each follows the one that it was compared with."""
    broken = []
    state = State()
    named: dict[str, int | None] = {}
    runs: Counter[str] = Counter()
    held = {record.event.run for record in life.records if isinstance(record.event, RunHeld)}
    for record in life.records:
        event, name = record.event, record.pipeline or ""
        before = named.get(name)
        state = evolve(state, record)
        if isinstance(event, ModelPromoted) and _current(state, name) != before:
            named[name] = event.model_version
            runs[event.run] += 1
            if event.parent != before and event.run not in held:  # those were compared anew
                broken.append(f"version {event.model_version} of {name} goes on from {event.parent}, not {before}")
        elif isinstance(event, ModelRolledBack):
            named[name] = event.model_version
        if name and _current(state, name) != named.get(name):
            broken.append(f"{name} has {_current(state, name)} at {record.position}, named was {named.get(name)}")
    for name, pipeline in life.state.pipelines.items():
        if (pipeline.champion.version if pipeline.champion else None) != named.get(name):
            broken.append(f"{name} ends with {pipeline.champion}, named was {named.get(name)}")
    return broken + [f"{run} was promoted {count} times" for run, count in runs.items() if count > 1]


def every_wish_ends(life: Life) -> list[str]:
    """A wish is acted on, taken back by a decision that says why, or expires; none stands that could be acted on."""
    broken = []
    states = list(_states(life))
    for before, after, record in zip(states, [*states[1:], life.state], life.records, strict=True):
        for name, pipeline in before.pipelines.items():
            ready = _ready(before, pipeline)
            if ready is not None and record.cause is None and record.recorded_at > ready + timedelta(seconds=STOPS):
                broken.append(f"a wish of {name} could be acted on from {ready}, and was not at {record.recorded_at}")
            left = after.pipelines[name].wishes if name in after.pipelines else {}
            broken += [
                f"the wish {key} of {name} is gone after {record.event.kind} at {record.position}"
                for key, wish in pipeline.wishes.items()
                if key not in left and not _ends(key, wish, record)
            ]
    acted = {r.event.command for r in life.records if isinstance(r.event, RunStarted | RunResumed)}
    for name, pipeline in life.state.pipelines.items():
        standing = [key for key, wish in pipeline.wishes.items() if wish.command in acted]
        broken += [f"the wish {key} of {name} was acted on, and stands" for key in standing]
    return broken


def the_state_stays_bounded(life: Life) -> list[str]:
    """Neither does the state grow with history, nor any of its tables beyond what the policies may ask for."""
    half = len(life.sizes) // 2
    first, second = max(life.sizes[:half]), max(life.sizes[half:])
    broken = [f"{first} bytes grew to {second}"] if second > MOST_GROWTH * first else []
    for name, pipeline in life.state.pipelines.items():
        tables = (pipeline.timers, pipeline.fired, pipeline.wishes, pipeline.verdicts, pipeline.begun, pipeline.claims)
        most = MOST_ENTRIES * len(life.setup.policies[name])
        broken += [f"{name} keeps {len(table)} of a kind: {sorted(table)[:3]}" for table in tables if len(table) > most]
    return broken


PROPERTIES = (
    no_two_starts_within_a_cooldown,
    nothing_starts_in_quiet_hours,
    a_key_is_taken_once,
    a_person_approves_each_start,
    budgets_are_never_exceeded,
    no_payload_is_lost,
    no_start_while_data_still_comes,
    preempted_work_is_resumed_or_cancelled,
    never_two_champions,
    every_wish_ends,
    the_state_stays_bounded,
)


def _ends(key: str, wish: Wish, record: Record) -> bool:
    """Return whether a record says what became of a wish."""
    match record.event:
        case RunStarted():
            return record.event.command == wish.command
        case RunResumed():
            return record.event.run == wish.resume  # two may have asked for it
        case RunCancelled():
            return record.event.run == wish.resume
        case DecisionMade():
            withdrawn = [c for c in record.event.commands if isinstance(c, WithdrawWish)]
            return bool(record.event.reason) and key in {c.wish or record.event.policy for c in withdrawn}
        case _:
            return False


def _states(life: Life) -> Iterator[State]:
    """Yield the state before each record."""
    state = State()
    for record in life.records:
        yield state
        state = evolve(state, record)


def _ready(state: State, pipeline: Pipeline) -> datetime | None:
    """Return since when a wish could be acted on; None: none can."""
    busy = sum(1 for each in state.pipelines.values() if each.active is not None)
    now = state.recorded_at
    if busy >= state.slots or pipeline.active is not None or pipeline.paused is not None or now is None:
        return None
    return min((max(now, wish.not_before or now) for wish in pipeline.wishes.values()), default=None)


def _current(state: State, name: str) -> int | None:
    champion = state.pipelines[name].champion if name in state.pipelines else None
    return champion.version if champion is not None else None


def _superseded(records: list[Record]) -> set[int]:
    """Return the arrivals of candidates that were held, and of which nothing was promoted: they are set aside."""
    plans = {r.event.run: r.event.plan for r in records if isinstance(r.event, RunStarted)}
    held = [r.event.run for r in records if isinstance(r.event, RunHeld)]
    spans = [span for run in held for span in plans[run].spans]
    arrived = [r.position for r in records if isinstance(r.event, DataArrived)]
    return {each for each in arrived for span in spans if span.after < each <= span.upto}


def _starts(life: Life) -> Iterator[Started]:
    for record in life.records:
        if isinstance(record.event, RunStarted):
            yield record, record.pipeline or "", record.event.policy, record.event.intent


def _trainings(life: Life) -> Iterator[Started]:
    """Yield the starts that train, and the looks at the moment at which they come to train."""
    looks: dict[str, Started] = {}
    for record in life.records:
        event, name = record.event, record.pipeline or ""
        if isinstance(event, RunStarted):
            started = (record, name, event.policy, event.intent)
            if event.intent.look:
                looks[event.run] = started
            else:
                yield started
        elif isinstance(event, PlanFixed) and event.run in looks:
            _, _, policy, intent = looks.pop(event.run)
            yield record, name, policy, intent


def _free(record: Record, intent: Intent) -> bool:
    """Return whether a person asked for a start, or it begins anew what was begun."""
    return intent.asked or (isinstance(record.event, RunStarted) and ":again/" in record.event.command)


def _guards(life: Life, name: str, policy: str) -> Guards:
    found = next(each for each in life.setup.policies[name] if each.label == policy)
    return getattr(found, "guards", None) or Guards()
