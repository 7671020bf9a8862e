"""Probe, evaluate and promote: what is measured, and what is published."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.core.events import (
    AnyEvent,
    ModelEvaluated,
    ModelPromoted,
    ProbeMeasured,
    StageFailed,
    StageSucceeded,
)
from daemon.core.plans import Plan
from stages.run_folder import Champion, Shard
from stages.training.checkpoint import verify

Run = Callable[..., list[AnyEvent]]
Place = Callable[..., Path]
Shards = tuple[Shard, ...]


@pytest.fixture
def plan(make_increment_plan: Callable[..., Plan], champion: Champion) -> Plan:
    """An increment of the champion."""
    return make_increment_plan(champion)


def test_probe_without_a_champion(run_stage: Run, new: Shards) -> None:
    """There is nothing to measure before the first model."""
    _, measured, ended = run_stage("probe", run="p-3", new=new)

    assert isinstance(measured, ProbeMeasured)
    assert (measured.new, measured.past, measured.shift) == ({}, {}, None)
    assert isinstance(ended, StageSucceeded)


def test_probe_sees_the_shift(run_stage: Run, champion: Champion, new: Shards, past: Shards) -> None:
    """Text of another domain is further away than the past; the past itself is not."""
    _, far, _ = run_stage("probe", 1, run="p-3", champion=champion, new=new, past=past)
    _, near, _ = run_stage("probe", 2, run="p-3", champion=champion, new=past, past=past)

    assert isinstance(far, ProbeMeasured)
    assert isinstance(near, ProbeMeasured)
    assert far.shift is not None
    assert far.shift > 0.2
    assert far.shift == pytest.approx(far.new["code"].mean - far.past["prose"].mean)
    assert near.shift == 0.0


def test_a_run_from_training_to_promotion(
    trained_state: Path, run_stage: Run, place: Place, champion: Champion, new: Shards, past: Shards, plan: Plan
) -> None:
    """The candidate learns the new domain, is compared in pairs, and is published once with its trunk."""
    common = {"run": "p-3", "plan": plan, "champion": champion, "new": new, "past": past}
    run_stage("train", **common)
    done = {"train": str(place("train", **common))}
    events = run_stage("evaluate", done=done, **common)
    evaluated = events[1]

    assert isinstance(evaluated, ModelEvaluated)
    assert evaluated.domains.keys() == {"code", "prose"}
    difference = evaluated.domains["code"].difference
    assert difference is not None
    assert difference.high < 0.0
    for comparison in evaluated.domains.values():
        assert comparison.champion is not None
        assert comparison.difference is not None
        assert comparison.candidate.low <= comparison.candidate.mean <= comparison.candidate.high
        assert comparison.difference.mean == pytest.approx(
            comparison.candidate.mean - comparison.champion.mean, abs=1e-8
        )

    done["evaluate"] = str(place("evaluate", done=done, **common))
    promoted = run_stage("promote", 1, done=done, model_version=2, **common)[1]
    assert isinstance(promoted, ModelPromoted)
    assert promoted.path == "models/p/v2"
    assert promoted.parent == 1
    assert promoted.losses == {domain: each.candidate.mean for domain, each in evaluated.domains.items()}
    target = trained_state / promoted.path
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json", "trunk"} == {
        path.name for path in target.iterdir()
    }
    verify(target, promoted.sha256)
    verify(trained_state / promoted.trunk.path, promoted.trunk.sha256)

    inode = target.stat().st_ino
    again = run_stage("promote", 2, done=done, model_version=2, **common)[1]
    assert isinstance(again, ModelPromoted)
    assert (again.path, again.sha256, again.trunk) == (promoted.path, promoted.sha256, promoted.trunk)
    assert target.stat().st_ino == inode

    (target / MODEL).write_bytes(b"left by a run that died")
    run_stage("promote", 3, done=done, model_version=2, **common)
    verify(target, promoted.sha256)

    refused = run_stage("promote", 4, done=done, model_version=1, **common)[-1]
    assert isinstance(refused, StageFailed)
    assert refused.failure == "user_error"
    verify(trained_state / champion.model.path, champion.model.sha256)

    (Path(done["train"]) / "candidate" / MODEL).write_bytes(b"damaged")
    failed = run_stage("promote", 5, done=done, model_version=3, **common)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_checkpoint"
    assert not (trained_state / "models" / "p" / "v3").exists()


def test_a_candidate_that_was_not_the_evaluated_one_is_refused(
    trained_state: Path, run_stage: Run, champion: Champion
) -> None:
    """Promotion rests on the evaluation of exactly these weights."""
    done = {name: str(trained_state / "runs" / "p-1" / name / "1") for name in ("train", "evaluate")}
    evaluation = Path(done["evaluate"]) / "evaluation.json"
    evaluated = evaluation.read_text()
    candidate = json.loads(evaluated)["candidate"]["sha256"]
    evaluation.write_text(evaluated.replace(candidate, "0" * 64))
    failed = run_stage("promote", 2, done=done, model_version=2)[-1]

    assert isinstance(failed, StageFailed)
    assert "evaluate it again" in failed.message


def test_a_changed_champion_is_never_measured(
    trained_state: Path, run_stage: Run, champion: Champion, new: Shards, past: Shards
) -> None:
    """Files that are not those recorded make the stage fail as bad_checkpoint."""
    (trained_state / champion.model.path / MODEL).write_bytes(b"changed")
    failed = run_stage("probe", run="p-3", champion=champion, new=new, past=past)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_checkpoint"


@pytest.mark.parametrize("stage", ["evaluate", "promote"])
def test_no_candidate(run_stage: Run, new: Shards, stage: str) -> None:
    """Without a finished train stage the message says what to change."""
    failed = run_stage(stage, run="p-3", new=new)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "user_error"
    assert "`stages`" in failed.message


def test_nothing_held_out(run_stage: Run, trained_state: Path) -> None:
    """With nothing held out the stage says so, instead of judging by nothing."""
    done = {"train": str(trained_state / "runs" / "p-1" / "train" / "1")}
    failed = run_stage("evaluate", 2, done=done)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_sample"
