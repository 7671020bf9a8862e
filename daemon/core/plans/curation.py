"""Which part of the past a run trains on: a band of documents by their loss under the champion.

After BFS-Prover-V2 (arXiv 2509.06493): what the champion finds trivial teaches nothing, what it finds hardest is noise.
"""

from typing import Literal

import msgspec


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each tail goes: a share of the documents (`quantile`), or so many sigma from the mean (`sigma`)."""

    low: float
    high: float


class Curation(msgspec.Struct, frozen=True, kw_only=True):
    """How the stage `curate` chooses: the cuts it tries, and what it tries them with.

    Each cut is tried by a short training over the share `trial` of the run's budget, from the run's own start; the
    one with the least loss on a development slice (the share `development` of documents, in no trial's training)
    is kept. `rewrite` names a callable "package.module:function" from text to text or None (leave out).
    """

    by: Literal["quantile", "sigma"] = "quantile"
    cuts: tuple[Cut, ...] = (Cut(low=0.0, high=0.15), Cut(low=0.0, high=0.3), Cut(low=0.1, high=0.3))
    trial: float = 0.1
    development: float = 0.1
    rewrite: str | None = None
