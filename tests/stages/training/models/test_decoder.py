"""The decoder: shapes, causality, initialisation, grouped queries, rotary tables, recomputed activations."""

import copy
import math

import msgspec
import pytest
import torch
import torch.nn.functional as F

from stages.training.models.decoder import PRESETS, Decoder, initialise, rotate, rotation


@pytest.fixture
def model() -> Decoder:
    """A micro model."""
    made = Decoder(PRESETS["micro"])
    initialise(made, 3)
    return made


@pytest.fixture
def tokens() -> torch.Tensor:
    """A few rows."""
    return torch.randint(0, 257, (2, 12), generator=torch.Generator().manual_seed(0))


def test_logits_have_a_row_per_position(model: Decoder) -> None:
    """Each position of each row has a logit per word of the padded vocabulary."""
    assert model(torch.zeros(3, 5, dtype=torch.long)).shape == (3, 5, 264)


def test_nothing_sees_the_future(model: Decoder, tokens: torch.Tensor) -> None:
    """A changed token changes the logits from its position on, and none before."""
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 257
    before, after = model(tokens), model(changed)

    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_model_knows_nothing(tied: bool) -> None:
    """The first loss is that of even odds, within a few hundredths."""
    model = Decoder(msgspec.structs.replace(PRESETS["micro"], tied=tied))
    initialise(model, 3)
    tokens = torch.randint(0, 257, (4, 65), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    assert loss.item() == pytest.approx(math.log(264), abs=0.05)


def test_initialisation_follows_seed_and_depth(model: Decoder) -> None:
    """The same seed draws the same weights; residual outputs shrink with the square root of depth."""
    again, other = Decoder(model.config), Decoder(model.config)
    initialise(again, 3)
    initialise(other, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.model.embed_tokens.weight, other.model.embed_tokens.weight)

    weights = dict(model.named_parameters())
    query = weights["model.layers.0.self_attn.q_proj.weight"].std()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        weight = weights[f"model.layers.0.{name}.weight"]
        fan_in = math.sqrt(weight.shape[1] / model.config.width)
        depth = math.sqrt(2 * model.config.layers)
        assert (query / weight.std()).item() == pytest.approx(depth * fan_in, rel=0.1)


def test_grouped_queries_equal_repeated_heads(model: Decoder, tokens: torch.Tensor) -> None:
    """One shared key-value head gives what two equal ones give."""
    full = Decoder(msgspec.structs.replace(model.config, key_value_heads=2))
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            weights[name] = torch.cat((weight, weight))
    full.load_state_dict(weights)

    assert torch.allclose(model(tokens), full(tokens), atol=1e-6)


def test_an_untied_head_is_a_matrix_of_its_own(model: Decoder, tokens: torch.Tensor) -> None:
    """With the embedding's numbers in it, it gives what the tied model gives; with others, others."""
    untied = Decoder(msgspec.structs.replace(model.config, tied=False))
    head = model.model.embed_tokens.weight.detach()
    untied.load_state_dict({**model.state_dict(), "lm_head.weight": head})
    assert torch.equal(untied(tokens), model(tokens))
    untied.lm_head.weight.data.mul_(2)
    assert torch.equal(untied(tokens), 2 * model(tokens))


def test_rotation_depends_on_distance_alone() -> None:
    """The product of a turned query and key is the same wherever the pair stands."""
    config = PRESETS["nano"]
    cos, sin = rotation(config, 40, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 32, generator=generator)
    queries, keys = (rotate(x.expand(1, 1, 40, 32), cos, sin)[0, 0] for x in (query, key))

    assert torch.allclose(queries[5] @ keys[2], queries[35] @ keys[32], atol=1e-4)


def tables(model: Decoder, length: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tables that a forward pass uses."""
    return model._rotation(length, torch.device(device))  # noqa: SLF001 - what is kept is meant


def test_kept_rotary_tables_are_those_computed_anew(model: Decoder) -> None:
    """Bit by bit: shorter and longer than foreseen, after a change of type, in a copy, and made without memory."""
    with torch.device("meta"):
        unmade = Decoder(model.config)
    made = {
        "as it is": model,
        "16 bits": copy.deepcopy(model).to(torch.bfloat16),
        "copied": copy.deepcopy(model),
        "filled later": unmade.to_empty(device="cpu"),
    }
    for how, each in made.items():
        for length in (1, 13, 2048, 3000, 7):
            for kept, wanted in zip(
                tables(each, length), rotation(model.config, length, torch.device("cpu")), strict=True
            ):
                assert torch.equal(kept, wanted), (how, length)
    with torch.device("meta"):
        assert Decoder(model.config)(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 264)


def test_tables_made_while_measuring_serve_training(model: Decoder) -> None:
    """A window longer than foreseen is met first in evaluation, then in training."""
    long = torch.zeros(1, 2050, dtype=torch.long)
    with torch.inference_mode():
        model(long)
    model(long).mean().backward()
    assert model.model.norm.weight.grad is not None


def test_a_compiled_forward_pass_is_one_graph(model: Decoder, tokens: torch.Tensor) -> None:
    """It does not break, is not compiled again, and gives the same numbers."""
    torch._dynamo.reset()  # noqa: SLF001 - its own tests do so
    with torch._dynamo.config.patch(error_on_recompile=True):  # noqa: SLF001 - as above
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        for _ in range(2):
            assert torch.equal(compiled(tokens), model(tokens))


def test_recomputed_activations_change_nothing(model: Decoder, tokens: torch.Tensor) -> None:
    """Loss and gradients are the same, bit by bit; each block runs once more."""
    again = copy.deepcopy(model)
    again.recompute = True
    calls = []
    again.model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for each in (model, again):
        each(tokens).logsumexp(-1).mean().backward()

    assert len(calls) == 2
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("micro", 0.033), ("nano", 0.89), ("small", 14), ("medium", 85), ("large", 353), ("xl", 974)],
)
def test_presets_have_the_sizes_they_are_said_to_have(name: str, millions: float) -> None:
    """Parameters are counted without making them."""
    with torch.device("meta"):
        count = sum(weight.numel() for weight in Decoder(PRESETS[name]).parameters())

    assert count / 1e6 == pytest.approx(millions, rel=0.02)
    assert len(PRESETS) == 6
