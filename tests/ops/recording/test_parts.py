"""The recorder's pure parts: segments, curves, pictures, notes and look-ups."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from daemon.core.commands import PreemptRun
from daemon.core.events import (
    Carrier,
    Comparison,
    DataArrived,
    DecisionMade,
    Loss,
    ModelEvaluated,
    PlanFixed,
    ProbeMeasured,
    Record,
    RunStarted,
)
from daemon.core.plans import Amount, Law, Prediction, Schedule, Start
from daemon.journal.memory import MemoryJournal
from ops.recording import plots, segments
from ops.recording.curves import Curves
from ops.recording.effects import Recording
from ops.recording.history import STORY, History
from ops.recording.notes import LIMIT, note
from ops.recording.parameters import parameters
from ops.recording.targets import run_target, target_of

PNG = b"\x89PNG\r\n"


def first_start(history: Sequence[Record]) -> tuple[Record, RunStarted]:
    """Return the record of the first run's start, and its event."""
    return next((record, record.event) for record in history if isinstance(record.event, RunStarted))


@pytest.mark.parametrize(
    ("position", "name"), [(1, "000000000-000000099"), (1299, "000001200-000001299"), (1300, "000001300-000001399")]
)
def test_segments_lie_on_a_fixed_grid(position: int, name: str) -> None:
    """A position alone names its segment."""
    assert segments.name(position) == f"transitions/{name}.json"


def test_a_segment_says_what_the_journal_says(history: Sequence[Record]) -> None:
    """Every kind of record survives, as JSON with one record a line, without received texts."""
    data = segments.encode(history)
    kept = segments.read(data)
    assert all(segments.same(one, record) for one, record in zip(kept, history, strict=True))
    assert len(json.loads(data)) == len(data.splitlines()) - 2 == len(history)
    assert b"broken" not in data
    moved = replace(history[5], cause=4)
    assert not segments.same(kept[5], moved)
    with pytest.raises(msgspec.MsgspecError):
        segments.read(data[:-5])


def test_outsiders_bring_no_run_to_life(history: Sequence[Record]) -> None:
    """A run's name counts only where the journal has started that run."""
    record, event = first_start(history)
    assert target_of(record, lambda *_: False).standing
    found = target_of(record, lambda *_: True)
    assert (found.key, found.parent, found.standing) == (event.run, None, False)


def test_a_run_counts_from_its_start_on(
    history: Sequence[Record], make_reader: Callable[[Sequence[Record]], MemoryJournal]
) -> None:
    """Look-ups answer for a position, whatever came later and whatever was asked before."""
    started, event = first_start(history)
    asked = History(make_reader(history))
    run = event.run
    for _ in range(2):
        assert asked.started("docs-lm", run, started.position)
        assert not asked.started("docs-lm", run, started.position - 1)
    assert not asked.started("other", run, started.position)
    decision = asked.decision_behind(event.command)
    assert isinstance(decision, DecisionMade)
    assert decision.verdict == "start"
    assert asked.decision_behind("no command") is None
    assert isinstance(asked.arrival(int(run.rpartition("-")[2])), DataArrived)
    assert asked.arrival(started.position) is None


