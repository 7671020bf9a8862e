"""The bench of triggers: what is shared between policies, what is compared, and the text at its instants."""

import gzip
import json
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.events import DataIngested, ModelPromoted
from daemon.core.plans import Amount, Checkpoint, ModelSettings, Span
from stages.base import Names
from stages.run_folder import Arrival, Champion, Shard, Specification
from tests.bench.bench_triggers import Comparison, Totals, claims, configuration, off, policies, policy_set
from tests.bench.triggers_stages import content, impersonal, measuring, personal
from tests.bench.triggers_text import BEGIN, PIECE, Size, arrivals, pieces, upto

SHA = "0" * 64
HERE = Checkpoint(path="models/a/v1", sha256=SHA)


def specification(position: int, version: int, seed: int, run: str) -> Specification:
    """Return what a run's training is given where its arrival lies at a position."""
    plan = measuring(ModelSettings(), 128)
    plan = replace(
        plan,
        parent=version,
        rule=f"by the policy of {run}",
        spans=(Span(after=position - 1, upto=position),),
        training=replace(plan.training, seed=seed),
    )
    arrival = Arrival(position=position, path="a", format="jsonl", domain="d", bytes=1, tokens=1, documents=1)
    return Specification(
        pipeline="d",
        run=run,
        stage="train",
        attempt=1,
        command=f"{position}/d/x/0",
        implementation="train",
        state="/state",
        roots=("/inbox",),
        plan=plan,
        arrivals=(arrival,),
        new=(Shard(position=position, domain="d", manifest="m"),),
        champion=Champion(version=version, model=HERE, trunk=HERE),
        model_version=version + 1,
        done={"ingest": f"/state/runs/{run}/ingest/1"},
    )


def test_the_same_work_under_two_policies_has_one_name() -> None:
    """Runs, positions, versions and seeds differ; arrivals, weights and plans decide."""
    one, other = specification(7, 1, 6, "d-7"), specification(90, 4, 89, "d-90")
    same = [content(impersonal(each, {place: 2}, {})) for each, place in ((one, 7), (other, 90))]
    assert same[0] == same[1]
    assert content(impersonal(other, {90: 3}, {})) != same[0], "another arrival"
    assert content(impersonal(other, {90: 2}, {"ingest": "/other"})) != same[0], "built on other work"
    moved = replace(other, champion=Champion(version=4, model=replace(HERE, path="models/b/v1"), trunk=HERE))
    assert content(impersonal(moved, {90: 2}, {})) != same[0], "from other weights"


def test_what_a_stage_told_is_told_as_the_run_that_ordered_it() -> None:
    """Names, positions, versions and estimates are those of the journal that it goes into."""
    given = specification(90, 4, 89, "d-90")
    names = Names(run="key", stage="train", attempt=1)
    amount = Amount(arrivals=1, tokens=5)
    ingested = DataIngested(
        **names, arrival=2, domain="d", estimate=amount, amount=amount, duplicates=0, manifest="m", sha256=SHA
    )
    found = personal(ingested, given, {90: 2})
    assert isinstance(found, DataIngested)
    assert (found.run, found.arrival) == ("d-90", 90)
    promoted = ModelPromoted(**names, model_version=1, path="p", sha256=SHA, trunk=HERE, parent=1, spans=(), losses={})
    live = personal(promoted, given, {90: 2})
    assert isinstance(live, ModelPromoted)
    assert (live.model_version, live.parent, live.spans) == (5, 4, given.plan.spans)


def totals(runs: int, looks: int, seconds: float, waited: float) -> Totals:
    """Return totals of some tokens."""
    return Totals(runs=runs, looks=looks, tokens=9, seconds=seconds, waited=waited)


def test_the_worst_policy_is_what_is_claimed() -> None:
    """Runs are counted off, compute and staleness by share; what follows from the clock is told apart."""
    real = totals(5, 2, 100.0, 10.0)
    compared = {
        "amount": Comparison(real=real, own=real, others=totals(5, 2, 104.0, 10.1)),
        "drift": Comparison(real=real, own=totals(5, 2, 98.0, 10.4), others=totals(6, 0, 120.0, 5.0)),
    }
    found = claims(compared)
    assert (found["runs_off"], found["compute_off"], found["staleness_off"]) == (0, 0.02, 0.04)
    assert (found["others_runs_off"], found["others_compute_off"], found["others_staleness_off"]) == (3, 0.2, 0.5)
    assert found["others_following_runs_off"] == 0
    assert found["others_following_compute_off"] == 0.04
    assert (off(0.0, 0.0), off(4.0, 5.0)) == (0.0, 0.25)


def test_every_policy_is_one_that_a_user_could_write(tmp_path: Path) -> None:
    """Each is a configuration file that loads; two that look say when."""
    for name, policy in policies(100_000).items():
        chosen = policy_set(name, "smoke", policy, tmp_path)
        assert {each.label for found in chosen.policies.values() for each in found} == {name, "promotion"}
        assert len(configuration(name, "full", policy)["pipelines"]) == 2


def test_arrivals_come_at_their_dates_and_are_the_same_bytes_again(tmp_path: Path) -> None:
    """Ten virtual days a year; pieces in the order of their hashes, until there are enough."""
    for series in ("dated_beige", "dated_tech"):
        for name in ("01_1970-1975", "02_1977-1981"):
            for part in ("train", "val"):
                path = tmp_path / series / f"{name}.{part}.jsonl.gz"
                path.parent.mkdir(exist_ok=True)
                with gzip.open(path, "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps({"text": f"{series} {name} {part} {n} " * 60}) + "\n" for n in range(9))
    size = Size(first=3000, share=0.5, measured=2000)
    found = arrivals(tmp_path, tmp_path / "inbox", size)
    again = arrivals(tmp_path, tmp_path / "inbox", size)
    assert found == again
    first, second = found["dated_tech"]
    assert (first.at, second.at) == (BEGIN, BEGIN + timedelta(days=70))
    assert 3000 <= first.tokens < 3000 + PIECE
    assert first.bytes == Path(first.file).stat().st_size
    with pytest.raises(FileNotFoundError, match="DATA="):
        arrivals(tmp_path / "nowhere", tmp_path / "inbox", size)


def test_pieces_are_cut_by_bytes_and_taken_by_hash() -> None:
    """No piece is longer than it may be, none is empty, and their order does not depend on that of the texts."""
    texts = ["ä" * 2000, "b" * 10, " "]
    cut = pieces(iter(texts))
    assert cut == pieces(iter(texts[::-1]))
    assert all(0 < len(piece.encode()) <= PIECE for piece in cut)
    assert upto(["aa", "bb", "cc"], 3) == ["aa", "bb"]
