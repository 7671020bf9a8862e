"""Each trigger alone: given what waits, what is told and what time it is, whether it holds, when it will, and why."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.state import Pipeline

Build = Any
Make = Any
Json = dict[str, object]
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("fields", "holds", "why"),
    [
        ({"tokens": 100}, True, "100 new tokens wait"),
        ({"tokens": 101}, False, "100 of 101 new tokens wait"),
        ({"tokens": 60, "domain": "code"}, True, "60 new tokens of code wait"),
        ({"tokens": 61, "domain": "code"}, False, "60 of 61 new tokens of code wait"),
        ({"tokens": 1, "domain": "news"}, False, "0 of 1 new tokens of news wait"),
        ({"documents": 5}, True, "5 new documents wait"),
        ({"documents": 6}, False, "5 of 6 new documents wait"),
        ({"arrivals": 5}, True, "5 new arrivals wait"),
        ({"arrivals": 4, "domain": "prose"}, False, "2 of 4 new arrivals of prose wait"),
    ],
)
def test_amounts(build: Build, make: Make, told: Any, fields: Json, holds: bool, why: str) -> None:  # noqa: ANN401 - a function
    """From so many on, in all or of one domain."""
    pending = {"code": build.amount(60, 3), "prose": build.amount(40, 2)}
    state = make.pipeline(100, pending=pending)
    assert told(fields, make.at(state)) == (holds, why)
    assert make.trigger(fields).wakes(make.at(state)) is None


def test_what_a_run_has_taken_does_not_wait(build: Build, make: Make) -> None:
    """While a run trains on 500 of 1200 tokens, 700 wait."""
    state = replace(build.pipeline(1200, 2), active=build.run())
    assert make.trigger({"tokens": 700}).holds(make.at(state))
    assert not make.trigger({"tokens": 701}).holds(make.at(state))


@pytest.mark.parametrize(
    ("fields", "at", "why", "left"),
    [
        ({"age": "PT6H"}, 5, "data waited 5:00:00 of 6:00:00", 6),
        ({"age": "PT6H"}, 6, "data waited 6:00:00", None),
        ({"age": "PT6H", "of": "champion"}, 7, "the champion is as old as 7:00:00 of 6:00:00", None),
        ({"age": "PT6H", "of": "base"}, 1, "the last full training is as old as 2:00:00 of 6:00:00", 5),
        ({"silence": "PT3H"}, 4, "nothing arrived for 2:00:00 of 3:00:00", 5),
        ({"silence": "PT3H"}, 5, "nothing arrived for 3:00:00", None),
    ],
)
def test_times(build: Build, make: Make, fields: Json, at: int, why: str, left: int | None) -> None:
    """Data since noon, the base an hour older, the last arrival two hours later: due from the very instant on."""
    base = build.model(promoted_at=build.after(hours=-1))
    state = make.pipeline(10, base=base, champion=base, last_arrival_at=build.after(hours=2))
    trigger, moment = make.trigger(fields), make.at(state, hours=at)
    assert trigger.holds(moment) == (left is None)
    assert trigger.wakes(moment) == (None if left is None else build.after(hours=left))
    if "of" not in fields or left is not None:
        assert trigger.tell(moment).why == why


@pytest.mark.parametrize("fields", [{"age": "PT1S"}, {"silence": "PT1S"}, {"age": "PT1S", "of": "champion"}])
def test_what_there_is_not_does_not_age(make: Make, fields: Json) -> None:
    """Without data, an arrival or a model there is no age, and nothing to wake for."""
    moment = make.at(Pipeline(name="p"), days=9)
    trigger = make.trigger(fields)
    assert not trigger.holds(moment)
    assert trigger.wakes(moment) is None
    assert list(trigger.tell(moment).inputs.values()) == [None]


@pytest.mark.parametrize(
    ("fields", "holds", "why"),
    [
        ({"increments": 3}, True, "3 increments were promoted since the last full training"),
        ({"increments": 4}, False, "3 of 4 increments were promoted since the last full training"),
        ({"forgotten": 0.05}, True, "the loss of news rose by 0.05 since the last full training"),
        ({"forgotten": 0.06}, False, "the loss of news rose by 0.05 since the last full training, of 0.06"),
        ({"forgotten": 0.02, "domain": "prose"}, True, "the loss of prose rose by 0.03 since the last full training"),
        ({"forgotten": 0.1, "domain": "law"}, False, "nothing was measured as forgotten since the last full training"),
    ],
)
def test_models(build: Build, make: Make, told: Any, fields: Json, holds: bool, why: str) -> None:  # noqa: ANN401 - a function
    """Increments, and what they forgot in all: of the worst domain, or of one."""
    champion = build.model(forgotten={"prose": 0.03, "news": 0.05 - 1e-16, "code": -0.2})
    assert told(fields, make.at(make.pipeline(champion=champion, increments=3))) == (holds, why)


@pytest.mark.parametrize(
    ("bound", "values", "holds", "why"),
    [
        ({"above": 0.5}, [0.6], True, "shift of 0.6 lies above 0.5"),
        ({"above": 0.5}, [0.5], False, "shift of 0.5 does not lie above 0.5"),
        ({"above": 0.5}, [0.5 + 1e-15], False, "shift of 0.5 does not lie above 0.5"),
        ({"below": 0.5}, [0.9, 0.4], True, "shift of 0.4 lies below 0.5"),
        ({"below": 0.5}, [0.4, 0.9], False, "shift of 0.9 does not lie below 0.5"),
        ({"above": 0.5, "least": 3}, [0.6, 0.7], False, "shift is 0.7, and 2 of 3 values are there"),
        ({"above": 0.5, "least": 3}, [0.1, 0.6, 0.7], True, "shift of 0.7 lies above 0.5"),
        ({"above": 0.5, "for": 2}, [0.4, 0.6], False, "shift lies above 0.5 for 1 of 2 values"),
        ({"above": 0.5, "for": 2}, [0.6, 0.6], True, "shift of 0.6 lies above 0.5, 2 values in a row"),
        ({"above": 0.5, "for": 2}, [0.6, 0.4], False, "shift of 0.4 does not lie above 0.5"),
        ({"quantile": 0.5}, [1, 2, 3, 4, 5, 4], True, "shift of 4 lies above 3"),
        ({"quantile": 0.25, "side": "below"}, [1, 2, 3, 4, 5, 1.5], True, "shift of 1.5 lies below 2"),
        ({"quantile": 0.9}, [1, 2, 3, 4, 9], False, "shift is 9, and 5 of 6 values are there"),
        ({"quantile": 0.5, "window": 5}, [99, 99, 1, 2, 3, 4, 5, 4], True, "shift of 4 lies above 3"),
        ({"deviation": 2}, [1, 3, 1, 3, 1, 3, 4.5], True, "shift of 4.5 lies above 4"),
        ({"deviation": 2}, [1, 3, 1, 3, 1, 3, 4], False, "shift of 4 does not lie above 4"),
        ({"deviation": 1, "side": "below"}, [1, 3, 1, 3, 1, 3, 0.5], True, "shift of 0.5 lies below 1"),
        ({"relative": 0.5}, [2, 2, 2, 2, 2, 3.1], True, "shift of 3.1 lies above 3"),
        ({"relative": 0.5, "side": "below"}, [-2, -2, -2, -2, -2, -3.1], True, "shift of -3.1 lies below -3"),
        ({"deviation": 1, "for": 2, "least": 2}, [1, 3, 9, 9], True, "shift of 9 lies above 3, 2 values in a row"),
    ],
)
def test_signals(make: Make, told: Any, bound: Json, values: list[float], holds: bool, why: str) -> None:  # noqa: ANN401 - a function
    """Fixed bounds, and those that the values before the judged ones make: quantile, deviation, share of the mean."""
    state = make.pipeline(10, signals={"shift": make.series(*values)})
    assert told({"signal": "shift", **bound}, make.at(state)) == (holds, why)


@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ("measured since the last run", True),
        ("settled", False),
        ("older than the champion", False),
        ("of another champion", False),
        ("of no champion in particular", True),
        ("training on it", False),
        ("looking at it", True),
        ("without a champion", False),
    ],
)
def test_which_values_count(build: Build, make: Make, case: str, counts: bool) -> None:
    """A value counts while it says something of today's champion that no run has answered yet."""
    (value,) = make.series(0.9, first=100, version=None if "no champion" in case else 1)
    fields: dict[str, dict[str, object]] = {
        "settled": {"settled": 100},
        "older than the champion": {"champion": build.model(position=101)},
        "of another champion": {"champion": build.model(version=2)},
        "training on it": {"active": build.run()},
        "looking at it": {"active": build.run(intent=replace(build.run().intent, look=True))},
        "without a champion": {"champion": None},
    }
    state = make.pipeline(10, **{"signals": {"evaluation.f1": (value,)}, **fields.get(case, {})})
    trigger = make.trigger({"signal": "evaluation.f1", "above": 0.5})
    assert trigger.holds(make.at(state)) == counts
    assert (trigger.tell(make.at(state)).inputs["evaluation.f1"] is not None) == counts


