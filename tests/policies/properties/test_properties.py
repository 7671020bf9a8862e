"""What holds of every life, whatever comes, and that each property would say so if it did not."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pytest

from daemon.core.events import DecisionMade, PlanFixed, RunPreempted, RunResumed
from daemon.core.transition import evolve
from policies.guards import VERDICTS
from policies.rewarm_replay import RewarmReplay
from tests.policies.properties import broken
from tests.policies.properties import properties as each
from tests.policies.properties.driver import Fold, Life, Setup, live
from tests.policies.properties.worlds import COOLDOWN, DEFAULTS, LOOKS, ONCE, QUIET, SETUPS, policies

SEEDS = (1, 2, 3)
Property = Callable[[Life], list[str]]


@cache
def lived(name: str, seed: int) -> Life:
    """Live a life once."""
    return live(SETUPS[name], seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SETUPS)
def test_every_property_holds(name: str, seed: int) -> None:
    """Arrivals, silences, failures, requests, wake-ups and restarts: nothing breaks any of the properties."""
    life = lived(name, seed)
    assert {check.__name__: found for check in each.PROPERTIES if (found := check(life))} == {}


def test_the_lives_are_not_empty() -> None:
    """In them every guard keeps something back, work is preempted and goes on, and looks come to train."""
    lives = [lived(name, seed) for name in SETUPS for seed in SEEDS]
    events = [record.event for life in lives for record in life.records]
    verdicts = Counter(event.verdict for event in events if isinstance(event, DecisionMade))
    assert min(verdicts[verdict] for verdict in VERDICTS) >= 3, verdicts
    assert sum(isinstance(event, RunPreempted) for event in events) > 3
    assert sum(isinstance(event, RunResumed) for event in events) > 3
    assert sum(isinstance(event, PlanFixed) for event in events) > 50
    looks = [record.event for record in lived("looks", SEEDS[0]).records]
    assert any(isinstance(event, PlanFixed) for event in looks)


def test_a_life_is_the_same_every_time() -> None:
    """The seed alone has a say."""
    again = live(SETUPS["all"], SEEDS[0])
    assert again.records == lived("all", SEEDS[0]).records


def setup(
    guards: Mapping[str, object],
    increments: type[RewarmReplay] = RewarmReplay,
    fields: Mapping[str, object] = DEFAULTS,
) -> Setup:
    """Make a pipeline with one of its policies broken."""
    return Setup({"p": policies(guards, increments, fields)})


def mended(world: Setup) -> Setup:
    """Return the same world with the honest policy in the place of the broken one."""
    first, *rest = world.policies["p"]
    assert isinstance(first, RewarmReplay)
    return replace(world, policies={"p": (RewarmReplay.model_validate(first.model_dump(by_alias=True)), *rest)})


SHORT = {"budget": {"per_day": 0.5}}
BROKEN: tuple[tuple[Property, Setup, Fold], ...] = (
    (each.no_two_starts_within_a_cooldown, setup(COOLDOWN, broken.Unguarded), evolve),
    (each.no_two_starts_within_a_cooldown, setup({"cooldown": "PT8H"}, broken.Unguarded, LOOKS), evolve),
    (each.nothing_starts_in_quiet_hours, setup(QUIET, broken.Unguarded), evolve),
    (each.a_key_is_taken_once, setup(ONCE), broken.loose),
    (each.a_person_approves_each_start, setup({"approval": True}, broken.Unguarded), evolve),
    (each.budgets_are_never_exceeded, setup(SHORT, broken.Spendthrift), evolve),
    (each.budgets_are_never_exceeded, setup({"budget": {"per_month": 4}}, broken.Spendthrift), evolve),
    (each.no_start_while_data_still_comes, setup(COOLDOWN, broken.Unguarded), evolve),
    (each.no_payload_is_lost, setup(COOLDOWN), broken.forgetful),
    (each.preempted_work_is_resumed_or_cancelled, setup(SHORT), broken.abandoning),
    (each.never_two_champions, replace(setup({}), requests=6), broken.stubborn),
    (each.every_wish_ends, replace(setup(SHORT, broken.Oversleeping), arrivals=1.5, requests=0.0), evolve),
    (each.every_wish_ends, setup({}), broken.clinging),
    (each.the_state_stays_bounded, setup(COOLDOWN, broken.Hoarding), evolve),
)


NAMES = [f"{check.__name__}-{number}" for number, (check, _, _) in enumerate(BROKEN)]


@pytest.mark.parametrize(("check", "world", "fold"), BROKEN, ids=NAMES)
def test_a_property_fails_on_what_is_broken(check: Property, world: Setup, fold: Fold) -> None:
    """A policy or a fold that is broken in one place is found out, and without the fault the same world is clean."""
    assert any(check(live(world, seed, fold)) for seed in SEEDS)
    assert not check(live(mended(world), SEEDS[0]))
