"""Shards of a model, as far as one process can show them; and by what processes talk."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from daemon.core.errors import StageError
from daemon.core.plans import ModelSettings
from stages.training.models.module import Module
from stages.training.parallel.group import Shards
from stages.training.parallel.rank import choose_backend


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shards]:
    """A group of one."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield Shards(half=False)
    dist.destroy_process_group()


def test_a_sharded_module_keeps_every_weight_once(shards: Shards) -> None:
    """By the first of its names, buffers too; and the leader has them whole."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    module[1].weight = module[0].weight
    expected = {name: value.clone() for name, value in module.state_dict().items() if name != "1.weight"}
    shards.wrap(module)
    adapter = Module(ModelSettings(kind="module", factory="nowhere:none"))
    parts = adapter.weights(module)
    assert isinstance(parts["0.weight"], DTensor)
    whole = shards.whole(parts)
    assert list(whole) == list(expected)
    assert all(torch.equal(whole[name], value) for name, value in expected.items())


def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor there is nothing to share out."""
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_backend(2, 1) == "gloo"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    assert choose_backend(2, 1) == "cpu:gloo,cuda:nccl"
    assert chosen == [1]
    with pytest.raises(StageError, match="`processes` is 3, but CUDA shows 2") as caught:
        choose_backend(3, 2)
    assert caught.value.failure == "user_error"


def test_only_the_leader_holds_what_is_whole(shards: Shards) -> None:
    """The others let each weight go before the next: together these are what a device has no room for."""
    module = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    parts = dict(shards.wrap(module).named_parameters())
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    class Watched(dict[str, torch.Tensor]):
        def items(self) -> Iterator[tuple[str, torch.Tensor]]:  # type: ignore[override]
            nonlocal most
            for each in super().items():
                most = max(most, sum(reference() is not None for reference in alive))
                yield each

    full = DTensor.full_tensor

    def watched(self: DTensor) -> torch.Tensor:
        whole = full(self).clone()
        alive.append(weakref.ref(whole))
        return whole

    shards.rank = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DTensor, "full_tensor", watched)
        assert shards.whole(Watched(parts)) == {}
    assert len(alive) == 4
    assert most == 1
