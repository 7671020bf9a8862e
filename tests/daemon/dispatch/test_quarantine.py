"""What a champion was trained without stays out of the trainings after it."""

from pathlib import Path
from typing import Any, Literal

import pytest

from daemon.core.commands import RunStage
from daemon.core.events import DataCurated, DataIngested, DecisionMade, RunSucceeded
from daemon.core.plans import Curation, Document, Remedy
from daemon.dispatch.quarantine import quarantined
from daemon.dispatch.specification import specify
from stages.base import Names
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


def trained(
    build: Build,
    book: Book,
    run: str,
    *remedies: tuple[Document, ...],
    outcome: Outcome = "promoted",
    stage: str = "train",
    shadow: bool = False,
) -> None:
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
        again = RunStage(run=run, stage=stage, attempt=attempt, remedy=Remedy(without=without))
        decided = DecisionMade(
            policy="heal",
            policy_version=3,
            verdict="quarantine",
            reason="So.",
            commands=(again,),
            run=run,
            suppressed_by="shadow" if shadow else None,
            shadow=shadow,
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
    book.write(curated(build, "p-1"))
    assert quarantined(book, "p", STATE, SHARDS) == ()


def curated(build: Build, run: str) -> DataCurated:
    """Return that a run has kept some of its documents."""
    names = Names(run=run, stage="curate", attempt=1)
    return DataCurated(**names, documents=9, tokens=9, kept=5, kept_tokens=5, manifest="m", sha256=build.sha)


def test_what_a_curation_left_out_counts_too(build: Build, book: Book) -> None:
    """It numbers documents as ingest does, and nothing that it left out was trained on."""
    trained(build, book, "p-1", (ONE,), stage="curate")
    book.write(curated(build, "p-1"))
    assert quarantined(book, "p", STATE, SHARDS) == (ONE,)


def test_what_a_policy_in_shadow_would_have_left_out_was_trained_on(build: Build, book: Book) -> None:
    """Its decision was carried out by nobody."""
    trained(build, book, "p-1", (ONE,))
    trained(build, book, "p-2", (OTHER,), shadow=True)
    assert quarantined(book, "p", STATE, SHARDS) == (ONE,)


def test_a_curation_leaves_it_out_and_its_training_reads_what_was_kept(
    build: Build, book: Book, tmp_path: Path
) -> None:
    """`curate` reads the shards in which the document has its number; of what it keeps, numbers say other things."""
    trained(build, book, "p-1", (ONE,))
    told = {}
    for plan in (build.plan(parent=1), build.plan(parent=1, curation=Curation())):
        for stage in ("curate", "train", "evaluate"):
            pipeline = build.pipeline(build.run(build.order(stage), plan=plan, started_position=book.head() + 1))
            found = specify(book, pipeline, pipeline.active.order, state=STATE, roots=(tmp_path,), threads=1)
            told[plan.curation is not None, stage] = found.remedy.without
    assert {key for key, without in told.items() if without} == {(False, "train"), (True, "curate")}
    assert told[True, "curate"] == (ONE,)
