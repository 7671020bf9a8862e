"""How many rows replay the past, and which domain's: exact, for the error of every rounding is carried on.

Replay is compute-equivalent as in Ibrahim et al. 2024 (arXiv 2403.08763, section 4.2): of every batch a share is
past and the rest new, out of one fixed budget.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import msgspec

from daemon.core.errors import StageError
from daemon.core.plans import Training, replay_share, steps

LIMIT = 1_000_000
"""Largest denominator of a share: a plan's 0.1 is a tenth, and sums of it are exact."""


class Part(msgspec.Struct, frozen=True):
    """The steps up to and with `last` (None: all that follow), of which each replays the share `share`."""

    last: int | None
    share: float


def parts(training: Training) -> tuple[Part, ...]:
    """Return the parts of a run in which the replayed share stays the same, as `replay_share` tells it."""
    phases, total = training.replaying.phases, steps(training)
    if not phases:
        return (Part(None, training.replay),)
    found: list[Part] = []
    for phase in phases[:-1]:
        last = min(total, max(0, math.ceil(phase.until * total)))
        while last > 0 and (last - 1) / total >= phase.until:
            last -= 1
        while last < total and last / total < phase.until:
            last += 1
        found.append(Part(last, phase.share))
    return (*found, Part(None, replay_share(training, total)))


def replayed(course: Sequence[Part], batch: int, step: int) -> int:
    """Return how many rows of the first `step` batches are past: never further than half a row from the plan."""
    rows, before = Fraction(0), 0
    for part in course:
        upto = step if part.last is None else min(step, part.last)
        if upto > before:
            rows += _fraction(part.share) * batch * (upto - before)
            before = upto
    return int(rows + Fraction(1, 2))


@lru_cache(maxsize=256)
def _fraction(share: float) -> Fraction:
    return Fraction(share).limit_denominator(LIMIT)


class Split:
    """Which rows of the past are whose: a tree that parts them in two at each fork, exactly but for half a row.

    The forks are Huffman's (1952), so that no fork hands more than two thirds on to another one: of any number of
    rows from the first on a domain has its share but for less than two rows, and mostly less than one.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        shares = {domain: Fraction(weight) for domain, weight in weights.items()}
        # Equal weights part by name: the order does not depend on how the mapping was made.
        forks: list[tuple[Fraction, str, _Fork | str]] = sorted((share, name, name) for name, share in shares.items())
        while len(forks) > 1:
            (less, first, light), (more, second, heavy) = forks[:2]
            share = (less / (less + more)).limit_denominator(LIMIT)
            fork = _Fork(share.numerator, share.denominator, light, heavy)
            forks = sorted([*forks[2:], (less + more, min(first, second), fork)], key=lambda each: each[:2])
        self._root = forks[0][2]

    def count(self, rows: int) -> dict[str, int]:
        """Return how many of the first `rows` rows each domain has."""
        return dict(_count(self._root, rows))


class _Fork(msgspec.Struct, frozen=True):
    numerator: int
    denominator: int
    light: "_Fork | str"
    heavy: "_Fork | str"


def _count(fork: _Fork | str, rows: int) -> Iterator[tuple[str, int]]:
    if isinstance(fork, str):
        yield fork, rows
        return
    light = (2 * fork.numerator * rows + fork.denominator) // (2 * fork.denominator)
    yield from _count(fork.light, light)
    yield from _count(fork.heavy, rows - light)


def split_of(weights: Mapping[str, float], domains: Sequence[str]) -> Split | None:
    """Return the split of the past `domains` by the plan's weights, None where the plan names none of them.

    Raises StageError (user_error) for a weight that is negative or no number.
    """
    wrong = {domain: weight for domain, weight in weights.items() if not 0 <= weight < math.inf}
    if wrong:
        message = f"The plan weighs the past by {wrong}: a weight is a finite number of 0 or more."
        raise StageError("user_error", message)
    named = {domain: weights[domain] for domain in domains if weights.get(domain, 0.0) > 0}
    return Split(named) if named else None
