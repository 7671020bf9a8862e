"""What the arms of a comparison say about each other: losses, and paired differences with their intervals."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from daemon.core.events import Loss
from stages.training.judging.evaluation import INTERVAL, resample, summarise
from tests.bench.continual_arms import Reading, Readings
from tests.bench.targets import Figure

DIGITS = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An arm in the table: what it is called and how many tokens were trained behind it in all."""

    told: str
    tokens: int
    readings: Readings


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: the share of the forgetting that replay removes, the figures behind it, and the table."""

    removed: float
    details: dict[str, Figure]
    rows: list[dict[str, Figure]]


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """The arms that a comparison always has; `base` and `trunk_base` saw the old domain only."""

    base: Readings
    trunk_base: Readings
    no_replay: Readings
    replay: Readings
    trunk: Readings
    union: Readings


def account(arms: Arms, rows: Sequence[Row], *, old: str, new: str, seed: int) -> Account:
    """Return what the arms show; every difference is "so much worse than", in nats per byte."""
    forgets = difference(arms.no_replay[old], arms.base[old], seed)
    repairs = difference(arms.no_replay[old], arms.replay[old], seed)
    learned = difference(arms.base[new], arms.replay[new], seed)
    details: dict[str, Figure] = {}
    for name, loss in (
        ("no_replay_forgets", forgets),
        ("replay_repairs", repairs),
        ("new_learned", learned),
        ("recipe_forgets", difference(arms.replay[old], arms.base[old], seed)),
        ("trunk_forgets", difference(arms.trunk[old], arms.trunk_base[old], seed)),
    ):
        details |= figures(name, loss)
    for name, arm, other in (
        ("recipe_to_union", arms.replay, arms.union),
        ("trunk_to_union", arms.trunk, arms.union),
        ("trunk_to_recipe", arms.trunk, arms.replay),
    ):
        for domain, word in ((old, "old"), (new, "new")):
            details |= figures(f"{name}_{word}", difference(arm[domain], other[domain], seed))
        details |= figures(name, average_difference(arm, other, (old, new), seed))
    removed = round(repairs.mean / forgets.mean, DIGITS) if forgets.mean > 0 else 0.0
    return Account(removed=removed, details=details, rows=[row(each, old, new, seed) for each in rows])


def row(each: Row, old: str, new: str, seed: int) -> dict[str, Figure]:
    """Return an arm's line of the table."""
    cells: dict[str, Figure] = {"arm": each.told, "tokens": each.tokens}
    for word, domain in (("old", old), ("new", new)):
        reading = each.readings[domain]
        cells |= figures(word, summarise(reading.costs, reading.sizes, seed=seed))
    cells["average"] = round((each.readings[old].mean + each.readings[new].mean) / 2, DIGITS)
    return cells


def figures(name: str, loss: Loss) -> dict[str, Figure]:
    """Return a loss and its interval under names."""
    values: Mapping[str, float] = {name: loss.mean, f"{name}_low": loss.low, f"{name}_high": loss.high}
    return {key: round(value, DIGITS) for key, value in values.items()}


def difference(one: Reading, other: Reading, seed: int) -> Loss:
    """Return by how much the first is worse than the second on the same documents."""
    return summarise(one.costs - other.costs, one.sizes, seed=seed)


def average_difference(one: Readings, other: Readings, domains: Sequence[str], seed: int) -> Loss:
    """Return by how much the first's mean over domains is worse; each domain's documents are drawn for themselves."""
    drawn = np.mean(
        [
            resample(one[domain].costs - other[domain].costs, one[domain].sizes, seed=seed, stream=stream)
            for stream, domain in enumerate(domains, start=1)
        ],
        axis=0,
    )
    low, high = np.percentile(drawn, INTERVAL)
    return Loss(
        mean=float(np.mean([one[domain].mean - other[domain].mean for domain in domains])),
        low=float(low),
        high=float(high),
        documents=sum(len(one[domain].nats) for domain in domains),
        bytes=int(sum(sum(one[domain].bytes) for domain in domains)),
    )
