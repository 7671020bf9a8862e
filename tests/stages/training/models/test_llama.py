"""The built-in decoder's checkpoints: transformers reads them, and what is wrong with one is told with its class."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings, Sizes
from stages.training.data.encoding import BYTES, Tokenizer
from stages.training.files import MODEL
from stages.training.models.decoder import Decoder
from stages.training.models.llama import Llama

Save = Callable[..., Path]
PROSE = ["the model reads old words", "héllo\n\n  tabs\tand  blanks ", "</s> <|endoftext|>", "日本 \x00 \x7f"]


def rows(vocabulary: int, length: int = 40) -> torch.Tensor:
    """Return tokens."""
    return torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [{}, {"tied": False, "key_value_heads": 2}], ids=["tied grouped", "untied"])
def test_transformers_loads_a_checkpoint(
    sizes: dict[str, object], tokenizer: Tokenizer, make_llama: Callable[..., Llama], save: Save
) -> None:
    """The same logits to 1e-5, also beyond the trained window, and every weight is found by its name."""
    loader = pytest.importorskip("transformers").AutoModelForCausalLM
    adapter = make_llama(tokenizer, **sizes)
    model = adapter.make(5)
    other, found = loader.from_pretrained(save(adapter, model), output_loading_info=True)
    tokens = rows(tokenizer.vocabulary)

    assert type(other).__name__ == "LlamaForCausalLM"
    assert not any(found.values())
    assert other.dtype == torch.float32
    assert (other(tokens).logits - model(tokens)).abs().max() < 1e-5
    assert other.generation_config.eos_token_id == tokenizer.end


@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saved_is_loaded(tied: bool, llama: Llama, tmp_path: Path) -> None:
    """A LlamaForCausalLM from elsewhere, here of 16 bits and with sizes of its own, has the same logits."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 6}
    config = transformers.LlamaConfig(
        **sizes, num_key_value_heads=3, vocab_size=264, eos_token_id=256, tie_word_embeddings=tied, rms_norm_eps=1e-3
    )
    config.rope_parameters["rope_theta"] = 500.0
    other = transformers.LlamaForCausalLM(config).bfloat16()
    other.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(BYTES.json)
    tokens = rows(257)

    assert (llama.load(tmp_path)(tokens) - other.float()(tokens).logits).abs().max() < 1e-5


def test_transformers_tokenizes_as_we_do(tokenizer: Tokenizer, make_llama: Callable[..., Llama], save: Save) -> None:
    """The ids are the same but for written special tokens, which in a document are text; the end token is known."""
    loader = pytest.importorskip("transformers").AutoTokenizer
    adapter = make_llama(tokenizer)
    other = loader.from_pretrained(save(adapter, adapter.make(5)))
    for text, ours in zip(PROSE, tokenizer.encode([text.encode() for text in PROSE]), strict=True):
        assert other(text, split_special_tokens=True).input_ids == ours.tokens.tolist()
        assert other.decode(ours.tokens.tolist()) == text
    assert other.eos_token_id == tokenizer.end
    assert len(other) == tokenizer.vocabulary


def test_what_is_loaded_is_what_was_saved(tokenizer: Tokenizer, make_llama: Callable[..., Llama], save: Save) -> None:
    """Bit by bit, and saved again the files are the same."""
    adapter = make_llama(tokenizer, tied=False)
    folder = save(adapter, adapter.make(5))
    again = save(adapter, adapter.load(folder), "again")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_a_head_that_says_the_embedding_again_is_left_out(llama: Llama, save: Save) -> None:
    """Some folders hold it twice, and tables of rotary positions; another head is another model."""
    folder = save(llama, llama.make(5))
    tensors = load_file(folder / MODEL)
    head = tensors["model.embed_tokens.weight"].clone()
    tables = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file({**tensors, "lm_head.weight": head, **tables}, folder / MODEL)
    assert torch.equal(llama.load(folder).state_dict()["model.embed_tokens.weight"], head)
    save_file({**tensors, "lm_head.weight": head + 1}, folder / MODEL)
    with pytest.raises(StageError, match=r"has beyond the model lm_head\.weight"):
        llama.load(folder)


def test_half_precision_is_read_as_32_bits(llama: Llama, save: Save) -> None:
    """Training needs them."""
    folder = save(llama, llama.make(5))
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / MODEL).items()}
    save_file(tensors, folder / MODEL)
    for name, weight in llama.load(folder).state_dict().items():
        assert torch.equal(weight, tensors[name].float())


