"""What holds for every registered policy alike, whatever the state and the fact."""

from datetime import UTC, datetime, timedelta
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from daemon.core.decisions import Decision
from daemon.core.encoding import decode, encode
from daemon.core.errors import FailureClass
from daemon.core.events import EVENTS, DecisionMade, Record
from daemon.core.state import Pipeline
from policies import AnyPolicy
from policies.base import BasePolicy

Json = dict[str, object]

POLICIES: tuple[type[BasePolicy], ...] = get_args(get_args(AnyPolicy)[0])
ADAPTER: TypeAdapter[BasePolicy] = TypeAdapter(AnyPolicy)
LABELS = [str(cls.model_fields["kind"].default) for cls in POLICIES]
STAGES = ("ingest", "probe", "train", "evaluate", "promote")
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
MOST_BYTES = 64 << 10
"""A decision is a row in the journal: it must not grow with history."""

EAGER: dict[str, list[Json]] = {
    "rewarm_replay": [{"after_tokens": 1, "max_age": 1, "expires_after": 60}, {"replay": 0.5, "schedule": "infinite"}],
    "periodic_retraining": [{"after_increments": 1}, {"every": 1, "from": "champion"}],
    "stage_recovery": [{"retries": 10**9, "ceiling": 10**9, "factor": 1000}, {"backoff": 0}],
    "promotion": [{"approval": "always"}, {"approval": "undecided", "min_gain": 1.0}],
}
"""Configurations under which a policy acts on most states."""

