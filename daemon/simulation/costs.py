"""What stages cost and bring: durations, counts, losses and failures, each with where it is known from.

A number is learned from past runs (`seen` says from how many observations) or it is a stated default (`seen` 0).
"""

import math
from random import Random
from typing import Final

import msgspec

MILLION: Final = 1_000_000


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of an attempt: fixed + per_million × (tokens / 1e6), times a log-normal factor of mean 1."""

    fixed: float
    per_million: float = 0.0
    spread: float = 0.0
    seen: int = 0

    def seconds(self, tokens: float, random: Random) -> float:
        """Return how long an attempt over so many tokens takes this time."""
        mean = self.fixed + self.per_million * tokens / MILLION
        factor = math.exp(random.gauss(0.0, self.spread) - self.spread**2 / 2) if self.spread else 1.0
        return round(max(0.001, mean * factor), 3)


class Normal(msgspec.Struct, frozen=True, kw_only=True):
    """A measured figure: its mean and deviation over runs, and half of the 95 % interval of one measurement."""

    mean: float
    deviation: float
    half: float = 0.0
    seen: int = 0

    def draw(self, random: Random) -> float:
        """Return the figure of one run."""
        return round(random.gauss(self.mean, self.deviation), 9)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe found of an arrival: the mean over the probes that had the fewest others beside it."""

    shift: float
    drift: dict[str, float] = {}
    beside: int = 0
    seen: int = 1


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How often something happens; `seen` is how often it could have happened."""

    share: float
    seen: int = 0


Failures = dict[str, float]
"""Failure class → share of a stage's attempts that end so."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """The whole model. Dictionaries by stage or by domain hold what was learned; the rest falls back on `default`.

    `measured` is what probes found of the very arrivals that come again, by their position in the journal.
    """

    durations: dict[str, Duration]
    other_stage: Duration
    counted: Normal
    counted_by_domain: dict[str, Normal]
    rejected: Share
    shift: Normal
    gain: Normal
    gain_by_domain: dict[str, Normal]
    forgetting: Normal
    forgetting_by_domain: dict[str, Normal]
    failures: dict[str, Failures]
    attempts: dict[str, int]
    other_failures: Failures
    drift: dict[str, Normal] = {}
    expected_gain: Normal = Normal(mean=0.03, deviation=0.02)
    kept: Share = Share(share=0.7)
    ageing: float = 0.01
    measured: dict[int, Measured] = {}
    runs: int = 0

    def duration(self, stage: str) -> Duration:
        """Return the duration of a stage."""
        return self.durations.get(stage, self.other_stage)

    def gain_of(self, domain: str) -> Normal:
        """Return how much a domain with new data gains, in nats per byte."""
        return self.gain_by_domain.get(domain, self.gain)

    def forgetting_of(self, domain: str) -> Normal:
        """Return by how much the loss of a domain without new data rises, in nats per byte."""
        return self.forgetting_by_domain.get(domain, self.forgetting)

    def counted_of(self, domain: str) -> Normal:
        """Return exact tokens per estimated token of a domain."""
        return self.counted_by_domain.get(domain, self.counted)

    def failure(self, stage: str, random: Random, storm: float | None) -> str | None:
        """Return the class of failure that this attempt ends with, if it fails; `storm` is the share that fails now."""
        shares = self.failures.get(stage, self.other_failures)
        if storm is not None and storm > sum(shares.values()):
            shares = {name: storm * weight for name, weight in STORM.items()}
        chance = random.random()
        for name, share in sorted(shares.items()):
            chance -= share
            if chance < 0:
                return name
        return None


DEFAULTS: Final = Costs(
    durations={
        "ingest": Duration(fixed=0.02, per_million=0.04),
        "probe": Duration(fixed=1.5),
        "curate": Duration(fixed=2.0, per_million=40.0),
        "train": Duration(fixed=1.0, per_million=73.0, spread=0.05),
        "evaluate": Duration(fixed=2.0),
        "promote": Duration(fixed=0.06),
    },
    other_stage=Duration(fixed=10.0),
    counted=Normal(mean=0.92, deviation=0.01),
    counted_by_domain={},
    rejected=Share(share=0.001),
    shift=Normal(mean=0.35, deviation=0.1),
    gain=Normal(mean=0.03, deviation=0.02, half=0.02),
    gain_by_domain={},
    forgetting=Normal(mean=0.0, deviation=0.01, half=0.02),
    forgetting_by_domain={},
    failures={},
    attempts={},
    other_failures={"worker_lost": 0.001},
    drift={
        "features": Normal(mean=0.3, deviation=0.1),
        "ks": Normal(mean=0.3, deviation=0.1),
        "ks_p": Normal(mean=0.1, deviation=0.1),
        "tokens": Normal(mean=0.2, deviation=0.05),
        "wasserstein": Normal(mean=0.35, deviation=0.1),
    },
)
"""Durations (but for curate), shift and tokens per estimate are the demo's, rounded (preset nano on two processor
cores); the rest are assumptions: see docs/how-to/simulate.md."""

STORM: Final[Failures] = {"worker_lost": 0.5, "transient": 0.35, "out_of_memory": 0.1, "disk_full": 0.05}
"""What failures are in a storm."""
