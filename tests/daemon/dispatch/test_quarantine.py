"""What a champion was trained without stays out of the trainings after it."""

from pathlib import Path
from typing import Any, Literal

import pytest

from daemon.core.commands import RunStage
from daemon.core.events import DataCurated, DataIngested, DecisionMade, RunSucceeded
from daemon.core.plans import Document, Remedy
from daemon.dispatch.quarantine import quarantined
from stages.run_folder import Shard

Build = Any
Book = Any
Outcome = Literal["promoted", "rejected", "finished"]
STATE = Path("/state")
ONE, OTHER = Document(arrival=1, number=3), Document(arrival=2, number=5)
SHARDS = (
    Shard(position=1, domain="prose", manifest="/state/shards/1"),
    Shard(position=2, domain="prose", manifest="/state/shards/2"),
)


def trained(build: Build, book: Book, run: str, *remedies: tuple[Document, ...], outcome: Outcome = "promoted") -> None:
    """Write a run of the arrivals 1 and 2 whose attempts were without these documents."""
    for arrival in (1, 2):
        told = DataIngested(
            run=run,
            stage="ingest",
            attempt=1,
            arrival=arrival,
            domain="prose",
            estimate=build.amount(9),
            amount=build.amount(9),
            duplicates=0,
            manifest=f"shards/{arrival}",
            sha256=build.sha,
        )
        book.write(told)
    for attempt, without in enumerate(remedies, start=1):
        again = RunStage(run=run, stage="train", attempt=attempt, remedy=Remedy(without=without))
        decided = DecisionMade(
            policy="heal", policy_version=3, verdict="quarantine", reason="So.", commands=(again,), run=run
        )
        book.write(decided)
    book.write(RunSucceeded(run=run, outcome=outcome))


def test_the_last_of_a_promoted_run_counts(build: Build, book: Book) -> None:
    """An attempt's quarantine holds all before it; of several runs each adds its own."""
    trained(build, book, "p-1", (ONE,), (ONE, OTHER))
    trained(build, book, "p-2", (OTHER,))
    trained(build, book, "p-3")
    assert quarantined(book, "p", STATE, SHARDS) == (ONE, OTHER)
    assert quarantined(book, "p", STATE, SHARDS[:1]) == (ONE,)
    assert quarantined(book, "q", STATE, SHARDS) == ()


@pytest.mark.parametrize("outcome", ["rejected", "finished"])
def test_what_no_champion_was_trained_without_comes_again(build: Build, book: Book, outcome: Outcome) -> None:
    """A run whose candidate was rejected says nothing about later ones."""
    trained(build, book, "p-1", (ONE,), outcome=outcome)
    assert quarantined(book, "p", STATE, SHARDS) == ()


def test_in_another_shard_a_number_is_another_documents(build: Build, book: Book) -> None:
    """An arrival that was cut anew, and what `curate` kept of one, number their documents otherwise."""
    trained(build, book, "p-1", (ONE, OTHER))
    anew = (Shard(position=1, domain="prose", manifest="/state/shards/anew"), SHARDS[1])
    assert quarantined(book, "p", STATE, anew) == (OTHER,)
    book.write(
        DataCurated(
            run="p-1",
            stage="curate",
            attempt=1,
            documents=9,
            tokens=9,
            kept=5,
            kept_tokens=5,
            manifest="m",
            sha256=build.sha,
        )
    )
    assert quarantined(book, "p", STATE, SHARDS) == ()
