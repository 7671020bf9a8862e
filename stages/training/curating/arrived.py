"""What arrived, as a curation sees it: documents with their scores, cut domain by domain."""

from collections.abc import Sequence

import msgspec
import numpy as np

from daemon.core.events import Band
from daemon.core.plans import Cut
from stages.run_folder import Shard
from stages.training.curating import bands
from stages.training.curating.bands import Bools, Bounds, Floats
from stages.training.data.shards import Part


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival's training documents: which of them the development slice has, and what each scores."""

    shard: Shard
    part: Part
    developing: Bools
    scores: Floats


def by_domain(arrived: Sequence[Arrived]) -> dict[str, Floats]:
    """Return the scores of each domain, without those documents that have none."""
    found: dict[str, list[Floats]] = {}
    for each in arrived:
        found.setdefault(each.shard.domain, []).append(each.scores[~np.isnan(each.scores)])
    return {domain: np.concatenate(found[domain]) for domain in sorted(found)}


def cut_domains(arrived: Sequence[Arrived], cut: Cut, by: str) -> dict[str, Bounds]:
    """Return between which scores a cut keeps the documents of each domain."""
    return {domain: bands.bounds(scores, cut, by) for domain, scores in by_domain(arrived).items()}


def keeps(each: Arrived, cut: dict[str, Bounds]) -> Bools:
    """Return which documents of an arrival stay."""
    return cut[each.shard.domain].keeps(each.scores)


def told(arrived: Sequence[Arrived], cut: dict[str, Bounds]) -> dict[str, Band]:
    """Return each domain's band; the histograms are over the scale of all scores."""
    domains = by_domain(arrived)
    over = bands.scale(np.concatenate(list(domains.values())))
    return {domain: bands.band(scores, cut[domain], over) for domain, scores in domains.items()}
