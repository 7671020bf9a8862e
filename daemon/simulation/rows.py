"""Reports as rows of a table: what is told, under each set of policies, and what would change."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from daemon.simulation.costs import Costs, Duration, Failures, Normal
from daemon.simulation.histories import DAY, HOUR
from daemon.simulation.learning import ENOUGH
from daemon.simulation.report import PipelineReport
from policies.guards import VERDICTS

MINUTE: Final = 60.0
FEW: Final = 10
NONE: Final = "–"
Number = float | int | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A label (two blanks a level), a cell for each report, and, of two reports, the change.

    A heading has no cells; a row of noughts is `nought`: it is left out, and so is a heading of such rows.
    """

    label: str
    cells: tuple[str, ...]
    change: str = ""
    nought: bool = False


def rows(reports: Sequence[PipelineReport], hours: Sequence[float]) -> list[Row]:
    """Return the rows of a pipeline; `hours` are those that its slots had, under each set of policies."""
    kinds = sorted({(runs.kind, o) for report in reports for runs in report.runs for o in runs.outcomes})
    out = [
        replace(_row("arrivals", count, [r.arrivals for r in reports]), nought=False),
        replace(_row("runs", count, [_runs(r) for r in reports]), nought=False),
        *(_row(f"  {kind} {outcome}", count, [_runs(r, kind, outcome) for r in reports]) for kind, outcome in kinds),
        *(
            _row(f"  failed with {failure}", count, [r.failures.get(failure, 0) for r in reports])
            for failure in sorted({failure for r in reports for failure in r.failures})
        ),
        _row("  begun as a look", count, [r.looks for r in reports]),
        _row("compute-hours", hour, [r.compute_hours for r in reports]),
        _row("  money", hour, [r.money for r in reports]),
        _row("  share of the slots", percent, [r.stage_hours / h for r, h in zip(reports, hours, strict=True)]),
        _row("  tokens trained on", amount, [r.trained_tokens for r in reports]),
        _row("data until it is in a champion", None, []),
        _row("  mean, by tokens", period, [r.staleness.mean for r in reports]),
        _row("  half of it within", period, [r.staleness.p50 for r in reports]),
        _row("  nine tenths within", period, [r.staleness.p90 for r in reports]),
        _row("  all within", period, [r.staleness.longest for r in reports]),
        _row("  arrivals that still wait at the end", count, [r.staleness.waiting for r in reports]),
        _row("    longest", period, [r.staleness.waiting_longest for r in reports]),
        _row("  arrivals set aside", count, [r.set_aside for r in reports]),
        _row("  arrivals that ingest rejected", count, [r.rejected for r in reports]),
        _row("  arrivals withdrawn", count, [r.withdrawn for r in reports]),
        _row("age of the newest data in the champion", period, [r.staleness.data_age for r in reports]),
        *_held_back(reports),
        _row("wishes that had to wait", count, [r.wishes.waited for r in reports]),
        _row("  longest", period, [r.wishes.longest for r in reports]),
        _row("  standing at the end", count, [r.wishes.standing for r in reports]),
        _row("decisions that act", count, [r.acting for r in reports]),
        _row("decisions suppressed", count, [sum(r.suppressed.values()) for r in reports]),
        *(
            _row(f"  {reason}", count, [r.suppressed.get(reason, 0) for r in reports])
            for reason in sorted({reason for r in reports for reason in r.suppressed})
        ),
        _row("decisions in shadow", count, [r.shadow for r in reports]),
        *(
            _row(f"  starts that {policy} would have made", count, [r.shadow_starts.get(policy, 0) for r in reports])
            for policy in sorted({policy for r in reports for policy in r.shadow_starts})
        ),
        _row("changes of the champion", count, [r.champions.changes for r in reports]),
        _row("  mean age", period, [r.champions.mean_age for r in reports]),
        _row("  longest age", period, [r.champions.longest_age for r in reports]),
        _row("  age at the end", period, [r.champions.age_at_end for r in reports]),
        _row("  taken back", count, [r.rollbacks for r in reports]),
        _row("forgotten by promoted runs in all (nats / byte)", figure, [r.forgotten for r in reports]),
    ]
    kept = [row for row in out if not row.nought]
    below = [*kept[1:], Row(label="", cells=())]
    return [row for row, after in zip(kept, below, strict=True) if row.cells or after.label.startswith(" ")]


def _held_back(reports: Sequence[PipelineReport]) -> list[Row]:
    """Return what kept policies from starting: what they said instead, how often, and for how long in all."""
    found = sorted({verdict for r in reports for verdict in r.stood if verdict in VERDICTS})
    rows = [_row("held back", None, [])] if found else []
    for verdict in found:
        stood = [r.stood.get(verdict) for r in reports]
        rows += [
            _row(f"  {verdict}, times", count, [each.times if each else 0 for each in stood]),
            _row("    in all", period, [each.seconds if each else 0.0 for each in stood]),
        ]
    return rows


