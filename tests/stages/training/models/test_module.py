"""Modules of the user's own: made, kept, fed and measured, and every mistake told with what to do."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_file

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.models.base import Row
from stages.training.models.module import Module

CPU = torch.device("cpu")
Adapt = Callable[[str], Module]
PLAIN = "def make(): return task()"


def rows(*records: object) -> list[Row]:
    """Return records as shards give them."""
    return [np.frombuffer(json.dumps(record).encode(), dtype=np.uint8) for record in records]


RECORDS = rows({"x": [1.0, 2.0], "y": 1.0}, {"x": [0.0, -1.0], "y": 0.5}, {"x": [3.0, 1.0], "y": 2.0})


def keep(adapter: Module, model: torch.nn.Module, folder: Path) -> Path:
    """Keep a model as a checkpoint does."""
    folder.mkdir()
    for name, content in adapter.files(model).items():
        (folder / name).write_bytes(content)
    save_file(
        {name: tensor.contiguous() for name, tensor in adapter.weights(model).items()}, folder / "model.safetensors"
    )
    return folder


def test_the_same_seed_makes_the_same_model(adapt: Adapt) -> None:
    """Whatever was drawn before, and whichever of the three usual generators it draws from; they go on undisturbed."""
    adapter = adapt(
        """
        def make():
            model = nn.Linear(2, 1)
            model.register_buffer("noise", torch.tensor([random.random(), np.random.random()]))
            return task(model)
        """
    )

    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), random.random(), np.random.random()  # noqa: NPY002

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = draw()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
    one = adapter.make(5).state_dict()
    assert draw() == expected
    same, other = adapter.make(5).state_dict(), adapter.make(6).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_a_row_is_a_record(adapt: Adapt) -> None:
    """Losses are the task's own, one each, and gradients flow through them; a whole example counts once."""
    adapter = adapt(PLAIN)
    model = adapter.make(1)
    losses = adapter.row_losses(model, adapter.collate(RECORDS, CPU))
    with torch.no_grad():
        answers = model(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]])).squeeze(1)
    assert losses.tolist() == pytest.approx(((answers - torch.tensor([1.0, 0.5, 2.0])) ** 2).tolist())
    (gradient,) = torch.autograd.grad(losses.mean(), [model.get_parameter("weight")])
    assert gradient.abs().sum() > 0
    assert not adapter.windows


def test_documents_are_measured_in_evaluation_mode(adapt: Adapt) -> None:
    """In batches whose size changes nothing, with a sign of life after each."""
    adapter = adapt("def make(): return task(nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1)))")
    model = adapter.make(1)
    model.train()
    beats: list[int] = []
    many = adapter.document_nats(model, RECORDS * 50, context=1, beat=lambda: beats.append(1))
    assert many.shape == (150,)
    assert len(beats) == 3
    assert many[:3] == pytest.approx(adapter.document_nats(model, RECORDS, context=1, beat=lambda: None))
    assert len(adapter.document_nats(model, [], context=1, beat=lambda: None)) == 0


def test_what_a_module_keeps_of_a_measurement_can_be_trained_with(adapt: Adapt) -> None:
    """Such as a table that it made for the sizes that it met there."""
    adapter = adapt(
        """
        class Tabled(nn.Linear):
            table = None
            def forward(self, x):
                if self.table is None:
                    self.table = torch.full((1, 2), 2.0)
                return super().forward(x) * self.table[:, :1]

        def make(): return task(Tabled(2, 1))
        """
    )
    model = adapter.make(1)
    adapter.document_nats(model, RECORDS, context=1, beat=lambda: None)
    model.train()
    adapter.row_losses(model, adapter.collate(RECORDS, CPU)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in model.parameters())


