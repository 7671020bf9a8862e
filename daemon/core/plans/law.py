"""The law by which losses on old and new domains are predicted from a plan, and what it predicted."""

import msgspec


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted law: of how many runs, its error on them (nats per byte, each predicted from the others), its numbers.

    `error` is None while there are too few runs to tell. Where two models are compared, losses count per byte.
    """

    runs: int
    error: float | None
    old: dict[str, float] = {}
    new: dict[str, float] = {}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the law expected of a run when its plan was fixed: mean losses after it, in nats per byte."""

    old: float | None
    new: float
    law: Law
