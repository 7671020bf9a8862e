"""Curate: scores, cuts, tries and keeps; `train` then reads nothing else."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    DataCurated,
    DataIngested,
    StageFailed,
    StageInterrupted,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint, Curation, Cut, Document, ModelSettings, Plan, Remedy
from stages.base import Context
from stages.run_folder import Arrival, Champion, Outcome, Shard, read_specification
from stages.train import plan_sha256
from stages.training.curating import trying
from stages.training.curating.bands import Floats
from stages.training.data.shards import Part
from stages.training.files import MANIFEST, digest
from stages.training.mixing.mixture import make_mixture
from stages.training.models import adapter_of
from stages.training.models.base import Adapter

Run = Callable[..., list[AnyEvent]]
Give = Callable[..., dict[str, Any]]
CUTS = (Cut(low=0.0, high=0.1), Cut(low=0.0, high=0.3), Cut(low=0.2, high=0.3))
ONE = (Cut(low=0.1, high=0.3),)


def curated_plan(plan: Plan, **fields: object) -> Plan:
    """Return a plan with a small curation."""
    given = {"cuts": CUTS, "trial": 0.1, "development": 0.2, **fields}
    return msgspec.structs.replace(plan, curation=Curation(**given))  # type: ignore[arg-type]


@pytest.fixture
def given(
    make_increment_plan: Callable[..., Plan], champion: Champion, past: tuple[Shard, ...], new: tuple[Shard, ...]
) -> Give:
    """Specify the curation of prose and code: fields of the curation → fields of the specification."""

    def make(**fields: object) -> dict[str, Any]:
        plan = curated_plan(make_increment_plan(champion), **fields)
        return {"plan": plan, "champion": champion, "past": past, "new": new}

    return make


@pytest.fixture
def open_context(place: Callable[..., Path]) -> Callable[..., Context]:
    """Give the context of an attempt that is not run: (stage, **fields of the specification)."""

    def open_(stage: str, **fields: object) -> Context:
        folder = place(stage, **fields)
        return Context(read_specification(folder), folder, Outcome(folder), time.monotonic)

    return open_


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the module `mine` of a user's package."""

    def write(code: str) -> None:
        (tmp_path / "mine.py").write_text(code)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return write


def curated(events: list[AnyEvent]) -> DataCurated:
    """Return what was curated; a failure is shown."""
    assert isinstance(events[-1], StageSucceeded), events[-1]
    (event,) = [event for event in events if isinstance(event, DataCurated)]
    return event


def failed(events: list[AnyEvent]) -> StageFailed:
    """Return how the stage failed."""
    assert isinstance(events[-1], StageFailed), events[-1]
    return events[-1]


def kept_parts(state: Path, event: DataCurated) -> list[Part]:
    """Return the shards that the event names."""
    assert digest(state / event.manifest) == event.sha256
    kept = json.loads((state / event.manifest).read_bytes())
    return [Part(state / each["manifest"], "train", each["position"]) for each in kept["shards"]]


def texts(part: Part) -> list[str]:
    """Return the documents of a shard of bytes."""
    return [bytes(part.document(index)[:-1].astype(np.uint8)).decode() for index in range(len(part))]


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies below a folder, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"outcome.jsonl", "lock", "heartbeat", "spec.json", "metrics.jsonl"}
    }


def test_the_cut_with_the_least_loss_is_kept(run_stage: Run, given: Give, trained_state: Path) -> None:
    """Every cut is tried; what the best one keeps of each domain is what the shards hold, and nothing else."""
    event = curated(run_stage("curate", **given()))
    assert [trial.cut for trial in event.trials] == list(CUTS)
    assert event.cut == min(event.trials, key=lambda trial: trial.loss).cut
    assert event.quantiles["0"] <= event.quantiles["0.5"] <= event.quantiles["1"]
    parts = kept_parts(trained_state, event)
    assert (event.kept, event.kept_tokens) == (sum(map(len, parts)), sum(len(part.tokens) for part in parts))
    assert {part.domain: len(part) for part in parts} == {name: band.kept for name, band in event.domains.items()}
    assert event.cut is not None
    for band in event.domains.values():
        assert band.kept == pytest.approx(band.documents * (1 - event.cut.low - event.cut.high), abs=2)
        assert sum(band.counts) == band.documents
    assert sum(band.documents for band in event.domains.values()) == event.documents