def test_a_value_that_has_had_its_effect_still_makes_the_bound(make: Make) -> None:
    """The values before the last run that trained are what is usual; the one after it is judged."""
    state = make.pipeline(10, settled=105, signals={"drift.ks": make.series(1, 3, 1, 3, 1, 3, 5, first=100)})
    trigger = make.trigger({"signal": "drift.ks", "deviation": 2})
    assert trigger.holds(make.at(state))
    assert not trigger.holds(make.at(replace(state, settled=106)))


def test_a_plateau_counts_from_the_last_full_training(make: Make) -> None:
    """The gains of three increments, each settled by its run's end, are one plateau; those before it are none."""
    trigger = make.trigger({"signal": "gain", "below": 0.01, "for": 3})
    state = make.pipeline(settled=200, retrained=100)
    gains = make.series(0.2, 0.005, 0.0, -0.1, first=100)
    assert trigger.holds(make.at(replace(state, signals={"gain": gains})))
    assert not trigger.holds(make.at(replace(state, signals={"gain": gains}, retrained=101)))
    assert trigger.tell(make.at(replace(state, signals={"gain": gains[:3]}))).inputs["gain_in_a_row"] == 2


@pytest.mark.parametrize(("hours", "holds"), [(0.0, False), (1.99, False), (2.0, True), (9.0, True)])
def test_regret(build: Build, make: Make, hours: float, holds: bool) -> None:
    """Half a million tokens take half an hour; at half an hour a million's wait of one, they may wait two hours."""
    state = make.pipeline(500_000, waited_at=build.noon)
    trigger = make.trigger({"regret": 0.5})
    moment = make.at(state, hours=hours)
    assert trigger.holds(moment) == holds
    assert trigger.wakes(moment) == (None if holds else build.after(hours=2))
    told = trigger.tell(moment)
    assert (told.inputs, told.thresholds) == ({"regret_hours": hours / 4}, {"regret_hours": 0.5})