def test_what_is_kept_comes_back(adapt: Adapt, tmp_path: Path) -> None:
    """Parameters and buffers bit by bit; a tensor of two names lies there once, and stays one."""
    adapter = adapt(
        """
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(2, 2, bias=False)
                self.norm = nn.BatchNorm1d(2)
                self.second = nn.Linear(2, 2, bias=False)
                self.second.weight = self.first.weight
                self.register_buffer("nothing", torch.zeros(0))
                self.register_buffer("nothing_else", torch.zeros(0))

            def forward(self, x):
                return self.second(self.norm(self.first(x)))[:, :1]

        def make(): return task(Tied())
        """
    )
    model = adapter.make(1)
    adapter.row_losses(model, adapter.collate(RECORDS, CPU))  # moves the running averages
    assert "second.weight" not in adapter.weights(model)
    folder = keep(adapter, model, tmp_path / "kept")
    loaded = adapter.load(folder)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.get_parameter("second.weight") is loaded.get_parameter("first.weight")
    load_model(adapter.make(7), folder / "model.safetensors")
    factory = f"{json.loads((folder / 'config.json').read_text())['factory']}"
    assert json.loads((folder / "config.json").read_text()) == {
        "model_type": "rewarm-module",
        "version": 1,
        "factory": factory,
    }
    assert factory.endswith(":make")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "def make(): return task(nn.Linear(3, 1))",
            r"weight is \(1, 2\) float32 and the module's is \(1, 3\) float32",
        ),
        ("def make(): return task(nn.Linear(2, 1, bias=False))", "bias is not in the module"),
        (
            "def make(): return task(nn.Sequential(nn.Linear(2, 1)))",
            r"0\.weight is missing; 0\.bias is missing; bias",
        ),
        ("def make(): return task(nn.Linear(2, 1).double())", "the module's is .* float64"),
    ],
)
def test_weights_of_another_shape_are_told_by_name(adapt: Adapt, tmp_path: Path, source: str, told: str) -> None:
    """All that differs, or the first of it."""
    kept = adapt(PLAIN)
    folder = keep(kept, kept.make(1), tmp_path / "kept")
    with pytest.raises(StageError, match=told) as refused:
        adapt(source).load(folder)
    assert refused.value.failure == "bad_checkpoint"


@pytest.mark.parametrize("config", [b"{", b'{"kind": "llama"}', b'{"model_type": "gpt2", "factory": "a:b"}'])
def test_another_kind_of_model_is_told(adapt: Adapt, tmp_path: Path, config: bytes) -> None:
    """And so are weights that are not there."""
    adapter = adapt(PLAIN)
    folder = keep(adapter, adapter.make(1), tmp_path / "kept")
    (folder / "config.json").write_bytes(config)
    with pytest.raises(StageError) as refused:
        adapter.load(folder)
    assert refused.value.failure == "bad_checkpoint"
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nowhere_at_all", "cannot be imported .*nowhere_at_all.*PYTHONPATH"),
        ("def other(): pass", "cannot be imported .*has no attribute 'make'"),
        ("def make(): raise RuntimeError('no disk')", "raised RuntimeError: no disk"),
        ("def make(size): return task()", "called without arguments"),
        ("def make(): return nn.Linear(2, 1)", "of type Linear"),
        ("def make(): return task(nn.ReLU())", "parameters that can be trained"),
        ("def make(): return task(nn.Linear(2, 1).requires_grad_(False))", "parameters that can be trained"),
        ("def make(): return task('model')", "must be an nn.Module"),
    ],
)
def test_a_factory_that_makes_nothing_is_told(adapt: Adapt, source: str, told: str) -> None:
    """With the factory's name and what to do, never with a traceback."""
    with pytest.raises(StageError, match=told) as refused:
        adapt(source).make(1)
    assert refused.value.failure == "user_error"
    assert "user_code_" in str(refused.value)


