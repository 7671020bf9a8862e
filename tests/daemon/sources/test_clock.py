"""Wake-ups as facts."""

from datetime import UTC, datetime, timedelta

from daemon.core.events import TimerFired
from daemon.core.state import Pipeline, State
from daemon.sources.clock import SOURCE, due, next_due

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def state(**timers: dict[str, int]) -> State:
    """Make a state whose pipelines have wake-ups so many seconds after noon."""
    pipelines = {
        name: Pipeline(name=name, timers={key: NOON + timedelta(seconds=at) for key, at in keys.items()})
        for name, keys in timers.items()
    }
    return State(pipelines=pipelines)


def test_without_wake_ups_nothing_is_due() -> None:
    """An empty state has neither a next one nor one that is due."""
    assert next_due(State()) is None
    assert due(State(), NOON) is None
    assert next_due(state(p={})) is None


def test_the_next_is_the_earliest_of_all_pipelines() -> None:
    """Pipelines are looked at together."""
    assert next_due(state(p={"a:k": 9}, q={"a:k": 3, "b:k": 5})) == NOON + timedelta(seconds=3)


def test_what_is_due_comes_in_order() -> None:
    """Due ones alone, the earliest first, each under an identity that it will have for ever."""
    found = due(state(p={"a:k": 3, "b:p-9": 1, "a:later": 4}, q={"a:k": 2}), NOON + timedelta(seconds=3))
    assert found is not None
    assert found.cursor is None
    assert [(offer.pipeline, offer.event) for offer in found.offers] == [
        ("p", TimerFired(policy="b", key="p-9", due=NOON + timedelta(seconds=1))),
        ("q", TimerFired(policy="a", key="k", due=NOON + timedelta(seconds=2))),
        ("p", TimerFired(policy="a", key="k", due=NOON + timedelta(seconds=3))),
    ]
    assert {offer.source for offer in found.offers} == {SOURCE}
    assert found.offers[0].id == "timer:p:b:p-9:2026-03-01T12:00:01+00:00"
    assert found == due(state(q={"a:k": 2}, p={"b:p-9": 1, "a:k": 3}), NOON + timedelta(seconds=3))


def test_before_its_time_nothing_is_due() -> None:
    """Not a microsecond early."""
    assert due(state(p={"a:k": 1}), NOON + timedelta(microseconds=999_999)) is None
