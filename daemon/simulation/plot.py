"""The picture of a simulation: runs on a line of time, what waited, and for how long.

Drawn without pyplot, so nothing is kept between calls; the same reports give the same bytes.
"""

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Final

from daemon.simulation.histories import DAY, HOUR, History
from daemon.simulation.report import Simulated
from daemon.simulation.rows import MINUTE
from ops.recording.plots import ACCENT, GRID, INK, MUTED, NEW, PAST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from daemon.simulation.account import Span

OUTCOMES: Final = {
    "promoted": NEW,
    "finished": NEW,
    "rejected": PAST,
    "failed": "#b42318",
    "cancelled": MUTED,
    "held": ACCENT,
    "preempted": ACCENT,
    "postponed": "#b7bfc8",
    "going on": "#57606a",
}
COLOURS: Final = ("#0f7b8a", "#bf3989", "#5a7d1a", "#7a4b1e", "#22486b", "#b58900")
"""Of the lanes: none of them says how a run ended."""
HEIGHTS: Final = {"increment": 0.42, "base": 0.8, "retrain": 0.8}
CROWD: Final = 3
LEAST: Final = 1 / 1200
"""A run is drawn at least as wide as this share of the whole time: else it would be lost."""
LONGEST: Final = 30
"""Letters of a lane's label: more would leave no room for the lane."""
UNITS: Final = (("days", DAY), ("hours", HOUR), ("minutes", MINUTE), ("seconds", 1.0))
SCALES: Final = ((" (millions)", 1e6), (" (thousands)", 1e3))


