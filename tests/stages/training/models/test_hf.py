"""Hugging Face's causal language models: continued from a folder, kept as one, and refused in plain words."""

import importlib
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from torch import nn

import kernels
from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, ModelEvaluated, StageSucceeded
from daemon.core.plans import ModelSettings, Plan
from stages.run_folder import Shard
from stages.training.data.encoding import BYTES, Tokenizer
from stages.training.files import MODEL
from stages.training.models import hf
from stages.training.models.hf import INDEX, Hf
from tests.stages.training.saving import save_checkpoint

Save = Callable[..., Path]
ROOT = Path(__file__).parents[4]
SMALL = {"vocab_size": 264, "bos_token_id": 256, "eos_token_id": 256}
SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
}


@pytest.fixture(scope="module", params=SIZES)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder as save_pretrained writes it, of each architecture, and its model."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(request.param, **SMALL, **SIZES[request.param])
    made = transformers.AutoModelForCausalLM.from_config(config)
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(BYTES.json)
    return folder, made.eval()


@pytest.fixture
def folder(original: tuple[Path, nn.Module], tmp_path: Path) -> Path:
    """A copy of it that may be harmed."""
    copy = tmp_path / "inbox"
    copy.mkdir()
    for path in original[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def adapter(folder: Path, tokenizer: Tokenizer = BYTES, context: int = 32) -> Hf:
    """Return the adapter of the pipeline that continues the folder."""
    return Hf(ModelSettings(kind="hf", preset="", path=str(folder)), tokenizer, context)


ROWS = torch.randint(0, 257, (2, 33), generator=torch.Generator().manual_seed(1))


def test_a_folder_is_continued(original: tuple[Path, nn.Module], save: Save) -> None:
    """Its logits are the original's; one step later they are still the same for us and for transformers."""
    transformers = pytest.importorskip("transformers")
    folder, other = original
    ours = adapter(folder)
    model = ours.make(0)
    assert torch.equal(ours.logits(model, ROWS), other(ROWS).logits)
    model.train()
    ours.row_losses(model, ROWS).mean().backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), 0.1).step()
    saved = save(ours, model)
    model.eval()
    again, loaded = transformers.AutoModelForCausalLM.from_pretrained(saved), ours.load(saved)

    assert again.dtype == torch.float32
    assert torch.equal(again(ROWS).logits, ours.logits(model, ROWS))
    assert torch.equal(ours.logits(loaded, ROWS), ours.logits(model, ROWS))
    assert not torch.equal(again(ROWS).logits, other(ROWS).logits)
    assert transformers.AutoTokenizer.from_pretrained(saved)("héllo").input_ids == list("héllo".encode())
    names = set(load_file(saved / MODEL))
    assert len(names) == len({weight.data_ptr() for weight in model.parameters()})
    assert save(ours, loaded, "again") != saved
    for path in saved.iterdir():
        assert path.read_bytes() == (saved.with_name("again") / path.name).read_bytes()


def test_a_training_from_scratch_begins_with_the_folder(
    original: tuple[Path, nn.Module],
    make_base_plan: Callable[..., Plan],
    past: tuple[Shard, ...],
    run_stage: Callable[..., list[AnyEvent]],
    place: Callable[..., Path],
) -> None:
    """Its weights are what the first step changes, by the stages that every pipeline has; the result is better."""
    settings = ModelSettings(kind="hf", preset="", path=str(original[0]))
    plan = replace(make_base_plan(tokens=6 * 4 * 32), model=settings)
    fields = {"run": "p-20", "plan": plan, "new": past}
    trained = run_stage("train", **fields)[-1]
    assert isinstance(trained, StageSucceeded), trained
    done = {"train": str(place("train", **fields))}
    losses = []
    for number, checkpoint in enumerate(("candidate", "first"), start=1):
        if checkpoint == "first":
            ours = adapter(original[0])
            save_checkpoint(
                Path(done["train"]) / "candidate", ours, ours.make(0), None, step=0, steps=1, seed=0, plan=""
            )
        evaluated = run_stage("evaluate", attempt=number, **fields, done=done)[-2]
        assert isinstance(evaluated, ModelEvaluated), evaluated
        losses.append(evaluated.domains["prose"].candidate.mean)
    assert losses[0] < losses[1] - 0.1


def test_documents_are_measured(original: tuple[Path, nn.Module]) -> None:
    """A document's loss is the sum over its tokens of what the model itself says."""
    ours = adapter(original[0])
    document = ROWS[0].numpy().astype(np.uint16)
    (nats,) = ours.document_nats(ours.make(0), [document], context=32, beat=lambda: None)
    loss = original[1](ROWS[:1], labels=ROWS[:1]).loss.item()

    assert nats == pytest.approx(32 * loss, rel=1e-5)


