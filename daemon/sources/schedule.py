"""The schedule source: ticks of the policies' schedules become facts when they are due, late ones as configured.

What has ticked is state, so a daemon that was down, a clock that was put back or two daemons change nothing: a
tick's id is made of the schedule, its specification and the instant that it was scheduled for.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from daemon.core.events import ScheduleFired, ScheduleSettings
from daemon.core.state import Pipeline, State
from daemon.cron import cron, next_tick
from daemon.door import Offer, own

SOURCE = "/rewarm/clock"
MOST = 100


class Timetable(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's schedule for who asks: its last tick, its next, and how many are due that nobody has told yet."""

    policy: str
    cron: str
    timezone: str
    last: datetime | None
    next: datetime | None
    due: int


def upcoming(state: State) -> Iterator[tuple[str, str, datetime]]:
    """Yield pipeline, policy and next tick of each schedule; from memory, however often it is asked."""
    for pipeline, policy, schedule, after in _schedules(state):
        if (at := _next(schedule, after)) is not None:
            yield pipeline, policy, at


def due(state: State, now: datetime) -> tuple[Offer, ...]:
    """Return the ticks that are due at `now`, earliest first."""
    ticks = sorted(
        (at, pipeline, policy, schedule)
        for pipeline, policy, schedule, after in _schedules(state)
        for at in _due(schedule, after, now)
    )
    return tuple(_offer(pipeline, policy, schedule, at) for at, pipeline, policy, schedule in ticks)


def timetables(state: State, pipeline: str, now: datetime) -> tuple[Timetable, ...]:
    """Return a pipeline's schedules as a daemon that started at `now` would see them."""
    started = msgspec.structs.replace(state, started_at=now)
    return tuple(
        Timetable(
            policy=policy,
            cron=schedule.cron,
            timezone=schedule.timezone,
            last=state.pipelines[name].schedules[policy].last,
            next=_next(schedule, max(after, now)),
            due=len(_due(schedule, after, now)),
        )
        for name, policy, schedule, after in _schedules(started)
        if name == pipeline
    )


def _due(schedule: ScheduleSettings, after: datetime, now: datetime) -> list[datetime]:
    """Return the ticks of (after, now] that still count: all the last hundred, or only the last one."""
    first = _next(schedule, after)
    if first is None or first > now:
        return []
    return cron(schedule.cron, schedule.timezone).latest(after, now, MOST if schedule.catch_up == "all" else 1)


def _next(schedule: ScheduleSettings, after: datetime) -> datetime | None:
    return next_tick(schedule.cron, schedule.timezone, after)


def _schedules(state: State) -> Iterator[tuple[str, str, ScheduleSettings, datetime]]:
    """Yield each configured schedule with the instant after which its ticks count."""
    for name, pipeline in state.pipelines.items():
        if pipeline.settings is None or not pipeline.schedules:
            continue
        for policy in pipeline.settings.policies:
            if policy.schedule is not None and policy.name in pipeline.schedules:
                yield name, policy.name, policy.schedule, _after(state, pipeline, policy.name, policy.schedule)


def _after(state: State, pipeline: Pipeline, policy: str, schedule: ScheduleSettings) -> datetime:
    """Return its last tick, or when it was configured; where missed ticks are skipped, no earlier than the start."""
    standing = pipeline.schedules[policy]
    after = standing.last or standing.since
    if schedule.catch_up == "skip" and state.started_at is not None:
        return max(after, state.started_at)
    return after


def _offer(pipeline: str, policy: str, schedule: ScheduleSettings, at: datetime) -> Offer:
    event = ScheduleFired(
        policy=policy,
        specification=schedule.specification,
        scheduled_for=at,
        cron=schedule.cron,
        timezone=schedule.timezone,
    )
    identity = f"tick:{pipeline}/{policy}:{schedule.specification}:{at.astimezone(UTC).isoformat()}"
    return own(event, source=SOURCE, id=identity, where="schedule", pipeline=pipeline)
