"""What rewarm 0.1.0 saved: `release_0_1_0` was written by that release's own code, its numbers too."""

import json
from pathlib import Path

import pytest
import torch

from stages.training.engine.checkpoint import OPTIMISER, load_optimiser, verify
from stages.training.engine.optimiser import make_optimiser, set_rate
from stages.training.models import legacy
from stages.training.models.llama import Llama
from stages.training.models.parts import check_moments

FOLDER = Path(__file__).parent / "release_0_1_0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def test_its_checkpoints_are_gone_on_from(llama: Llama) -> None:
    """The same logits, and with its optimiser's state the same next step; saved again it has today's layout."""
    verify(FOLDER)
    model = llama.load(FOLDER)
    check_moments(FOLDER, model)
    tokens = torch.tensor([EXPECTED["tokens"]])
    assert model(tokens)[0, -1, :8].tolist() == pytest.approx(EXPECTED["logits"], abs=1e-6)

    optimiser = make_optimiser(model)
    load_optimiser(FOLDER, model, optimiser)
    set_rate(optimiser, 0.01)
    model(tokens).square().mean().backward()
    optimiser.step()
    assert model(tokens)[0, -1, :8].tolist() == pytest.approx(EXPECTED["after_one_more_step"], abs=1e-6)
    assert json.loads(llama.files(model)["config.json"])["model_type"] == "llama"


def test_names_of_today_are_left_as_they_are(llama: Llama) -> None:
    """Only its own names are changed, and only in its own folders."""
    names = llama.make(0).state_dict()
    assert legacy.renamed(names).keys() == names.keys()
    assert legacy.is_old(FOLDER)
    assert not legacy.is_old(FOLDER.parent)
    assert legacy.config_of(llama.files(llama.make(0))["config.json"]) is None
    assert (FOLDER / OPTIMISER).exists()