def draw(simulated: Sequence[Simulated], history: History, *, seed: int, form: str) -> bytes:
    """Return the picture as `png` or `svg`."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes = [(each, name) for each in simulated for name in each.drawings]
    timeline, height = 0.4 + 0.5 * len(lanes), 6.0 + 0.5 * len(lanes)
    longest = max((len(_label(each, name, several=len(simulated) > 1)) for each, name in lanes), default=0)
    # Places are reckoned here: a layout that matplotlib solves for differs by a hair from one time to the next.
    figure = Figure(figsize=(10, height), dpi=130)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3,
        height_ratios=[timeline, 1.7, 1.7],
        left=max(0.06, 0.02 + 0.0085 * longest),
        right=0.985,
        top=1 - 0.72 / height,
        bottom=0.55 / height,
        hspace=0.42,
    )
    axes = [figure.add_subplot(grid[row]) for row in range(3)]
    length = (history.end - history.begin).total_seconds()
    unit, size = next((each for each in UNITS if length > 3 * each[1]), UNITS[-1])
    for one in axes:
        _style(one)
        one.set_xlim(0, max(length, 1.0) / size)
    _timeline(axes[0], lanes, history, size, several=len(simulated) > 1)
    _lines(axes[1], axes[2], lanes, history, size)
    axes[2].set_xlabel(f"{unit} since {history.begin:%Y-%m-%d %H:%M} UTC")
    title = f"{history.name}   {history.description}; seed {seed}"
    figure.text(0.012, 1 - 0.18 / height, title, ha="left", va="top", color=INK, fontsize=11.5)
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rewarm"}):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def _timeline(
    axes: "Axes", lanes: Sequence[tuple[Simulated, str]], history: History, size: float, *, several: bool
) -> None:
    """Draw a lane for each pipeline: a bar for each run; retrains are tall, colours say how it ended."""
    least = (history.end - history.begin).total_seconds() / size * LEAST
    seen: dict[str, str] = {}
    for row, (each, name) in enumerate(reversed(lanes)):
        groups: dict[tuple[str, float], list[tuple[float, float]]] = {}
        for run in each.drawings[name].runs:
            begin, width = _extent(run, history.begin, size)
            groups.setdefault((run.outcome, HEIGHTS.get(run.kind, 0.42)), []).append((begin, max(width, least)))
        for (outcome, height), extents in sorted(groups.items()):
            colour = seen.setdefault(outcome, OUTCOMES.get(outcome, MUTED))
            axes.broken_barh(extents, (row - height / 2, height), facecolors=colour, linewidth=0, snap=False)
    for storm in history.storms:
        begin = (storm.begin - history.begin).total_seconds() / size
        axes.axvspan(
            begin, (storm.end - history.begin).total_seconds() / size, color="#b42318", alpha=0.07, linewidth=0
        )
    axes.set_yticks(range(len(lanes)), [_label(each, name, several=several) for each, name in reversed(lanes)])
    axes.set_ylim(-0.6, len(lanes) - 0.4)
    axes.grid(visible=False, axis="y")
    if len(lanes) > 1:
        for number, label in enumerate(reversed(axes.get_yticklabels())):
            label.set_color(COLOURS[number % len(COLOURS)])
    for outcome in sorted(seen):
        axes.plot([], [], color=seen[outcome], linewidth=5, label=outcome)
    if seen:
        axes.legend(
            frameon=False,
            labelcolor=INK,
            ncols=len(seen),
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
            handlelength=0.8,
        )
    else:
        _say(axes, "no run")
    axes.set_title("runs (tall: trained from scratch or a base)", loc="left", color=MUTED, fontsize=9.5)


def _lines(
    pending: "Axes",
    waiting: "Axes",
    lanes: Sequence[tuple[Simulated, str]],
    history: History,
    size: float,
) -> None:
    """Draw the tokens that were pending, and how long arrivals waited until a champion contained them.

    Of several lanes each has the colour of its name.
    """
    everything = [sample for one, name in lanes for sample in one.drawings[name].samples]
    longest = max((sample.longest for sample in everything if sample.longest is not None), default=None)
    unit, second = next((each for each in UNITS if (longest or 0.0) > 3 * each[1]), UNITS[-1])
    most = max((sample.pending for sample in everything), default=0)
    scale, token = next((each for each in SCALES if most >= each[1]), ("", 1.0))
    for number, (one, name) in enumerate(lanes):
        samples = one.drawings[name].samples
        at = [(sample.at - history.begin).total_seconds() / size for sample in samples]
        tokens = [sample.pending / token for sample in samples]
        colour = COLOURS[number % len(COLOURS)]
        pending.plot(at, tokens, color=colour, linewidth=1.4 if len(lanes) < CROWD else 0.9)
        told = [
            ((sample.at - history.begin).total_seconds() / size, sample.middle / second, sample.longest / second)
            for sample in samples
            if sample.middle is not None and sample.longest is not None
        ]
        when = [moment for moment, _, _ in told]
        middle = [each for _, each, _ in told]
        waiting.vlines(when, middle, [each for _, _, each in told], color=colour, linewidth=1.0, alpha=0.4)
        waiting.plot(when, middle, color=colour, marker="o", markersize=2.2, linestyle="none")
        if len(lanes) == 1:
            pending.fill_between(at, tokens, color=colour, alpha=0.1, linewidth=0)
    pending.set_title(f"pending tokens{scale}, at most", loc="left", color=MUTED, fontsize=9.5)
    if longest is None:
        _say(waiting, "nothing got into a champion")
    title = f"{unit} until a champion contains an arrival: the middle one (dot), the longest"
    waiting.set_title(title, loc="left", color=MUTED, fontsize=9.5)
    for axes, top in ((pending, most / token), (waiting, (longest or 0.0) / second)):
        axes.set_ylim(0, 1.1 * top if top else 1)


def _extent(run: "Span", begin: datetime, size: float) -> tuple[float, float]:
    return (run.begin - begin).total_seconds() / size, (run.end - run.begin).total_seconds() / size


def _label(each: Simulated, name: str, *, several: bool) -> str:
    label = f"{name} ({each.report.name})" if several else name
    half = LONGEST // 2
    return label if len(label) <= LONGEST else f"{label[:half]}…{label[1 - half :]}"


def _say(axes: "Axes", words: str) -> None:
    """Say why there is nothing to be seen."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _style(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, length=0, pad=5)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(MUTED)