def cost_rows(costs: Costs, stages: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return what each part of a cost model is, in words, and where it is known from, for these stages."""
    out, ordered = [], sorted(set(stages), key=lambda stage: (_place(stage), stage))
    for stage in ordered:
        each = costs.duration(stage)
        assumed = bool(each.spread) and each.seen < ENOUGH
        out.append((stage, _duration(each), _known(each.seen, "attempt", assumed=assumed)))
    out.append(("exact tokens", f"{costs.counted.mean:.3g} for each estimated", _known(costs.counted.seen, "arrival")))
    out.append(("rejected", f"{percent(costs.rejected.share)} of arrivals", _known(costs.rejected.seen, "arrival")))
    out.append(("shift", _normal(costs.shift), _of(costs.shift, "probe")))
    if costs.measured:
        out.append(("  of arrivals that come again", "as measured", _known(len(costs.measured), "arrival")))
    out += [
        (f"drift.{how}", f"{each.mean:.3g} ± {each.deviation:.2g}", _known(each.seen, "probe"))
        for how, each in costs.drift.items()
        if each.seen
    ]
    if costs.expected_gain.seen:
        out.append(("expected gain", _normal(costs.expected_gain), _of(costs.expected_gain, "probe")))
    if "curate" in ordered:
        out.append(("kept by curate", f"{percent(costs.kept.share)} of tokens", _known(costs.kept.seen, "run")))
    out.append(("gain", _normal(costs.gain), _of(costs.gain, "measurement")))
    out += [
        (f"  {domain}", _normal(each), _known(each.seen, "measurement"))
        for domain, each in costs.gain_by_domain.items()
    ]
    out.append(("forgetting", _normal(costs.forgetting), _of(costs.forgetting, "measurement")))
    out += [
        (f"  {domain}", _normal(each), _known(each.seen, "measurement"))
        for domain, each in costs.forgetting_by_domain.items()
    ]
    return [*out, *_failing(costs, ordered)]


def _failing(costs: Costs, stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return how often stages fail: those that did, those that were tried and never did, those that nobody tried."""
    failed = [stage for stage in stages if costs.failures.get(stage)]
    calm = sum(costs.attempts.get(stage, 0) for stage in stages if stage not in failed)
    out = [
        (f"{stage} fails", _failures(costs.failures[stage]), _known(costs.attempts.get(stage, 0), "attempt"))
        for stage in failed
    ]
    if calm:
        out.append(("no other stage fails" if failed else "no stage fails", "", _known(calm, "attempt")))
    untried = [stage for stage in stages if stage not in costs.failures]
    if untried:
        label = "any stage fails" if len(untried) == len(stages) else f"{', '.join(untried)} fails"
        out.append((label, _failures(costs.other_failures) or "never", "default"))
    return out


def count(number: Number) -> str:
    """Return a count with its thousands parted."""
    return NONE if number is None else f"{number:,.0f}"


def hour(number: Number) -> str:
    """Return hours, a few of them to the hundredth."""
    return NONE if number is None else f"{number:,.{1 if number >= FEW else 2}f}"


def figure(number: Number) -> str:
    """Return a number to three digits."""
    return NONE if number is None else f"{number:.3g}"


def percent(number: Number) -> str:
    """Return a share of one in percent."""
    return NONE if number is None else f"{100 * number:.1f} %"


def amount(number: Number) -> str:
    """Return a large number with its unit."""
    if number is None:
        return NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def period(number: Number) -> str:
    """Return seconds in the unit that fits."""
    if number is None:
        return NONE
    for unit, size, from_ in (("d", DAY, 2 * DAY), ("h", HOUR, 2 * HOUR), ("min", MINUTE, 2 * MINUTE)):
        if abs(number) >= from_:
            return f"{number / size:.1f} {unit}"
    return f"{number:.1f} s"


def _row(label: str, word: Callable[[Number], str] | None, numbers: Sequence[Number]) -> Row:
    if word is None:
        return Row(label=label, cells=())
    change = ""
    if len(numbers) == 2:  # noqa: PLR2004 - two sets of policies
        before, after = numbers
        difference = after - before if before is not None and after is not None else 0
        if word(abs(difference)) != word(0):
            change = ("+" if difference > 0 else "−") + word(abs(difference))
    return Row(label=label, cells=tuple(word(number) for number in numbers), change=change, nought=not any(numbers))


def _runs(report: PipelineReport, kind: str | None = None, outcome: str | None = None) -> int:
    return sum(
        number
        for runs in report.runs
        if kind in (None, runs.kind)
        for name, number in runs.outcomes.items()
        if outcome in (None, name)
    )


def _duration(each: Duration) -> str:
    parts = [f"{each.fixed:.3g} s"] if each.fixed or not each.per_million else []
    if each.per_million:
        parts.append(f"{each.per_million:.3g} s / M tokens")
    return " + ".join(parts) + (f"  ± {100 * each.spread:.2g} %" if each.spread else "")


def _failures(shares: Failures) -> str:
    return ", ".join(f"{percent(share)} {name}" for name, share in shares.items())


def _normal(each: Normal) -> str:
    return f"{each.mean:.3g} ± {each.deviation:.2g} nats / byte"


def _of(each: Normal, what: str) -> str:
    return _known(each.seen, what, assumed=each.seen == 1)


def _known(seen: int, what: str, *, assumed: bool = False) -> str:
    """Return from how many a figure is known; with `assumed` they were too few to tell how it varies."""
    if not seen:
        return "default"
    return f"{seen:,} {what}{'s' * (seen != 1)}{', ± default' * assumed}"


def _place(stage: str) -> int:
    order: Iterable[str] = ("ingest", "probe", "curate", "train", "evaluate", "promote")
    return next((place for place, name in enumerate(order) if name == stage), 9)
