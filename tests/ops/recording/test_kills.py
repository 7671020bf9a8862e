"""The recorder's process killed at random: it loses and repeats nothing."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from daemon.core.events import Record
from ops import mlflow_recorder
from ops.comparison import behind

MakeJournal = Callable[[Path, Sequence[Record]], Path]


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that have MLflow imported when they begin, so that a kill can come early."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ops.mlflow_recorder", "ops.recording.store", "ops.recording.plots"])
    return context


def arguments(journal: Path, uri: str, state: Path, *more: str) -> list[str]:
    """Return a recorder's command line."""
    return ["--journal", str(journal), "--tracking-uri", uri, "--state", str(state), "--poll", "0.05", *more]


def test_killed_at_random_it_writes_what_an_uninterrupted_one_writes(
    forks: ForkServerContext,
    history: Sequence[Record],
    state: Path,
    tmp_path: Path,
    make_journal: MakeJournal,
    make_store: Callable[[], str],
    dump: Callable[[str], dict[str, Any]],
) -> None:
    """SIGKILL after random times, again and again; in the end both stores hold the same."""
    records = history[:190]
    journal = make_journal(tmp_path / "journal.db", records)
    killed, whole = make_store(), make_store()
    chance = random.Random(5)
    kills = 0
    for attempt in range(6):
        process = forks.Process(target=mlflow_recorder.main, args=(arguments(journal, killed, state),))
        process.start()
        process.join(chance.uniform(0.3, 1.0 + 0.3 * attempt))
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    for uri in (killed, whole):
        process = forks.Process(target=mlflow_recorder.main, args=(arguments(journal, uri, state, "--once"),))
        process.start()
        process.join()
        assert behind(len(records), uri, state) == 0
    assert kills >= 3
    assert dump(killed) == dump(whole)