def test_scores_are_the_champions_losses_per_byte(
    run_stage: Run, open_context: Callable[..., Context], given: Give, trained_state: Path, past: tuple[Shard, ...]
) -> None:
    """Kept are the very documents that lie within the quantiles of a plain measurement, each alone and whole."""
    fields = given(cuts=ONE)
    event = curated(run_stage("curate", **fields))
    assert event.trials == ()
    context = open_context("probe", **fields)
    adapter = adapter_of(context)
    champion = adapter.load(context.resolve(context.specification.champion.model.path))  # type: ignore[union-attr]
    part = Part(context.resolve(past[0].manifest), "train")
    losses = []
    for index in range(len(part)):
        tokens = np.concatenate(([part.manifest.end], part.document(index)))
        nats = adapter.document_nats(champion, [tokens], context=32, beat=lambda: None)
        losses.append(nats[0] / (len(tokens) - 2))
    low, high = np.quantile(losses, (0.1, 0.7))
    wanted = [text for text, loss in zip(texts(part), losses, strict=True) if low - 1e-5 <= loss <= high + 1e-5]
    (kept,) = [each for each in kept_parts(trained_state, event) if each.domain == "prose"]
    assert texts(kept) == wanted
    assert event.domains["prose"].mean == pytest.approx(np.mean(losses), abs=1e-5)


def test_cuts_by_sigma(run_stage: Run, given: Give) -> None:
    """A cut may be so many standard deviations from the mean, of each domain."""
    event = curated(run_stage("curate", **given(by="sigma", cuts=(Cut(low=1.0, high=0.5),))))
    for band in event.domains.values():
        assert band.low == pytest.approx(band.mean - band.sigma, abs=1e-6)
        assert band.high == pytest.approx(band.mean + 0.5 * band.sigma, abs=1e-6)
        assert band.kept < band.documents


def test_train_reads_what_was_kept_alone(
    run_stage: Run, open_context: Callable[..., Context], given: Give, trained_state: Path
) -> None:
    """All of it is new, nothing is replayed, and what was withdrawn since then is left out."""
    before = files(trained_state / "shards")
    fields = given(cuts=ONE)
    event = curated(run_stage("curate", **fields))
    done = {"curate": str((trained_state / event.manifest).parent)}
    plain, context = open_context("plain", **fields), open_context("mixture", **fields, done=done)
    mixture = make_mixture(context, windows=True)
    assert (len(mixture.new), len(mixture.past), mixture.replayed(40)) == (event.kept_tokens, 0, 0)
    assert plan_sha256(context) != plan_sha256(plain)
    ended = run_stage("train", **fields, done=done)[-1]
    assert isinstance(ended, StageSucceeded)
    assert ended.metrics["replay_share"] == 0
    withdrawn = make_mixture(open_context("withdrawn", **{**fields, "new": ()}, done=done), windows=True)
    assert len(withdrawn.new) == sum(len(p.tokens) for p in kept_parts(trained_state, event) if p.domain == "prose")
    assert files(trained_state / "shards") == before


def test_what_was_kept_is_checked(run_stage: Run, given: Give, trained_state: Path) -> None:
    """A shard that is another than the curation's is not trained on."""
    fields = given(cuts=ONE)
    event = curated(run_stage("curate", **fields))
    kept = trained_state / event.manifest
    (kept.parent / "shards" / "1" / "manifest.json").write_text("{}")
    done = {"curate": str(kept.parent)}
    assert "is not the one that was kept" in failed(run_stage("train", 1, **fields, done=done)).message
    kept.unlink()
    assert "cannot be read" in failed(run_stage("train", 2, **fields, done=done)).message


