"""Pictures for a run's page: the learning-rate and replay plan, the losses, the judgement per domain.

Drawn without pyplot, so nothing is kept between calls; the same numbers give the same bytes.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from daemon.core.events import Comparison, DataCurated
from daemon.core.plans import TRUNKS, Amounts, Plan, learning_rate, steps, tokens, trunk_step
from ops.recording.curves import Point, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#6e7781", "#d8dee4"
NEW, PAST, ACCENT = "#0a6bcb", "#d9822b", "#8250df"
PALETTE = (NEW, PAST, "#1a7f5a", ACCENT, "#bf3989", "#57606a", "#9a6700", "#0f7b8a")
POINTS = 600
FEW = 40
DOMAINS = 6
"""Most domains in one picture."""
HELD_OUT = "eval_"
"""What the names of points measured on the way begin with."""


def plan_plot(plan: Plan, title: str) -> bytes:
    """Return a PNG: the learning rate over the run's tokens, and what those tokens are made of."""
    figure, (rates, mixture) = _figure((9, 5.4), [3.2, 1])
    training, total = plan.training, steps(plan.training)
    stride = max(1, total // POINTS)
    marks = sorted({0, *range(1, total + 1, stride), total})
    per_step = training.tokens / total / 1e6
    values = [learning_rate(training, max(step, 1) if not training.schedule.warmup else step)
              for step in marks]  # fmt: skip
    rates.plot([step * per_step for step in marks], values, color=NEW, linewidth=2.2)
    rates.fill_between([step * per_step for step in marks], values, color=NEW, alpha=0.08, linewidth=0)
    rates.set_ylim(bottom=0, top=max(values) * 1.14)
    rates.set_xlim(0, total * per_step)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("tokens seen (millions)")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    peak = max(range(len(marks)), key=values.__getitem__)
    right = marks[peak] > total * 0.8
    rates.annotate(
        f"{training.schedule.kind}, peak {values[peak]:.3g}",
        (marks[peak] * per_step, values[peak]),
        xytext=(-6 if right else 6, 5),
        textcoords="offset points",
        color=INK,
        ha="right" if right else "left",
    )
    if training.schedule.kind in TRUNKS:
        trunk = trunk_step(training) * per_step
        rates.axvline(trunk, color=ACCENT, linestyle=(0, (4, 3)), linewidth=1.2)
        rates.annotate("trunk saved", (trunk, max(values) * 0.55), xytext=(-5, 0), ha="right",
                       textcoords="offset points", color=ACCENT)  # fmt: skip
    _mixture(mixture, plan)
    _title(figure, title, f"{plan.kind}: {training.tokens:,} tokens in {total:,} steps")
    return _png(figure)


def _mixture(axes: "Axes", plan: Plan) -> None:
    training = plan.training
    if training.replaying.phases:
        _phases(axes, plan)
        return
    parts = [("new", 1 - training.replay, NEW, plan.new), ("replayed", training.replay, PAST, plan.past)]
    left = 0.0
    for index, (label, share, colour, amounts) in enumerate(parts):
        if share > 0:
            axes.barh(0, share, left=left, height=0.55, color=colour, edgecolor="white", linewidth=1.5)
        words = f"{label} {share:.1%}: {_domains(amounts)}" if share > 0 else "no replay"
        axes.text(0.0 if index == 0 else 1.0, 0.62 if index == 0 else -0.62, words, color=colour,
                  ha="left" if index == 0 else "right", va="bottom" if index == 0 else "top")  # fmt: skip
        left += share
    axes.set_xlim(0, 1)
    axes.set_ylim(-1.3, 1.3)
    axes.set_axis_off()


def _phases(axes: "Axes", plan: Plan) -> None:
    """Draw the replayed share over the steps, where it is not the same throughout."""
    edges, shares = [0.0], []
    for phase in plan.training.replaying.phases:
        edges.append(phase.until)
        shares.append(phase.share)
    axes.stairs([1.0] * len(shares), edges, fill=True, color=NEW, alpha=0.85)
    axes.stairs(shares, edges, fill=True, color=PAST)
    new, past = _domains(plan.new), _domains(plan.past)
    axes.text(0.0, 1.06, f"new {1 - plan.training.replay:.1%}: {new}", color=NEW, ha="left", va="bottom")
    axes.text(1.0, 1.06, f"replayed {plan.training.replay:.1%}: {past}", color=PAST, ha="right", va="bottom")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.5)
    axes.set_axis_off()


