"""Draws docs/images/schedules.png: every schedule over three runs in a row, as the code computes them.

Run it again when a schedule changes: .venv/bin/python docs/images/schedules.py
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from daemon.core.plans import TRUNKS, Schedule, ScheduleKind, course, rate
from policies.base import TrainingSettings

INK, MUTED, GRID, LINE, TRUNK = "#24292f", "#6e7781", "#d8dee4", "#0a6bcb", "#8250df"
STEPS, RUNS = 400, 3
PANELS: list[tuple[str, str, ScheduleKind, dict[str, object]]] = [
    ("rewarm", "re-warm, re-decay: Ibrahim et al. 2024", "rewarm", {}),
    ("rewarm, falling_peak", "each peak lower: TiC-LM", "rewarm", {"falling_peak": True}),
    ("infinite", "cosine cooldown, plateau, anneal", "infinite", {}),
    ("infinite, inverse_sqrt", "another form of the cooldown", "infinite", {"cooling": "inverse_sqrt"}),
    ("wsd", "warm up, stable, 1 - sqrt decay", "wsd", {}),
    ("wsd_s", "resumes the decayed weights at the peak", "wsd_s", {}),
    ("linear", "a line to the floor", "linear", {}),
    ("constant", "no decay", "constant", {}),
]


def draw(axes: Axes, kind: ScheduleKind, fields: dict[str, object]) -> None:
    """Draw a base training and two increments."""
    settings = TrainingSettings.model_validate({"peak": 3e-4, "floor": 3e-5, "warmup": 0.04, **fields})
    begin = 0
    for run in range(RUNS):
        schedule: Schedule = settings.schedule(kind, first=run == 0, trained=run * STEPS, new=STEPS)
        laid = course(schedule, STEPS, 1)
        rates = [rate(laid, step) for step in range(1, STEPS + 1)]
        axes.plot(range(begin + 1, begin + STEPS + 1), rates, color=LINE, linewidth=1.8)
        axes.fill_between(range(begin + 1, begin + STEPS + 1), rates, color=LINE, alpha=0.08, linewidth=0)
        trunk = laid.annealing if kind in TRUNKS else STEPS
        axes.plot(begin + trunk, rates[trunk - 1], marker="o", markersize=5, color=TRUNK, clip_on=False, zorder=3)
        begin += STEPS
        if run < RUNS - 1:
            axes.axvline(begin, color=GRID, linewidth=1, zorder=0)
    axes.set_xlim(0, begin)
    axes.set_ylim(0, 3.3e-4)
    axes.set_xticks([STEPS * (run + 0.5) for run in range(RUNS)], ["base", "increment 1", "increment 2"])
    axes.set_yticks([0, 3e-5, 1.65e-4, 3e-4], ["0", "floor", "plateau", "peak"])
    axes.tick_params(colors=MUTED, length=0, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)


def main() -> None:
    """Write the picture."""
    figure = Figure(figsize=(10.4, 9.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, words, kind, fields) in enumerate(PANELS, start=1):
        axes = figure.add_subplot(4, 2, place)
        draw(axes, kind, fields)
        axes.set_title(f"{name}   ", loc="left", color=INK, fontsize=10.5, fontweight="bold")
        axes.set_title(words, loc="right", color=MUTED, fontsize=9)
    told = "learning rate over three runs of equal length; the dot is the trunk, where the next run starts"
    figure.supxlabel(told, color=MUTED, fontsize=9)
    figure.savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None}, facecolor="white")


if __name__ == "__main__":
    main()