def test_a_stopped_curation_goes_on(
    run_stage: Run, given: Give, trained_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished trials are not repeated, the one at work goes on from its checkpoint, and the bits are the same."""
    fields = given()
    whole = curated(run_stage("curate", 1, run="whole", **fields))
    folders = [trained_state / "runs" / "p-9" / "curate" / str(attempt) for attempt in (1, 2, 3)]
    judged: list[str] = []
    steps: list[tuple[str, int]] = []
    judge, beat = trying.judge, trying.Trying.beat

    def judge_and_stop(adapter: Adapter, folder: Path, *rest: object, **more: object) -> Floats:
        judged.append(folder.name)
        losses = judge(adapter, folder, *rest, **more)  # type: ignore[arg-type]
        if judged == ["0"]:
            (folders[0] / "stop").write_text("drain")
        return losses

    def beat_and_stop(self: trying.Trying, step: int, steps_: int, metrics: dict[str, float]) -> None:
        steps.append((self.folder.name, step))
        if steps[-1] == ("1", 2) and self.folder.is_relative_to(folders[1]):
            (folders[1] / "stop").write_text("preempt")
        beat(self, step, steps_, metrics)

    monkeypatch.setattr(trying, "judge", judge_and_stop)
    monkeypatch.setattr(trying.Trying, "beat", beat_and_stop)
    for attempt in (1, 2):
        earlier = tuple(map(str, folders[: attempt - 1]))
        told = run_stage("curate", attempt, **fields, resume_from=earlier)
        assert isinstance(told[-1], StageInterrupted)
        assert not any(isinstance(event, CheckpointSaved) for event in told)
    steps.clear()
    event = curated(run_stage("curate", 3, **fields, resume_from=tuple(map(str, folders[:2]))))
    assert judged == ["0", "1", "2"]
    assert steps[0] == ("1", 3)
    assert event.trials == whole.trials
    other = trained_state / "runs" / "whole" / "curate" / "1"
    assert files(folders[2] / "shards") == files(other / "shards")
    assert (folders[2] / "scores.json").read_bytes() == (other / "scores.json").read_bytes()
    assert not list((folders[2] / "trials").iterdir())


def test_of_a_domain_that_is_left_out_as_a_whole_nothing_is_kept(
    run_stage: Run, given: Give, new: tuple[Shard, ...], trained_state: Path
) -> None:
    """A domain may be one document, and that one in quarantine: the others are curated as ever."""
    (code,) = [Part(trained_state / shard.manifest, "train", shard.position) for shard in new]
    without = tuple(Document(arrival=code.arrival, number=number) for number in range(len(code)))
    event = curated(run_stage("curate", **given(cuts=ONE), remedy=Remedy(without=without)))
    assert set(event.domains) == {"prose"}
    assert {part.domain for part in kept_parts(trained_state, event)} == {"prose"}


MODULE = """
import torch
from torch import nn
from stages.training.task import Task

refused = -1

def collate(records):
    if any(record["x"] == refused for record in records):
        raise ValueError("refused")
    return torch.tensor([[record["x"], record["y"]] for record in records])

def losses(model, inputs):
    return (model(inputs[:, :1]).squeeze(1) - inputs[:, 1]).abs()

def make():
    return Task(model=nn.Linear(1, 1), collate=collate, losses=losses)

def marked(record):
    record["seen"] = True
    return record
"""
REWRITE = """
def loud(text):
    return None if text.startswith("a") else text.upper() if text.startswith("the") else text

def broken(text):
    raise ValueError("no such word")

def number(text):
    return 3

def empty(text):
    return ""

def nothing(text):
    return None
"""


def test_kept_documents_are_rewritten(
    run_stage: Run, given: Give, user_code: Callable[[str], None], trained_state: Path
) -> None:
    """A callable gives a kept document another text or leaves it out; what it gives back unchanged stays as it was."""
    user_code(REWRITE)
    before = curated(run_stage("curate", 1, **given(cuts=ONE)))
    event = curated(run_stage("curate", 2, **given(cuts=ONE, rewrite="mine:loud")))
    plain = [text for part in kept_parts(trained_state, before) for text in texts(part)]
    wanted = [t.upper() if t.startswith("the") else t for t in plain if not t.startswith("a")]
    assert [text for part in kept_parts(trained_state, event) for text in texts(part)] == wanted
    assert event.rewritten == sum(text.startswith("the") for text in plain) > 0
    assert event.left_out == sum(text.startswith("a") for text in plain) > 0
    assert event.kept == before.kept - event.left_out


@pytest.mark.parametrize(
    ("rewrite", "words"),
    [
        ("mine:broken", "'mine:broken' raised ValueError: no such word, for document"),
        ("mine:number", "'mine:number' returned int, and not text or None, for document"),
        ("mine:empty", "'mine:empty' returned an empty str, and not text or None, for document"),
        ("mine:nothing", "leaves 0 documents"),
        ("mine:none", "'mine:none' of `rewrite` cannot be imported"),
        ("mine:__doc__", "'mine:__doc__' of `rewrite` is a NoneType, not a callable"),
    ],
)
def test_a_callable_that_fails_is_named(
    run_stage: Run, given: Give, user_code: Callable[[str], None], rewrite: str, words: str
) -> None:
    """An error in it is the user's: which callable it is, and which document."""
    user_code(REWRITE)
    failure = failed(run_stage("curate", **given(cuts=ONE, rewrite=rewrite)))
    assert failure.failure == "user_error"
    assert words in failure.message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"by": "sigma", "cuts": (Cut(low=0.0, high=0.0),)},
            "leaves 0 documents, 0 tokens, to train on: less than a batch",
        ),
        ({"development": 1e-9}, "raise `development`"),
    ],
)
def test_what_cannot_be_curated_is_said(run_stage: Run, given: Give, fields: dict[str, object], words: str) -> None:
    """Where less than a batch stays, or no document is there to judge by, the person is told what to change."""
    failure = failed(run_stage("curate", **given(**fields)))
    assert failure.failure == "user_error"
    assert words in failure.message