def test_recomputed_activations_change_nothing(folder: Path) -> None:
    """The gradients are the same."""
    gradients = []
    for recompute in (False, True):
        ours = adapter(folder)
        model = ours.make(0)
        if recompute:
            ours.recompute(model)
            assert model.is_activation_checkpointing
            model.train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        ours.row_losses(model, ROWS).mean().backward()  # type: ignore[no-untyped-call]
        gradients.append([weight.grad for weight in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_files_in_parts_and_of_16_bits_are_read(original: tuple[Path, nn.Module], tmp_path: Path) -> None:
    """As large models come; what is saved of it has 32 bits, and says so."""
    half = pytest.importorskip("transformers").AutoModelForCausalLM.from_pretrained(original[0], dtype=torch.bfloat16)
    half.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "tokenizer.json").write_bytes(BYTES.json)
    assert (tmp_path / INDEX).exists()
    ours = adapter(tmp_path)
    model = ours.make(0)
    for one, other in zip(model.parameters(), half.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other.float())
    assert json.loads(ours.files(model)["config.json"])["dtype"] == "float32"


def test_nothing_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a whole folder, nor for one that lacks something."""

    def refuse(*_: object) -> None:
        pytest.fail("something was to be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    adapter(folder).make(0)
    (folder / "generation_config.json").unlink(missing_ok=True)
    adapter(folder).make(0)
    with pytest.raises(StageError):
        adapter(Path("gpt2")).make(0)


def pickled(folder: Path) -> None:
    """The weights are a pickle."""
    (folder / MODEL).rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    """The weights end in the middle."""
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-100])


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor], str], None]) -> None:
    """Change the weights; the name is that of a matrix that every model has."""
    tensors = load_file(folder / MODEL)
    change(tensors, next(name for name in sorted(tensors) if "mlp" in name and tensors[name].ndim == 2))
    save_file(tensors, folder / MODEL, metadata={"format": "pt"})


def spoiled(folder: Path) -> None:
    """A weight is no number."""
    rewrite(folder, lambda tensors, name: tensors.update({name: tensors[name] * torch.nan}))


def lacking(folder: Path) -> None:
    """A matrix is missing: its numbers would be drawn at random."""
    rewrite(folder, lambda tensors, name: tensors.__delitem__(name))


def reshaped(folder: Path) -> None:
    """A matrix has another shape."""
    rewrite(folder, lambda tensors, name: tensors.update({name: tensors[name][:-1].contiguous()}))


def told(**fields: object) -> Callable[[Path], None]:
    """Return what changes config.json."""

    def harm(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))

    return harm


def adapted(folder: Path) -> None:
    """There is an adapter beside the model."""
    (folder / "adapter_config.json").write_text("{}")


def vanished(folder: Path) -> None:
    """The folder is gone."""
    folder.rename(folder.with_name("elsewhere"))


def no_words(folder: Path) -> None:
    """There is no tokenizer."""
    (folder / "tokenizer.json").unlink()


HARMS = [
    (pickled, ["has no model.safetensors", "any code", "save_pretrained"]),
    (cut, ["holds no causal language model that transformers", "SafetensorError"]),
    (spoiled, ["numbers that are not finite"]),
    (lacking, ["lack model.layers.0.mlp.down_proj.weight", "copy the folder again"]),
    (reshaped, ["mlp.down_proj.weight", "of another shape"]),
    (told(model_type="no-such-model"), ["transformers", "no-such-model"]),
    (told(quantization_config={"quant_method": "gptq"}), ["quantised", "16 or 32 bits"]),
    (adapted, ["adapter", "merge"]),
    (vanished, ["no folder of a Hugging Face model", "No such file"]),
    (no_words, ["tokenizer.json cannot be read"]),
]


@pytest.mark.parametrize(("harm", "words"), HARMS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("original", ["llama"], indirect=True)
def test_what_is_wrong_with_the_folder_is_the_users(
    harm: Callable[[Path], None], words: list[str], folder: Path
) -> None:
    """Each fault is told with the folder and what to do; as a checkpoint of ours it would be a bad one."""
    harm(folder)
    with pytest.raises(StageError) as caught:
        adapter(folder).make(0)
    assert caught.value.failure == "user_error"
    assert [word for word in (*words, str(folder)) if word not in str(caught.value)] == []

    with pytest.raises(StageError) as caught:
        adapter(folder).load(folder)
    assert caught.value.failure == ("user_error" if harm is no_words else "bad_checkpoint")


@pytest.mark.parametrize("original", ["gpt2"], indirect=True)
def test_what_does_not_go_together_is_told(folder: Path, trained_tokenizer: Tokenizer) -> None:
    """A window beyond the positions; a vocabulary beyond the model's; a tokenizer beside that is not the pipeline's."""
    with pytest.raises(StageError, match=r"windows have 65 tokens, the model at .* was made for 64"):
        adapter(folder, context=65).make(0)
    with pytest.raises(StageError, match="another tokenizer than the pipeline's"):
        adapter(folder, trained_tokenizer).make(0)
    (folder / "tokenizer.json").write_bytes(trained_tokenizer.json)
    told(eos_token_id=trained_tokenizer.end)(folder)
    with pytest.raises(StageError, match=r"has 300 tokens, the model at .* numbers for 264") as caught:
        adapter(folder, trained_tokenizer).make(0)
    assert caught.value.failure == "user_error"


@pytest.mark.parametrize("original", ["llama"], indirect=True)
def test_no_code_beside_the_weights_is_run(folder: Path) -> None:
    """A model that brings its own is refused."""
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')\n")
    told(model_type="own", auto_map={"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"})(folder)
    with pytest.raises(StageError, match="custom code"):
        adapter(folder).make(0)


@pytest.mark.parametrize("original", ["llama"], indirect=True)
def test_without_the_extra_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is no dependency of rewarm's own models."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(StageError, match=r"pip install 'rewarm\[hf\]'") as caught:
        adapter(folder).make(0)
    assert caught.value.failure == "user_error"
    importlib.reload(hf)  # a worker imports the adapter before it forks, and transformers must wait until after


def test_our_folder_of_kernels_is_not_taken_for_hugging_faces(original: tuple[Path, nn.Module]) -> None:
    """The library looks for a package of that name: from our checkout it finds ours, and must leave it alone."""
    from transformers.utils.import_utils import is_kernels_available

    assert Path(kernels.__file__).is_relative_to(ROOT)
    assert not is_kernels_available()
    adapter(original[0]).make(0)
