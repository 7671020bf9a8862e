"""Modules of the user's own in real stages."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from daemon.core.events import AnyEvent, DataIngested, StageFailed, StageInterrupted, StageSucceeded
from daemon.core.plans import Plan
from stages.run_folder import Arrival, Shard
from stages.training.files import MANIFEST, digest
from stages.training.models.module import Module

Adapt = Callable[[str], Module]
PLAIN = "def make(): return task()"


def test_a_run_goes_on_to_the_same_bits(
    adapt: Adapt,
    place: Callable[..., Path],
    run_stage: Callable[..., list[AnyEvent]],
    make_base_plan: Callable[..., Plan],
    tmp_path: Path,
) -> None:
    """With dropout and noise in the loss, stopped in the middle and gone on from in a process that drew meanwhile."""
    adapter = adapt(
        """
        from pathlib import Path

        def noisy(model, inputs):
            inputs["x"] = inputs["x"] + torch.randn_like(inputs["x"])
            global calls
            calls += 1
            if calls == stop_at:
                Path(stop).write_text("drain")
            return losses(model, inputs)

        calls, stop_at, stop = 0, 0, ""

        def make(): return task(nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1)), losses=noisy)
        """
    )
    plan = make_base_plan(context=1, batch=4, tokens=120)
    plan = msgspec.structs.replace(plan, model=adapter.settings)
    data = tmp_path / "inbox" / "points.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps({"x": [at, -at], "y": at / 9}) + "\n" for at in range(30)))
    arrival = Arrival(
        position=1, path=str(data), format="jsonl", domain="points", bytes=data.stat().st_size, tokens=30, documents=30
    )
    told = run_stage("ingest", plan=plan, arrivals=(arrival,))
    (ingested,) = [event for event in told if isinstance(event, DataIngested)]
    assert (ingested.amount.documents, 20 < ingested.amount.tokens < 30) == (30, True)
    new = (Shard(position=1, domain="points", manifest=ingested.manifest),)

    assert isinstance(run_stage("train", 1, run="r-0", plan=plan, new=new)[-1], StageSucceeded)
    code = sys.modules[str(plan.model.factory).partition(":")[0]]
    first = place("train", 1, run="r-1", plan=plan, new=new)
    vars(code).update(calls=0, stop_at=11, stop=first / "stop")
    assert isinstance(run_stage("train", 1, run="r-1", plan=plan, new=new)[-1], StageInterrupted)
    torch.rand(3)
    ended = run_stage("train", 2, run="r-1", plan=plan, new=new, resume_from=(str(first),))[-1]
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["resumed_at"] >= 10
    one, other = (first.with_name("2"), first.parents[2] / "r-0" / "train" / "1")
    assert digest(one / "candidate" / MANIFEST) == digest(other / "candidate" / MANIFEST)


def test_a_pipeline_keeps_its_kind_of_model(
    adapt: Adapt,
    run_stage: Callable[..., list[AnyEvent]],
    make_base_plan: Callable[..., Plan],
    new: tuple[Shard, ...],
) -> None:
    """What was ingested as text is no example of a module's."""
    plan = msgspec.structs.replace(make_base_plan(context=1), model=adapt(PLAIN).settings)
    failed = run_stage("train", plan=plan, new=new)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert "domain code was kept as text, and the model takes records" in failed.message