NAMED: dict[str, st.SearchStrategy[Any]] = {
    "name": st.just("p"),
    "run": st.just("p-90"),
    "policy": st.sampled_from([*LABELS, "other"]),
    "stage": st.sampled_from(["probe", "train", "evaluate"]),
    "stages": st.just(STAGES),
    "key": st.sampled_from(["age", "interval", "p-90"]),
    "kind_of_dict": st.sampled_from([*LABELS, "prose", "code", *STAGES]),
    "timers": st.dictionaries(
        st.sampled_from([f"{label}:{key}" for label in LABELS for key in ("age", "interval", "p-90")]),
        st.integers(0, 10**8).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
        max_size=3,
    ),
    "verdict": st.sampled_from(["due", "waiting", "judged", "blocked"]),
    "last": st.sampled_from(["", *get_args(FailureClass)]),
    "settings": st.none(),
}
"""Fields whose values are drawn from what the policies look for."""

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 2**40) | st.integers(0, 5),
    float: st.floats(0, 10, allow_nan=False),
    str: st.sampled_from(["0" * 64, "a"]),
    bytes: st.just(b"x"),
    datetime: st.integers(0, 10**8).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
    type(None): st.none(),
}


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - types as values
    """Return a strategy for any type that events and states are made of."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if origin is Annotated:
        return st.just("0" * 64) if "64" in str(arguments[1:]) and arguments[0] is str else values(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([values(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(NAMED["kind_of_dict"], values(arguments[1]), max_size=3)
    fields = {
        field.name: values(field.type)
        if field.name not in NAMED or (field.name == "last" and kind is Pipeline)
        else NAMED[field.name]
        for field in msgspec.structs.fields(kind)
    }
    return st.builds(kind, **fields)


def configured(kind: str) -> list[BasePolicy]:
    """Make a policy with its defaults, and with each eager configuration."""
    return [ADAPTER.validate_python({"kind": kind, **fields}) for fields in ({}, *EAGER.get(kind, []))]


@st.composite
def situations(draw: st.DrawFn, kind: str) -> tuple[Pipeline, Record]:
    """Draw a state and a fact of this kind that comes after all that the state knows."""
    state = draw(values(Pipeline))
    seconds = draw(st.integers(10**8, 2 * 10**8))
    record = Record(
        position=2**41,
        recorded_at=EPOCH + timedelta(seconds=seconds),
        source="/test",
        id="1",
        pipeline="p",
        event=draw(values(EVENTS[kind])),
    )
    return state, record


def as_event(policy: BasePolicy, decision: Decision) -> DecisionMade:
    """Return a decision as the journal keeps it."""
    return DecisionMade(
        policy=policy.label,
        policy_version=policy.version,
        verdict=decision.verdict,
        reason=decision.reason,
        inputs=decision.inputs,
        thresholds=decision.thresholds,
        commands=decision.commands,
        wakes=decision.wakes,
    )


def check(policy: BasePolicy, state: Pipeline, record: Record, decision: Decision) -> None:
    """Check what a decision must be, whatever it says."""
    made = as_event(policy, decision)
    data = encode(made)
    assert decode("decision.made", 1, data) == made
    assert len(data) < MOST_BYTES
    assert decision.verdict.replace("_", "").isalpha()
    assert decision.reason.endswith(".")
    assert len(decision.commands) <= 1
    assert len(decision.wakes) <= 1
    for at in decision.wakes.values():
        assert at > record.recorded_at, "a wake-up in the past would be given at once, again and again"
    for command in decision.commands:
        run = getattr(command, "run", None)
        assert run is None or (state.active is not None and run == state.active.run)


@pytest.mark.parametrize("kind", sorted(EVENTS))
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_decisions_are_pure_valid_and_bounded(kind: str, data: st.DataObject) -> None:
    """Whatever the state and the fact: no error, the same answer twice, nothing changed, and a storable decision."""
    state, record = data.draw(situations(kind))
    before = msgspec.json.encode(state, order="deterministic"), msgspec.json.encode(record.event)
    for label in LABELS:
        for policy in configured(label):
            decision = policy.decide(state, record)
            opinion = policy.opinion(state, record)
            assert policy.decide(state, record) == decision
            assert policy.opinion(state, record) == opinion
            for answer in (decision, opinion):
                if answer is not None:
                    check(policy, state, record, answer)
    assert (msgspec.json.encode(state, order="deterministic"), msgspec.json.encode(record.event)) == before


@pytest.mark.parametrize("kind", LABELS)
def test_a_policy_is_a_frozen_value(kind: str) -> None:
    """Two of the same fields are equal, and no field can be set."""
    for policy in configured(kind):
        assert policy == policy.model_copy()
        with pytest.raises(ValidationError, match="frozen"):
            setattr(policy, "name", "other")  # noqa: B010 - the type checker knows that it cannot be set


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", LABELS)
def test_a_changed_copy_keeps_nothing_of_the_old_one(kind: str, deep: bool) -> None:
    """What a policy derives from its fields once is derived anew in a copy with other fields."""
    made = ADAPTER.validate_python({"kind": kind})
    assert made.label == kind
    changed: dict[str, object] = {"name": "mine", **({"priority": 7} if "priority" in type(made).model_fields else {})}
    for policy in (made, made.model_copy(deep=deep)):
        derived = {name: getattr(policy, name) for name in vars(type(policy)) if name in {"_intents", "_retrain"}}
        copied = policy.model_copy(update=changed, deep=deep)
        assert copied == ADAPTER.validate_python({"kind": kind, **changed})
        assert copied.label == "mine"
        assert all(getattr(copied, name) != old for name, old in derived.items())


@pytest.mark.parametrize("kind", LABELS)
def test_configurations_survive_their_json(kind: str) -> None:
    """What `configuration.changed` keeps of a policy makes the same policy again."""
    for policy in configured(kind):
        text = policy.model_dump_json(by_alias=True)
        again = ADAPTER.validate_json(text)
        assert again == policy
        assert type(again) is type(policy)
        assert again.model_dump_json(by_alias=True) == text


@pytest.mark.parametrize("kind", LABELS)
def test_the_label_defaults_to_the_kind(kind: str) -> None:
    """A policy without a name is called by its kind; the kind is a name that could be given."""
    assert ADAPTER.validate_python({"kind": kind}).label == kind
    assert ADAPTER.validate_python({"kind": kind, "name": "mine-2"}).label == "mine-2"
    assert ADAPTER.validate_python({"kind": kind, "name": kind}).label == kind


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", ["operator", "sequence", "arbiter", "", "Upper", "a:b", "9a", "a" * 41, "a b"])
def test_names_that_mean_something_else_are_refused(kind: str, name: str) -> None:
    """Names of rewarm's own, and names that a wake-up's or a command's identity could not bear."""
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({"kind": kind, "name": name})


@pytest.mark.parametrize("kind", LABELS)
def test_unknown_fields_are_refused(kind: str) -> None:
    """A misspelt field is an error, not a default."""
    with pytest.raises(ValidationError, match="extra"):
        ADAPTER.validate_python({"kind": kind, "no_such_field": 1})


@pytest.mark.parametrize("cls", POLICIES, ids=LABELS)
def test_every_policy_says_what_it_is(cls: type[BasePolicy]) -> None:
    """A positive version, a sentence about itself, and one kind that its registration tells apart."""
    assert cls.version >= 1
    assert cls.__doc__
    assert LABELS.count(str(cls.model_fields["kind"].default)) == 1
    assert isinstance(ADAPTER.validate_python({"kind": cls.model_fields["kind"].default}), cls)
