"""Draws docs/images/triggers.png: what each trigger of `make bench-triggers` makes of the same dated text.

Run it again when a result changed: .venv/bin/python docs/images/triggers.py
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#6e7781", "#d8dee4"
COLOURS = {"amount": "#0a6bcb", "time": "#8250df", "drift": "#bf3989", "cost": "#b58900", "composite": "#5a7d1a"}
KEPT = Path(__file__).parents[1] / "benchmarks" / "triggers.json"
SERIES = {"dated_beige": "economic reports", "dated_tech": "technical proposals"}
NEVER = "never"


def curves(readings: list[dict[str, Any]], series: str) -> dict[str, list[tuple[str, float]]]:
    """Return each policy's (arrival, loss on it before it was trained on), less what the first champion loses."""
    base = {each["arrival"]: each["loss"] for each in readings if (each["series"], each["policy"]) == (series, NEVER)}
    found: dict[str, list[tuple[str, float]]] = {}
    for each in readings:
        if each["series"] == series and each["policy"] != NEVER:
            found.setdefault(each["policy"], []).append((each["arrival"], each["loss"] - base[each["arrival"]]))
    return found


def over_time(axes: Axes, readings: list[dict[str, Any]], series: str) -> None:
    """Draw the loss on what came next, arrival by arrival, against that of a model that is never trained again."""
    found = curves(readings, series)
    names = list(dict.fromkeys(name for points in found.values() for name, _ in points))
    axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for number, (policy, points) in enumerate(found.items()):
        at = [names.index(name) + 0.06 * (number - (len(found) - 1) / 2) for name, _ in points]
        axes.plot(at, [loss for _, loss in points], color=COLOURS[policy], marker="o", markersize=4, linewidth=1.6)
    axes.set_xticks(range(len(names)), [name.partition("_")[2].replace("-", "–") for name in names])
    axes.tick_params(axis="x", rotation=35)
    axes.set_title(SERIES[series], loc="left", color=INK, fontsize=10.5, fontweight="bold")


def against_compute(axes: Axes, result: dict[str, Any]) -> None:
    """Draw what each policy cost against what it came to: to the left and down is better."""
    for row in result["rows"]:
        minutes = row["seconds"] / 60
        axes.plot(minutes, row["loss_next"], marker="o", markersize=10, color=COLOURS[row["policy"]])
    axes.axhline(result["never_loss_next"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    right = max(row["seconds"] for row in result["rows"]) / 60
    axes.text(0, result["never_loss_next"], "never trained again", color=MUTED, fontsize=8, va="bottom")
    axes.set_xlim(0, 1.1 * right)
    axes.set_title("what it costs, and what it is worth", loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_xlabel("minutes of the processor, both series", color=MUTED, fontsize=9)
    axes.set_ylabel("mean loss on what came next", color=MUTED, fontsize=9)


def told(row: dict[str, Any]) -> str:
    """Return a policy's name, and what it did."""
    looks = f", {row['looks']} looks" if row["looks"] else ""
    return f"{row['policy']}: {row['seconds'] / 60:.1f} min, {row['runs']} runs{looks}"


def main() -> None:
    """Write the picture."""
    result = json.loads(KEPT.read_text(encoding="utf-8"))
    figure = Figure(figsize=(13.5, 4.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, width_ratios=[1.15, 1.05, 1])
    for axes, series in zip(panels[:2], SERIES, strict=True):
        over_time(axes, result["readings"], series)
    panels[0].set_ylabel("nats per byte above a model that\nis never trained again", color=MUTED, fontsize=9)
    against_compute(panels[2], result)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
        axes.grid(visible=True, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    rows = {row["policy"]: row for row in result["rows"]}
    marks = [panels[0].plot([], [], marker="o", color=COLOURS[policy])[0] for policy in rows]
    words = [told(row) for row in rows.values()]
    figure.legend(marks, words, loc="outside upper center", ncols=len(words), frameon=False, fontsize=9.5)
    below = (
        "loss of the champion in force on each arrival's held-out text, at the moment when it arrives (lower is better)"
    )
    figure.supxlabel(below, color=MUTED, fontsize=9)
    figure.savefig(Path(__file__).with_name("triggers.png"), metadata={"Software": None}, facecolor="white")


if __name__ == "__main__":
    main()
