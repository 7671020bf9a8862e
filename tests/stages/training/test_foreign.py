"""A folder from elsewhere: copied as it is, and refused in plain words when it cannot be gone on from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.run_folder import Champion
from stages.training.data.encoding import BYTES
from stages.training.engine.checkpoint import OPTIMISER, Saved, verify
from stages.training.files import MANIFEST, MODEL
from stages.training.foreign import Foreign
from stages.training.models.llama import Llama

NAMES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", MODEL)


@pytest.fixture
def folder(trained_state: Path, champion: Champion, tmp_path: Path) -> Path:
    """The trunk of a published version of another state folder, copied below a root."""
    return Path(shutil.copytree(trained_state / champion.trunk.path, tmp_path / "inbox" / "v1"))


@pytest.fixture
def take(folder: Path, tmp_path: Path) -> Callable[[], Saved]:
    """Take the folder as a pipeline of the micro decoder does; what lies in the inbox may be taken."""
    (tmp_path / "runs").mkdir()
    adapter = Llama(ModelSettings(preset="micro"), BYTES, 32)
    source = Foreign(folder, [str(tmp_path / "inbox")], adapter.load, lambda *_: None)
    return lambda: source.take(tmp_path / "runs" / "copy", moments=True)[0]


def plain(folder: Path) -> None:
    """Leave no manifest that would tell what is changed."""
    (folder / MANIFEST).unlink(missing_ok=True)


def test_weights_in_parts_become_one_file(folder: Path, take: Callable[[], Saved], tmp_path: Path) -> None:
    """The model is the same, and its checkpoint has no trace of the parts."""
    whole = load_file(folder / MODEL)
    in_parts(folder)
    assert set(take().files) == {*NAMES, OPTIMISER}
    merged = load_file(tmp_path / "runs/copy" / MODEL)
    assert merged.keys() == whole.keys()
    assert all(torch.equal(merged[name], whole[name]) for name in whole)
    assert {path.name for path in (tmp_path / "runs/copy").iterdir()} == {*NAMES, OPTIMISER, MANIFEST}
    verify(tmp_path / "runs/copy")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Write other weights, and no manifest that would tell."""
    plain(folder)
    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file(tensors, folder / MODEL)


def not_finite(folder: Path) -> None:
    """One weight is no number."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][0] = torch.nan

    change_weights(folder, spoil)


def other_shape(folder: Path) -> None:
    """A matrix has another width."""
    change_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))


def one_more(folder: Path) -> None:
    """There is a tensor that the model does not have."""
    change_weights(folder, lambda tensors: tensors.update({"model.odd.weight": torch.ones(7)}))


def one_less(folder: Path) -> None:
    """A tensor is missing."""

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]

    change_weights(folder, lose)


def integers(folder: Path) -> None:
    """The weights are quantised."""

    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)

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


def told(**fields: object) -> Callable[[Path], None]:
    """Return what tells other sizes."""

    def harm(folder: Path) -> None:
        plain(folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return harm


def subwords(folder: Path) -> None:
    """The tokenizer has words."""
    plain(folder)
    made = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    made.add_special_tokens(["</s>"])
    made.save(str(folder / "tokenizer.json"))
    told(eos_token_id=2)(folder)


def no_tokenizer(folder: Path) -> None:
    """The tokenizer is not told."""
    (folder / "tokenizer.json").unlink()


def plain_without_tokenizer(folder: Path) -> None:
    """There is no manifest that would miss it."""
    plain(folder)
    no_tokenizer(folder)


def in_parts(folder: Path, **more: str) -> None:
    """Lay the weights out in two files, as large models come; `more` is in the index too."""
    plain(folder)
    tensors = load_file(folder / MODEL)
    (folder / MODEL).unlink()
    where = {name: f"model-{1 + number % 2}.safetensors" for number, name in enumerate(tensors)}
    for part in set(where.values()):
        save_file({name: tensor for name, tensor in tensors.items() if where[name] == part}, folder / part)
    (folder / f"{MODEL}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {**where, **more}}))


def odd_part(folder: Path) -> None:
    """The index names a file elsewhere."""
    in_parts(folder, odd="../out.safetensors")


def lost_part(folder: Path) -> None:
    """One of the files was not copied."""
    in_parts(folder)
    (folder / "model-2.safetensors").unlink()


def other_parts(folder: Path) -> None:
    """The index is of another model."""
    in_parts(folder, odd="model-2.safetensors")


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


def broken_moments(folder: Path) -> None:
    """The optimiser's state belongs to another model."""
    plain(folder)
    save_file({"x/step": torch.ones(1)}, folder / OPTIMISER)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (not_finite, ["model.norm.weight holds numbers that are not finite", "take an older one"]),
        (other_shape, ["model.norm.weight has shape (7,) instead of (32,)", "config.json"]),
        (one_more, ["has beyond the model model.odd.weight"]),
        (one_less, ["lacks model.norm.weight"]),
        (integers, ["holds torch.int8", "torch.float32"]),
        (damaged, [f"{MODEL} does not fit its {MANIFEST}", "Copy it again"]),
        (cut, ["no whole safetensors file", "copy it again"]),
        (pickled, ["pytorch_model.bin, a pickle", "any code", f"Save the weights as {MODEL}"]),
        (told(model_type="mistral"), ["its model_type is 'mistral'", "kind: hf"]),
        (
            told(rope_scaling={"rope_type": "llama3"}, rope_parameters=None),
            ["positions are scaled (llama3)", "kind: hf"],
        ),
        (told(hidden_size="wide"), ["config.json cannot be used", "hidden_size"]),
        (told(num_hidden_layers=10**12), ["config.json cannot be used", "layers is 1000000000000"]),
        (subwords, ["another tokenizer than the pipeline's", "kind: file"]),
        (no_tokenizer, ["tokenizer.json is not there", "Copy it again"]),
        (plain_without_tokenizer, ["tokenizer.json cannot be read"]),
        (odd_part, ["names '../out.safetensors'"]),
        (lost_part, ["is not whole: model-2.safetensors is not there"]),
        (other_parts, ["do not fit its model.safetensors.index.json (odd is missing)"]),
        (linked_out, ["outside of the roots", "Copy it into one of them"]),
        (piped, ["is no regular file"]),
        (vanished, ["cannot be read (No such file or directory)", "Put it back"]),
        (climbing, ["names '../secret'"]),
        (broken_moments, [f"{OPTIMISER} does not belong to the model: it lacks model.", "Leave it out"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_told_with_what_to_do(
    harm: Callable[[Path], None], words: list[str], folder: Path, take: Callable[[], Saved], tmp_path: Path
) -> None:
    """Every fault is the user's own, which no retry mends, and names the folder; nothing of the copy is left."""
    harm(folder)
    with pytest.raises(StageError) as caught:
        take()
    assert caught.value.failure == "user_error"
    assert [each for each in (*words, str(folder)) if each not in str(caught.value)] == []
    assert list((tmp_path / "runs").iterdir()) == []