def test_regret_needs_a_run_that_has_shown_what_training_costs(build: Build, make: Make) -> None:
    """Before any run the cost is unknown: it does not hold, abstains, and says so."""
    state = make.pipeline(500_000, waited_at=build.noon, cost=Pipeline(name="p").cost)
    trigger, moment = make.trigger({"regret": 100}), make.at(state, days=9)
    assert (trigger.holds(moment), trigger.speaks(moment), trigger.wakes(moment)) == (False, False, None)
    assert trigger.tell(moment).why == "no run has shown yet what training costs"
    assert trigger.tell(moment).thresholds == {"regret_hours": None}


@pytest.mark.parametrize(
    ("vote", "holds"),
    [
        ({"any": [0, 1, 0]}, True),
        ({"any": [0, 0]}, False),
        ({"all": [1, 1]}, True),
        ({"all": [1, 0]}, False),
        ({"none": [0, 0]}, True),
        ({"none": [0, 1]}, False),
        ({"majority": [1, 0]}, False),
        ({"majority": [1, 1, 0]}, True),
        ({"majority": [1, 1, 0, 0]}, False),
        ({"at_least": 2, "of": [1, 0, 1]}, True),
        ({"at_least": 3, "of": [1, 0, 1]}, False),
    ],
)
def test_votes(make: Make, vote: dict[str, Any], holds: bool) -> None:
    """How many of the members must hold."""
    named = {
        key: [{"tokens": 5 if member else 50} for member in members] if isinstance(members, list) else members
        for key, members in vote.items()
    }
    assert make.trigger(named).holds(make.at(make.pipeline(10))) == holds