def test_a_run_is_tagged_with_the_trace_that_led_to_it(
    history: Sequence[Record], make_reader: Callable[[Sequence[Record]], MemoryJournal], tmp_path: Path
) -> None:
    """The trace of the fact that caused the decision is a tag of the run; without one there is no tag."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    started, event = first_start(history)
    cause = int(event.command.partition("/")[0])
    carrier = Carrier(topic="t", partition=0, offset=1, traceparent=trace)
    traced = [replace(record, carrier=carrier) if record.position == cause else record for record in history]
    for records, expected in ((traced, trace), (history, None)):
        recording = Recording(History(make_reader(records)), tmp_path)
        batch = recording.batch(records[: started.position], 0)
        content = batch.contents[run_target("docs-lm", event.run)]
        assert content.tags["rewarm.command"] == event.command
        assert content.tags.get("rewarm.traceparent") == expected
    assert History(make_reader(traced)).trace_behind("no command") == ""


def test_what_moved_a_run_is_its_reason(
    history: Sequence[Record], make_reader: Callable[[Sequence[Record]], MemoryJournal], tmp_path: Path
) -> None:
    """A decision that does nothing, as about a late report of a failure, leaves the tags of the run as they are."""
    _, event = first_start(history)
    idle = DecisionMade(policy="p", policy_version=1, verdict="failure_of_ended_run", reason="It ended.", run=event.run)
    acting = replace(idle, verdict="ending", commands=(PreemptRun(run=event.run),))
    for decision, expected in ((idle, False), (acting, True)):
        last = replace(history[-1], position=history[-1].position + 1, id="late", pipeline="docs-lm", event=decision)
        recording = Recording(History(make_reader([*history, last])), tmp_path)
        tags = recording.batch([last], history[-1].position).contents[run_target("docs-lm", event.run)].tags
        assert ("rewarm.reason" in tags, "rewarm.verdict" in tags) == (expected, expected)


def test_curves_are_read_once_and_by_whole_lines(tmp_path: Path) -> None:
    """New lines are returned once; torn, foreign and endless values are left out; a missing file is no error."""
    folder = tmp_path / "runs" / "r" / "train" / "1"
    folder.mkdir(parents=True)
    file = folder / "metrics.jsonl"
    curves = Curves(tmp_path)
    assert curves.new_points("r", "train", 1) == []
    file.write_bytes(b'{"step": 1, "time": 5.5, "loss": 2}\nnonsense\n{"step": 2, "ti')
    (point,) = curves.new_points("r", "train", 1)
    assert (point.key, point.value, point.timestamp, point.step) == ("loss", 2.0, 5500, 1)
    with file.open("ab") as more:
        more.write(b'me": 6, "loss": null, "rate": 0.5, "flag": true}\n')
    assert [point.key for point in curves.new_points("r", "train", 1)] == ["rate"]
    curves.forget()
    assert len(curves.new_points("r", "train", 1)) == 2


def test_a_resumed_curve_is_one_curve(state: Path, history: Sequence[Record]) -> None:
    """Where attempts overlap the later one holds."""
    run = next(record.event.run for record in history if isinstance(record.event, RunStarted))
    points = Curves(state).whole(run, "train", 2)
    assert [point["step"] for point in points] == list(range(1, 241))


def test_pictures_are_the_same_bytes_twice(state: Path, history: Sequence[Record]) -> None:
    """The same numbers give the same file, for every schedule and also for a single step or many domains."""
    started = [record.event for record in history if isinstance(record.event, RunStarted)]
    judged = next(record.event for record in history if isinstance(record.event, ModelEvaluated))
    points = Curves(state).whole(started[0].run, "train", 2)
    assert plots.plan_plot(started[0].plan, "t") == plots.plan_plot(started[0].plan, "t")
    assert (plots.loss_plot(points, "t") or b"").startswith(PNG)
    assert (plots.loss_plot(points[:1], "t") or b"").startswith(PNG)
    assert plots.loss_plot([{"step": 1, "time": 2.0, "rate": 3}], "t") is None
    assert plots.evaluation_plot(judged.domains, "t").startswith(PNG)
    plan = started[1].plan
    constant = Schedule(kind="constant", peak=1e-3, floor=0.0, plateau=1e-3, warmup=0.0)
    one = replace(plan, training=replace(plan.training, tokens=1, schedule=constant))
    many = replace(one, past={f"d{index}": Amount(arrivals=1, tokens=10**index) for index in range(12)}, new={})
    assert plots.plan_plot(many, "t").startswith(PNG)


def test_a_note_stays_within_what_mlflow_takes(history: Sequence[Record]) -> None:
    """A story of any length fits, and a cell cannot break its table."""
    story = [record for record in history if record.event.kind in STORY] * 40
    decision = DecisionMade(policy="p", policy_version=1, verdict="v", reason="r", inputs={"a": "x|y"})
    assert len(note(story, decision)) <= LIMIT + 1
    assert "| a | x\\|y |  |" in note(story[:1], decision)
    assert note([], None) == ""


def test_a_note_tells_what_the_probe_measured(history: Sequence[Record]) -> None:
    """The shift with its interval, and the domains in which documents nearly are known ones."""
    record = history[0]
    golden = Path(__file__).parents[2] / "golden" / "events" / "probe.measured.v1.full.json"
    probe = msgspec.json.decode(golden.read_bytes(), type=ProbeMeasured)

    told = note([replace(record, event=probe)], None)
    assert "+0.4375 [+0.3981, +0.4771] nats per byte" in told
    assert "seen before: 5.1% of tests" in told
    bare = replace(probe, shift_low=None, shift_high=None, near_duplicates={"tests": 0.0})
    assert note([replace(record, event=bare)], None).endswith("past: +0.4375 nats per byte.")


def test_a_note_counts_losses_in_the_models_unit(history: Sequence[Record]) -> None:
    """A module's losses are its own, per example: no nat and no byte is spoken of."""
    golden = Path(__file__).parents[2] / "golden" / "events" / "probe.measured.v1.full.json"
    probe = replace(history[0], event=msgspec.json.decode(golden.read_bytes(), type=ProbeMeasured))
    story = []
    for record in history:
        event = record.event
        if isinstance(event, RunStarted):
            model = replace(event.plan.model, kind="module", factory="clicks:make")
            event = replace(event, plan=replace(event.plan, model=model))
        if isinstance(event, RunStarted | ModelEvaluated):
            story.append(replace(record, event=event))
    told = note([*story, probe], None)
    assert "[+0.3981, +0.4771] loss per example." in told
    assert "**Losses** on held-out documents, loss per example:" in told
    assert "nats" not in told


