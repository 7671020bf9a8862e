"""What holds for all stages alike."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.events import TERMINAL, AnyEvent, DataCurated, StageInterrupted, StageStarted, StageSucceeded
from daemon.core.plans import Curation, Cut, Plan, Start
from stages import STAGES
from stages.execute import execute
from stages.run_folder import Arrival, Champion, Shard

Fields = dict[str, Any]


@pytest.fixture
def fields(
    stage: str,
    trained_state: Path,
    champion: Champion,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
    arrive: Callable[..., Arrival],
    make_documents: Callable[..., list[str]],
    make_increment_plan: Callable[..., Plan],
) -> Fields:
    """All that any stage may need, in one specification."""
    plan = make_increment_plan(champion)
    if stage == "curate":
        plan = replace(plan, curation=Curation(trial=0.1, cuts=(Cut(low=0.0, high=0.3),)))
    if stage == "adopt":
        start = Start(kind="folder", folder=str(trained_state / champion.model.path))
        plan = replace(plan, kind="adopt", start=start, parent=None)
    done = {name: str(trained_state / "runs" / "p-1" / name / "1") for name in ("train", "evaluate")}
    return {
        "run": "p-3",
        "plan": plan,
        "arrivals": (arrive("more", make_documents("code", 5, seed=1), "code", 3),),
        "new": new,
        "past": past,
        "champion": champion,
        "model_version": 2,
        "done": done,
    }


@pytest.mark.parametrize("stage", STAGES)
def test_an_attempt_is_carried_out_once(
    stage: str,
    fields: Fields,
    place: Callable[..., Path],
    read_outcome: Callable[[Path], list[AnyEvent]],
) -> None:
    """The first start tells how it began and ended; a second one finds the terminal line and does nothing."""
    folder = place(stage, **fields)

    assert execute(folder)
    events = read_outcome(folder)
    assert isinstance(events[0], StageStarted)
    assert isinstance(events[-1], StageSucceeded)
    assert not any(isinstance(event, TERMINAL) for event in events[:-1])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    assert not execute(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("stage", STAGES)
def test_another_attempt_tells_the_same(stage: str, fields: Fields, run_stage: Callable[..., list[AnyEvent]]) -> None:
    """A repeated attempt comes to the same facts, but for its number."""
    first, second = (
        [event for event in run_stage(stage, attempt, **fields)[1:-1] if event.kind != "stage.progressed"]
        for attempt in (1, 2)
    )
    assert [_without_attempt(event) for event in second] == [_without_attempt(event) for event in first]


def _without_attempt(event: AnyEvent) -> dict[str, object]:
    """Return its fields; what is kept lies in the attempt's own folder, which names its number."""
    own = {"attempt", "manifest", "sha256"} if isinstance(event, DataCurated) else {"attempt"}
    return {name: getattr(event, name) for name in event.__struct_fields__ if name not in own}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_stops_when_asked(
    stage: str, fields: Fields, place: Callable[..., Path], run_stage: Callable[..., list[AnyEvent]]
) -> None:
    """A file named stop ends every stage as interrupted, with the reason in it."""
    (place(stage, **fields) / "stop").write_text("drain")
    ended = run_stage(stage, **fields)[-1]

    assert isinstance(ended, StageInterrupted)
    assert ended.reason == "drain"


def test_importing_the_stages_uses_nothing() -> None:
    """After the imports one thread runs and CUDA is untouched: the worker may fork."""
    program = """
import importlib, os, sys, torch
before = len(os.listdir("/proc/self/task"))
from stages import STAGES
for target in STAGES.values():
    importlib.import_module(target.partition(":")[0])
print(len(os.listdir("/proc/self/task")) - before, torch.cuda.is_initialized())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["0", "False"]
