"""Made-up histories: seeded, in order, and of the shape that their name says."""

import statistics
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from daemon.core.events import DataArrived, FailureReported, Reported
from daemon.simulation.histories import BEGIN, DOMAINS, SATURDAY, SHAPES, Fact, History, synthetic

DAYS = 14.0


def made(name: str, seed: int = 1, **options: int) -> History:
    """Make a history of two weeks."""
    return synthetic(name, ["p"], seed=seed, days=DAYS, **options)


def seconds(history: History) -> list[float]:
    """Return when data arrived, in seconds since the beginning."""
    return [(f.at - history.begin).total_seconds() for f in history.facts() if isinstance(f.event, DataArrived)]


def gaps(history: History) -> list[float]:
    """Return the seconds between arrivals."""
    return [later - earlier for earlier, later in pairwise(seconds(history))]


def variation(values: list[float]) -> float:
    """Return the deviation as a share of the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_history_is_the_same_again(name: str) -> None:
    """It can be read twice, and made twice; another seed gives another one."""
    history = made(name, events=300)
    facts = list(history.facts())
    assert facts == list(history.facts()) == list(made(name, events=300).facts())
    assert facts != list(made(name, 2, events=300).facts())


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_history_is_in_order_and_within_its_days(name: str) -> None:
    """Facts come in order of time, none before the beginning or after the end, all of known tokens."""
    history = made(name)
    facts = list(history.facts())
    assert all(a.at <= b.at for a, b in pairwise(facts))
    assert facts[0].at >= history.begin == BEGIN
    assert facts[-1].at <= history.end == BEGIN + timedelta(days=DAYS)
    sizes = [fact.event.tokens or 0 for fact in facts if isinstance(fact.event, DataArrived)]
    assert min(sizes) >= 1
    assert statistics.fmean(sizes) == pytest.approx(SHAPES[name].tokens, rel=0.1)


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"dying"}))
def test_about_as_many_arrive_as_was_asked(name: str) -> None:
    """`events` is about the number of arrivals, `tokens` their mean size."""
    history = made(name, events=2000, tokens=50)
    arrived = [fact.event for fact in history.facts() if isinstance(fact.event, DataArrived)]
    assert len(arrived) == pytest.approx(2000, rel=0.25)
    assert statistics.fmean(event.tokens or 0 for event in arrived) == pytest.approx(50, rel=0.05)


def test_pipelines_have_histories_of_their_own() -> None:
    """Each pipeline is told of other arrivals, and another one beside it changes nothing."""
    both = list(synthetic("busy", ["p", "q"], seed=1, days=1).facts())
    alone = list(synthetic("busy", ["p"], seed=1, days=1).facts())

    def of(facts: list[Fact], name: str) -> list[float]:
        return [(fact.at - BEGIN).total_seconds() for fact in facts if fact.pipeline == name]

    assert of(both, "p") == of(alone, "p")
    assert of(both, "q") != of(both, "p")
    assert of(both, "q")


def test_steady_is_even_and_busy_is_not() -> None:
    """Even distances vary by a tenth, independent ones as much as their mean, bursts far more."""
    assert variation(gaps(made("steady"))) < 0.2
    assert variation(gaps(made("busy"))) == pytest.approx(1, abs=0.05)
    assert variation(gaps(made("bursty"))) > 2


def test_bursts_are_of_one_domain() -> None:
    """What comes within a minute of each other is of one domain, nearly always."""
    history = made("bursty")
    arrived = [(f.at, f.event.domain) for f in history.facts() if isinstance(f.event, DataArrived)]
    near = [a[1] == b[1] for a, b in pairwise(arrived) if b[0] - a[0] < timedelta(seconds=20)]
    assert len(near) > 1000
    assert statistics.fmean(near) > 0.95


def test_busy_is_watched() -> None:
    """Monitors report beside the arrivals, in all three ways, about every 15 minutes."""
    kinds = Counter(type(f.event).__name__ for f in made("busy").facts() if isinstance(f.event, Reported))
    assert set(kinds) == {"EvaluationReported", "LabelArrived", "DriftDetected"}
    assert sum(kinds.values()) == pytest.approx(DAYS * 96, rel=0.05)


def test_seasons_follow_the_day_and_the_week() -> None:
    """The afternoon brings many times what the night brings, a day of the weekend a third of a weekday."""
    at = [(int(s // 86_400) % 7, s % 86_400 / 3600) for s in seconds(made("seasonal", events=20_000))]
    day = sum(1 for _, hour in at if 12 <= hour < 16)
    night = sum(1 for _, hour in at if hour < 4)
    assert day > 8 * night
    weekend = sum(1 for weekday, _ in at if weekday >= SATURDAY) / 2
    week = sum(1 for weekday, _ in at if weekday < SATURDAY) / 5
    assert weekend / week == pytest.approx(1 / 3, rel=0.1)


def test_dying_sources_fall_silent_one_after_the_other() -> None:
    """All domains but the first have a last arrival, at least a fifth of the time before the end, in turn."""
    history = made("dying", events=4000)
    last: dict[str, float] = {}
    for fact in history.facts():
        if isinstance(fact.event, DataArrived):
            last[fact.event.domain] = (fact.at - history.begin) / (history.end - history.begin)
    alive, *dead = (last[domain] for domain in DOMAINS)
    assert alive > 0.98
    assert sorted(dead) == dead
    assert max(dead) < 0.81
    assert min(dead) > 0.15


def test_a_storm_is_a_few_hours_in_which_hosts_are_missed() -> None:
    """Storms lie apart, last hours, and failures are reported in them alone."""
    history = synthetic("failure-storm", ["p"], seed=3, days=60)
    assert len(history.storms) == 6
    assert all(a.end < b.begin for a, b in pairwise(history.storms))
    assert all(timedelta(hours=2) <= storm.end - storm.begin <= timedelta(hours=12) for storm in history.storms)
    reported = [fact.at for fact in history.facts() if isinstance(fact.event, FailureReported)]
    assert len(reported) > 20
    assert all(any(storm.begin <= at < storm.end for storm in history.storms) for at in reported)
