"""The clock source: wake-ups that policies asked for, and ticks of their schedules, become facts when they are due."""

from collections.abc import Iterator
from datetime import datetime

from daemon.core.events import TimerFired
from daemon.core.state import State
from daemon.door import Input, Offer, own
from daemon.sources import schedule
from daemon.sources.schedule import SOURCE

__all__ = ["SOURCE", "due", "next_due"]


def next_due(state: State) -> datetime | None:
    """Return when the earliest pending wake-up, or tick, is due."""
    timers = (at for pipeline in state.pipelines.values() for at in pipeline.timers.values())
    return min((*timers, *(at for _, _, at in schedule.upcoming(state))), default=None)


def due(state: State, now: datetime) -> Input | None:
    """Return what is due at `now` as one input: wake-ups first, then ticks, each earliest first."""
    offers = (*_timers(state, now), *schedule.due(state, now))
    return Input(offers=offers) if offers else None


def _timers(state: State, now: datetime) -> Iterator[Offer]:
    fired = sorted(
        (at, name, key)
        for name, pipeline in state.pipelines.items()
        for key, at in pipeline.timers.items()
        if at <= now
    )
    for at, name, timer in fired:
        policy, _, key = timer.partition(":")
        event = TimerFired(policy=policy, key=key, due=at)
        yield own(
            event, source=SOURCE, id=f"timer:{name}:{policy}:{key}:{at.isoformat()}", where="clock", pipeline=name
        )
