"""The decoder: shapes, causality, initialisation, grouped queries."""

import math

import msgspec
import pytest
import torch
import torch.nn.functional as F

from daemon.core.errors import StageError
from stages.training.models.decoder import PRESETS, Decoder, initialise, preset, rotate, rotation
from stages.training.shards import VOCABULARY


@pytest.fixture
def model() -> Decoder:
    """A micro model."""
    made = Decoder(PRESETS["micro"])
    initialise(made, 3)
    return made


def test_logits_have_a_row_per_position(model: Decoder) -> None:
    """Each position of each row has a logit per word of the padded vocabulary."""
    logits = model(torch.zeros(3, 5, dtype=torch.long))

    assert logits.shape == (3, 5, 264)
    assert model.config.vocabulary >= VOCABULARY


def test_nothing_sees_the_future(model: Decoder) -> None:
    """A changed token changes the logits from its position on, and none before."""
    tokens = torch.randint(0, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 257
    before, after = model(tokens), model(changed)

    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_a_new_model_knows_nothing(model: Decoder) -> None:
    """The first loss is that of even odds, within a few hundredths."""
    tokens = torch.randint(0, 257, (4, 65), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    assert loss.item() == pytest.approx(math.log(264), abs=0.05)


def test_initialisation_follows_seed_and_depth(model: Decoder) -> None:
    """The same seed draws the same weights; residual outputs shrink with the square root of depth."""
    again, other = Decoder(model.config), Decoder(model.config)
    initialise(again, 3)
    initialise(other, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.embedding.weight, other.embedding.weight)

    weights = dict(model.named_parameters())
    query = weights["blocks.0.attention.query.weight"].std()
    output = weights["blocks.0.attention.output.weight"].std()
    assert (query / output).item() == pytest.approx(math.sqrt(2 * model.config.layers), rel=0.1)


def test_grouped_queries_equal_repeated_heads(model: Decoder) -> None:
    """One shared key-value head gives what two equal ones give."""
    config = msgspec.structs.replace(model.config, key_value_heads=2)
    full = Decoder(config)
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("key.weight", "value.weight")):
            weights[name] = torch.cat((weight, weight))
    full.load_state_dict(weights)
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))

    assert torch.allclose(model(tokens), full(tokens), atol=1e-6)


def test_rotation_depends_on_distance_alone() -> None:
    """The product of a turned query and key is the same wherever the pair stands."""
    config = PRESETS["nano"]
    cos, sin = rotation(config, 40, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 32, generator=generator)
    queries, keys = (rotate(x.expand(1, 1, 40, 32), cos, sin)[0, 0] for x in (query, key))

    assert torch.allclose(queries[5] @ keys[2], queries[35] @ keys[32], atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [("llama", "giant"), ("hf", "nano")])
def test_unknown_models_are_named_with_the_known(kind: str, name: str) -> None:
    """A wrong kind or preset is the user's error, and the message lists the choices."""
    with pytest.raises(StageError, match=r"known (kinds|presets)") as caught:
        preset(kind, name)

    assert caught.value.failure == "user_error"


@pytest.mark.parametrize(("name", "millions"), [("micro", 0.03), ("nano", 0.9), ("small", 14), ("medium", 85)])
def test_presets_have_the_sizes_they_are_said_to_have(name: str, millions: float) -> None:
    """Parameters are counted without making them."""
    with torch.device("meta"):
        count = sum(weight.numel() for weight in Decoder(PRESETS[name]).parameters())

    assert count / 1e6 == pytest.approx(millions, rel=0.15)
