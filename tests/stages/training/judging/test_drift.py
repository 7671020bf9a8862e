"""Distances between new documents and past ones: nothing where nothing differs, more where more does."""

import numpy as np
import pytest

from stages.training.judging.drift import FEWEST, of_losses, of_tokens


def losses(mean: float, *, count: int = 64, seed: int = 1) -> np.ndarray:
    """Return losses of documents about a mean."""
    return np.random.default_rng(seed).normal(mean, 0.1, count)


def documents(letters: str, *, count: int = 40, seed: int = 1) -> list[np.ndarray]:
    """Return documents of 200 letters, each drawn from these."""
    generator = np.random.default_rng(seed)
    return [generator.choice(list(letters.encode()), 200) for _ in range(count)]


def test_samples_of_one_kind_are_near() -> None:
    """Two samples of one distribution are near each other by every measure, and the test does not tell them apart."""
    told = of_losses(losses(1.5), losses(1.5, seed=2)) | of_tokens(documents("abcd"), documents("abcd", seed=2))

    assert set(told) == {"ks", "ks_p", "wasserstein", "tokens", "features"}
    assert told["ks"] < 0.3
    assert told["ks_p"] > 0.05
    assert told["wasserstein"] < 0.05
    assert told["tokens"] < 0.1
    assert told["features"] == 0


def test_what_lies_further_is_told_as_further() -> None:
    """Distances grow with the shift; one of the losses is told in the loss's own unit."""
    near, far = (of_losses(losses(1.5 + shift), losses(1.5, seed=2)) for shift in (0.1, 0.4))

    assert near["ks"] < far["ks"]
    assert far["wasserstein"] == pytest.approx(0.4, abs=0.05)
    assert far["ks_p"] < near["ks_p"] < 0.05


def test_other_tokens_are_told_whatever_the_losses() -> None:
    """Documents of other letters share no token: the distance is the greatest, and every frequent token differs."""
    told = of_tokens(documents("abcd"), documents("wxyz"))

    assert told["tokens"] == pytest.approx(1)
    assert told["features"] == pytest.approx(8 / 64)  # of the 64 that were looked at, eight occur at all
    assert of_tokens(documents("wxyz"), documents("abcd")) == told


def test_a_distance_does_not_depend_on_how_many_documents_there_are() -> None:
    """Ten times the documents leave the distance about what it was; the p-value falls to nothing."""
    few, many = (of_losses(losses(1.6, count=n), losses(1.5, count=n, seed=2)) for n in (60, 600))

    assert many["wasserstein"] == pytest.approx(few["wasserstein"], abs=0.04)
    assert many["ks_p"] < few["ks_p"] / 1000


def test_a_handful_of_documents_tells_nothing() -> None:
    """Below eight documents on either side no distance is told."""
    assert of_losses(losses(1.5, count=FEWEST - 1), losses(1.5)) == {}
    assert of_tokens(documents("abcd"), documents("abcd", count=FEWEST - 1)) == {}
