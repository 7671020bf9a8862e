"""What an evaluation says of a candidate: domain by domain against the bounds, sure or in doubt."""

from collections.abc import Mapping
from typing import NamedTuple

from daemon.core.decisions import rounded
from daemon.core.events import Loss, Numbers
from daemon.core.state import Run

FEWEST = 2
"""Documents below which an interval over documents says nothing."""


class Bounds(NamedTuple):
    """What a candidate is held against; `by_mean`: where an interval lies across a bound, its mean decides.

    `protected` are domains with a bound of their own on forgetting, within which the whole interval has to lie.
    `max_shift` is of what the probe measured of the new documents, before they were trained on.
    """

    max_forgetting: float
    min_gain: float
    protected: Mapping[str, float]
    by_mean: bool
    max_shift: float | None = None


class Judged(NamedTuple):
    """The numbers, and why not to promote: for a protected domain, for sure, or perhaps."""

    inputs: Numbers
    vetoes: list[str]
    faults: list[str]
    doubts: list[str]


def judge(run: Run, bounds: Bounds) -> Judged:
    """Return what the run's evaluation says of its candidate."""
    judged = Judged({}, [], [], [])
    if bounds.max_shift is not None and run.shift is not None:
        _shift(judged, rounded(run.shift), run.plan.model.unit, bounds.max_shift)
    gains = []
    for domain in sorted(run.evaluation):
        comparison = run.evaluation[domain]
        judged.inputs[f"loss.{domain}"] = rounded(comparison.candidate.mean)
        measured = (comparison.difference, comparison.old, comparison.new)
        if any(each is not None and each.documents < FEWEST for each in measured):
            judged.doubts.append(f"{domain} was measured on one document")
        old, new = comparison.on_old, comparison.on_new
        if domain in run.plan.past and domain not in bounds.protected:
            _forgetting(judged, domain, old, run, bounds)
        if domain in run.plan.new and new is not None:
            gains.append(_interval(new))
    for domain in guarded(run, bounds.protected):
        told = run.evaluation.get(domain)
        _protected(judged, domain, told.on_old if told is not None else None, bounds.protected[domain])
    if gains:
        _gain(judged, gains, run.plan.model.unit, bounds)
    return judged


def guarded(run: Run, protected: Mapping[str, float]) -> list[str]:
    """Return the protected domains that a candidate has to keep.

    Not those of its past alone: of a domain that is wholly backfilled nothing is past, and the champion knew it.
    """
    compared = {domain for domain, comparison in run.evaluation.items() if comparison.difference is not None}
    return sorted(set(protected) & (set(run.plan.past) | compared))


def _shift(judged: Judged, shift: float, unit: str, bound: float) -> None:
    judged.inputs["shift"] = shift
    if shift > bound:
        judged.faults.append(f"the new documents lie {shift:.4f} {unit} from the past (at most {bound:g})")


def _interval(loss: Loss) -> tuple[float, float, float]:
    return rounded(loss.mean), rounded(loss.low), rounded(loss.high)


def _forgetting(judged: Judged, domain: str, found: Loss | None, run: Run, bounds: Bounds) -> None:
    if found is None:
        if run.evaluation[domain].new is not None:  # only what has just come could be measured
            judged.doubts.append(f"nothing of the older {domain} is held out")
        return
    mean, low, high = _interval(found)
    judged.inputs[f"forgetting.{domain}"] = mean
    if mean > bounds.max_forgetting:
        sure = (low > bounds.max_forgetting and found.documents >= FEWEST) or bounds.by_mean
        (judged.faults if sure else judged.doubts).append(
            f"{domain} is forgotten by {mean:.4f} {run.plan.model.unit} (at most {bounds.max_forgetting:g})"
        )
    elif high > bounds.max_forgetting:
        judged.doubts.append(f"forgetting of {domain} may reach {high:.4f}")


def _protected(judged: Judged, domain: str, found: Loss | None, bound: float) -> None:
    """A doubt about a protected domain is a fault."""
    if found is None:
        judged.vetoes.append(f"{domain} is protected and was not measured")
        return
    mean, low, high = _interval(found)
    judged.inputs[f"forgetting.{domain}"] = mean
    judged.inputs[f"forgetting_high.{domain}"] = high
    if found.documents < FEWEST:
        judged.vetoes.append(f"{domain} is protected and was measured on one document")
    elif high > bound:
        how = f"is forgotten by {mean:.4f}" if low > bound else f"may be forgotten by up to {high:.4f}"
        judged.vetoes.append(f"{domain} is protected and {how} (at most {bound:g} for sure)")


def _gain(judged: Judged, gains: list[tuple[float, float, float]], unit: str, bounds: Bounds) -> None:
    gain = rounded(-sum(mean for mean, _, _ in gains) / len(gains))
    best = rounded(-sum(low for _, low, _ in gains) / len(gains))
    least = rounded(-sum(high for _, _, high in gains) / len(gains))
    judged.inputs["gain"] = gain
    if gain < bounds.min_gain:
        sure = best < bounds.min_gain or bounds.by_mean
        (judged.faults if sure else judged.doubts).append(
            f"the gain is {gain:.4f} {unit} (at least {bounds.min_gain:g})"
        )
    elif least < bounds.min_gain:
        judged.doubts.append(f"the gain of {gain:.4f} may be below {bounds.min_gain:g}")