def change(name: str, how: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    """Return what changes one tensor of a checkpoint, or takes it out."""

    def harm(folder: Path) -> None:
        tensors = load_file(folder / MODEL)
        tensor = how(tensors.pop(name))
        save_file({**tensors, **({} if tensor is None else {name: tensor})}, folder / MODEL)

    return harm


def cut(folder: Path) -> None:
    """The weights end in the middle."""
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-100])


def gone(folder: Path) -> None:
    """The weights are gone."""
    (folder / MODEL).unlink()


def unsized(folder: Path) -> None:
    """The sizes are gone."""
    (folder / "config.json").unlink()


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (change(NORM, lambda _: torch.ones(7)), [f"{NORM} has shape (7,) instead of (32,)", "config.json"]),
        (change(NORM, lambda _: None), [f"lacks {NORM}"]),
        (change(NORM, lambda x: x.to(torch.int8)), ["holds torch.int8", "torch.float32"]),
        (change(NORM, lambda x: x * torch.nan), [f"{NORM} holds numbers that are not finite", "older"]),
        (change(NORM, lambda x: x / 0), [f"{NORM} holds numbers that are not finite"]),
        (cut, ["no whole safetensors file", "restore it"]),
        (gone, ["no whole safetensors file", "No such file"]),
        (unsized, ["config.json cannot be used", "No such file"]),
    ],
)
def test_a_checkpoint_that_cannot_be_is_a_bad_one(
    harm: Callable[[Path], None], words: list[str], llama: Llama, save: Save
) -> None:
    """Another shape, truncated, not finite: each is told by what is wrong and where."""
    folder = save(llama, llama.make(5))
    harm(folder)
    with pytest.raises(StageError) as caught:
        llama.load(folder)

    assert caught.value.failure == "bad_checkpoint"
    assert [word for word in (*words, str(folder)) if word not in str(caught.value)] == []


def test_another_tokenizer_is_the_users(llama: Llama, save: Save, trained_tokenizer: Tokenizer) -> None:
    """A pipeline whose tokenizer is not the champion's would feed it other numbers."""
    folder = save(llama, llama.make(5))
    other = Llama(ModelSettings(preset="micro"), trained_tokenizer, 32)
    with pytest.raises(StageError, match="another tokenizer than the pipeline's") as caught:
        other.load(folder)
    assert caught.value.failure == "user_error"


def test_a_vocabulary_beyond_the_models_is_told(
    llama: Llama, save: Save, trained_tokenizer: Tokenizer, edit: Callable[..., None]
) -> None:
    """A token without numbers would break training in its middle."""
    folder = save(llama, llama.make(5))
    (folder / "tokenizer.json").write_bytes(trained_tokenizer.json)
    edit(folder / "config.json", eos_token_id=trained_tokenizer.end)
    other = Llama(ModelSettings(preset="micro"), trained_tokenizer, 32)
    with pytest.raises(StageError, match=r"has 300 tokens, the model at .* numbers for 264"):
        other.load(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "mistral"}, "its model_type is 'mistral'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, r"positions are scaled \(llama3\)"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, r"are scaled \(linear\)"),
        ({"hidden_act": "gelu"}, "its activation is 'gelu'"),
        ({"attention_bias": True}, "biases"),
        ({"head_dim": 8}, "its head_dim is 8"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_attention_heads": 5, "head_dim": None}, "width 32 is not a multiple of heads 5"),
        ({"num_hidden_layers": 10**12}, "layers is 1000000000000"),
        ({"hidden_size": "x"}, "hidden_size"),
    ],
)
def test_what_the_decoder_cannot_be_is_told(
    fields: dict[str, object], words: str, llama: Llama, save: Save, edit: Callable[..., None]
) -> None:
    """A config.json of another architecture never is loaded as something that it is not."""
    folder = save(llama, llama.make(5))
    edit(folder / "config.json", **fields)
    with pytest.raises(StageError, match=words) as caught:
        llama.load(folder)
    assert caught.value.failure == "bad_checkpoint"


def test_sizes_come_from_the_checkpoint(llama: Llama, save: Save) -> None:
    """A changed configuration changes what is made from scratch; a champion stays what it is."""
    folder = save(llama, llama.make(5))
    wider = Llama(ModelSettings(preset="micro", sizes=Sizes(width=64)), BYTES, 128)
    made, kept = wider.make(5), wider.load(folder)

    assert isinstance(made, Decoder)
    assert isinstance(kept, Decoder)
    assert (made.config.width, kept.config.width) == (64, 32)
    assert b'"max_position_embeddings": 128' in wider.files(kept)["config.json"]
