"""Adopt: a folder from elsewhere is copied, looked at, and gone on from; what is wrong with one is told."""

import errno
import json
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
from stages.training.engine.checkpoint import OPTIMISER, verify
from stages.training.files import MANIFEST, MODEL, digest

Run = Callable[..., list[AnyEvent]]
FIRST_RELEASE = Path(__file__).parent / "training/models/release_0_1_0"
NAMES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", MODEL)


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
    """Leave nothing but what Hugging Face's own folders have."""
    shutil.rmtree(folder / "trunk", ignore_errors=True)
    (folder / MANIFEST).unlink(missing_ok=True)


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


def test_a_checkpoint_of_the_first_release_is_taken_and_gone_on_from(
    folder: Path,
    attempt: Path,
    adopt: Callable[[], AnyEvent],
    make_increment_plan: Callable[..., Plan],
    new: tuple[Shard, ...],
    run_stage: Run,
) -> None:
    """As it is, its names its own; the next increment keeps the state of its optimiser."""
    shutil.rmtree(folder)
    shutil.copytree(FIRST_RELEASE, folder)
    ended = adopt()
    assert isinstance(ended, StageSucceeded)
    assert (ended.metrics["optimiser_kept"], ended.metrics["size_as_configured"]) == (1.0, 0.0)
    assert digest(attempt / "trunk" / MANIFEST) == digest(FIRST_RELEASE / MANIFEST)
    assert set(verify(attempt / "candidate").files) == {"config.json", "tokenizer.json", MODEL}

    path = str((attempt / "trunk").relative_to(attempt.parents[3]))
    checkpoint = Checkpoint(path=path, sha256=digest(attempt / "trunk" / MANIFEST))
    champion = Champion(version=1, model=checkpoint, trunk=checkpoint)
    plan = make_increment_plan(champion, tokens=4 * 4 * 32, optimiser="keep")
    trained = run_stage("train", run="p-15", plan=plan, new=new, champion=champion)[-1]
    assert isinstance(trained, StageSucceeded), trained
    assert trained.metrics["optimiser_kept"] == 1.0


def test_a_pipeline_of_kind_hf_adopts_any_causal_language_model(
    folder: Path, plan: Plan, run_stage: Run, place: Callable[..., Path]
) -> None:
    """Its files are taken as they are; the pipeline's own folder is where a training from scratch would begin."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 264, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "eos_token_id": 256}
    words = (folder / "tokenizer.json").read_bytes()
    shutil.rmtree(folder)
    made = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model("gpt2", **sizes, bos_token_id=256)
    )
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(words)
    fields = {"run": "p-14", "plan": replace(plan, model=ModelSettings(kind="hf", preset="", path=str(folder)))}
    ended = run_stage("adopt", **fields)[-1]
    assert isinstance(ended, StageSucceeded), ended
    assert ended.metrics["parameters"] == sum(weight.numel() for weight in made.parameters())
    taken = place("adopt", **fields) / "candidate"
    assert (taken / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    spoiled = {**load_file(folder / MODEL), "transformer.ln_f.bias": torch.full((16,), torch.inf)}
    save_file(spoiled, folder / MODEL, metadata={"format": "pt"})
    failed = run_stage("adopt", attempt=2, **fields)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert f"The model at {folder} is spoiled, transformer.ln_f.bias" in failed.message


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
    assert copied == [*json.loads((attempt.parents[4] / "inbox/v1" / MANIFEST).read_text())["files"]][: len(copied)]
    assert copied[-1] == MODEL
    assert not (attempt / "candidate").exists()
    assert not list(attempt.glob(".*"))


def test_a_trunk_of_another_model_is_told(folder: Path, adopt: Callable[[], AnyEvent]) -> None:
    """The two do not belong together; the stage fails as the user's own, which no retry mends."""
    shutil.rmtree(folder / "trunk")
    shutil.copytree(folder, folder / "trunk")
    (folder / "trunk" / MANIFEST).unlink()
    path = folder / "trunk" / "config.json"
    rope = {"rope_type": "default", "rope_theta": 5.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_parameters": rope}))
    failed = adopt()
    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert "do not belong together" in failed.message


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
