"""How far off the planner's predictions are, against "the same as last time".

A pipeline's life in small: a base model, then fourteen increments through the real stages, each promoted, so that
the next one continues it. Arrivals alternate between three domains, so the shift goes from strong to none; sizes,
epochs, peaks and replayed shares differ. From the fourth on each increment is run with the two other shares too, from
the same champion: those runs tell which of the three was best, and nothing learns of them. Text is the standard
library's, in pieces; DATA= names a folder of NAME.train.jsonl.gz (FROM=, TO=, THIRD= name the three domains). SEED=
gives other arrivals and weights.

Predicted are the final mean losses on old and on new domains, by a law fitted to the other thirteen runs (leave one
out), and by one fitted to the earlier runs alone (time order, from the fourth on). What a run tells the law is what
was known before it. "Same as last time" knows the same: the champion's losses from the probe, and all that earlier
runs brought. It has three readings, the best of which over all runs is what the law is held against: the losses
change as they did in the run before; they change as they did when this domain came last (else as in the run before);
they stay what they were at the end of the run before. All sides are measured on the same held-out documents.

The order of three shares is judged by forgetting minus gain and predicted in time order; beside it stands how often
"the more replay the better" is right. Finished runs are kept in var/bench-planner-…: a bench that was ended goes on
where it stood, and the machine's speed changes nothing in the result.
"""

import logging
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from daemon.core.plans.law import forgetting, gain
from stages.training.judging.fitting import Point, fit_points, fitted, points_of
from tests.bench.planner_life import LEAST, Life, Tried, domain_names, kept_domains, live
from tests.bench.targets import ROOT, Figure, commit, report


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the comparison sees it."""

    tried: Tried
    point: Point

    @property
    def domain(self) -> str:
        """The domain that came."""
        return min(self.tried.past.plan.new)


def known_of(tried: Sequence[Tried]) -> list[Known]:
    """Return the runs as a law would learn of them: each knows the promoted runs before its own increment."""
    found = []
    for each in tried:
        before = [other.past for other in tried if other.promoted and other.increment < each.increment]
        points, _ = points_of([*before, each.past])
        found.append(Known(tried=each, point=points[-1]))
    return found


def predicted(points: Sequence[Point], point: Point) -> tuple[float, float | None]:
    """Return the gain and the forgetting of one run by the law of others."""
    law = fitted(points)
    return gain(law, point.traits), None if point.forgetting is None else forgetting(law, point.traits)


def off(expected: tuple[float, float | None], point: Point) -> list[float]:
    """Return |predicted - measured| of the final loss on new and, where there are any, on old domains."""
    found = [abs(expected[0] - point.gain)]
    if expected[1] is not None and point.forgetting is not None:
        found.append(abs(expected[1] - point.forgetting))
    return found


def readings(line: Sequence[Known], at: int) -> dict[str, tuple[float, float | None]]:
    """Return what "the same as last time" may mean for a run of the line that has one before it."""
    last = line[at - 1].point
    alike = next((each.point for each in reversed(line[:at]) if each.domain == line[at].domain), last)
    return {
        "last_change": (last.gain, last.forgetting),
        "domain_change": (alike.gain, alike.forgetting),
        "last_loss": (0.0, 0.0),
    }


def judge(line: Sequence[Known]) -> dict[str, float]:
    """Return the median errors of the law and of the readings, over all runs and over those in time order."""
    errors: dict[str, list[float]] = {}

    def note(name: str, expected: tuple[float, float | None], point: Point) -> None:
        errors.setdefault(name, []).extend(off(expected, point))

    for at, known in enumerate(line):
        others = [each.point for each in line if each is not known]
        note("law", predicted(others, known.point), known.point)
        for name, expected in (readings(line, at) if at else {}).items():
            note(name, expected, known.point)
            if at >= LEAST:
                note(f"in_time_{name}", expected, known.point)
        if at >= LEAST:
            note("in_time_law", predicted(others[:at], known.point), known.point)
    return {name: statistics.median(each) for name, each in errors.items()}


def best(errors: dict[str, float], prefix: str = "") -> float:
    """Return the least median error among the readings of "the same as last time"."""
    return min(errors[f"{prefix}{name}"] for name in ("last_change", "domain_change", "last_loss"))


def orders(runs: Sequence[Known]) -> tuple[int, int, int]:
    """Return how many orders of three shares the law tells, how many "more is better" tells, of how many."""
    told = plain = 0
    increments = sorted({each.tried.increment for each in runs})[LEAST:]
    for increment in increments:
        law = fitted([each.point for each in runs if each.tried.promoted and each.tried.increment < increment])
        three = [each.point for each in runs if each.tried.increment == increment]
        measured = [(point.forgetting or 0.0) - point.gain for point in three]
        expected = [forgetting(law, point.traits) - gain(law, point.traits) for point in three]
        order = sorted(range(len(three)), key=measured.__getitem__)
        told += order == sorted(range(len(three)), key=expected.__getitem__)
        plain += order == sorted(range(len(three)), reverse=True)
    return told, plain, len(increments)


def main() -> int:
    """Make the runs that are not there yet, predict each, and compare."""
    seed = int(os.environ.get("SEED") or 1)
    logging.disable(logging.WARNING)
    data = os.environ.get("DATA")
    what = "-".join([Path(data).name, *domain_names()]) if data else "stdlib"
    folder = ROOT / "var" / f"bench-planner-{what}-{seed}-{(commit() or 'unknown')[:12]}"
    tried = list(live(Life(folder, seed), kept_domains(folder / "texts.json", seed)))
    runs = known_of(tried)
    line = [each for each in runs if each.tried.promoted]
    errors = judge(line)
    told, plain, of = orders(runs)
    law = fit_points([each.point for each in line])
    rows: list[dict[str, Figure]] = []
    for known in runs:
        others = fitted([each.point for each in line if each.tried.increment != known.tried.increment])
        seen, point = known.point.traits, known.point
        rows.append(
            {
                "increment": known.tried.increment,
                "domain": known.domain,
                "promoted": known.tried.promoted,
                "replay": seen.replay,
                "tokens": seen.tokens,
                "shift": round(seen.shift, 4),
                "area": round(seen.forward, 4),
                "forgetting": None if point.forgetting is None else round(point.forgetting, 4),
                "expected_forgetting": round(forgetting(others, seen), 4),
                "gain": round(point.gain, 4),
                "expected_gain": round(gain(others, seen), 4),
            }
        )
    held = report(
        "planner",
        round(errors["law"] / best(errors), 3),
        {
            "runs": len(line),
            "further_runs": len(runs) - len(line),
            **{f"{name}_error": round(error, 4) for name, error in errors.items()},
            "in_time_ratio": round(errors["in_time_law"] / best(errors, "in_time_"), 3),
            "orders_right": round(told / of, 3),
            "more_is_better_right": round(plain / of, 3),
            "orders": of,
            "law_error": None if law.error is None else round(law.error, 4),
            "training_minutes": round(sum(each.seconds for each in tried) / 60, 1),
        },
        rows,
        seeds=[seed],
        keep=not data,
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
