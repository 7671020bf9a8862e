"""Where each arrival is counted, through random histories: the accounts of the state hold what really happened."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import dead_letters
from daemon.core.events import (
    DataIngested,
    DataRejected,
    DataWithdrawn,
    StageFailed,
)
from daemon.core.plans import Amount
from daemon.core.state import State, dump
from daemon.core.transition import evolve
from daemon.journal.base import scan
from tests.daemon.ledger import SHA, Ledger

WORK = ("arrive", "arrive", "work", "work", "work", "work")
OPERATIONS = (*WORK, "retry", "retry", "drop", "withdraw", "rollback", "backfill", "backfill")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Make a ledger whose one arrival a second attempt is about to ingest."""
    (tmp_path / "file").write_text("data")
    made = Ledger(tmp_path)
    made.arrive(0)
    told = made.specification()
    assert told is not None
    made.tell(StageFailed(run=told.run, stage="ingest", attempt=1, failure="transient", message="It died."))
    return made


@pytest.mark.parametrize("refused", [True, False])
def test_a_withdrawal_counts_though_ingest_does_not_know_of_it(ledger: Ledger, refused: bool) -> None:
    """In one transaction too: the arrival is nowhere, and no dead letter is left that could bring it back."""
    told = ledger.specification()
    assert told is not None
    (arrival,) = told.arrivals
    (record,) = ledger.journal.records(arrival.position - 1, 1)
    gone = ledger.offer(DataWithdrawn(arrival_source=record.source, arrival_id=record.id))
    names: dict[str, Any] = {"run": told.run, "stage": "ingest", "attempt": told.attempt, "arrival": arrival.position}
    names |= {"domain": arrival.domain, "estimate": Amount(arrivals=1, bytes=arrival.bytes, tokens=arrival.tokens)}
    amount = Amount(arrivals=1, bytes=3, tokens=3)
    late = ledger.offer(
        DataRejected(**names, reason="empty", message="It is empty.")
        if refused
        else DataIngested(**names, amount=amount, duplicates=0, manifest="m", sha256=SHA)
    )
    ledger.commit(gone, late)
    ledger.place[arrival.position] = "gone"
    ledger.check()
    assert ledger.pipeline.ignored == {f"{'rejected' if refused else 'ingested'}_arrival_withdrawn": 1}
    assert [letter.settled is not None for letter in dead_letters.letters(ledger.journal)] == [True] * refused


@settings(max_examples=100)
@given(steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10**6)), min_size=10, max_size=60))
def test_every_arrival_is_counted_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Ingested, refused, retried, dropped, withdrawn, trained on, in whatever order: all accounts add up."""
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    (root / "file").write_text("data")
    ledger = Ledger(root)
    for step, number in steps:
        match step:
            case "arrive":
                ledger.arrive(number)
            case "work":
                ledger.work(number)
            case "withdraw":
                ledger.withdraw(number)
            case "rollback":
                ledger.roll_back()
            case "backfill":
                ledger.backfill(number)
            case _:
                ledger.settle(step, number)
        ledger.check()
    state = State()
    for record in scan(ledger.journal):
        state = evolve(state, record)
    assert dump(state) == dump(ledger.loop.state)
