"""The law by which a run's forgetting and gain are predicted from its plan, and what it predicted.

It follows Wang et al. 2025 (arXiv 2505.07796, equations 4 and 8): a shift term that grows with the forward area of
the learning rate and saturates, an annealing area, replay that acts on the shift. It is a law of the change from the
champion's losses, which the probe has measured, to the candidate's, per domain; what counts are means over domains.
With F the forward area, S the annealing area, p the domain's part of every batch, n that of the new domains, and
g(x) = 1 - (1 + x)^-DECAY:

    gain       = share (excess + offset) g(speed F p) + anneal S + trunk
    forgetting = (share shift + room height + offset) g(speed F n) / sqrt(1 + relief p)
                 - reach (lost + offset) g(speed F (p + transfer n)) - anneal S - trunk

`excess` is how far the champion stands above the best loss that is known on the new domain; for one never seen, above
the best of the others, and `unseen` stands in place of `share`. `shift` is how far the champion is worse on the new
domains than on the old one, `height` how far below the worst that was ever measured there it stands, `lost` how far
above the best; where nothing was measured before this run, `first` stands in place of `share`. Replay divides instead
of following the paper's exponential: of its results and those of Ibrahim et al. 2024 (1 % of replay takes away half of
the forgetting, 25 % not yet all) only a power comes near (Bethune et al. 2025, arXiv 2502.06042). `trunk` counts where
the run continues an un-annealed trunk: that loses less.
"""

import math

import msgspec

DECAY = 0.25
"""The exponent of the shift term; the paper's fits lie between 0.15 and 0.37."""
NEW = {"share": 1.0, "unseen": 0.8, "offset": 0.05, "speed": 1000.0, "anneal": 0.3, "trunk": 0.0}
OLD = {
    "share": 0.2,
    "first": 0.8,
    "room": 0.9,
    "offset": 0.02,
    "speed": 200.0,
    "relief": 30.0,
    "reach": 0.3,
    "transfer": 0.1,
    "anneal": 0.3,
    "trunk": 0.0,
}
"""What the coefficients are taken to be before any run was seen; a law without one of them is read with these."""
LARGEST = 1e6


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted law: of how many runs, its error on them (nats per byte, each predicted from the others), its numbers.

    `error` is None while there are too few runs to tell. `covered` are the least and the greatest of what the runs
    had of each trait, `highest` the highest losses per domain in their probes.
    """

    runs: int
    error: float | None
    old: dict[str, float] = {}
    new: dict[str, float] = {}
    covered: dict[str, tuple[float, float]] = {}
    highest: dict[str, float] = {}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the law expected of a run when its plan was fixed: mean losses over domains after it, in nats per byte.

    `forgetting` and `gain` are how far they lie above and below those that the champion had in the probe.
    """

    old: float | None
    new: float
    law: Law
    forgetting: float | None = None
    gain: float = 0.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's losses per domain before a run, and the lowest and highest that are known, in nats per byte.

    `old` are domains of which nothing new came: one of which more came is `new`, on its new documents and on those of
    before; `again` is its loss on those of before alone.
    """

    old: dict[str, float]
    new: dict[str, float]
    again: dict[str, float] = {}
    best: dict[str, float] = {}
    highest: dict[str, float] = {}


class OldDomain(msgspec.Struct, frozen=True, kw_only=True):
    """What the law looks at in a domain that may be forgotten; `part` is of every batch."""

    shift: float
    height: float
    lost: float
    first: bool
    part: float


class NewDomain(msgspec.Struct, frozen=True, kw_only=True):
    """What the law looks at in a domain that is learned; `part` is of every batch."""

    excess: float
    unseen: bool
    part: float


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What the law looks at in a run: its domains, and what its plan does."""

    old: tuple[OldDomain, ...]
    new: tuple[NewDomain, ...]
    forward: float
    annealing: float
    replay: float
    tokens: int
    trunk: bool

    @property
    def excess(self) -> float:
        """The mean excess over the new domains."""
        return sum(domain.excess for domain in self.new) / len(self.new)

    @property
    def shift(self) -> float:
        """The mean shift over the old domains; zero where there is none."""
        return sum(domain.shift for domain in self.old) / len(self.old) if self.old else 0.0


def gain(law: Law, traits: Traits) -> float:
    """Return how far the mean loss on the new domains is expected to fall."""
    c = {**NEW, **law.new}
    won = 0.0
    for domain in traits.new:
        share = c["unseen"] if domain.unseen else c["share"]
        won += share * (domain.excess + c["offset"]) * _grown(c["speed"] * traits.forward * domain.part)
    return won / len(traits.new) + c["anneal"] * traits.annealing + c["trunk"] * traits.trunk


def forgetting(law: Law, traits: Traits) -> float:
    """Return how far the mean loss on the old domains is expected to rise; zero where there is none."""
    if not traits.old:
        return 0.0
    c = {**OLD, **law.old}
    area = c["speed"] * traits.forward
    fresh = sum(domain.part for domain in traits.new)
    taught = min(1.0, c["transfer"]) * fresh  # a new token teaches an old domain no more than a replayed one
    lost = 0.0
    for domain in traits.old:
        share = c["first"] if domain.first else c["share"]
        shifted = share * domain.shift + c["room"] * domain.height + c["offset"]
        shifted *= _grown(area * fresh)
        lost += shifted / math.sqrt(1 + max(0.0, c["relief"] * domain.part))
        lost -= c["reach"] * (domain.lost + c["offset"]) * _grown(area * (domain.part + taught))
    return lost / len(traits.old) - c["anneal"] * traits.annealing - c["trunk"] * traits.trunk


def _grown(x: float) -> float:
    """Return g: from 0 to 1."""
    return 1 - math.pow(1 + min(LARGEST, max(0.0, x)), -DECAY)
