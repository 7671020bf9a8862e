"""Sizes: a preset with what the configuration changes, and what cannot be."""

import pytest
from msgspec.structs import replace

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings, Sizes
from stages.training.models.decoder import PRESETS
from stages.training.models.sizes import choose, fault


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("vocabulary", "rounded"), [(257, 264), (264, 264), (32_001, 32_008)])
def test_a_preset_takes_the_tokenizers_vocabulary(preset: str, vocabulary: int, rounded: int) -> None:
    """Rounded up to a multiple of eight; every preset is a model that there can be."""
    config = choose(ModelSettings(preset=preset), vocabulary=vocabulary, positions=64)

    assert config == replace(PRESETS[preset], vocabulary=rounded, positions=64)


def test_sizes_differ_from_the_preset_where_it_is_said() -> None:
    """All else stays."""
    sizes = Sizes(width=96, layers=3, heads=6, key_value_heads=2, hidden=40, tied=False)
    config = choose(ModelSettings(preset="micro", sizes=sizes), vocabulary=257, positions=64)

    assert config == replace(
        PRESETS["micro"], width=96, layers=3, heads=6, key_value_heads=2, hidden=40, tied=False, positions=64
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ModelSettings(preset="giant"), ["'giant' is not known", "micro, nano, small, medium, large, xl"]),
        (ModelSettings(sizes=Sizes(width=100, heads=3)), ["width 100 is not a multiple of heads 3", "`model`"]),
        (ModelSettings(sizes=Sizes(width=12, heads=4)), ["width 12 over heads 4 is odd", "pairs"]),
        (ModelSettings(sizes=Sizes(heads=2)), ["heads 2 is not a multiple of key_value_heads 4"]),
        (ModelSettings(sizes=Sizes(layers=100_000)), ["layers is 100000, not within 1 and 10,000"]),
        (ModelSettings(sizes=Sizes(hidden=0)), ["hidden is 0"]),
    ],
)
def test_sizes_that_cannot_be_are_the_users(settings: ModelSettings, words: list[str]) -> None:
    """The message names the numbers and what is known."""
    with pytest.raises(StageError) as caught:
        choose(settings, vocabulary=257, positions=64)

    assert caught.value.failure == "user_error"
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_reals_must_be_positive_numbers(value: float) -> None:
    """A folder from elsewhere may say anything."""
    assert "norm_epsilon" in str(fault(replace(PRESETS["micro"], norm_epsilon=value)))
    assert "rope_base" in str(fault(replace(PRESETS["micro"], rope_base=value)))
