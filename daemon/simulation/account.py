"""The account of one pipeline: what a simulation has seen of it so far."""

from array import array
from collections import Counter
from datetime import datetime
from typing import Final

import msgspec

GOING_ON: Final = "going on"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a run with a slot, and how it ended; a held or preempted run that goes on has another."""

    run: str
    kind: str
    policy: str
    outcome: str
    begin: datetime
    end: datetime


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time up to `at`: most tokens that were pending, and how long arrivals waited for its champions.

    `middle` and `longest` are seconds, over what got into a champion in that time; None: there was no champion.
    """

    at: datetime
    pending: int
    middle: float | None
    longest: float | None


class Freshness:
    """How old the newest data in the champion was, over the time in which there was one."""

    def __init__(self) -> None:
        self._newest: datetime | None = None
        self._before: datetime | None = None
        self._since: datetime | None = None
        self._squares = 0.0
        self._seconds = 0.0

    def promoted(self, newest: datetime | None, now: datetime) -> None:
        """Note a champion, and its newest arrival that none before it had."""
        self._pass(now)
        self._before = self._newest
        if newest is not None:
            self._newest = newest if self._newest is None else max(self._newest, newest)

    def rolled_back(self, now: datetime) -> None:
        """Note that the champion before it is the champion again."""
        self._pass(now)
        self._newest = self._before

    def mean(self, end: datetime) -> float | None:
        """Return the mean over the time until `end`, in seconds; None: there was no champion with data."""
        self._pass(end)
        return self._squares / 2 / self._seconds if self._seconds else None

    def _pass(self, now: datetime) -> None:
        since, newest = self._since, self._newest
        if since is not None and newest is not None:
            begin, end = (since - newest).total_seconds(), (now - newest).total_seconds()
            self._squares += end * end - begin * begin  # an age grows by a second a second
            self._seconds += end - begin
        self._since = now


class Account:
    """The account of one pipeline."""

    def __init__(self) -> None:
        self.runs: dict[str, Span] = {}
        self.ended: list[Span] = []
        self.held = ""
        self.stages: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.trained_tokens = 0
        self.compute = 0.0
        self.waited = array("d")
        self.weighed = 0.0
        self.weight = 0
        self.freshness = Freshness()
        self.forgotten = 0.0
        self.rollbacks = 0
        self.looks = 0
        self.opinions: dict[str, tuple[str, datetime]] = {}
        self.stood: dict[str, list[float]] = {}
        self.shadow = 0
        self.waits: list[float] = []
        self.acting = 0
        self.stored = 0
        self.suppressed: Counter[str] = Counter()
        self.champions: list[datetime] = []
        self.samples: list[Sample] = []
        self.peak = 0
        self.lately: list[float] = []
        self.standing: dict[str, datetime] = {}

    def stands(self, policy: str, verdict: str | None, now: datetime) -> None:
        """Note what a policy says of starting from now on (None: it starts), and how long it said the last thing."""
        before = self.opinions.pop(policy, None)
        if before is not None:
            self.stood[before[0]][1] += (now - before[1]).total_seconds()
        if verdict is not None:
            self.opinions[policy] = verdict, now
            stood = self.stood.setdefault(verdict, [0, 0.0])
            stood[0] += before is None or before[0] != verdict
