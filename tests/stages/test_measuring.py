"""Probe, evaluate and promote: what is measured, and what is published."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from daemon.core.events import (
    AnyEvent,
    Lengths,
    ModelEvaluated,
    ModelPromoted,
    ProbeMeasured,
    StageFailed,
    StageSucceeded,
)
from daemon.core.plans import Plan
from stages.probe import lengths, near_duplicates, together
from stages.run_folder import Champion, Shard
from stages.training.data.manifests import Manifest
from stages.training.engine.checkpoint import verify
from stages.training.files import MANIFEST, MODEL, stamp

Run = Callable[..., list[AnyEvent]]
Place = Callable[..., Path]
Shards = tuple[Shard, ...]


@pytest.fixture
def plan(make_increment_plan: Callable[..., Plan], champion: Champion) -> Plan:
    """An increment of the champion."""
    return make_increment_plan(champion)


def test_probe_without_a_champion(run_stage: Run, new: Shards) -> None:
    """Before the first model there is no loss to measure, and still the documents are described."""
    _, measured, ended = run_stage("probe", run="p-3", new=new)

    assert isinstance(measured, ProbeMeasured)
    assert (measured.new, measured.past, measured.shift) == ({}, {}, None)
    assert (measured.shift_low, measured.shift_high) == (None, None)
    assert measured.near_duplicates == {"code": 0.0}
    assert measured.lengths["code"].documents == 60
    assert measured.lengths["code"].ascii == 1.0
    assert isinstance(ended, StageSucceeded)


def test_arrivals_of_a_domain_are_described_together() -> None:
    """Shares count by bytes, the mean and the median by documents; the longest is the longest of all."""
    one = Lengths(documents=1, mean=1000.0, median=1000.0, longest=1000, ascii=1.0, whitespace=0.1, digits=0.0)
    many = Lengths(documents=9, mean=1000 / 3, median=300.0, longest=700, ascii=0.5, whitespace=0.3, digits=0.2)

    assert together([one]) == one
    both = together([one, many])
    assert (both.documents, both.mean, both.median, both.longest) == (10, 400.0, 300.0, 1000)
    assert (both.ascii, both.whitespace, both.digits) == pytest.approx((0.625, 0.25, 0.15))


def test_what_ingest_did_not_count_is_not_told() -> None:
    """One shard of an earlier release is enough to leave out the near-duplicates and the lengths of its domain."""
    lengths_of = Lengths(documents=8, mean=9.0, median=9.0, longest=9, ascii=1.0, whitespace=0.1, digits=0.0)
    old = Manifest(
        source_sha256="0" * 64,
        domain="a",
        train_documents=7,
        train_tokens=70,
        held_out_documents=1,
        held_out_tokens=10,
        text_bytes=72,
        duplicates=0,
        files={},
    )
    new = msgspec.structs.replace(old, near_duplicates=2, lengths=lengths_of)

    assert near_duplicates({"a": [new, new], "b": [new, old]}) == {"a": 0.25}
    assert lengths({"a": [new], "b": [new, old]}) == {"a": lengths_of}


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
    assert far.shift_low is not None
    assert far.shift_high is not None
    assert far.shift_low < far.shift < far.shift_high


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
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json", "trunk"} <= {
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


def test_a_candidate_with_a_broken_weight_is_refused(
    trained_state: Path, run_stage: Run, champion: Champion, new: Shards
) -> None:
    """A number that is not finite is enough, also in the embedding of a byte that no text has."""
    candidate = trained_state / "runs" / "p-1" / "train" / "1" / "candidate"
    weights = load_file(candidate / MODEL)
    weights["model.embed_tokens.weight"][255, 0] = math.inf
    save_file(weights, candidate / MODEL, {"format": "pt"})
    manifest = json.loads((candidate / MANIFEST).read_bytes())
    manifest["files"][MODEL] = msgspec.to_builtins(stamp(candidate / MODEL))
    (candidate / MANIFEST).write_text(json.dumps(manifest))
    done = {"train": str(candidate.parent)}
    failed = run_stage("evaluate", 2, run="p-3", done=done, champion=champion, new=new)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "not_finite"
    assert "1 of the" in failed.message
    assert "model.embed_tokens.weight" in failed.message


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
