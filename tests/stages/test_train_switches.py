"""Train: what its switches change, what they must not change, and how it fails."""

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file

from daemon.core.events import AnyEvent, StageFailed, StageInterrupted, StageProgressed, StageSucceeded
from daemon.core.plans import Checkpoint, Engine, Optimiser, Plan
from stages.base import Context
from stages.run_folder import Champion, Shard
from stages.training.engine.checkpoint import ENGINE, OPTIMISER, Contents, verify, write_checkpoint
from stages.training.engine.keeping import Keeper
from stages.training.engine.loop import LAGS
from stages.training.engine.progress import Progress
from stages.training.engine.step import Stepper
from stages.training.files import MODEL, digest
from stages.training.models.language import Language

Run = Callable[..., list[AnyEvent]]
Shards = tuple[Shard, ...]
Train = Callable[..., tuple[dict[str, float], Path]]
MakePlan = Callable[..., Plan]
ROW_LOSSES = Language.row_losses


@pytest.fixture
def train(
    champion: Champion,
    make_increment_plan: MakePlan,
    new: Shards,
    past: Shards,
    run_stage: Run,
    place: Callable[..., Path],
) -> Train:
    """Train an increment whose training has the given fields: (attempt, **fields) → its metrics, its folder."""

    def run(
        attempt: int, run: str = "p-9", resume_from: tuple[str, ...] = (), **fields: object
    ) -> tuple[dict[str, float], Path]:
        given = {"plan": make_increment_plan(champion, **fields), "new": new, "past": past, "run": run}
        ended = run_stage("train", attempt, resume_from=resume_from, **given)[-1]
        assert isinstance(ended, StageSucceeded), ended
        return ended.metrics, place("train", attempt, **given)

    return run


def points(folder: Path) -> list[dict[str, float]]:
    """Return an attempt's curves."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> tuple[str, str]:
    """Return the sha256 of the candidate's weights and of the trunk's."""
    return digest(folder / "candidate" / MODEL), digest(folder / "trunk" / MODEL)


def test_measuring_on_the_way_changes_no_bit(train: Train) -> None:
    """Held-out documents of every domain are measured at even distances; what is learned does not see it."""
    _, plain = train(1)
    _, measured = train(2, engine=Engine(evaluations=4))

    assert weights(plain) == weights(measured)
    found = [point for point in points(measured) if "eval_prose" in point]
    assert [point["step"] for point in found] == [10, 20, 30, 40]
    assert all(0 < point["eval_code"] < 10 for point in found)
    assert found[-1]["eval_code"] < found[0]["eval_code"]


def test_it_is_measured_in_the_precision_of_the_training(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shards of bfloat16 weights have no other while the model computes, and what is float32 would not meet them."""
    seen = []
    measure = Language.document_nats

    def watched(self: Language, *given: object, **named: object) -> object:
        seen.append(torch.is_autocast_enabled("cpu"))
        return measure(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Language, "document_nats", watched)
    for attempt, precision in enumerate(("float32", "bfloat16"), start=1):
        train(attempt, tokens=4 * 32, engine=Engine(precision=precision, evaluations=1))  # type: ignore[arg-type]

    assert seen == [False, False, True, True]


def test_the_engine_changes_the_learning_by_rounding_alone(train: Train) -> None:
    """A batch in parts and activations computed again give the losses of the whole; bfloat16 is near them."""
    _, plain = train(1)
    expected = torch.tensor([point["loss"] for point in points(plain)])
    for attempt, (engine, near) in enumerate(
        ((Engine(accumulate=3, recompute=True), 1e-4), (Engine(precision="bfloat16"), 0.1)), start=2
    ):
        _, folder = train(attempt, engine=engine)
        losses = torch.tensor([point["loss"] for point in points(folder)])
        assert torch.allclose(losses, expected, rtol=near, atol=near)
        assert not torch.equal(losses, expected)


def test_the_candidate_is_the_average_and_the_trunk_is_not(train: Train) -> None:
    """The trunk is what it is without an average; the candidate is another, and close to it."""
    _, plain = train(1)
    _, averaged = train(2, adamw=Optimiser(average=0.8))

    assert weights(averaged)[1] == weights(plain)[1]
    assert weights(averaged)[0] != weights(plain)[0]
    assert ENGINE not in verify(averaged / "trunk").files
    last, mean = load_file(plain / "candidate" / MODEL), load_file(averaged / "candidate" / MODEL)
    assert all((last[name] - mean[name]).abs().max() < 0.1 for name in last)


