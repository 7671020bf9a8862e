"""Daemons killed by SIGKILL: nothing is lost, nothing happens twice."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.testing import BOUNDARIES
from tests.bench.crash_counter import Count, count, spooled
from tests.bench.crash_daemons import Nursery
from tests.bench.crash_world import Kill, World, choose, same_hashes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give a process that forks daemons."""
    with Nursery() as started:
        yield started


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a producer, a journal and three pipelines; the worker stays warm from one test to the next."""
    made = World(tmp_path_factory.mktemp("world"))
    made.warm_up()
    yield made
    made.retire()


def settle(world: World, nursery: Nursery) -> Count:
    """Let everything come to rest, and count."""
    assert world.drain(nursery)
    assert same_hashes(world.journal) == []
    counted = world.count()
    assert counted.wrong == []
    assert counted.duplicates == counted.duplicates_expected
    return counted


def test_a_kill_at_each_write_boundary_loses_and_repeats_nothing(world: World, nursery: Nursery) -> None:
    """Each named boundary is reached, kills the daemon there, and leaves a journal from which the next goes on."""
    rng = random.Random(2)
    for boundary in BOUNDARIES:
        killed = world.kill(nursery, Kill(boundary=boundary, patience=40), rng)
        assert killed.reached, boundary
    counted = settle(world, nursery)
    assert (counted.lost, counted.repeated) == ([], [])
    assert counted.interrupted > 0
    assert counted.succeeded > 0


def test_kills_at_random_instants_lose_and_repeat_nothing(world: World, nursery: Nursery) -> None:
    """Fifteen daemons are killed while they start and while they work; one of them is started by itself."""
    for number in range(1, 31, 2):
        rng = random.Random(f"3/{number}")
        killed = world.kill(nursery, choose(rng, number), rng)
        assert not killed.reached
    counted = settle(world, nursery)
    assert (counted.lost, counted.repeated) == ([], [])
    assert counted.facts > 15


def test_a_cursor_outside_the_transaction_loses_something(tmp_path: Path, nursery: Nursery) -> None:
    """The same kills and the same counter find fault with a journal that moves its cursors by themselves."""
    world = World(tmp_path)
    world.warm_up()
    rng = random.Random(4)
    world.deliver(rng)
    world.kill(nursery, Kill(boundary="journal.before_commit", count=2, loose=True), rng)
    world.drain(nursery, patience=1.0, loose=True)
    counted = world.count()
    world.retire()
    assert counted.lost


def test_the_counter_sees_what_is_missing_and_what_is_double(world: World, nursery: Nursery, tmp_path: Path) -> None:
    """A fact that never came, an effect that is gone and one that is there twice are each named."""
    world.deliver(random.Random(5))
    settle(world, nursery)
    state, ledger = tmp_path / "state", tmp_path / "ledger"
    state.mkdir()
    shutil.copy(world.state / "starts", state)
    effects = (world.state / "effects").read_text(encoding="utf-8").splitlines(keepends=True)
    (state / "effects").write_text("".join([*effects[1:], effects[-1]]), encoding="utf-8")
    ledger.write_text(world.ledger.read_text(encoding="utf-8") + "late fact:9999999 bad:9999998\n", encoding="utf-8")
    counted = count(world.journal, state, spooled(ledger))
    assert len(counted.repeated) == 1
    assert [line.split(" ")[0] for line in counted.lost] == ["fact", "malformed", "command"]
