"""A journal as a history: what it was told comes again, and what it did follows from that again."""

from pathlib import Path

import pytest

from daemon.core.events import RunFailed, RunStarted, RunSucceeded
from daemon.journal.base import scan
from daemon.journal.sqlite import open_journal, open_reader
from daemon.simulation.learning import learn
from daemon.simulation.recorded import in_force, recorded
from daemon.simulation.report import PolicySet, simulate
from tests.golden.record import journals
from tests.golden.tape import read


@pytest.mark.parametrize("name", ["drain", "fixed-share", "letters"])
def test_the_runs_that_happened_happen_again(tmp_path: Path, name: str) -> None:
    """Under unchanged policies a golden journal brings runs of the same kinds and ends, by its own costs."""
    with open_journal(tmp_path / "journal.db") as journal, journal.transaction() as transaction:
        transaction.append(read(journals(name)[-1].read_bytes()))
    with open_reader(tmp_path / "journal.db") as reader:
        records = list(scan(reader, 0))
        force = in_force(reader)
        assert force is not None
        chosen = PolicySet(name="in force", changed=force.changed, policies=force.policies)
        done = simulate(chosen, recorded(reader, ["p"]), learn(records), seed=1)
    kinds = {each.event.run: each.event.plan.kind for each in records if isinstance(each.event, RunStarted)}
    happened = [
        (kinds[each.event.run], each.event.outcome if isinstance(each.event, RunSucceeded) else "failed")
        for each in records
        if isinstance(each.event, RunSucceeded | RunFailed)
    ]
    report = done.report.pipelines["p"]
    again = [(runs.kind, end) for runs in report.runs for end, number in runs.outcomes.items() for _ in range(number)]
    assert sorted(again) == sorted(happened)
    assert report.staleness.waiting == 0
