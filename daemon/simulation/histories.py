"""Histories that somebody made up: what arrives when, by a shape and a seed; the same bytes every time.

Times are virtual: the first Monday of 2026 is the first day, whenever this is run.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from random import Random
from typing import Final

import msgspec

from daemon.core.events import (
    AnyEvent,
    DataArrived,
    DriftDetected,
    EvaluationReported,
    FailureReported,
    LabelArrived,
)

BEGIN: Final = datetime(2026, 1, 5, tzinfo=UTC)
DOMAINS: Final = ("news", "manuals", "letters", "code")
PRODUCER: Final = "https://data.example/made-up"
DAY: Final = 86_400.0
HOUR: Final = 3_600.0
TOKENS_A_DOCUMENT: Final = 2_500
HOSTS: Final = 9


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Something from outside: when, about which pipeline, what; `key` names an arrival that is spoken of later.

    `recorded` is where it stands in the journal that it is from.
    """

    at: datetime
    pipeline: str
    event: AnyEvent
    key: int | None = None
    recorded: int | None = None


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the share `failing` of all stage attempts fails."""

    begin: datetime
    end: datetime
    failing: float


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What happened from `begin` to `end`; `facts` yields it from the start, as often as it is called.

    `left_out` counts, by reason, what a record holds and a simulation cannot use. Where it `ages`, what monitors report
    falls with the age of the data in the champion: who made the history up did not know what would be trained.
    """

    name: str
    description: str
    begin: datetime
    end: datetime
    facts: Callable[[], Iterator[Fact]]
    storms: tuple[Storm, ...] = ()
    left_out: dict[str, int] = {}
    ages: bool = False


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How arrivals come: so many a day, of so many tokens in the mean, at instants that `instants` draws.

    `instants(random, seconds, count)` yields (second, domain) in order of time, about `count` of them.
    """

    description: str
    a_day: float
    tokens: int
    instants: Callable[[Random, float, float], Iterator[tuple[float, str]]]
    watched: bool = False
    stormy: bool = False


def synthetic(
    name: str,
    pipelines: Sequence[str],
    *,
    seed: int,
    days: float,
    events: int | None = None,
    tokens: int | None = None,
) -> History:
    """Return a history of a known shape; `events` is about how many arrivals a pipeline gets, in all."""
    shape = SHAPES[name]
    seconds = days * DAY
    count = float(events) if events is not None else shape.a_day * days
    size = tokens if tokens is not None else shape.tokens
    storms = tuple(_storms(seeded(seed, name, "storms"), days)) if shape.stormy else ()

    def facts() -> Iterator[Fact]:
        streams = []
        for pipeline in sorted(pipelines):
            streams.append(_arrivals(shape, pipeline, seeded(seed, name, pipeline), seconds, count, size))
            if shape.watched:
                streams.append(_reports(pipeline, seeded(seed, name, pipeline, "reports"), seconds))
            streams.append(_seen_failures(pipeline, storms, seeded(seed, name, pipeline, "failures")))
        return heapq.merge(*streams, key=attrgetter("at"))

    end = BEGIN + timedelta(seconds=seconds)
    return History(
        name=name, description=shape.description, begin=BEGIN, end=end, facts=facts, storms=storms, ages=shape.watched
    )


def seeded(*purpose: object) -> Random:
    """Return a generator of chance that gives the same numbers for the same purpose, in every process."""
    return Random("/".join(str(part) for part in purpose))  # noqa: S311 - a made-up history is no secret


def _arrivals(shape: Shape, pipeline: str, random: Random, seconds: float, count: float, size: int) -> Iterator[Fact]:
    draw = random.random
    for number, (second, domain) in enumerate(shape.instants(random, seconds, count), 1):
        tokens = max(1, int(size * (0.5 + draw())))
        event = DataArrived(
            uri=f"made-up/{pipeline}/{number}.jsonl",
            domain=domain,
            bytes=tokens,
            documents=1 + tokens // TOKENS_A_DOCUMENT,
            tokens=tokens,
        )
        yield Fact(BEGIN + timedelta(seconds=second), pipeline, event)


def _even(random: Random, seconds: float, count: float) -> Iterator[tuple[float, str]]:
    """Yield instants whose distances differ by a fifth at most; domains in turn."""
    step, second, number = seconds / count, 0.0, 0
    while (second := second + step * (0.8 + 0.4 * random.random())) < seconds:
        yield second, DOMAINS[number % len(DOMAINS)]
        number += 1


def _poisson(random: Random, seconds: float, count: float) -> Iterator[tuple[float, str]]:
    """Yield independent instants; the first domain brings two of five arrivals."""
    draw, log, domains = random.random, math.log, (DOMAINS[0], *DOMAINS)
    step, second, choices = seconds / count, 0.0, len(DOMAINS) + 1
    while (second := second - step * log(1.0 - draw())) < seconds:
        yield second, domains[int(draw() * choices)]


def _bursty(random: Random, seconds: float, count: float) -> Iterator[tuple[float, str]]:
    """Yield bursts of 20 to 80 arrivals of one domain within minutes, with long silence between them."""
    bursts = max(1.0, count / 50)
    second = 0.0
    while (second := second + random.expovariate(bursts / seconds)) < seconds:
        domain = DOMAINS[random.randrange(len(DOMAINS))]
        for _ in range(random.randint(20, 80)):
            second += random.uniform(1.0, 20.0)
            if second >= seconds:
                return
            yield second, domain


def _seasonal(random: Random, seconds: float, count: float) -> Iterator[tuple[float, str]]:
    """Yield arrivals that follow the day (most at 14:00, least at 02:00) and the week (weekends a third)."""
    mean = (5 + 2 * WEEKEND) / 7
    step, second = seconds / count, 0.0
    most = 1.9 / mean
    while (second := second + random.expovariate(most / step)) < seconds:
        weekday, hour = int(second // DAY) % 7, second % DAY / HOUR
        rate = (1 + 0.9 * math.cos((hour - 14) / 24 * math.tau)) * (WEEKEND if weekday >= SATURDAY else 1.0) / mean
        if random.random() * most < rate:
            yield second, DOMAINS[random.randrange(len(DOMAINS))]


def _dying(random: Random, seconds: float, count: float) -> Iterator[tuple[float, str]]:
    """Yield arrivals of domains that fall silent for good, one after the other; the first of them lives on."""
    ends = [(DOMAINS[0], seconds)]
    for number, domain in enumerate(DOMAINS[1:]):
        ends.append((domain, seconds * (0.2 + 0.2 * number + 0.2 * random.random())))
    return heapq.merge(*(_until(seeded(random.random(), name), end, seconds, count, name) for name, end in ends))


def _until(random: Random, end: float, seconds: float, count: float, domain: str) -> Iterator[tuple[float, str]]:
    rate, second = count / len(DOMAINS) / seconds, 0.0
    while (second := second + random.expovariate(rate)) < end:
        yield second, domain


def _reports(pipeline: str, random: Random, seconds: float) -> Iterator[Fact]:
    """Yield what monitors report: quality every 15 minutes, labels every hour or so, now and then a drift."""
    second = 0.0
    while (second := second + random.uniform(0.9, 1.1) * 900) < seconds:
        at, chance = BEGIN + timedelta(seconds=second), random.random()
        value = round(random.gauss(0.9, 0.02), 4)
        event: AnyEvent = EvaluationReported(metric="accuracy", value=value, window="15m")
        if chance < 0.01:  # noqa: PLR2004 - one of a hundred: about one a day
            event = DriftDetected(metric="psi", value=round(random.uniform(0.2, 0.5), 4), window="1d")
        elif chance < 0.25:  # noqa: PLR2004 - one of four
            event = LabelArrived(metric="accuracy", value=value, window="1h")
        yield Fact(at, pipeline, event)


def _storms(random: Random, days: float) -> Iterator[Storm]:
    """Yield storms of 2 to 12 hours, one in ten days, at least one; none overlaps another."""
    number = max(1, round(days / 10))
    part = days * DAY / number
    for index in range(number):
        length = min(random.uniform(2, 12) * HOUR, part / 2)
        second = part * index + random.uniform(0.1, 0.4) * part
        begin = BEGIN + timedelta(seconds=round(second))
        yield Storm(begin=begin, end=begin + timedelta(seconds=round(length)), failing=0.6)


def _seen_failures(pipeline: str, storms: Sequence[Storm], random: Random) -> Iterator[Fact]:
    """Yield what a host monitor reports while a storm lasts."""
    for storm in storms:
        at = storm.begin
        while (at := at + timedelta(seconds=round(random.expovariate(1 / 1200)))) < storm.end:
            event = FailureReported(failure="worker_lost", host=a_host(random), evidence="no answer for 30 s")
            yield Fact(at, pipeline, event)


def a_host(random: Random) -> str:
    """Return one of the hosts on which attempts run."""
    return f"node-{random.randint(1, HOSTS)}"


WEEKEND: Final = 1 / 3
SATURDAY: Final = 5
SHAPES: Final[dict[str, Shape]] = {
    "steady": Shape(
        description="arrivals at even distances, all domains in turn", a_day=144, tokens=8_000, instants=_even
    ),
    "bursty": Shape(
        description="bursts of one domain within minutes, long silence between them",
        a_day=200,
        tokens=8_000,
        instants=_bursty,
    ),
    "busy": Shape(
        description="many small arrivals at any time, and monitors that report",
        a_day=5_760,
        tokens=1_000,
        instants=_poisson,
        watched=True,
    ),
    "seasonal": Shape(
        description="more by day than by night, weekends a third", a_day=288, tokens=8_000, instants=_seasonal
    ),
    "dying": Shape(
        description="sources that fall silent for good, all but one", a_day=288, tokens=8_000, instants=_dying
    ),
    "failure-storm": Shape(
        description="even arrivals, and hours in which most stage attempts fail",
        a_day=144,
        tokens=8_000,
        instants=_even,
        stormy=True,
    ),
}
"""The shapes by name."""