def test_a_spike_is_left_out_and_told(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss far above the last ones changes nothing; curve and result say so."""
    seen = []

    def spiking(self: Language, model: torch.nn.Module, inputs: object) -> torch.Tensor:
        seen.append(1)
        return ROW_LOSSES(self, model, inputs) * (100.0 if len(seen) == 75 else 1.0)

    monkeypatch.setattr(Language, "row_losses", spiking)
    metrics, folder = train(1, tokens=80 * 4 * 32, adamw=Optimiser(skip_sigma=6.0))

    assert metrics["skipped"] == 1
    told = {point["step"]: point for point in points(folder)}
    assert (told[74]["skipped"], told[75]["skipped"], told[80]["skipped"]) == (0, 1, 1)
    assert told[75]["loss"] > 20 * told[76]["loss"]


def test_reading_the_device_seldom_changes_nothing(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: what is judged is read some steps later, and weights and curves are the same."""
    _, often = train(1, adamw=Optimiser(skip_sigma=6.0, average=0.9))
    monkeypatch.setitem(LAGS, "cpu", 8)
    monkeypatch.setattr("stages.training.engine.loop.SILENT", 1e9)
    monkeypatch.setattr(Progress, "due", lambda self, step: step % 13 == 0 or step == 40)
    _, seldom = train(2, adamw=Optimiser(skip_sigma=6.0, average=0.9))

    assert weights(often) == weights(seldom)
    assert [point["step"] for point in points(seldom)] == [13, 26, 39, 40]
    assert points(seldom)[-1]["loss"] == points(often)[-1]["loss"]


def test_parts_that_take_long_begin_with_a_sign_of_life(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying, loading, the first step, and waiting for what is written: each has the whole heartbeat's limit."""
    seen: list[str] = []

    def watch(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def watched(*given: object, **named: object) -> object:
            seen.append(name)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in ((Context, "live"), (Stepper, "backward"), (Keeper, "candidate")):
        watch(owner, name)
    train(1, tokens=4 * 32)

    assert seen == ["live", "live", "live", "backward", "live", "live", "candidate", "live", "live", "live"]


def test_a_loss_that_is_no_number_is_named_though_it_is_read_later(
    make_base_plan: MakePlan, past: Shards, run_stage: Run, place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is told, and no later one has touched the weights: the trunk of step 34 is never written."""
    seen = []

    def breaking(self: Language, model: torch.nn.Module, inputs: object) -> torch.Tensor:
        seen.append(next(model.parameters()).detach().clone())
        return ROW_LOSSES(self, model, inputs) * (torch.nan if len(seen) == 18 else 1.0)

    monkeypatch.setitem(LAGS, "cpu", 8)
    monkeypatch.setattr("stages.training.engine.loop.SILENT", 1e9)
    monkeypatch.setattr(Progress, "due", lambda self, step: False)
    monkeypatch.setattr(Language, "row_losses", breaking)
    failed = run_stage("train", plan=make_base_plan(), new=past)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "not_finite"
    assert "Step 18" in failed.message
    assert len(seen) == 24
    assert not torch.equal(seen[16], seen[17])
    assert all(torch.equal(each, seen[17]) for each in seen[18:])
    assert not (place("train", plan=make_base_plan(), new=past) / "trunk").exists()


def test_what_is_random_in_the_model_is_gone_on_from(
    champion: Champion,
    make_increment_plan: MakePlan,
    new: Shards,
    past: Shards,
    run_stage: Run,
    place: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resumed training draws what an uninterrupted one draws, as dropout would."""

    def noisy(self: Language, model: torch.nn.Module, inputs: object) -> torch.Tensor:
        losses = ROW_LOSSES(self, model, inputs)
        return losses * torch.rand(len(losses))

    monkeypatch.setattr(Language, "row_losses", noisy)
    given = {"plan": make_increment_plan(champion), "new": new, "past": past}
    whole = place("train", 1, run="r-0", **given)
    run_stage("train", 1, run="r-0", **given)
    first = place("train", 1, **given)
    (first / "stop").write_text("preempt")
    assert isinstance(run_stage("train", 1, **given)[-1], StageInterrupted)
    ended = run_stage("train", 2, resume_from=(str(first),), **given)[-1]

    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["resumed_at"] == 1
    assert weights(first.with_name("2")) == weights(whole)


def spoil(trunk: Path, change: Callable[[dict[str, dict[str, torch.Tensor]]], None]) -> str:
    """Write a trunk anew with other tensors and a manifest that fits them; returns its sha256."""
    saved = verify(trunk)
    tensors = {name: load_file(trunk / name) for name in (MODEL, OPTIMISER)}
    change(tensors)
    small = {name: (trunk / name).read_bytes() for name in saved.files if name not in tensors}
    return write_checkpoint(
        trunk,
        Contents(small=small, tensors=tensors, step=saved.step, steps=saved.steps, seed=saved.seed, plan=saved.plan),
    )


def not_a_number(tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Put a NaN into the first weight."""
    next(iter(tensors[MODEL].values())).flatten()[0] = torch.nan


def other_shape(tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Cut the weights."""
    tensors[MODEL] = {name: tensor[:-1].clone() for name, tensor in tensors[MODEL].items()}


def a_weight_less(tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Leave a weight away."""
    tensors[MODEL].popitem()


def other_moments(tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Cut the optimiser's state."""
    tensors[OPTIMISER] = {
        name: tensor[:-1].clone() if tensor.ndim else tensor for name, tensor in tensors[OPTIMISER].items()
    }


def moments_of_others(tensors: dict[str, dict[str, torch.Tensor]]) -> None:
    """Give the optimiser's state other names."""
    tensors[OPTIMISER] = {f"other.{name}": tensor for name, tensor in tensors[OPTIMISER].items()}


@pytest.mark.parametrize("change", [not_a_number, other_shape, a_weight_less, other_moments, moments_of_others])
def test_a_start_that_cannot_be_gone_on_from_is_refused(
    change: Callable[[dict[str, dict[str, torch.Tensor]]], None],
    champion: Champion,
    state: Path,
    make_increment_plan: MakePlan,
    new: Shards,
    run_stage: Run,
) -> None:
    """Weights or moments that are no numbers or of another model: bad_checkpoint, though every sha256 fits."""
    plan = make_increment_plan(champion)
    path = champion.trunk.path
    start = replace(plan.start, checkpoint=Checkpoint(path=path, sha256=spoil(state / path, change)))
    failed = run_stage("train", plan=replace(plan, start=start), new=new)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_checkpoint", failed.message


def test_a_truncated_start_is_refused(
    champion: Champion, state: Path, make_increment_plan: MakePlan, new: Shards, run_stage: Run
) -> None:
    """A file that was cut is seen by its size and sha256."""
    file = state / champion.trunk.path / MODEL
    file.write_bytes(file.read_bytes()[:-100])
    failed = run_stage("train", plan=make_increment_plan(champion), new=new)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_checkpoint"
    assert "sha256" in failed.message


def raising(error: Exception) -> Callable[..., object]:
    """Return a function that raises."""

    def fails(*_: object, **__: object) -> object:
        raise error

    return fails


@pytest.mark.parametrize(
    ("where", "error", "failure", "words"),
    [
        (
            "stages.training.models.language.Language.row_losses",
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "out_of_memory",
            "batch 4, context 32, accumulate 1",
        ),
        (
            "stages.training.engine.saving.write_checkpoint",
            OSError(errno.ENOSPC, "No space left on device"),
            "disk_full",
            "No space left",
        ),
    ],
)
def test_failures_have_their_class(
    where: str,
    error: Exception,
    failure: str,
    words: str,
    make_base_plan: MakePlan,
    past: Shards,
    run_stage: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No memory names the sizes; what a thread could not write is met in the training."""
    monkeypatch.setattr(where, raising(error))
    failed = run_stage("train", plan=make_base_plan(), new=past)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == failure
    assert words in failed.message


def test_progress_is_told(
    champion: Champion,
    make_increment_plan: MakePlan,
    new: Shards,
    past: Shards,
    run_stage: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Speed, rate, losses by domain, share replayed and time left go with every report."""
    monkeypatch.setattr("stages.base.PROGRESS_SECONDS", 0.0)
    events = run_stage("train", plan=make_increment_plan(champion), new=new, past=past)
    told: list[Mapping[str, float]] = [event.metrics for event in events if isinstance(event, StageProgressed)]

    assert len(told) == 40
    names = {"tokens_per_second", "learning_rate", "loss", "replay_share", "seconds_left"}
    assert all(names <= metrics.keys() for metrics in told)
    assert any("loss_prose" in metrics for metrics in told)
    assert told[-1]["seconds_left"] == 0
    assert told[-1]["replay_share"] == 0.25
