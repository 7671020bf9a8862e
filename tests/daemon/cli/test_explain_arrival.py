"""Which runs had an arrival, and which versions of the model saw it."""

import json
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import DataWithdrawn, OperatorRequested
from daemon.core.plans import Span

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command


def withdraw(chronicle: "Chronicle", record_id: str, position: int, account: str | None) -> None:
    """Record the withdrawal of an arrival of prose, as the door completes it."""
    amount = chronicle.pipeline.pending.get("prose") or chronicle.pipeline.champion.past["prose"]  # type: ignore[union-attr]
    chronicle.tell(
        DataWithdrawn(
            arrival_source="/crawler",
            arrival_id=record_id,
            arrival=position,
            domain="prose",
            amount=amount,
            account=account,  # type: ignore[arg-type]
        )
    )


def test_versions_that_saw_an_arrival_are_told(chronicle: "Chronicle", rewarm: "Command") -> None:
    """One was trained on it, the next replayed it, and after its withdrawal a third one merely continues them."""
    prose = chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    withdraw(chronicle, "prose-1", prose.position, "past")
    chronicle.arrive("code", 600_000, id="code-3")
    chronicle.train({"code": -0.1}, shift=0.0)
    chronicle.close()

    way = json.loads(rewarm("explain", str(prose.position), "--json").out)

    assert [(each["version"], each["how"], each["of"]) for each in way["saw"]] == [
        (1, "trained", None),
        (2, "replayed", None),
        (3, "continues", 2),
    ]
    assert way["champion"] == 3
    assert [each["outcome"] for each in way["had"]] == ["promoted"]
    out = " ".join(rewarm("explain", str(prose.position)).out.split())
    assert "version 3 continues version 2, which saw it" in out
    assert "it is not sampled since" in out
    assert "request retrain docs-lm" in out


def test_what_was_withdrawn_before_it_was_used_was_seen_by_nobody(chronicle: "Chronicle", rewarm: "Command") -> None:
    """An arrival that no run had is told as such; documents that nobody has counted are not told as none."""
    small = chronicle.arrive("prose", 10, id="prose-1")
    withdraw(chronicle, "prose-1", small.position, None)
    chronicle.close()

    out = rewarm("explain", str(small.position)).out

    assert "it has not been ingested" in out
    assert "withdrawn" in out
    assert "holds 10 tokens" in " ".join(out.split())


def test_a_training_that_draws_from_a_withdrawn_arrival_begins_again(chronicle: "Chronicle") -> None:
    """The run is cancelled at once, and its wish stands for what is left."""
    prose = chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.arrive("code", 600_000, id="code-2")
    run = chronicle.pipeline.active
    assert run is not None
    while (active := chronicle.pipeline.active) is not None and active.stage != "train":
        chronicle.stage()
    withdraw(chronicle, "prose-1", prose.position, None)

    active = chronicle.pipeline.active
    assert active is not None
    assert active.stop == "cancel"
    assert active.stop_again


def test_what_was_made_pending_again_is_no_part_of_the_past(chronicle: "Chronicle", rewarm: "Command") -> None:
    """Its candidate was refused after the backfill: the next version continues one that saw it, and replays others."""
    prose = chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    assert chronicle.pipeline.champion is not None
    gone = {"prose": chronicle.pipeline.champion.past["prose"]}
    spans = (Span(after=prose.position - 1, upto=prose.position),)
    asked = OperatorRequested(verb="backfill", by="ann", spans=spans, amounts=gone, accounts={"past": gone})
    again = chronicle.tell(asked).position
    chronicle.train({"prose": 0.9, "code": 0.9}, shift=0.9)
    chronicle.arrive("code", 600_000, id="code-3")
    chronicle.train({"code": -0.1}, shift=0.9)
    chronicle.close()

    way = json.loads(rewarm("explain", str(prose.position), "--json").out)

    assert [each["outcome"] for each in way["had"]] == ["promoted", "rejected"]
    assert [(each["version"], each["how"]) for each in way["saw"]] == [
        (1, "trained"),
        (2, "replayed"),
        (3, "continues"),
    ]
    assert f"pending again since #{again}" in rewarm("explain", str(prose.position)).out


@pytest.mark.usefixtures("trained")
def test_a_position_without_an_arrival_is_refused(rewarm: "Command") -> None:
    """What lies there instead is named."""
    answer = rewarm("explain", "1")

    assert answer.code == 2
    assert "No arrival lies at position 1" in answer.err