def test_a_plan_without_a_curation_is_refused(run_stage: Run, make_base_plan: Callable[..., Plan]) -> None:
    """The stage is a policy's to ask for."""
    assert "take `curate` out" in failed(run_stage("curate", plan=make_base_plan())).message


def test_without_a_champion_everything_is_kept(
    run_stage: Run, given: Give, trained_state: Path, past: tuple[Shard, ...]
) -> None:
    """Nothing can be scored: the event has no scores, and its shards are those of ingest."""
    event = curated(run_stage("curate", **{**given(), "champion": None}))
    assert (event.kept, event.mean, event.cut, event.trials) == (event.documents, None, None, ())
    kept = json.loads((trained_state / event.manifest).read_bytes())["shards"]
    assert (trained_state / kept[0]["manifest"]).samefile(trained_state / past[0].manifest)


def test_examples_are_curated(
    run_stage: Run, make_base_plan: Callable[..., Plan], user_code: Callable[[str], None], state: Path, tmp_path: Path
) -> None:
    """A module's examples are scored by its own loss, and rewritten as records; one that it refuses is named."""
    user_code(MODULE)
    path = tmp_path / "points.jsonl"
    path.write_text(
        "".join(json.dumps({"x": at / 60, "y": 9.0 if at % 4 == 0 else 2 * at / 60}) + "\n" for at in range(60))
    )
    size = path.stat().st_size
    arrival = Arrival(position=4, path=str(path), format="jsonl", domain="points", bytes=size, tokens=60, documents=60)
    plan = make_base_plan(context=1, batch=8, tokens=480)
    plan = msgspec.structs.replace(plan, model=ModelSettings(kind="module", factory="mine:make"))
    (ingested,) = [e for e in run_stage("ingest", plan=plan, arrivals=(arrival,)) if isinstance(e, DataIngested)]
    shards = (Shard(position=4, domain="points", manifest=ingested.manifest),)
    assert isinstance(run_stage("train", plan=plan, new=shards)[-1], StageSucceeded)
    trained = state / "runs" / "p-9" / "train" / "1"
    found = {
        name: Checkpoint(path=str(trained / name), sha256=digest(trained / name / MANIFEST))
        for name in ("candidate", "trunk")
    }
    champion = Champion(version=1, model=found["candidate"], trunk=found["trunk"])
    fields = {"champion": champion, "past": shards}
    event = curated(run_stage("curate", plan=curated_plan(plan, cuts=CUTS, rewrite="mine:marked"), **fields))
    (kept,) = kept_parts(state, event)
    records = [json.loads(kept.document(index).tobytes()) for index in range(len(kept))]
    assert len(records) == event.kept == event.rewritten == event.kept_tokens
    assert all(record["seen"] for record in records)
    assert sum(record["y"] == 9.0 for record in records) < len(records) / 6  # of all a quarter
    user_code(MODULE.replace("refused = -1", "refused = 30 / 60"))
    del sys.modules["mine"]
    part = Part(state / ingested.manifest, "train")
    number = next(at for at in range(len(part)) if json.loads(part.document(at).tobytes())["x"] == 30 / 60)
    failure = failed(run_stage("curate", 2, plan=curated_plan(plan), **fields))
    assert (failure.failure, failure.documents) == ("bad_sample", (Document(arrival=4, number=number),))
    again = curated(run_stage("curate", 3, plan=curated_plan(plan), **fields, remedy=Remedy(without=failure.documents)))
    assert again.documents == event.documents - 1
    assert 30 / 60 not in [
        json.loads(p.document(at).tobytes())["x"] for p in kept_parts(state, again) for at in range(len(p))
    ]
