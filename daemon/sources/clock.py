"""The clock source: wake-ups that policies asked for become facts when they are due, overdue ones at start."""

from datetime import datetime

from daemon.core.encoding import encode
from daemon.core.events import TimerFired
from daemon.core.state import State
from daemon.door import Input, Offer
from daemon.journal.base import digest

SOURCE = "/rewarm/clock"


def next_due(state: State) -> datetime | None:
    """Return when the earliest pending wake-up is due."""
    return min((at for pipeline in state.pipelines.values() for at in pipeline.timers.values()), default=None)


def due(state: State, now: datetime) -> Input | None:
    """Return the wake-ups that are due at `now`, earliest first, as one input."""
    fired = sorted(
        (at, name, key)
        for name, pipeline in state.pipelines.items()
        for key, at in pipeline.timers.items()
        if at <= now
    )
    offers = []
    for at, name, timer in fired:
        policy, _, key = timer.partition(":")
        event = TimerFired(policy=policy, key=key, due=at)
        offers.append(
            Offer(
                source=SOURCE,
                id=f"timer:{name}:{policy}:{key}:{at.isoformat()}",
                where="clock",
                digest=digest(encode(event)),
                event=event,
                pipeline=name,
            )
        )
    return Input(offers=tuple(offers)) if offers else None