def _domains(amounts: Amounts) -> str:
    ranked = sorted(amounts.items(), key=lambda item: (-item[1].tokens, item[0]))
    words = [f"{domain} {_short(amount.tokens)}" for domain, amount in ranked[:4]]
    if len(ranked) > len(words):
        rest = dict(ranked[len(words) :])
        words.append(f"{len(rest)} more {_short(tokens(rest))}")
    return ", ".join(words) + " tokens at hand" if words else "nothing at hand"


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def loss_plot(points: Sequence[Point], title: str) -> bytes | None:
    """Return a PNG of every loss in a curve, smoothed over the raw points; None where there is none."""
    named = sorted({key for point in points for key in point if "loss" in key})
    series = {key: line for key in named if (line := _series(points, key))}
    measured = sorted({key for point in points for key in point if key.startswith(HELD_OUT)})
    if not series:
        return None
    figure, (axes,) = _figure((9, 4.6), [1])
    several = [key for key in series if key != "loss"]
    colours = {key: PALETTE[at % len(PALETTE)] for at, key in enumerate(several)}
    for key, line in series.items():
        colour = colours.get(key, INK)
        label = "all data" if key == "loss" else key.removeprefix("loss_")
        at, values = [s for s, _ in line], [v for _, v in line]
        if len(line) < FEW:
            axes.plot(at, values, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
            continue
        axes.plot(at, values, color=colour, linewidth=0.7, alpha=0.25)
        axes.plot(at, _smooth(values), color=colour, linewidth=2, label=label)
    for key in measured:
        line = _series(points, key)
        name = key.removeprefix(HELD_OUT)
        colour = colours.get(f"loss_{name}") or MUTED
        axes.plot([s for s, _ in line], [v for _, v in line], color=colour, linewidth=1.2, linestyle=(0, (2, 2)),
                  marker="D", markersize=4.5, label=f"{name}, held out")  # fmt: skip
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per token; held out: per byte)" if measured else "loss (nats per token)")
    axes.legend(frameon=False, labelcolor=INK, ncols=min(4, len(series)), loc="upper right")
    _title(figure, title, "training curves, smoothed; the raw points behind them")
    return _png(figure)


def _series(points: Sequence[Point], key: str) -> list[tuple[int, float]]:
    found = []
    for point in points:
        step, value = point.get("step"), number(point.get(key))
        if isinstance(step, int) and value is not None:
            found.append((step, value))
    return found


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of about 3 % of the curve; at both ends over what there is of it."""
    half = max(2, len(values) // 60)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    smooth = []
    for index in range(len(values)):
        begin, end = max(0, index - half), min(len(values), index + half + 1)
        smooth.append((sums[end] - sums[begin]) / (end - begin))
    return smooth


def evaluation_plot(domains: Mapping[str, Comparison], title: str) -> bytes:
    """Return a PNG: per domain the candidate's and the champion's loss with their 95 % intervals."""
    names = sorted(domains, reverse=True)
    figure, (axes,) = _figure((9, 1.9 + 0.5 * len(names)), [1])
    for row, domain in enumerate(names):
        comparison = domains[domain]
        pairs = ((comparison.champion, PAST, "champion", 0.13), (comparison.candidate, NEW, "candidate", -0.13))
        for loss, colour, label, shift in pairs:
            if loss is None:
                continue
            axes.plot([loss.low, loss.high], [row + shift] * 2, color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(loss.mean, row + shift, marker="o", markersize=6, color=colour,
                      label=label if row == 0 else None, linestyle="none")  # fmt: skip
        if comparison.difference is not None:
            worse = comparison.difference.low > 0
            axes.annotate(
                f"{comparison.difference.mean:+.4f}",
                (1.01, row),
                xycoords=("axes fraction", "data"),
                va="center",
                color="#b42318" if worse else "#1a7f5a" if comparison.difference.high < 0 else MUTED,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("held-out loss, 95 % intervals; right: candidate minus champion")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    _title(figure, title, "")
    return _png(figure)


def curation_plot(event: DataCurated, title: str) -> bytes | None:
    """Return a PNG: how many documents have which score, by domain, and between which scores they stay.

    None where nothing was scored. Of many domains the greatest are drawn.
    """
    if event.scale is None:
        return None
    low, high = event.scale
    named = sorted(event.domains, key=lambda domain: (-event.domains[domain].documents, domain))[:DOMAINS]
    figure, rows = _figure((9, 1.4 + 1.5 * len(named)), [1] * len(named))
    for axes, domain in zip(rows, named, strict=True):
        band = event.domains[domain]
        width = (high - low) / max(1, len(band.counts))
        edges = [low + width * at for at in range(len(band.counts) + 1)]
        inside = [band.low <= edge + width / 2 <= band.high for edge in edges[:-1]]
        axes.stairs(band.counts, edges, fill=True, color=GRID)
        axes.stairs([c * kept for c, kept in zip(band.counts, inside, strict=True)], edges, fill=True, color=NEW)
        for bound in (band.low, band.high):
            axes.axvline(min(max(bound, low), high), color=ACCENT, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_xlim(low, high)
        axes.set_ylabel("documents")
        axes.set_title(f"{domain}: {band.kept:,} of {band.documents:,} stay, {band.low:.3g} to {band.high:.3g}",
                       loc="left", color=MUTED, fontsize=10)  # fmt: skip
    rows[-1].set_xlabel("score: the document's loss under the champion")
    _title(figure, title, f"{event.kept:,} of {event.documents:,} documents are trained on")
    return _png(figure)


def _figure(size: tuple[float, float], ratios: list[float]) -> tuple["Figure", "list[Axes]"]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(ratios), height_ratios=ratios)
    axes = [figure.add_subplot(grid[row]) for row in range(len(ratios))]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(GRID)
        one.tick_params(colors=MUTED, length=0)
        one.grid(visible=True, color=GRID, linewidth=0.6)
        one.set_axisbelow(True)
        one.xaxis.label.set_color(MUTED)
        one.yaxis.label.set_color(MUTED)
    return figure, axes


def _title(figure: "Figure", title: str, subtitle: str) -> None:
    text = f"{title}   {subtitle}" if subtitle else title
    figure.suptitle(text, x=0.012, ha="left", color=INK, fontsize=11.5)


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()
