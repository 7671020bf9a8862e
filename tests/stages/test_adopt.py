"""Adopt: a folder from elsewhere is copied, looked at, and gone on from; what is wrong with one is told."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file

from daemon.core.events import (
    AnyEvent,
    DataIngested,
    ModelEvaluated,
    ModelPromoted,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint, ModelSettings, Plan, Start
from stages.execute import execute
from stages.run_folder import Arrival, Champion, Shard
from stages.training import foreign
from stages.training.checkpoint import OPTIMISER, verify
from stages.training.files import MANIFEST, MODEL, digest

Run = Callable[..., list[AnyEvent]]
NAMES = ("config.json", "tokenizer.json", MODEL)


@pytest.fixture
def folder(trained_state: Path, champion: Champion, tmp_path: Path) -> Path:
    """A published version of another state folder, copied below a root."""
    return Path(shutil.copytree(trained_state / champion.model.path, tmp_path / "inbox" / "v1", dirs_exist_ok=True))


@pytest.fixture
def plan(folder: Path, make_base_plan: Callable[..., Plan]) -> Plan:
    """The plan of a run that adopts the folder."""
    start = Start(kind="folder", folder=str(folder))
    return replace(make_base_plan(), kind="adopt", start=start, stages=("adopt", "promote"))


@pytest.fixture
def attempt(plan: Plan, tmp_path: Path, place: Callable[..., Path]) -> Path:
    """An attempt at adopting the folder; what lies in the inbox may be adopted."""
    return place("adopt", plan=plan, roots=(str(tmp_path / "inbox"),))


@pytest.fixture
def adopt(attempt: Path, read_outcome: Callable[[Path], list[AnyEvent]]) -> Callable[[], AnyEvent]:
    """Carry the attempt out; returns its end."""

    def run() -> AnyEvent:
        execute(attempt)
        return read_outcome(attempt)[-1]

    return run


def plain(folder: Path) -> None:
    """Leave nothing but the weights, the sizes and the tokenizer."""
    shutil.rmtree(folder / "trunk")
    (folder / MANIFEST).unlink()


def test_a_published_version_is_taken_as_it_is(
    folder: Path, attempt: Path, adopt: Callable[[], AnyEvent], champion: Champion
) -> None:
    """Candidate and trunk have the sha256 that they had where they come from, with the optimiser's state."""
    ended = adopt()
    assert isinstance(ended, StageSucceeded)
    assert digest(attempt / "candidate" / MANIFEST) == champion.model.sha256
    assert digest(attempt / "trunk" / MANIFEST) == champion.trunk.sha256
    assert OPTIMISER in verify(attempt / "trunk").files
    assert (ended.metrics["optimiser_kept"], ended.metrics["size_as_configured"]) == (1.0, 1.0)
    assert {each.name: each.sha256 for each in ended.artefacts} == {
        "candidate": champion.model.sha256,
        "trunk": champion.trunk.sha256,
    }
    verify(folder, champion.model.sha256)


def test_weights_alone_are_enough(
    folder: Path,
    attempt: Path,
    adopt: Callable[[], AnyEvent],
    make_increment_plan: Callable[..., Plan],
    new: tuple[Shard, ...],
    run_stage: Run,
) -> None:
    """Without manifest, trunk and optimiser state the model is its own trunk; an increment begins with a new state."""
    plain(folder)
    ended = adopt()
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["optimiser_kept"] == 0.0
    trunk = verify(attempt / "trunk")
    assert set(trunk.files) == set(NAMES)
    path = str((attempt / "trunk").relative_to(attempt.parents[3]))
    checkpoint = Checkpoint(path=path, sha256=digest(attempt / "trunk" / MANIFEST))
    later = make_increment_plan(Champion(version=1, model=checkpoint, trunk=checkpoint), optimiser="keep")
    trained = run_stage("train", run="p-10", plan=later, new=new)[-1]
    assert isinstance(trained, StageSucceeded)
    assert trained.metrics["optimiser_kept"] == 0.0


