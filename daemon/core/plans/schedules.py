"""Learning-rate schedules, as pure functions of a plan's training and the step.

`rewarm`, `infinite`: Ibrahim et al. 2024 (arXiv 2403.08763), equations 1-2 and section 7. `wsd`: Hägele et al. 2024
(arXiv 2405.18392). `wsd_s`: Wen et al. 2024 (arXiv 2410.05192). The peak that falls over increments: TiC-LM
(Li et al. 2025, arXiv 2504.02107).
"""

import math
from typing import Literal

import msgspec

ScheduleKind = Literal["rewarm", "infinite", "constant", "linear", "wsd", "wsd_s"]
TRUNKS = frozenset({"infinite", "wsd"})
"""The schedules whose trunk is saved before the final anneal; that of the others is the last step."""


class Length(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a run that does not grow with it: so many steps, or the steps of so many tokens."""

    steps: int = 0
    tokens: int = 0


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A learning-rate schedule over a run's steps.

    `rewarm`: linear warm-up to `peak`, cosine to `floor`. `infinite`: warm-up, cooldown to `plateau`, constant, then
    exponential anneal to `floor`. `constant`: warm-up, then `peak`. `linear`: warm-up, then a line to `floor`.
    `wsd`: warm-up, `peak`, then an anneal to `floor` by 1 - sqrt. `wsd_s`: the same with 1/rate on a line, and the
    trunk is annealed too.

    `warmup` lasts for a share of the steps, `cooldown` ends at a share and `anneal` begins at one; of a `Length`,
    `warmup` lasts that long, `cooldown` ends that long after the start and `anneal` begins that long before the end.
    """

    kind: ScheduleKind
    peak: float
    floor: float
    plateau: float
    warmup: float | Length = 0.01
    cooldown: float | Length = 0.6
    anneal: float | Length = 0.85
    cooling: Literal["cosine", "inverse_sqrt"] = "cosine"
    timescale: float = 10.0


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule laid over a run: the steps at which its parts end."""

    schedule: Schedule
    warm: int
    cooled: int
    annealing: int
    total: int


def course(schedule: Schedule, total: int, tokens_per_step: int) -> Course:
    """Return where the parts of a schedule lie in a run of `total` steps; they never overlap."""

    def length(part: float | Length) -> int:
        if not isinstance(part, Length):
            return round(part * total)
        return part.steps + math.ceil(part.tokens / tokens_per_step)

    shortest = 1 if schedule.warmup and not isinstance(schedule.warmup, Length) else 0
    warm = min(total, max(shortest, length(schedule.warmup)))
    cooled = min(total, max(warm, length(schedule.cooldown)))
    begins = total - length(schedule.anneal) if isinstance(schedule.anneal, Length) else length(schedule.anneal)
    first = cooled if schedule.kind == "infinite" else warm
    annealing = min(total, max(1, first, begins))
    return Course(schedule=schedule, warm=warm, cooled=cooled, annealing=annealing, total=total)


def rate(laid: Course, step: int) -> float:
    """Return the learning rate for optimiser step `step` of 1..total."""
    schedule = laid.schedule
    resumes = schedule.kind == "infinite" and laid.cooled <= laid.warm  # an increment is warmed to the plateau only
    if step <= laid.warm:
        return (schedule.plateau if resumes else schedule.peak) * step / laid.warm
    match schedule.kind:
        case "constant":
            return schedule.peak
        case "rewarm":
            return _cosine(schedule.peak, schedule.floor, _share(step, laid.warm, laid.total))
        case "linear":
            return schedule.peak + (schedule.floor - schedule.peak) * _share(step, laid.warm, laid.total)
        case "infinite":
            return _infinite(laid, step)
        case "wsd" | "wsd_s":
            return _stable(laid, step)


def _infinite(laid: Course, step: int) -> float:
    schedule = laid.schedule
    if step <= laid.cooled:
        x = _share(step, laid.warm, laid.cooled)
        if schedule.cooling == "cosine":
            return _cosine(schedule.peak, schedule.plateau, x)
        fallen = _inverse_sqrt(x, schedule.timescale) / _inverse_sqrt(1.0, schedule.timescale)
        return schedule.peak + (schedule.plateau - schedule.peak) * fallen
    if step <= laid.annealing:
        return schedule.plateau
    ratio = schedule.floor / schedule.plateau
    return schedule.plateau * float(ratio ** _share(step, laid.annealing, laid.total))


def _stable(laid: Course, step: int) -> float:
    schedule = laid.schedule
    if step <= laid.annealing:
        return schedule.peak
    x = _share(step, laid.annealing, laid.total)
    if schedule.kind == "wsd_s":
        return 1 / ((1 - x) / schedule.peak + x / schedule.floor)
    return schedule.floor + (schedule.peak - schedule.floor) * (1 - math.sqrt(x))


def _share(step: int, begin: int, end: int) -> float:
    return min(1.0, (step - begin) / max(1, end - begin))


def _cosine(high: float, low: float, x: float) -> float:
    return low + (high - low) / 2 * (1 + math.cos(math.pi * x))


def _inverse_sqrt(x: float, timescale: float) -> float:
    return 1 / math.sqrt(1 + timescale * x) - 1


def falling_peak(first: float, floor: float, *, before: int, new: int) -> float:
    """Return the peak of an increment of `new` tokens after `before` tokens of earlier runs.

    One cosine from `first` to `floor` is thought over all tokens so far and those of this increment; the increment
    is warmed to where that cosine stands at its own start (TiC-LM's autoregressive schedule, arXiv 2504.02107).
    """
    return _cosine(first, floor, before / max(1, before + new))
