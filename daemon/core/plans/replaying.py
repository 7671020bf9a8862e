"""When in a run the past is replayed more, and which of it."""

from collections.abc import Mapping, Sequence

from daemon.core.plans.plan import Phase

FLOOR = 0.2
"""The part of the replayed share that is spread evenly, whatever the losses: no domain gets nothing."""
MOST = 1e6
"""Increase of a loss beyond which more of it says nothing: sums stay finite."""
DIGITS = 12


def phases(parts: Sequence[tuple[float, float]], share: float) -> tuple[Phase, ...]:
    """Return phases that replay `share` in all, from parts as (until, factor) of which the last ends at 1.

    Where a phase would replay more than everything, it replays everything and the others take up the rest, as far as
    their factors are above zero.
    """
    widths = [until - before for (until, _), before in zip(parts, [0.0, *(until for until, _ in parts)], strict=False)]
    full: set[int] = set()
    scale = 0.0
    for _ in parts:
        weight = sum(w * factor for at, (w, (_, factor)) in _numbered(widths, parts) if at not in full)
        rest = share - sum(w for at, w in enumerate(widths) if at in full)
        scale = max(0.0, rest) / weight if weight > 0 else 0.0
        over = {at for at, (_, factor) in enumerate(parts) if at not in full and scale * factor > 1}
        if not over:
            break
        full |= over
    return tuple(
        Phase(until=until, share=1.0 if at in full else float(f"{scale * factor:.{DIGITS}g}"))
        for at, (until, factor) in enumerate(parts)
    )


def _numbered(
    widths: Sequence[float], parts: Sequence[tuple[float, float]]
) -> list[tuple[int, tuple[float, tuple[float, float]]]]:
    return list(enumerate(zip(widths, parts, strict=True)))


def even(domains: Sequence[str]) -> dict[str, float]:
    """Return the same weight for every domain."""
    return {domain: float(f"{1 / len(domains):.{DIGITS}g}") for domain in sorted(domains)}


def by_increase(domains: Sequence[str], now: Mapping[str, float], best: Mapping[str, float]) -> dict[str, float]:
    """Return weights that grow with how far a domain's loss lies above the lowest that it ever had.

    A domain without one of the two counts as never worse. Where none is worse, all weigh the same.
    """
    worse = {d: min(MOST, max(0.0, now[d] - best[d])) if d in now and d in best else 0.0 for d in sorted(domains)}
    total = sum(worse.values())
    if total <= 0:
        return even(domains)
    return {
        domain: float(f"{FLOOR / len(worse) + (1 - FLOOR) * each / total:.{DIGITS}g}") for domain, each in worse.items()
    }