def test_a_model_of_another_size_keeps_its_size(
    plan: Plan, adopt: Callable[[], AnyEvent], run_stage: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It may differ from the pipeline's preset; that a retraining from scratch would not is said."""
    ended = run_stage("adopt", run="p-11", plan=replace(plan, model=ModelSettings(preset="nano")))[-1]
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["size_as_configured"] == 0.0
    assert "another size than the pipeline's preset" in caplog.text


def test_an_attempt_that_died_leaves_nothing_in_the_way(
    attempt: Path, adopt: Callable[[], AnyEvent], champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started again, it writes the same bytes over whatever half of them is there."""

    class Died(BaseException):
        pass

    def die(path: Path, data: bytes) -> None:
        shutil.copytree(path.parent, attempt / "trunk")
        raise Died

    monkeypatch.setattr(foreign, "write_file", die)
    with pytest.raises(Died):
        adopt()
    monkeypatch.undo()
    assert isinstance(adopt(), StageSucceeded)
    assert digest(attempt / "candidate" / MANIFEST) == champion.model.sha256
    assert digest(attempt / "trunk" / MANIFEST) == champion.trunk.sha256
    assert {path.name for path in attempt.iterdir() if path.is_dir()} == {"candidate", "trunk"}


def test_it_stops_in_the_middle_of_a_large_file(
    attempt: Path, adopt: Callable[[], AnyEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is copied piece by piece, with a sign of life after each, and nothing half is left."""
    monkeypatch.setattr(foreign, "CHUNK", 4096)
    copied = []

    def stop(self: foreign.Foreign, name: str, target: Path) -> object:
        copied.append(name)
        if name == MODEL:
            (attempt / "stop").write_text("drain")
        return copy(self, name, target)

    copy = foreign.Foreign._copy  # noqa: SLF001 - the very moment is meant
    monkeypatch.setattr(foreign.Foreign, "_copy", stop)
    assert isinstance(adopt(), StageInterrupted)
    assert copied == list(NAMES)
    assert not (attempt / "candidate").exists()
    assert not list(attempt.glob(".*"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Write other weights, and no manifest that would tell."""
    plain(folder)
    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file(tensors, folder / MODEL)


def not_finite(folder: Path) -> None:
    """One weight is no number."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["norm.weight"][0] = torch.nan

    change_weights(folder, spoil)


def other_shape(folder: Path) -> None:
    """A matrix has another width."""
    change_weights(folder, lambda tensors: tensors.update({"norm.weight": torch.ones(7)}))


def one_more(folder: Path) -> None:
    """There is a tensor that the model does not have."""
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(7)}))


def one_less(folder: Path) -> None:
    """A tensor is missing."""

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["norm.weight"]

    change_weights(folder, lose)


def integers(folder: Path) -> None:
    """The weights are quantised."""

    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        tensors["norm.weight"] = tensors["norm.weight"].to(torch.int8)

    change_weights(folder, quantise)


def damaged(folder: Path) -> None:
    """A file is not what the manifest says."""
    with (folder / MODEL).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")


def cut(folder: Path) -> None:
    """The weights end in the middle."""
    plain(folder)
    with (folder / MODEL).open("r+b") as file:
        file.truncate(1000)


def pickled(folder: Path) -> None:
    """There is a pickle in the place of the weights."""
    (folder / MODEL).rename(folder / "pytorch_model.bin")


def hugging_face(folder: Path) -> None:
    """The sizes are told in another layout."""
    plain(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 32}))


def subwords(folder: Path) -> None:
    """The tokenizer has words."""
    plain(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "BPE"}}))