def test_a_module_in_no_package_is_told() -> None:
    """Before anything is imported that belongs to rewarm's own process."""
    before = set(sys.modules)
    with pytest.raises(StageError, match="No module named 'nowhere_at_all'"):
        Module(ModelSettings(kind="module", preset="", factory="nowhere_at_all:make")).make(1)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("nn.LazyLinear(1)", "'weight' in the module's state is a UninitializedParameter"),
        ("Extra()", "'_extra_state' in the module's state is a dict"),
    ],
)
def test_state_that_cannot_be_kept_is_told(adapt: Adapt, model: str, told: str) -> None:
    """Before anything is trained that would be lost."""
    adapter = adapt(
        f"""
        class Extra(nn.Linear):
            def __init__(self): super().__init__(2, 1)
            def get_extra_state(self): return {{"a": 1}}
            def set_extra_state(self, state): pass

        def make(): return task({model})
        """
    )
    with pytest.raises(StageError, match=told) as refused:
        adapter.make(1)
    assert refused.value.failure == "user_error"


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ("F.mse_loss(model(inputs['x']).squeeze(1), inputs['y'][0])", r"gave a tensor of \(\) float32"),
        ("F.mse_loss(model(inputs['x']), inputs['y'][0][:, None], reduction='none')", r"\(3, 1\) float32.*\(3,\)"),
        ("model(inputs['x']).squeeze(1).long()", "int64"),
        ("3.5", "gave a float"),
        ("model(inputs['x']).squeeze(1).detach()", "no gradient flows"),
    ],
)
def test_losses_that_are_none_are_told(adapt: Adapt, losses: str, told: str) -> None:
    """With what they were and what they must be."""
    adapter = adapt(f"def make(): return task(losses=lambda model, inputs: {losses})")
    model = adapter.make(1)
    with pytest.raises(StageError, match=told) as refused:
        adapter.row_losses(model, adapter.collate(RECORDS, CPU))
    assert refused.value.failure == "user_error"


def test_a_loss_that_is_no_number_is_told_with_its_example(adapt: Adapt) -> None:
    """While evaluating; in training the loop looks at every loss itself."""
    adapter = adapt(PLAIN)
    model = adapter.make(1)
    examples = [*RECORDS, *rows({"x": [1.0, 1e300], "y": 0.0})]
    with pytest.raises(StageError, match=r"first on .*1e\+300") as refused:
        adapter.document_nats(model, examples, context=1, beat=lambda: None)
    assert refused.value.failure == "not_finite"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"pixels": [1, 2], "label": 3}, r"KeyError: 'x'.*fields are pixels, label, and it begins .*\[1, 2\]"),
        ({"x": [1.0, 2.0], "y": "one"}, "fields are x, y"),
        ({}, "fields are none"),
    ],
)
def test_a_record_that_is_refused_is_named(adapt: Adapt, record: object, told: str) -> None:
    """By its fields and its beginning, out of a batch of good ones."""
    adapter = adapt(PLAIN)
    adapter.make(1)
    with pytest.raises(StageError, match=told) as refused:
        adapter.collate([*RECORDS, *rows(record), *RECORDS], CPU)
    assert refused.value.failure == "bad_sample"


def test_records_that_do_not_go_together_are_told(adapt: Adapt) -> None:
    """Each alone is taken."""
    adapter = adapt(PLAIN)
    adapter.make(1)
    with pytest.raises(StageError, match="alone and not together") as refused:
        adapter.collate([*RECORDS, *rows({"x": [1.0], "y": 0.0})], CPU)
    assert refused.value.failure == "bad_sample"


@pytest.mark.parametrize("example", [b"[1, 2]", b"{", b""])
def test_an_example_that_is_no_object_is_told(adapt: Adapt, example: bytes) -> None:
    """A shard holds objects alone."""
    adapter = adapt(PLAIN)
    adapter.make(1)
    with pytest.raises(StageError, match="no JSON object") as refused:
        adapter.collate([np.frombuffer(example, dtype=np.uint8)], CPU)
    assert refused.value.failure == "bad_sample"


def test_memory_that_runs_out_is_told_as_such(adapt: Adapt) -> None:
    """And not as a bad record."""
    adapter = adapt("def make(): return task(collate=refuse)\ndef refuse(records): raise MemoryError")
    adapter.make(1)
    with pytest.raises(MemoryError):
        adapter.collate(RECORDS, CPU)


def test_a_named_tuple_stays_one(adapt: Adapt) -> None:
    """Inputs keep their form on their way to the device."""
    adapter = adapt(
        """
        from collections import namedtuple
        Pair = namedtuple("Pair", "x, y")

        def pair(records):
            made = collate(records)
            return Pair(made["x"], made["y"][0])

        def make(): return task(collate=pair, losses=lambda model, pair: (model(pair.x).squeeze(1) - pair.y) ** 2)
        """
    )
    model = adapter.make(1)
    assert adapter.row_losses(model, adapter.collate(RECORDS, CPU)).shape == (3,)


def test_it_recomputes_nothing(adapt: Adapt) -> None:
    """What to compute again only the module can know."""
    adapter = adapt(PLAIN)
    with pytest.raises(StageError, match="recompute"):
        adapter.recompute(adapter.make(1))