@pytest.mark.parametrize(
    ("vote", "holds"),
    [
        ({"any": [{"tokens": 50}, {"signal": "shift", "above": 0}]}, False),
        ({"any": [{"tokens": 5}, {"signal": "shift", "above": 0}]}, True),
        ({"all": [{"tokens": 5}, {"signal": "shift", "above": 0}, {"regret": 1}, {"forgotten": 1}]}, True),
        ({"all": [{"tokens": 5}, {"tokens": 50}, {"increments": 1}]}, False),
        ({"at_least": 2, "of": [{"tokens": 5}, {"increments": 1}, {"age": "PT1S", "of": "base"}]}, True),
        ({"majority": [{"tokens": 5}, {"increments": 1}, {"increments": 2}]}, True),
        ({"any": [{"all": [{"increments": 1}]}, {"tokens": 5}]}, True),
    ],
)
def test_what_cannot_be_told_without_a_champion_abstains(build: Build, make: Make, vote: Json, holds: bool) -> None:
    """The others vote: a first training neither waits for a shift that nobody can measure, nor comes for its sake."""
    moment = make.at(build.pipeline(10), hours=1)
    assert make.trigger(vote).speaks(moment)
    assert make.trigger(vote).holds(moment) == holds
    assert not make.trigger({"all": [{"signal": "shift", "above": 0}, {"regret": 1}]}).speaks(moment)


def test_when_votes_will_hold(build: Build, make: Make) -> None:
    """Any: with the first, all: with the last, two of three: with the second; and never what needs a fact."""
    moment = make.at(make.pipeline(10), minutes=30)
    hours = [{"age": "PT3H"}, {"age": "PT1H"}, {"age": "PT2H"}]
    for vote, at in (
        ({"any": hours}, 1),
        ({"all": hours}, 3),
        ({"majority": hours}, 2),
        ({"at_least": 2, "of": hours}, 2),
        ({"all": [*hours, {"tokens": 10}]}, 3),
        ({"all": [*hours, {"tokens": 11}]}, None),
        ({"any": [*hours, {"tokens": 11}]}, 1),
        ({"all": [{"age": "PT1H"}, {"none": [{"age": "PT45M"}]}]}, None),
        ({"any": [{"all": [{"age": "PT3H"}, {"none": [{"age": "PT4H"}]}]}, {"age": "P1D"}]}, 3),
    ):
        assert make.trigger(vote).wakes(moment) == (None if at is None else build.after(hours=at)), vote


def test_numbers_of_a_trigger_that_is_there_twice(make: Make) -> None:
    """The second gets a number of its own, the same among inputs and thresholds."""
    told = make.trigger({"any": [{"tokens": 50}, {"all": [{"tokens": 70}, {"tokens": 90}, {"arrivals": 2}]}]}).tell(
        make.at(make.pipeline(10))
    )
    assert told.inputs == {"tokens": 10, "tokens_2": 10, "tokens_3": 10, "arrivals": 1}
    assert told.thresholds == {"tokens": 50, "tokens_2": 70, "tokens_3": 90, "arrivals": 2}


@pytest.mark.parametrize(
    ("vote", "why"),
    [
        ({"any": [{"tokens": 5}, {"arrivals": 9}]}, "10 new tokens wait"),
        ({"any": [{"tokens": 50}, {"arrivals": 9}]}, "10 of 50 new tokens wait; 1 of 9 new arrivals wait"),
        ({"all": [{"tokens": 5}, {"arrivals": 9}]}, "1 of 9 new arrivals wait"),
        ({"none": [{"tokens": 5}, {"arrivals": 9}]}, "10 new tokens wait"),
        ({"none": [{"tokens": 50}]}, "10 of 50 new tokens wait"),
        (
            {"at_least": 2, "of": [{"tokens": 5}, {"arrivals": 9}, {"documents": 9}]},
            "1 of 3 hold, 2 are needed: 1 of 9 new arrivals wait; 1 of 9 new documents wait",
        ),
    ],
)
def test_votes_say_what_tipped_them(make: Make, vote: Json, why: str) -> None:
    """Those that hold where it holds, those that do not where it does not."""
    assert make.trigger(vote).tell(make.at(make.pipeline(10))).why == why