def endless(folder: Path) -> None:
    """The sizes are beyond reason."""
    plain(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layers": 10**12}))


def no_tokenizer(folder: Path) -> None:
    """The tokenizer is not told."""
    (folder / "tokenizer.json").unlink()


def linked_out(folder: Path) -> None:
    """The weights lie outside of the roots."""
    outside = folder.parents[1] / "elsewhere"
    (folder / MODEL).rename(outside)
    (folder / MODEL).symlink_to(outside)


def piped(folder: Path) -> None:
    """Whoever opened the weights would wait for ever."""
    plain(folder)
    (folder / MODEL).unlink()
    os.mkfifo(folder / MODEL)


def vanished(folder: Path) -> None:
    """The folder has gone between the request and the stage."""
    shutil.rmtree(folder)


def climbing(folder: Path) -> None:
    """The manifest names a file of somebody else."""
    told = json.loads((folder / MANIFEST).read_text())
    told["files"]["../secret"] = told["files"][MODEL]
    (folder / MANIFEST).write_text(json.dumps(told))


def unlike(folder: Path) -> None:
    """The trunk is of another model."""
    shutil.rmtree(folder / "trunk")
    shutil.copytree(folder, folder / "trunk")
    plain_trunk = folder / "trunk"
    (plain_trunk / MANIFEST).unlink()
    config = json.loads((plain_trunk / "config.json").read_text())
    (plain_trunk / "config.json").write_text(json.dumps({**config, "rope_base": 5.0}))


def broken_moments(folder: Path) -> None:
    """The optimiser's state belongs to another model."""
    (folder / "trunk" / MANIFEST).unlink()
    save_file({"x/step": torch.ones(1)}, folder / "trunk" / OPTIMISER)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (not_finite, ["norm.weight holds numbers that are not finite", "older, sound model"]),
        (other_shape, ["norm.weight has shape (7,) instead of (32,)", "config.json"]),
        (one_more, ["has beyond the model lm_head.weight"]),
        (one_less, ["lacks norm.weight"]),
        (integers, ["holds torch.int8", "torch.float32"]),
        (damaged, [f"{MODEL} does not fit its {MANIFEST}", "Copy it again"]),
        (cut, ["no whole safetensors file", "Copy it again"]),
        (pickled, ["pytorch_model.bin, a pickle", "any code", f"Save the weights as {MODEL}"]),
        (hugging_face, ["config.json does not fit", "missing required field `width`", "Hugging Face"]),
        (subwords, ["another tokenizer than the pipeline's"]),
        (endless, ["config.json tells of a model that there cannot be here"]),
        (no_tokenizer, ["has no tokenizer.json"]),
        (linked_out, ["outside of the roots", "Copy it into one of them"]),
        (piped, ["is no regular file"]),
        (vanished, ["cannot be read (No such file or directory)", "Put it back"]),
        (climbing, ["names '../secret'"]),
        (unlike, ["do not belong together"]),
        (broken_moments, [f"{OPTIMISER} lacks"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_told_with_what_to_do(
    harm: Callable[[Path], None], words: list[str], folder: Path, attempt: Path, adopt: Callable[[], AnyEvent]
) -> None:
    """Every fault fails the stage as the user's own, which no retry mends; nothing that could be promoted is left."""
    harm(folder)
    failed = adopt()
    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert [each for each in words if each not in failed.message] == []
    assert not ((attempt / "candidate").exists() and (attempt / "trunk").exists()) or harm is unlike


def test_a_full_disk_is_no_fault_of_the_folder(adopt: Callable[[], AnyEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its own class: recovery waits, and tries again."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device for {len(data)} bytes", str(path))

    monkeypatch.setattr(foreign, "write_file", full)
    failed = adopt()
    assert isinstance(failed, StageFailed)
    assert failed.failure == "disk_full"


def test_the_run_goes_on_to_evaluation_and_promotion(
    folder: Path,
    plan: Plan,
    run_stage: Run,
    place: Callable[..., Path],
    arrive: Callable[..., Arrival],
    past: tuple[Shard, ...],
    template: Path,
) -> None:
    """Its losses are those that the model had where it was trained; with a single document there are none."""
    fields = {"run": "p-12", "plan": plan}
    run_stage("adopt", **fields)
    done = {"adopt": str(place("adopt", **fields))}
    evaluated = run_stage("evaluate", **fields, done=done, new=past)[-2]
    assert isinstance(evaluated, ModelEvaluated)
    told = json.loads((template / "state/runs/p-1/evaluate/1/evaluation.json").read_bytes())
    before = {domain: each["candidate"]["mean"] for domain, each in told["domains"].items()}
    assert {domain: each.candidate.mean for domain, each in evaluated.domains.items()} == pytest.approx(before)
    done["evaluate"] = str(place("evaluate", **fields))
    promoted = run_stage("promote", **fields, done=done)[1]
    assert isinstance(promoted, ModelPromoted)
    assert promoted.losses == pytest.approx(before)
    assert promoted.adopted_from == str(folder)

    arrival = arrive("single", ["one document alone"], "prose", 5)
    ingested = run_stage("ingest", **{**fields, "run": "p-13"}, arrivals=(arrival,))
    new = tuple(
        Shard(position=5, domain="prose", manifest=event.manifest)
        for event in ingested
        if isinstance(event, DataIngested)
    )
    empty = run_stage("evaluate", attempt=2, **fields, done=done, new=new)[-2]
    assert isinstance(empty, ModelEvaluated)
    assert empty.domains == {}
