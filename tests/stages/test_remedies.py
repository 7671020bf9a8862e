"""Remedies in a real training: what fails is injected, and the attempt after it does what its remedy says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from daemon.core.events import AnyEvent, DataIngested, StageFailed, StageSucceeded
from daemon.core.plans import Document, Limits, ModelSettings, Plan, Remedy, Span
from stages.run_folder import Arrival, Shard
from stages.training.data.shards import Part
from stages.training.engine.checkpoint import OPTIMISER, Saved
from stages.training.engine.saving import Writer
from stages.training.files import MANIFEST, MODEL, digest, stamp
from stages.training.mixing.streams import Examples, Stream

Run = Callable[..., list[AnyEvent]]
STEPS = 20

# A model of two weights, and examples that spoil what they are named for.
CODE = """
import os, signal
import torch
from stages.training.task import Task

SPOILED, REFUSED, LARGEST, STEEP, KILL = set(), set(), 10**9, 10**9, 0
steps, seen = 0, []

def collate(records):
    if any(record["x"] in REFUSED for record in records):
        raise ValueError("no such example")
    return torch.tensor([[float(record["x"]), float(record["x"] in SPOILED)] for record in records])

def losses(model, inputs):
    global steps
    steps += 1
    seen.extend(inputs[:, 0].tolist())
    if len(inputs) > LARGEST:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    if steps == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    made = (model(inputs[:, :1] / 30).squeeze(1) - 1) ** 2 + 1
    made = made * (50.0 if steps >= STEEP else 1.0)
    return made / (1 - inputs[:, 1])

def make():
    return Task(model=torch.nn.Linear(1, 1), collate=collate, losses=losses)
"""

CHILD = """
import sys
from pathlib import Path
import stages.training
import remedied
from stages.execute import execute
folder, remedied.KILL = Path(sys.argv[1]), int(sys.argv[2])
execute(folder)
"""


class World:
    """A plan of 20 steps on 30 examples of one arrival, and the means to run attempts of it."""

    def __init__(self, run_stage: Run, place: Callable[..., Path], plan: Plan, new: tuple[Shard, ...]) -> None:
        self.run_stage = run_stage
        self.place = place
        self.plan = plan
        self.new = new
        self.code = vars(sys.modules["remedied"])

    def attempt(self, number: int, remedy: Remedy | None = None, *, run: str = "r-1", **code: object) -> AnyEvent:
        """Train as an attempt that may go on from all before it, with what spoils it; return how it ended."""
        clean = {"SPOILED": set(), "REFUSED": set(), "LARGEST": 10**9, "STEEP": 10**9, "steps": 0, "seen": []}
        self.code.update(clean | code)
        return self.run_stage("train", number, **self.fields(number, remedy, run))[-1]

    def fields(self, number: int, remedy: Remedy | None, run: str) -> dict[str, Any]:
        """Return what the specification of an attempt says."""
        earlier = tuple(str(self.folder(each, run)) for each in range(1, number))
        given = {} if remedy is None else {"remedy": remedy}
        return {"run": run, "plan": self.plan, "new": self.new, "resume_from": earlier, **given}

    def folder(self, number: int, run: str = "r-1") -> Path:
        """Return an attempt's folder."""
        return self.state / "runs" / run / "train" / str(number)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.place("ingest", 9, plan=self.plan).parents[3]

    def bits(self, number: int, run: str = "r-1") -> tuple[str, str]:
        """Return what an attempt left behind, as two hashes."""
        folder = self.folder(number, run)
        return digest(folder / "candidate" / MANIFEST), digest(folder / "trunk" / MANIFEST)

    def first_drawn(self, step: int) -> tuple[float, Document]:
        """Return an example of a step's batch that no earlier batch has, and its document."""
        self.attempt(1, run="r-look")
        drawn = list(self.code["seen"])
        value = next(each for each in drawn[4 * (step - 1) : 4 * step] if each not in drawn[: 4 * (step - 1)])
        part = Part(self.state / self.new[0].manifest, "train")
        records = [json.loads(part.document(number).tobytes()) for number in range(len(part))]
        number = next(number for number, record in enumerate(records) if record["x"] == value)
        return value, Document(arrival=1, number=number)


