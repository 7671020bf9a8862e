"""Draws docs/images/continual.png: what each arm of `make bench-continual` loses on the old and the new domain.

Run it again when a result changed: .venv/bin/python docs/images/continual.py
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID, OLD, NEW = "#24292f", "#6e7781", "#d8dee4", "#8250df", "#0a6bcb"
KEPT = Path(__file__).parents[1] / "benchmarks"
BENCHES = ("continual", "continual_data")


def draw(axes: Axes, result: dict[str, Any]) -> None:
    """Draw one comparison: a row an arm, a dot and its interval a domain."""
    arms = [row for row in result["rows"] if not _swept(row["arm"], result["peak"])]
    for at, row in enumerate(arms):
        axes.axhline(at, color=GRID, linewidth=0.8, zorder=0)
        for word, colour, lift in (("old", OLD, -0.12), ("new", NEW, 0.12)):
            low, high = row[f"{word}_low"], row[f"{word}_high"]
            axes.plot([low, high], [at + lift] * 2, color=colour, linewidth=2, alpha=0.45, solid_capstyle="round")
            axes.plot(row[word], at + lift, marker="o", markersize=6, color=colour, zorder=3)
    axes.set_yticks(range(len(arms)), [_named(row["arm"]) for row in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    axes.tick_params(axis="x", length=0, labelsize=8, labelcolor=MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.set_title(f"{result['from']} → {result['to']}", loc="left", color=INK, fontsize=10.5, fontweight="bold")
    tokens = f"{result['tokens'] / 1e6:.1f} million tokens of each"
    axes.set_title(tokens, loc="right", color=MUTED, fontsize=9)


def _swept(arm: str, peak: float) -> bool:
    return "peak" in arm and not arm.endswith(f"peak {peak:g}")


def _named(arm: str) -> str:
    return arm.partition(", peak")[0]


def main() -> None:
    """Write the picture."""
    paths = [KEPT / f"{name}.json" for name in BENCHES]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    figure = Figure(figsize=(5.6 * len(results), 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, result in enumerate(results, start=1):
        draw(figure.add_subplot(1, len(results), place), result)
    marks = [figure.axes[0].plot([], [], marker="o", color=colour)[0] for colour in (OLD, NEW)]
    figure.legend(marks, ["old domain", "new domain"], loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    told = "nats per byte of held-out text, with 95 % intervals over documents (lower is better)"
    figure.supxlabel(told, color=MUTED, fontsize=9)
    path = Path(__file__).with_name("continual.png")
    figure.savefig(path, metadata={"Software": None}, facecolor="white")


if __name__ == "__main__":
    main()