def test_parameters_are_flat_text(history: Sequence[Record]) -> None:
    """A plan's parameters are short names with text; what is not set is left out."""
    plan = next(record.event.plan for record in history if isinstance(record.event, RunStarted))
    found = parameters(plan, "draft.")
    assert found["draft.tokens"] == "500000"
    assert "draft.parent" not in found
    assert all(found.values())


def test_an_adoption_says_what_it_took_and_nothing_of_training(history: Sequence[Record]) -> None:
    """The note names the folder and what the model had seen; there are no parameters of a training that never was."""
    record, event = first_start(history)
    plan = replace(event.plan, kind="adopt", start=Start(kind="folder", folder="/inbox/v3"))
    told = note([replace(record, event=replace(event, plan=plan))], None)
    assert "adopt the model in `/inbox/v3`; its past is 400,000 tokens of code" in told
    found = parameters(plan)
    assert (found["folder"], found["kind"]) == ("/inbox/v3", "adopt")
    assert not {"peak", "steps", "optimiser"} & found.keys()


def test_a_prediction_is_recorded_beside_its_outcome(
    history: Sequence[Record], make_reader: Callable[[Sequence[Record]], MemoryJournal], tmp_path: Path
) -> None:
    """What the planner's law expected, what came, and how far it was off: as metrics, and in the note."""
    law = Law(runs=4, error=0.0125)
    prediction = Prediction(old=1.0, new=2.0, law=law, forgetting=0.25, gain=0.5)
    fixed = next(at for at, record in enumerate(history) if isinstance(record.event, PlanFixed))
    event = history[fixed].event
    assert isinstance(event, PlanFixed)
    flat = Loss(mean=1.0, low=1.0, high=1.0, documents=1, bytes=1)
    changes = {"prose": 0.125, "code": -0.25}
    domains = {
        name: Comparison(candidate=flat, champion=flat, difference=replace(flat, mean=change))
        for name, change in changes.items()
    }
    tokens = Amount(arrivals=1, tokens=1)
    plan = replace(event.plan, prediction=prediction, new={"code": tokens}, past={"prose": tokens})
    told = [*history[:fixed], replace(history[fixed], event=replace(event, plan=plan)), *history[fixed + 1 :]]
    judged = next(
        at
        for at, record in enumerate(told)
        if isinstance(record.event, ModelEvaluated) and record.event.run == event.run
    )
    evaluated = told[judged].event
    assert isinstance(evaluated, ModelEvaluated)
    told[judged] = replace(told[judged], event=replace(evaluated, domains=domains))
    batch = Recording(History(make_reader(told)), tmp_path).batch(told[: judged + 1], 0)
    metrics = {each.key: each.value for each in batch.contents[run_target("docs-lm", event.run)].metrics}
    expected = {"expected_forgetting": 0.25, "expected_gain": 0.5, "law_error": 0.0125}
    came = {"forgetting": 0.125, "gain": 0.25, "forgetting_error": 0.125, "gain_error": 0.25}
    assert {name: metrics.get(name) for name in {**expected, **came}} == {**expected, **came}
    text = note([told[fixed], told[judged]], None)
    assert "law of 4 runs, error 0.013" in text or "law of 4 runs, error 0.012" in text
    assert "| forgetting | +0.2500 | +0.1250 |" in text
    assert "| gain | +0.5000 | +0.2500 |" in text
    assert "| gain | +0.5000 | none |" in note([told[fixed]], None)
