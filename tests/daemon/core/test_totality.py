"""Any event at any state: the fold and the reaction never raise, and what does not fit changes one counter."""

import types
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.arbitration import react
from daemon.core.events import EVENTS, AnyEvent, Record, StageEvent, StageSucceeded
from daemon.core.state import State, dump, load
from daemon.core.transition import evolve
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.daemon.core.conftest import Parts, World

WORDS = {
    "run": ["p-2", "p-4", "p-19", "q-2", "nobody"],
    "resume": ["p-2"],
    "stage": ["ingest", "probe", "train", "evaluate", "promote", "nowhere", ""],
    "stages": ["ingest", "train", "promote"],
    "policy": ["starter", "low", "high", "retry", "gate", "operator", "nobody"],
    "name": ["starter", "retry", "rewarm_replay"],
    "wish": ["starter", "low:resume"],
    "key": ["p-2", "when", "interval"],
    "domain": ["prose", "code"],
    "sha256": ["0" * 64],
}
INSTANT = datetime(2026, 3, 1, 12, tzinfo=UTC)
instants = st.integers(-100, 100).map(lambda seconds: INSTANT + timedelta(seconds=seconds))
numbers = st.sampled_from([0.0, 0.01, 0.5, 1.0, -1.0, 1e9])


def values(kind: Any, name: str = "") -> st.SearchStrategy[Any]:  # noqa: ANN401, PLR0911, C901 - one return a type
    """Make values of a type; words and small numbers are those that the worlds of these tests know."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values(inner[0], name)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, types.UnionType):
        return st.one_of([values(each, name) for each in inner])
    if origin is tuple and inner[-1] is not Ellipsis:
        return st.tuples(*(values(each, name) for each in inner))
    if origin is tuple:
        return st.lists(values(inner[0], name), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(
            values(inner[0], "domain" if name in {"new", "past", "amounts"} else "key"),
            values(inner[1], name),
            max_size=2,
        )
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(0, 6)
    if kind is float:
        return numbers
    if kind is str:
        return st.sampled_from(WORDS.get(name, ["", "a", "p-2"]))
    if kind is datetime:
        return instants
    return structs(kind)


@cache
def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Make values of a class."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: values(hints[field.name], field.name) for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


events = st.sampled_from(sorted(EVENTS)).flatmap(lambda kind: structs(EVENTS[kind]))
facts = st.lists(st.tuples(events, st.sampled_from(["p", "p", "p", "q", "nobody", None])), min_size=1, max_size=12)


def fresh(parts: "type[Parts]") -> "World":
    """Make a world of a small pipeline and one with the real policies."""
    world = parts.World()
    real = (RewarmReplay(after_tokens=100), PeriodicRetraining(after_increments=1), StageRecovery(), Promotion())
    low, high = parts.Starter("low"), parts.Starter("high", after=1000, priority=1)
    world.configure({"p": (low, high, parts.Retry(), parts.Gate()), "q": real}, slots=2)
    return world


def running(stage: str) -> "Callable[[World], None]":
    """Make a run that is at a stage."""

    def prepare(world: "World") -> None:
        world.arrive(100)
        world.until(stage)

    return prepare


def backing_off(world: "World") -> None:
    """Make a run that waits for its wake-up."""
    running("train")(world)
    world.fail()


def promoted(world: "World") -> None:
    """Make a champion, and a run after it."""
    running("promote")(world)
    world.succeed()
    world.arrive(100)


def stopping(world: "World") -> None:
    """Make a run that is being cancelled."""
    running("train")(world)
    world.request("cancel")


def yielded(world: "World") -> None:
    """Make a run that has yielded to another."""
    running("train")(world)
    world.arrive(1000)
    world.stopped()


def held(world: "World") -> None:
    """Make a candidate that waits for a person."""
    running("evaluate")(world)
    world.policies = {"p": world.policies["p"][:3], "q": world.policies["q"]}
    world.succeed()


SITUATIONS: "list[Callable[[World], None]]" = [
    lambda _: None,
    running("ingest"),
    running("evaluate"),
    running("promote"),
    backing_off,
    promoted,
    stopping,
    yielded,
    held,
]


@pytest.mark.parametrize("situation", range(len(SITUATIONS)))
@settings(max_examples=25)
@given(told=facts)
def test_any_event_at_any_state_is_folded_and_answered(parts: "type[Parts]", situation: int, told: list[Any]) -> None:
    """Neither the fold nor the policies raise; the state stays whole; the recorded list gives the same state."""
    world = fresh(parts)
    SITUATIONS[situation](world)
    for event, pipeline in told:
        world.fact(event, pipeline)
        assert load(dump(world.state)) == world.state
    assert world.refolded() == dump(world.state)


@pytest.mark.parametrize("situation", range(len(SITUATIONS)))
@settings(max_examples=25)
@given(told=facts)
def test_what_is_ignored_changes_nothing_but_its_counter(parts: "type[Parts]", situation: int, told: list[Any]) -> None:
    """An event that does not fit is counted under its reason, and everything else is as before."""
    world = fresh(parts)
    SITUATIONS[situation](world)
    state = world.state
    for event, name in told:
        record = Record(
            position=state.position + 1, recorded_at=world.now, source="/", id="1", pipeline=name, event=event
        )
        after = evolve(state, record)
        if name not in state.pipelines:
            assert name is None or after.pipelines == state.pipelines
        else:
            before, now = state.pipelines[name], after.pipelines[name]
            if now.ignored != before.ignored:
                changed = {
                    k: n - before.ignored.get(k, 0) for k, n in now.ignored.items() if n != before.ignored.get(k)
                }
                assert list(changed.values()) == [1]
                late = "promoted_too_late" in changed
                assert (
                    replace(now, ignored=before.ignored, versions=before.versions if late else now.versions) == before
                )
            assert not stale(before, event) or now.ignored != before.ignored
        state = after


def stale(pipeline: Any, event: AnyEvent) -> bool:  # noqa: ANN401 - a Pipeline
    """Return whether a stage tells of an attempt that is not the current one."""
    if not isinstance(event, StageEvent):
        return False
    order = pipeline.active.order if pipeline.active else None
    return order is None or (event.run, event.stage, event.attempt) != (order.run, order.stage, order.attempt)


@settings(max_examples=50)
@given(told=facts)
def test_an_empty_state_takes_any_event(told: list[Any]) -> None:
    """Before any configuration nothing is known: positions move on, dead letters are counted, nothing else happens."""
    state = State()
    for event, name in told:
        if event.kind == "configuration.changed":
            continue
        record = Record(
            position=state.position + 1, recorded_at=INSTANT, source="/", id="1", pipeline=name, event=event
        )
        state, following = react(evolve(state, record), record, {})
        assert following == []
    assert state.pipelines == {}


def test_contradictory_order_within_a_stage_changes_nothing(world: "World") -> None:
    """A success after the failure of the same attempt leaves the failure standing, and nobody is asked about it."""
    world.arrive(100)
    names = world.names()
    world.fail()
    before = world.of()
    assert world.fact(StageSucceeded(**names, seconds=1.0)) == []
    assert world.of() == replace(before, ignored={"stale_attempt": 1})
