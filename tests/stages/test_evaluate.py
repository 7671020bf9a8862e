"""Evaluate: a domain that is old and of which more came is measured on both sides."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.events import AnyEvent, Comparison, ModelEvaluated
from daemon.core.plans import Plan
from stages.run_folder import Champion, Shard
from stages.training.judging.measuring import held_out

Run = Callable[..., list[AnyEvent]]
Place = Callable[..., Path]
Shards = tuple[Shard, ...]


@pytest.fixture
def evaluated(
    run_stage: Run, place: Place, champion: Champion, make_increment_plan: Callable[..., Plan]
) -> Callable[..., dict[str, Comparison]]:
    """Train an increment without replay and evaluate it on these shards: (attempt, new, past, of the training)."""

    def run(attempt: int, new: Shards, past: Shards) -> dict[str, Comparison]:
        plan = make_increment_plan(champion, replay=0.0)
        common = {"run": "p-3", "plan": plan, "champion": champion}
        if attempt == 1:
            run_stage("train", new=new, past=past, **common)
        done = {"train": str(place("train", new=new, past=past, **common))}
        event = run_stage("evaluate", attempt, done=done, new=new, past=past, **common)[1]
        assert isinstance(event, ModelEvaluated)
        return event.domains

    return run


def test_what_came_under_the_name_of_an_old_domain_is_measured_beside_it(
    evaluated: Callable[..., dict[str, Comparison]], new: Shards, past: Shards
) -> None:
    """Code that says that it is prose was learned, and prose forgotten: one mean over both would hide it."""
    claimed = tuple(replace(shard, domain="prose") for shard in new)
    found = evaluated(1, claimed, past)["prose"]
    assert found.difference is not None
    assert found.old is not None
    assert found.new is not None
    assert found.old.low > 0.0
    assert found.new.high < 0.0
    assert found.old.documents + found.new.documents == found.difference.documents
    nats = found.old.mean * found.old.bytes + found.new.mean * found.new.bytes
    assert found.difference.mean * found.difference.bytes == pytest.approx(nats)
    assert (found.on_old, found.on_new) == (found.old, found.new)

    apart = evaluated(2, new, past)
    assert (apart["code"].old, apart["code"].new, apart["prose"].old, apart["prose"].new) == (None,) * 4
    assert apart["prose"].on_old == apart["prose"].difference
    assert apart["prose"].difference is not None
    assert apart["code"].difference is not None
    assert found.old.mean == pytest.approx(apart["prose"].difference.mean, abs=1e-5)
    assert found.new.mean == pytest.approx(apart["code"].difference.mean, abs=1e-5)


def test_a_side_of_which_nothing_is_held_out_is_not_told(
    evaluated: Callable[..., dict[str, Comparison]], new: Shards, past: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the other side alone is told as that side's."""

    def without(context: object, shards: object, budget: object) -> object:
        kept = [shard for shard in shards if shard not in past]  # type: ignore[attr-defined]
        return held_out(context, kept, budget)  # type: ignore[arg-type]

    monkeypatch.setattr("stages.evaluate.held_out", without)
    found = evaluated(1, tuple(replace(shard, domain="prose") for shard in new), past)["prose"]
    assert found.on_old is None
    assert found.on_new == found.new == found.difference
