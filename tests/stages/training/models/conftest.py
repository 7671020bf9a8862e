"""Tokenizers, adapters, checkpoints of models of a few thousand numbers, and modules of the user's own."""

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import tokenizers
from torch import nn

from daemon.core.plans import ModelSettings, Sizes
from stages.training.data.encoding import BYTES, Tokenizer
from stages.training.data.tokenizers import read_tokenizer
from stages.training.models.base import Adapter
from stages.training.models.llama import Llama
from stages.training.models.module import Module
from tests.stages.training.saving import save_checkpoint

CONTEXT = 32
TEXT = ["the a model learns from text, and then it reads more of the same old words: héllo"] * 8


@pytest.fixture(scope="session")
def trained_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level tokenizer that has learned a few words."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return read_tokenizer(path)


@pytest.fixture(params=["bytes", "trained"])
def tokenizer(request: pytest.FixtureRequest, trained_tokenizer: Tokenizer) -> Tokenizer:
    """Each of the tokenizers."""
    return BYTES if request.param == "bytes" else trained_tokenizer


@pytest.fixture
def llama() -> Llama:
    """The adapter of the micro decoder of bytes."""
    return Llama(ModelSettings(preset="micro"), BYTES, CONTEXT)


@pytest.fixture
def make_llama() -> Callable[..., Llama]:
    """Give the adapter of a micro decoder: (tokenizer, **sizes)."""
    return lambda tokenizer=BYTES, **sizes: Llama(
        ModelSettings(preset="micro", sizes=Sizes(**sizes)), tokenizer, CONTEXT
    )


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a model as a checkpoint without the state of an optimiser: (adapter, model, name) → its folder."""

    def write(adapter: Adapter, model: nn.Module, name: str = "saved") -> Path:
        save_checkpoint(tmp_path / name, adapter, model, None, step=1, steps=1, seed=0, plan="")
        return tmp_path / name

    return write


@pytest.fixture
def edit() -> Callable[..., None]:
    """Change fields of a JSON file: (path, **fields)."""

    def change(path: Path, **fields: object) -> None:
        path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **fields}))

    return change


NUMBERS = itertools.count()
START = """
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stages.training.task import Task


def collate(records):
    x = torch.tensor([record["x"] for record in records], dtype=torch.float32)
    return {"x": x, "y": [torch.tensor([record["y"] for record in records], dtype=torch.float32)]}


def losses(model, inputs):
    return F.mse_loss(model(inputs["x"]).squeeze(1), inputs["y"][0], reduction="none")


def task(model=None, **changed):
    return Task(**{"model": model or nn.Linear(2, 1), "collate": collate, "losses": losses, **changed})

"""
Adapt = Callable[[str], Module]


@pytest.fixture
def adapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adapt:
    """Give the adapter of a factory `make` with this source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> Module:
        name = f"user_code_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(START + textwrap.dedent(source))
        return Module(ModelSettings(kind="module", preset="", factory=f"{name}:make"))

    return write
