"""What holds for every registered policy alike, whatever the state and the fact."""

from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from daemon.contract.examination import Task, examine
from daemon.core.events import EVENTS
from policies import AnyPolicy
from policies.base import BasePolicy
from policies.custom import Custom

Json = dict[str, object]

POLICIES: tuple[type[BasePolicy], ...] = tuple(cls for cls in get_args(get_args(AnyPolicy)[0]) if cls is not Custom)
ADAPTER: TypeAdapter[BasePolicy] = TypeAdapter(AnyPolicy)
LABELS = [str(cls.model_fields["kind"].default) for cls in POLICIES]

GUARDS: Json = {
    "cooldown": 1,
    "once": {"key": "{champion} {base} {domains} {week}", "within": 60, "scope": "pipeline"},
    "budget": {"per_day": 20, "per_month": 10**6, "price": 2},
    "quiet": [{"days": "sat", "from": "22:00", "to": "02:30", "timezone": "Europe/Berlin"}],
    "debounce": 1,
}
EAGER: dict[str, list[Json]] = {
    "rewarm_replay": [
        {"after_tokens": 1, "max_age": 1, "expires_after": 60},
        {"replay": 0.5, "schedule": "infinite"},
        {
            "when": {
                "any": [
                    {"all": [{"age": 1, "of": "champion"}, {"silence": 10**8}]},
                    {"signal": "shift", "above": 1},
                    {"at_least": 1, "of": [{"regret": 1e-6}, {"signal": "label.f1", "deviation": 1, "least": 1}]},
                ]
            },
            "look": {"any": [{"tokens": 1}, {"age": 10**8}]},
        },
        {"after_tokens": 2, "look": {"tokens": 1}, "guards": GUARDS},
    ],
    "periodic_retraining": [
        {"after_increments": 1},
        {"every": 1, "from": "champion"},
        {"after_increments": 1, "guards": GUARDS},
    ],
    "stage_recovery": [{"retries": 10**9, "ceiling": 10**9, "factor": 1000}, {"backoff": 0}],
    "promotion": [
        {"approval": "always"},
        {"approval": "undecided", "min_gain": 1.0},
        {"freeze": [{"from": "2020-01-01T00:00Z", "until": "2025-01-01T00:00Z"}]},
        {"protected": {"prose": 0.0}, "watch": {"signal": "evaluation.a", "better": "lower", "for": 10**9, "least": 1}},
    ],
}
"""Configurations under which a policy acts on most states."""


def configured(kind: str) -> list[BasePolicy]:
    """Make a policy with its defaults, and with each eager configuration."""
    return [ADAPTER.validate_python({"kind": kind, **fields}) for fields in ({}, *EAGER.get(kind, []))]


@pytest.mark.parametrize("kind", LABELS)
def test_every_rule_holds_for_every_configuration(kind: str) -> None:
    """Whatever the state and the fact: pure, the same answer twice, nothing changed, and a storable decision."""
    for seed, policy in enumerate(configured(kind)):
        configuration = policy.model_dump_json(by_alias=True)
        outcome = examine(Task(configuration=configuration, seed=seed, each=2, events=60))
        assert outcome.faults == ()
        assert outcome.asked > 2 * len(EVENTS)
        assert outcome.decided


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
