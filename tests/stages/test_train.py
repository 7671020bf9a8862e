"""Train: stops when asked, resumes to the same bits, never trains on numbers that are not finite."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import Limits, ModelSettings, Optimiser, Plan
from stages.run_folder import Champion, Shard
from stages.training.engine.checkpoint import OPTIMISER, verify
from stages.training.engine.saving import Writer
from stages.training.files import MANIFEST, digest

Run = Callable[..., list[AnyEvent]]
Place = Callable[..., Path]
MakePlan = Callable[..., Plan]

KILLS = int(os.environ.get("KILLS", "3"))
"""How often the training is killed at a random step."""

# A worker like the daemon's: torch is imported, never used, and every attempt is a forked child. A child is
# killed by itself at the place that the environment of its line names.
WORKER = """
import json, os, signal, sys
from pathlib import Path
import stages.train
import stages.training.engine.checkpoint as checkpoint
from stages.execute import execute
from stages.training.engine.step import Stepper

def die_before(step):
    backward = Stepper.backward
    def deadly(self, at, parts, rows):
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return backward(self, at, parts, rows)
    Stepper.backward = deadly

def die_while_saving(number):
    write, left = checkpoint.write_file, [number]
    def deadly(path, data):
        if path.name == "manifest.json":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)
    checkpoint.write_file = deadly

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        if "step" in order:
            die_before(order["step"])
        if "save" in order:
            die_while_saving(order["save"])
        execute(Path(order["folder"]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def work(orders: list[dict[str, object]]) -> list[int]:
    """Carry out attempts one after the other in a worker; returns their exit codes, -9 where killed."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input="".join(json.dumps(order) + "\n" for order in orders),
        capture_output=True,
        text=True,
        check=True,
        timeout=100 + 20 * KILLS,
    )
    return [int(code) for code in done.stdout.split()]


def both_manifests(folder: Path) -> tuple[str, str]:
    """Return the sha256 of candidate and trunk: weights and moments, bit by bit."""
    return digest(folder / "candidate" / MANIFEST), digest(folder / "trunk" / MANIFEST)


@pytest.fixture
def plan(make_increment_plan: MakePlan, champion: Champion) -> Plan:
    """An increment that saves a checkpoint every few milliseconds."""
    limits = Limits(checkpoint_every=0.02)
    return msgspec.structs.replace(make_increment_plan(champion), limits=limits)


def test_killed_and_resumed_training_ends_with_the_same_bits(
    plan: Plan, place: Place, new: tuple[Shard, ...], past: tuple[Shard, ...]
) -> None:
    """Killed at random steps (KILLS= of them) and inside two saves, resumed runs equal the uninterrupted one.

    The average of the weights and the last losses and norms are gone on from too.
    """
    adamw = Optimiser(average=0.9, skip_sigma=3.0)
    plan = msgspec.structs.replace(plan, training=msgspec.structs.replace(plan.training, adamw=adamw))
    reference = place("train", 1, run="r-0", plan=plan, new=new, past=past)
    orders: list[dict[str, object]] = [{"folder": str(reference)}]
    generator = random.Random(os.environ.get("SEED", "rewarm"))
    kills: list[dict[str, int]] = [{"step": step} for step in generator.sample(range(1, 41), KILLS)]
    # With 40 steps and a save every few: the trunk on step 34 is among these, or the candidate.
    kills += [{"save": 1}, {"save": 3}]
    finals = []
    for number, kill in enumerate(kills, start=1):
        first = place("train", 1, run=f"r-{number}", plan=plan, new=new, past=past)
        second = place("train", 2, run=f"r-{number}", plan=plan, new=new, past=past, resume_from=(str(first),))
        orders += [{"folder": str(first), **kill}, {"folder": str(second)}]
        finals.append(second)

    assert work(orders) == [0] + [-9, 0] * len(kills)

    expected = both_manifests(reference)
    for final in finals:
        assert both_manifests(final) == expected


def test_the_same_attempt_killed_and_started_again_ends_with_the_same_bits(
    plan: Plan,
    place: Place,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
) -> None:
    """An attempt without a terminal line goes on from its own checkpoints; two threads change nothing."""
    fields = {"plan": plan, "new": new, "past": past, "threads": 2}
    reference = place("train", 1, run="r-0", **fields)
    folder = place("train", 1, **fields)
    orders: list[dict[str, object]] = [{"folder": str(reference)}, {"folder": str(folder), "step": 30}]
    done = work([*orders, {"folder": str(folder)}])

    assert done == [0, -9, 0]
    assert both_manifests(folder) == both_manifests(folder.parents[2] / "r-0" / "train" / "1")


def test_stopped_training_saves_and_yields(
    plan: Plan,
    place: Place,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
    run_stage: Run,
    read_outcome: Callable[[Path], list[AnyEvent]],
) -> None:
    """Asked to stop, the stage saves a checkpoint, says why it ended, and is taken up from there."""
    plan = msgspec.structs.replace(plan, limits=Limits())
    folder = place("train", 1, plan=plan, new=new, past=past)
    (folder / "stop").write_text("preempt")
    events = run_stage("train", 1, plan=plan, new=new, past=past)

    *_, saved, ended = events
    assert isinstance(saved, CheckpointSaved)
    assert saved.step == 1
    assert isinstance(ended, StageInterrupted)
    assert ended.reason == "preempt"

    resumed = run_stage("train", 2, plan=plan, new=new, past=past, resume_from=(str(folder),))[-1]
    assert isinstance(resumed, StageSucceeded)
    assert resumed.metrics["resumed_at"] == 1

    run_stage("train", 1, run="r-0", plan=plan, new=new, past=past)
    assert both_manifests(folder.with_name("2")) == both_manifests(folder.parents[2] / "r-0" / "train" / "1")


def test_the_time_limit_saves_too(plan: Plan, new: tuple[Shard, ...], past: tuple[Shard, ...], run_stage: Run) -> None:
    """A stage past its time limit ends by itself, after a checkpoint."""
    plan = msgspec.structs.replace(plan, limits=Limits(time_limit=0.0))
    *_, saved, ended = run_stage("train", plan=plan, new=new, past=past)

    assert isinstance(saved, CheckpointSaved)
    assert isinstance(ended, StageFailed)
    assert ended.failure == "time_limit"


def test_a_damaged_checkpoint_is_passed_over(
    plan: Plan,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
    run_stage: Run,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest whole checkpoint counts; damage or another plan's leaves the older, or the start."""
    monkeypatch.setattr(Writer, "busy", False)  # one after every step: each waits for the one before
    short = msgspec.structs.replace(plan.training, tokens=10 * 4 * 32)
    plan = msgspec.structs.replace(plan, training=short, limits=Limits(checkpoint_every=0.0))
    run_stage("train", 1, plan=plan, new=new, past=past)
    folder = place("train", 1, plan=plan, new=new, past=past)
    older, newest = sorted(folder.glob("checkpoints/*"))
    assert (older.name, newest.name) == ("step-000000009", "step-000000010")

    resumed = run_stage("train", 5, plan=plan, new=new, past=past, resume_from=(str(folder),))[-1]
    assert isinstance(resumed, StageSucceeded)
    assert resumed.metrics["resumed_at"] == 10
    assert both_manifests(folder.with_name("5")) == both_manifests(folder)

    (newest / OPTIMISER).write_bytes(b"damaged")
    resumed = run_stage("train", 2, plan=plan, new=new, past=past, resume_from=(str(folder),))[-1]
    assert isinstance(resumed, StageSucceeded)
    assert resumed.metrics["resumed_at"] == 9

    (folder / "trunk" / OPTIMISER).write_bytes(b"damaged")
    resumed = run_stage("train", 3, plan=plan, new=new, past=past, resume_from=(str(folder),))[-1]
    assert isinstance(resumed, StageSucceeded)
    assert resumed.metrics["resumed_at"] == 0

    training = msgspec.structs.replace(plan.training, seed=8)
    other = msgspec.structs.replace(plan, training=training)
    resumed = run_stage("train", 4, plan=other, new=new, past=past, resume_from=(str(folder),))[-1]
    assert isinstance(resumed, StageSucceeded)
    assert resumed.metrics["resumed_at"] == 0


def test_a_loss_that_is_no_number_never_reaches_the_optimiser(
    plan: Plan,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
    run_stage: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage fails as not_finite, and what it had saved before stays the last word."""

    def overflow(_: object, model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = next(model.parameters())
        return weight.sum().expand(tokens.shape[0]) * torch.inf

    monkeypatch.setattr("stages.training.models.language.Language.row_losses", overflow)
    failed = run_stage("train", plan=plan, new=new, past=past)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "not_finite"
    assert "Step 1" in failed.message


def test_curves_and_artefacts(
    plan: Plan, new: tuple[Shard, ...], past: tuple[Shard, ...], run_stage: Run, place: Place
) -> None:
    """The curves carry rate, losses and the exact share of replay; artefacts are there as told."""
    ended = run_stage("train", plan=plan, new=new, past=past)[-1]
    assert isinstance(ended, StageSucceeded)
    folder = place("train", plan=plan, new=new, past=past)
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    assert [point["step"] for point in points] == list(range(1, 41))
    assert {"loss", "learning_rate", "replay_share", "tokens"} < points[-1].keys()
    assert any("loss_prose" in point for point in points)
    assert all(point["replay_share"] == 0.25 for point in points)
    assert points[-1]["tokens"] == plan.training.tokens == ended.metrics["tokens"]
    assert {each.name for each in ended.artefacts} == {"candidate", "trunk", "metrics"}
    for each in ended.artefacts:
        assert digest(folder.parents[3] / each.path) == each.sha256
    assert OPTIMISER not in verify(folder / "candidate").files
    assert verify(folder / "trunk").step == 34


def test_the_optimiser_state_is_kept_or_reset(
    champion: Champion,
    make_increment_plan: MakePlan,
    new: tuple[Shard, ...],
    past: tuple[Shard, ...],
    run_stage: Run,
    place: Place,
) -> None:
    """The plan says whether the trunk's moments are carried on, and it makes a difference."""
    results = []
    for number, optimiser in enumerate(("keep", "reset"), start=1):
        plan = make_increment_plan(champion, optimiser=optimiser)
        run_stage("train", number, plan=plan, new=new, past=past)
        results.append(both_manifests(place("train", number, plan=plan, new=new, past=past)))

    assert results[0] != results[1]


def test_wrong_plans_are_refused(
    champion: Champion,
    make_base_plan: MakePlan,
    make_increment_plan: MakePlan,
    new: tuple[Shard, ...],
    run_stage: Run,
) -> None:
    """An unknown preset, no text, and a trunk that is not the recorded one fail with their class."""
    scratch = make_base_plan()
    unknown = msgspec.structs.replace(scratch, model=ModelSettings(preset="huge"))
    increment = make_increment_plan(champion)
    wrong = msgspec.structs.replace(champion.trunk, sha256="0" * 64)
    start = msgspec.structs.replace(increment.start, checkpoint=wrong)
    cases: list[tuple[dict[str, object], str, str]] = [
        ({"plan": unknown, "new": new}, "user_error", "micro, nano"),
        ({"plan": scratch}, "bad_sample", "nothing to train on"),
        ({"plan": msgspec.structs.replace(increment, start=start), "new": new}, "bad_checkpoint", "sha256"),
    ]
    for attempt, (fields, failure, words) in enumerate(cases, start=1):
        failed = run_stage("train", attempt, **fields)[-1]

        assert isinstance(failed, StageFailed)
        assert failed.failure == failure
        assert words in failed.message


def test_training_learns(make_base_plan: MakePlan, past: tuple[Shard, ...], run_stage: Run, place: Place) -> None:
    """From even odds (5.6 nats) the loss on a tiny corpus falls below 2.5 in 150 steps."""
    plan = make_base_plan(tokens=150 * 8 * 32, batch=8)
    ended = run_stage("train", plan=plan, new=past)[-1]
    assert isinstance(ended, StageSucceeded)
    curve = (place("train", plan=plan, new=past) / "metrics.jsonl").read_text().splitlines()

    assert json.loads(curve[0])["loss"] > 5.0
    assert ended.metrics["loss"] < 2.5
