"""The watch: what is reported on a new champion against what was reported on the one before."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.commands import RollBack
from daemon.core.decisions import Decision
from daemon.core.events import DriftDetected, EvaluationReported, LabelArrived, ModelPromoted, TimerFired
from daemon.core.ledger import Reading
from daemon.core.plans import Checkpoint
from daemon.core.state import Pipeline
from policies.promotion import Promotion

Build = Any
SHA = "0" * 64
ACCURACY = {"signal": "evaluation.accuracy", "better": "higher", "for": 86_400, "least": 3, "tolerance": 0.01}
GOOD = (0.9, 0.91, 0.89)
REPORTED = EvaluationReported(metric="accuracy", value=0.5)
PROMOTED = ModelPromoted(
    run="p-2",
    stage="promote",
    attempt=1,
    model_version=2,
    path="v2",
    sha256=SHA,
    trunk=Checkpoint(path="v2/trunk", sha256=SHA),
    parent=1,
    spans=(),
    losses={},
)


def watching(**fields: object) -> Promotion:
    """Make a gate that watches accuracy for a day."""
    return Promotion.model_validate({"watch": {**ACCURACY, **fields}})


def live(
    build: Build, after: tuple[float, ...], before: tuple[float, ...] = GOOD, other: tuple[float, ...] = ()
) -> Pipeline:
    """Make a pipeline whose version 2 went live at noon, with reports on it, on version 1, and on version 7."""
    position = count(1)
    told = [(value, 1) for value in before] + [(value, 2) for value in after] + [(value, 7) for value in other]
    series = tuple(Reading(value=v, at=build.noon, position=next(position), version=version) for v, version in told)
    return build.pipeline(  # type: ignore[no-any-return]
        champion=build.model(2), previous=build.model(1), signals={"evaluation.accuracy": series}
    )


def report(build: Build, policy: Promotion, state: Pipeline, at: datetime | None = None) -> Decision | None:
    """Return what follows from one more report."""
    return policy.decide(state, build.record(REPORTED, at=at or build.after(hours=1)))


# reports on version 2 (version 1 had 0.90, 0.91, 0.89) → rolled back?
CASES = [
    ((0.7, 0.71, 0.69), True),
    ((0.7, 0.71), False),
    ((0.895, 0.885, 0.89), False),
    ((0.95, 0.96, 0.97), False),
    ((0.9, 0.3, 0.95), False),
    ((0.88, 0.88, 0.88), True),
    ((0.89, 0.89, 0.89), False),
]
IDS = ["worse", "too few", "within the tolerance", "better", "within the noise", "just worse", "at the tolerance"]


@pytest.mark.parametrize(("after", "rolled_back"), CASES, ids=IDS)
def test_reports_within_the_watch(build: Build, after: tuple[float, ...], rolled_back: bool) -> None:
    """A champion whose mean is worse by more than is tolerated and than chance explains is rolled back."""
    decision = report(build, watching(), live(build, after))
    assert (decision is not None) is rolled_back
    if decision is not None:
        assert (decision.verdict, decision.commands) == ("rolled_back", (RollBack(),))


@pytest.mark.parametrize(("after", "rolled_back"), CASES, ids=IDS)
def test_where_lower_is_better(build: Build, after: tuple[float, ...], rolled_back: bool) -> None:
    """An error is the mirror image of an accuracy."""
    state = live(build, tuple(1 - value for value in after), tuple(1 - value for value in GOOD))
    assert (report(build, watching(better="lower"), state) is not None) is rolled_back


def test_the_numbers_are_told(build: Build) -> None:
    """Both means, how many reports each has, and what chance explains, in the sentence and beside it."""
    decision = report(build, watching(), live(build, (0.7, 0.72, 0.68, 0.7)))
    assert decision is not None
    assert decision.reason == (
        "Version 2 does worse than version 1, which is champion again: evaluation.accuracy is 0.7 over 4 reports, "
        "0.9 over 3 before it; worse by 0.2, where 0.01 is tolerated and chance explains 0.02."
    )
    assert decision.inputs == {"reports": 4, "reports_before": 3, "mean": 0.7, "mean_before": 0.9, "worse": 0.2}
    noise = decision.thresholds.pop("noise")
    # variances 0.0004 x 2 / 3 and 0.0001 x 2 / 2: squared errors 0.000266… / 4 and 0.0001 / 3
    assert noise == pytest.approx(1.96 * (0.0008 / 3 / 4 + 0.0001 / 3) ** 0.5)
    assert decision.thresholds == {"tolerance": 0.01, "reports": 3, "reports_before": 3}


@pytest.mark.parametrize(("hours", "rolled_back"), [(0, True), (24, True), (24.001, False), (1000, False)])
def test_only_within_the_window(build: Build, hours: float, rolled_back: bool) -> None:
    """What comes after it does not act, however bad."""
    state = live(build, (0.1, 0.1, 0.1))
    assert (report(build, watching(), state, build.after(hours=hours)) is not None) is rolled_back


def test_how_many_reports_are_missing_is_told(build: Build) -> None:
    """While there are too few to compare, the opinion says how many there are of how many."""
    opinion = watching().opinion(live(build, (0.9,), other=(0.5, 0.5)), build.record(REPORTED, at=build.after(hours=1)))
    assert opinion is not None
    assert opinion.inputs == {"reports": 1, "reports_before": 3}
    assert (opinion.thresholds["reports"], opinion.thresholds["reports_before"]) == (3, 3)


def test_reports_on_other_versions_do_not_count(build: Build) -> None:
    """Neither for the new champion nor for the one before."""
    assert report(build, watching(), live(build, (0.9, 0.9, 0.9), other=(0.0, 0.0, 0.0))) is None
    assert report(build, watching(), live(build, (), other=(0.0, 0.0, 0.0))) is None
    assert report(build, watching(), live(build, (0.1, 0.1, 0.1), before=(), other=(0.9, 0.9, 0.9))) is None


def test_another_metric_asks_nothing(build: Build) -> None:
    """Only reports of the watched signal bring a judgement: the kind counts as well as the name."""
    state = live(build, (0.1, 0.1, 0.1))
    for event in (
        EvaluationReported(metric="latency", value=1.0),
        LabelArrived(metric="accuracy", value=0.1),
        DriftDetected(metric="accuracy", value=0.1),
    ):
        assert watching().decide(state, build.record(event)) is None


@pytest.mark.parametrize(
    ("event", "signal"),
    [(LabelArrived(metric="auc", value=0.1), "label.auc"), (DriftDetected(metric="psi", value=0.9), "detected.psi")],
)
def test_labels_and_drift_can_be_watched_too(build: Build, event: Any, signal: str) -> None:  # noqa: ANN401 - either
    """Whatever a monitor outside reports under a name."""
    state = live(build, (0.1, 0.1, 0.1))
    renamed = replace(state, signals={signal: state.signals["evaluation.accuracy"]})
    decision = watching(signal=signal).decide(renamed, build.record(event))
    assert decision is not None
    assert decision.verdict == "rolled_back"
    assert watching(signal=signal).signals == {signal: 100}


def test_there_is_no_watch_without_a_champion_before(build: Build) -> None:
    """The first champion has nothing to go back to; nor has one that came back, so no rollback is rolled back."""
    state = live(build, (0.1, 0.1, 0.1))
    alone = replace(state, previous=None)
    back = replace(state, champion=build.model(1), previous=None)
    for without in (alone, back, replace(state, champion=None, previous=None)):
        assert report(build, watching(), without) is None
        assert watching().decide(without, build.record(PROMOTED)) is None
        assert watching().decide(without, build.record(ended(build), at=build.after(hours=24))) is None


def ended(build: Build) -> TimerFired:
    """Make the wake-up at the end of the watch."""
    return TimerFired(policy="promotion", key="watch", due=build.after(hours=24))


def test_a_promotion_begins_the_watch(build: Build) -> None:
    """It says until when, against which version, and asks to be woken."""
    decision = watching().decide(live(build, ()), build.record(PROMOTED))
    assert decision is not None
    assert (decision.verdict, decision.commands, decision.wakes) == ("watched", (), {"watch": build.after(hours=24)})
    told = "Version 2 is watched until 2026-03-02 12:00 UTC: evaluation.accuracy against version 1."
    assert decision.reason == told
    assert Promotion().decide(live(build, ()), build.record(PROMOTED)) is None


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ((0.9, 0.92, 0.91), "it stays: evaluation.accuracy is 0.91 over 3 reports, 0.9 over 3 before it."),
        ((0.9,), "it stays: there were too few reports of evaluation.accuracy to compare."),
    ],
)
def test_the_end_of_the_watch_is_told(build: Build, after: tuple[float, ...], words: str) -> None:
    """The champion stays, with the numbers or without."""
    decision = watching().decide(live(build, after), build.record(ended(build), at=build.after(hours=24)))
    assert decision is not None
    assert (decision.verdict, decision.commands, decision.wakes) == ("kept", (), {})
    assert words in decision.reason


def test_a_watch_that_was_made_longer_does_not_end_early(build: Build) -> None:
    """A wake-up of the earlier configuration ends nothing."""
    record = build.record(ended(build), at=build.after(hours=24))
    assert watching(**{"for": 2 * 86_400}).decide(live(build, GOOD), record) is None
    assert Promotion().decide(live(build, GOOD), record) is None


def test_one_report_each_has_no_spread(build: Build) -> None:
    """Where one is asked for and one there is, the tolerance alone decides."""
    policy = watching(least=1)
    assert report(build, policy, live(build, (0.88,), (0.9,))) is not None
    assert report(build, policy, live(build, (0.89,), (0.9,))) is None


def test_its_opinion_tells_of_the_watch(build: Build) -> None:
    """`explain` shows what was reported so far, and when it ends; a rollback that is due is told as one."""
    record = build.record(TimerFired(policy="", key="", due=build.noon), at=build.after(hours=1))
    told = watching().opinion(live(build, GOOD), record)
    assert told is not None
    assert (told.verdict, told.inputs["worse"]) == ("watched", 0.0)
    due = watching().opinion(live(build, (0.1, 0.1, 0.1)), record)
    assert due is not None
    assert due.verdict == "rolled_back"
    late = build.record(record.event, at=build.after(hours=24) + timedelta(seconds=1))
    assert watching().opinion(live(build, GOOD), late) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"signal": "shift"},
        {"signal": "evaluation."},
        {"better": "bigger"},
        {"for": 0},
        {"least": 0},
        {"least": 51},
        {"tolerance": -1},
    ],
)
def test_impossible_watches_are_refused(fields: dict[str, object]) -> None:
    """A signal that nobody reports, no span, or more reports than are kept of both."""
    with pytest.raises(ValueError, match="watch"):
        watching(**fields)
