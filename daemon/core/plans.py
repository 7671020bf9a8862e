"""What a run will do: spans of arrivals, mixture, schedule, budget; and the formulas behind them.

Schedules follow Ibrahim et al. 2024 (arXiv 2403.08763), equations 1-2 (re-warming and re-decaying)
and section 7 (infinite schedule: warm-up, cooldown, constant, exponential anneal).
"""

import math
from datetime import datetime
from typing import Literal

import msgspec

IntentKind = Literal["base", "increment", "retrain", "adopt"]
StartFrom = Literal["scratch", "base", "champion", "folder"]
ScheduleKind = Literal["rewarm", "infinite", "constant"]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The arrivals at journal positions (after, upto]."""

    after: int
    upto: int


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How much data: counts of arrivals, documents, bytes and tokens; exact once ingested, else estimates."""

    arrivals: int = 0
    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            arrivals=self.arrivals + other.arrivals,
            documents=self.documents + other.documents,
            bytes=self.bytes + other.bytes,
            tokens=self.tokens + other.tokens,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            arrivals=max(0, self.arrivals - other.arrivals),
            documents=max(0, self.documents - other.documents),
            bytes=max(0, self.bytes - other.bytes),
            tokens=max(0, self.tokens - other.tokens),
        )


NOTHING = Amount()
Amounts = dict[str, Amount]
"""Amounts per domain."""


def add(left: Amounts, right: Amounts) -> Amounts:
    """Return the sum per domain."""
    total = dict(left)
    for domain, amount in right.items():
        before = total.get(domain)
        total[domain] = amount if before is None else before + amount
    return total


def subtract(left: Amounts, right: Amounts) -> Amounts:
    """Return the difference per domain; what falls to zero arrivals is left out."""
    total = dict(left)
    for domain, amount in right.items():
        rest = total.pop(domain, NOTHING) - amount
        if rest.arrivals > 0:
            total[domain] = rest
    return total


def tokens(amounts: Amounts) -> int:
    """Return the tokens over all domains."""
    total = 0
    for amount in amounts.values():
        total += amount.tokens
    return total


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of weights (and optimiser state) with the sha256 of its manifest."""

    path: str
    sha256: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A learning-rate schedule over a run's steps; fractions are of the run's total steps.

    `rewarm`: linear warm-up to `peak`, cosine to `floor`. `infinite`: warm-up, cosine cooldown to `plateau`
    (until `cooldown`), constant (until `anneal`: there the trunk is saved), exponential anneal to `floor`.
    `constant`: warm-up, then `peak`.
    """

    kind: ScheduleKind
    peak: float
    floor: float
    plateau: float
    warmup: float = 0.01
    cooldown: float = 0.6
    anneal: float = 0.85


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a train stage spends its budget: tokens in all, the share of them that replays the past."""

    tokens: int
    batch: int
    context: int
    replay: float
    schedule: Schedule
    optimiser: Literal["keep", "reset"]
    seed: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds every stage of the run, in seconds; a stage keeps them by itself, with nobody asking."""

    time_limit: float = 86_400.0
    heartbeat: float = 300.0
    checkpoint_every: float = 60.0


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which model a pipeline trains when it starts from scratch."""

    kind: str = "llama"
    preset: str = "nano"


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was trained elsewhere: its folder (absolute), and the arrivals that it has seen."""

    folder: str
    spans: tuple[Span, ...] = ()
    amounts: Amounts = {}


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy wishes to start; `training.tokens`, the seed and `start` are resolved when the run starts.

    `epochs` is how often the run sees its new data (a retrain: all its data), `max_tokens` the most it may cost.
    `adoption` is what a run of kind `adopt` takes in.
    """

    kind: IntentKind
    start: StartFrom
    training: Training
    epochs: float = 1.0
    max_tokens: int | None = None
    limits: Limits = Limits()
    priority: int = 0
    expires_at: datetime | None = None
    adoption: Adoption | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights come from: nothing, the checkpoint of a champion's version, or a folder from elsewhere."""

    kind: StartFrom
    version: int | None = None
    checkpoint: Checkpoint | None = None
    folder: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's stages need to know, fixed by stored decisions."""

    kind: IntentKind
    start: Start
    parent: int | None
    spans: tuple[Span, ...]
    new: Amounts
    past: Amounts
    model: ModelSettings
    stages: tuple[str, ...]
    training: Training
    limits: Limits
    rule: str = ""


def budget(new_tokens: int, replay: float, epochs: float, most: int | None) -> int:
    """Return the tokens of a run whose every batch replays the share `replay` (arXiv 2403.08763, section 4.2).

    New tokens are seen `epochs` times and replay comes on top: total = new x epochs / (1 - replay).
    """
    total = max(1, round(new_tokens * epochs / max(1e-9, 1 - replay)))
    return total if most is None else min(total, most)


def steps(training: Training) -> int:
    """Return the optimiser steps of a budget: at least one."""
    return max(1, training.tokens // (training.batch * training.context))


def learning_rate(schedule: Schedule, step: int, total: int) -> float:
    """Return the rate for optimiser step `step` of 1..total (arXiv 2403.08763, eq. 1-2 and section 7)."""
    warm = max(1, round(schedule.warmup * total)) if schedule.warmup > 0 else 0
    top = schedule.peak
    if schedule.kind == "infinite" and schedule.cooldown <= schedule.warmup:
        top = schedule.plateau  # an increment resumes the plateau: it is warmed only as far as that
    if step <= warm:
        return top * step / warm
    if schedule.kind == "constant":
        return schedule.peak
    if schedule.kind == "rewarm":
        return _cosine(schedule.peak, schedule.floor, (step - warm) / max(1, total - warm))
    cooled = max(warm, round(schedule.cooldown * total))
    annealing = max(cooled, trunk_step(schedule, total))
    if step <= cooled:
        return _cosine(schedule.peak, schedule.plateau, (step - warm) / max(1, cooled - warm))
    if step <= annealing:
        return schedule.plateau
    ratio = schedule.floor / schedule.plateau
    return schedule.plateau * float(ratio ** ((step - annealing) / max(1, total - annealing)))


def trunk_step(schedule: Schedule, total: int) -> int:
    """Return the step after which the trunk is saved: before the anneal, else the last one."""
    return max(1, round(schedule.anneal * total)) if schedule.kind == "infinite" else total


def _cosine(high: float, low: float, x: float) -> float:
    return low + (high - low) / 2 * (1 + math.cos(math.pi * min(1.0, x)))