@pytest.fixture
def world(
    run_stage: Run,
    place: Callable[..., Path],
    make_base_plan: Callable[..., Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Ingest the examples."""
    (tmp_path / "remedied.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "remedied", raising=False)
    __import__("remedied")
    settings = ModelSettings(kind="module", preset="", factory="remedied:make")
    plan = make_base_plan(context=1, batch=4, tokens=4 * STEPS)
    plan = msgspec.structs.replace(plan, model=settings, limits=Limits(checkpoint_every=1e-9))
    monkeypatch.setattr(Writer, "busy", False)  # a checkpoint after every step: each waits for the one before
    data = tmp_path / "inbox" / "points.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps({"x": at}) + "\n" for at in range(30)))
    arrival = Arrival(
        position=1, path=str(data), format="jsonl", domain="points", bytes=data.stat().st_size, tokens=30, documents=30
    )
    (ingested,) = [e for e in run_stage("ingest", plan=plan, arrivals=(arrival,)) if isinstance(e, DataIngested)]
    return World(run_stage, place, plan, (Shard(position=1, domain="points", manifest=ingested.manifest),))


@pytest.mark.parametrize(("how", "failure"), [("SPOILED", "not_finite"), ("REFUSED", "bad_sample")])
def test_a_document_that_spoils_its_batch_is_named_and_trained_without(world: World, how: str, failure: str) -> None:
    """Twice the same step and document; then another stands in for it, from the checkpoint before the step."""
    value, document = world.first_drawn(6)
    code: dict[str, Any] = {how: {value}}
    for number in (1, 2):
        failed = world.attempt(number, **code)
        assert isinstance(failed, StageFailed)
        assert (failed.failure, failed.step, failed.documents) == (failure, 6, (document,))

    remedy = Remedy(without=(document,), before=5)
    ended = world.attempt(3, remedy, **code)
    assert isinstance(ended, StageSucceeded)
    assert value not in world.code["seen"]
    assert ended.metrics["resumed_at"] == 5
    assert len(world.code["seen"]) == 4 * (STEPS - 5)
    world.attempt(1, remedy, run="r-2", **code)
    assert world.bits(3) == world.bits(1, "r-2")


@pytest.mark.parametrize(("how", "failure"), [("SPOILED", "not_finite"), ("REFUSED", "bad_sample")])
def test_where_every_row_is_spoiled_no_document_is_named(world: World, how: str, failure: str) -> None:
    """Then it is the model, or the task: the step is told, and nothing more."""
    code: dict[str, Any] = {how: set(range(30))}
    failed = world.attempt(1, **code)
    assert isinstance(failed, StageFailed)
    assert (failed.failure, failed.step, failed.documents) == (failure, 1, ())


def test_batches_that_are_left_out_change_nothing_and_move_no_other(world: World) -> None:
    """The other steps draw what they would have drawn; the schedule and the number of steps stay."""
    world.attempt(1, run="r-whole")
    whole = list(world.code["seen"])
    ended = world.attempt(1, Remedy(skip=(Span(after=9, upto=14),), before=4))
    assert isinstance(ended, StageSucceeded)
    assert world.code["seen"] == whole[: 4 * 9] + whole[4 * 14 :]
    assert (ended.metrics["left_out"], ended.metrics["steps"], ended.metrics["tokens"]) == (5, STEPS, 4 * (STEPS - 5))
    curve = [json.loads(line) for line in (world.folder(1) / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == list(range(1, STEPS + 1))
    assert curve[8]["loss"] == curve[13]["loss"]
    assert curve[-1]["tokens"] == 4 * (STEPS - 5)


def test_a_batch_that_is_left_out_touches_neither_weights_nor_moments(world: World) -> None:
    """The checkpoint after it is that before it."""
    value, _ = world.first_drawn(5)
    failed = world.attempt(1, Remedy(skip=(Span(after=3, upto=4),), before=3), SPOILED={value})
    assert isinstance(failed, StageFailed)
    assert failed.step == 5
    before, after = sorted(world.folder(1).glob("checkpoints/*"))
    assert (before.name, after.name) == ("step-000000003", "step-000000004")
    for name in (MODEL, OPTIMISER):
        assert digest(before / name) == digest(after / name)


def test_every_step_may_be_left_out(world: World) -> None:
    """The candidate is what it began as, and is there."""
    ended = world.attempt(1, Remedy(skip=(Span(after=0, upto=STEPS),), before=0))
    assert isinstance(ended, StageSucceeded)
    assert world.code["seen"] == []
    assert ended.metrics["tokens"] == 0


def test_an_attempt_goes_back_behind_the_spike_and_then_on_from_its_own(world: World) -> None:
    """Checkpoints of the steps that are left out now are none of its own; its own are, whatever their step."""
    failed = world.attempt(1, SPOILED=set(range(30)), REFUSED=set())
    assert isinstance(failed, StageFailed)
    value, _ = world.first_drawn(6)
    assert isinstance(world.attempt(2, SPOILED={value}), StageFailed)
    remedy = Remedy(skip=(Span(after=4, upto=7),), before=4)
    assert isinstance(world.attempt(3, remedy, REFUSED={value}), StageFailed)  # drawn again, by then as another's row
    ended = world.attempt(4, remedy)
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["resumed_at"] > 7
    assert isinstance(world.attempt(1, remedy, run="r-2"), StageSucceeded)
    assert world.bits(4) == world.bits(1, "r-2")


def test_a_batch_in_more_parts_is_the_same_step_in_less_memory(world: World) -> None:
    """Where two rows fit and four do not, one halving is enough; the weights are the same, to rounding."""
    failed = world.attempt(1, LARGEST=2)
    assert isinstance(failed, StageFailed)
    assert failed.failure == "out_of_memory"
    assert "Set accumulate to 2" in failed.message
    again = world.attempt(2, Remedy(accumulate=2), LARGEST=1)
    assert isinstance(again, StageFailed)
    assert "accumulate 2" in again.message
    assert isinstance(world.attempt(3, Remedy(accumulate=2), LARGEST=2), StageSucceeded)
    world.attempt(1, run="r-whole")
    one, other = (load_file(world.folder(n, r) / "candidate" / MODEL) for n, r in ((3, "r-1"), (1, "r-whole")))
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)


def test_a_truncated_checkpoint_is_passed_over_and_a_false_one_is_named(world: World) -> None:
    """Files that do not fit their sha256 cost a few steps; what fits it and cannot be used is a bad checkpoint."""
    value, _ = world.first_drawn(6)
    world.attempt(1, SPOILED={value})
    older, newest = sorted(world.folder(1).glob("checkpoints/*"))
    assert (older.name, newest.name) == ("step-000000004", "step-000000005")
    with (newest / OPTIMISER).open("r+b") as file:
        file.truncate(10)
    save_file({"weight/step": torch.zeros(())}, older / OPTIMISER)
    manifest = msgspec.json.decode((older / MANIFEST).read_bytes(), type=Saved)
    resealed = msgspec.structs.replace(manifest, files={**manifest.files, OPTIMISER: stamp(older / OPTIMISER)})
    (older / MANIFEST).write_bytes(msgspec.json.encode(resealed))

    for number in (2, 3):
        failed = world.attempt(number)
        assert isinstance(failed, StageFailed)
        assert (failed.failure, failed.step) == ("bad_checkpoint", 4)
    ended = world.attempt(4, Remedy(before=3))
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["resumed_at"] == 0


def test_a_loss_that_stays_high_fails_the_attempt_where_it_is_asked_for(world: World) -> None:
    """It names the step at which the rise began, not that at which it was found."""
    world.plan = msgspec.structs.replace(world.plan, limits=Limits(spike_factor=5.0, spike_steps=6))
    failed = world.attempt(1, STEEP=10)
    assert isinstance(failed, StageFailed)
    assert (failed.failure, failed.step) == ("loss_spike", 10)
    world.plan = msgspec.structs.replace(world.plan, limits=Limits())
    assert isinstance(world.attempt(1, run="r-2", STEEP=10), StageSucceeded)


def test_killed_with_remedies_it_goes_on_to_the_same_bits(world: World, tmp_path: Path) -> None:
    """SIGKILL before, in and after the batches that are left out, with a document out and the batch in parts."""
    remedy = Remedy(accumulate=2, skip=(Span(after=9, upto=14),), before=4, without=(Document(arrival=1, number=3),))
    assert isinstance(world.attempt(1, remedy, run="r-0"), StageSucceeded)
    killed = world.place("train", 1, **world.fields(1, remedy, "r-1"))
    program = [sys.executable, "-c", CHILD, str(killed), str(2 * 12)]
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    died = subprocess.run(program, env=environment, capture_output=True, timeout=60, check=False)
    assert died.returncode == -9, died.stderr.decode()
    ended = world.attempt(2, remedy)
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["resumed_at"] > 0
    assert world.bits(2) == world.bits(1, "r-0")


def test_what_is_left_out_of_text_is_in_no_window(new: tuple[Shard, ...], state: Path) -> None:
    """Windows that held a token of a document begin behind it instead; every other window is where it was."""
    part = Part(state / new[0].manifest, "train", arrival=2)
    gone = [Document(arrival=2, number=number) for number in (0, 7, 8, len(part) - 1)]
    whole, less = Stream([part]), Stream([part], gone)
    starts = np.arange(len(whole))
    spared = less.spared(starts, 32)
    for start, instead in zip(starts.tolist(), spared.tolist(), strict=True):
        held = set(whole.documents(start, 32))
        assert not set(whole.documents(instead, 32)) & set(gone)
        assert (instead == start) is not (held & set(gone))


def test_what_is_left_out_of_examples_is_replaced_by_the_next(new: tuple[Shard, ...], state: Path) -> None:
    """The last one by the first; where nothing is left that is told."""
    part = Part(state / new[0].manifest, "train", arrival=2)
    last = len(part) - 1
    less = Examples([part], [Document(arrival=2, number=number) for number in (3, 4, last)])
    assert less.spared(np.array([2, 3, 4, 5, last]), 1).tolist() == [2, 5, 5, 5, 0]
