"""What a policy compared, in words: each number beside what it was held against."""

import re
from collections.abc import Iterator
from typing import Final

from daemon.cli.output import seconds
from daemon.core.events import Numbers, Scalar

BOUNDS: Final = {
    "tokens": ("tokens", "at least"),
    "documents": ("documents", "at least"),
    "bytes": ("bytes", "at least"),
    "arrivals": ("arrivals", "at least"),
    "age_seconds": ("age_seconds", "at least"),
    "champion_age_seconds": ("champion_age_seconds", "at least"),
    "base_age_seconds": ("base_age_seconds", "at least"),
    "silence_seconds": ("silence_seconds", "at least"),
    "oldest_seconds": ("oldest_seconds", "at most"),
    "since_start_seconds": ("since_start_seconds", "at least"),
    "used_per_day": ("used_per_day", "at most"),
    "used_per_month": ("used_per_month", "at most"),
    "regret_hours": ("regret_hours", "at least"),
    "forgotten": ("forgotten", "at least"),
    "increments": ("increments", "at least"),
    "seconds": ("seconds", "at least"),
    "gain": ("min_gain", "at least"),
    "without_progress": ("retries", "at most"),
    "failures": ("ceiling", "at most"),
    "law_runs": ("law_runs", "at least"),
    "law_error": ("law_error", "at most"),
    "worse": ("tolerance", "at most"),
    "reports": ("reports", "at least"),
    "reports_before": ("reports_before", "at least"),
}
"""An input, without the domain that it is of → the threshold it is held against, and how."""
LABELS: Final = {
    "seconds": "time since then",
    "age_seconds": "longest wait of the data",
    "champion_age_seconds": "age of the champion",
    "base_age_seconds": "age of the last full training",
    "silence_seconds": "time since the last arrival",
    "oldest_seconds": "longest wait of the data",
    "since_start_seconds": "time since its last start",
    "used_per_day": "used of the day's budget",
    "used_per_month": "used of the month's budget",
    "expected": "a run takes about",
    "regret_hours": "cost of waiting, in hours of compute",
}
"""An input → what it is, where its name alone does not say it."""

SIGNALS: Final = ("drift.", "evaluation.", "label.", "detected.")
"""How signals are called that bear the name of a metric: it is told as it was given."""


def compared(inputs: Numbers, thresholds: Numbers) -> Iterator[str]:
    """Yield what a policy compared, in words; what was not measured only where there is a bound for it."""
    for name, value in inputs.items():
        if name.startswith("loss."):
            continue
        first = _plain(name)
        against, how = BOUNDS.get(first.partition(".")[0], (name, "bound"))
        bound = thresholds.get(name, thresholds.get(against))
        if name.startswith("forgetting."):
            against, how = "max_forgetting", "at most"
            protected = f"forgetting_high.{name.partition('.')[2]}" in thresholds
            bound = None if protected else thresholds.get(against)  # it has a bound of its own, on its whole interval
        if name == "shift" and "max_shift" in thresholds:
            bound, how = thresholds["max_shift"], "at most"
        if name.startswith("forgetting_high."):
            how = "at most"
        if value is None and bound is None:
            continue
        told = f"{_label(name)} {_shown(first, value) if value is not None else 'none yet'}"
        if name == "shift" and thresholds.get("strong_shift") is not None and value is not None:
            weak, strong = thresholds.get("weak_shift"), thresholds.get("strong_shift")
            yield f"{told} (weak below {number(weak)}, strong from {number(strong)})"
        elif bound is not None:
            yield f"{told} ({how} {_shown(first, bound)})"
        else:
            yield told


def number(value: Scalar) -> str:
    """Return a number as people write it."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4f}"
    return value


def _plain(name: str) -> str:
    """Return a number's name without what tells two of the same apart: `look_` before it, `_2` behind."""
    return re.sub(r"_\d+$", "", name.removeprefix("look_"))


def _label(name: str) -> str:
    first = _plain(name)
    look = ", to look" if name.startswith("look_") else ""
    if first in LABELS:
        return f"{LABELS[first]}{look}"
    if first.startswith(SIGNALS):
        return f"{name.removeprefix('look_')}{look}"
    told = first.replace(".", " of ").replace("_", " ")
    again = re.search(r"_(\d+)$", name)
    return f"{told} ({again[1]}){look}" if again else f"{told}{look}"


def _shown(name: str, value: Scalar) -> str:
    """Return a value; of what is told in seconds, a duration."""
    if name.endswith("seconds") and isinstance(value, int | float) and not isinstance(value, bool):
        return seconds(value)
    return number(value)
