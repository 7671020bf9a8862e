"""The sweep: told first, removed after the commit, healed after a kill, and asked again once the files are aside."""

import fcntl
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import FilesExpired
from daemon.door import Answer, Input
from daemon.retention.sweep import AFTER_ASIDE, AFTER_TOLD, SOURCE, Sweeper
from daemon.settings import RetentionSettings
from daemon.sources.queue import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.state import State
    from tests.daemon.retention.conftest import Story

GIVEN = RetentionSettings(checkpoints=timedelta(days=1), runs=timedelta(days=7), shards=timedelta(days=1), models=0)


class Died(BaseException):
    """What stands for a SIGKILL."""


def die() -> None:
    """Die."""
    raise Died


class Floor:
    """A state folder with a story's files, and a loop that answers like the real one."""

    def __init__(self, folder: Path, story: "Story") -> None:
        self.folder = folder
        self.story = story
        self.inbox = Inbox()
        self.told: list[Input] = []
        self.known: set[str] = set()
        self.state: State | None = None
        self.at: dict[str, Callable[[], None]] = {}
        self.outcome: str | None = None
        self.recorded: int | None = None
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._over = threading.Event()
        self._thread.start()
        self.lay()

    def lay(self) -> None:
        """Put every file of the story on the disk."""
        for path in self.story.disk:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(b"x" * 10)

    def files(self) -> set[str]:
        """Return the files that are there."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def sweeper(self, settings: RetentionSettings = GIVEN) -> Sweeper:
        """Make a sweeper."""
        return Sweeper(
            reader=self.story.journal,
            inbox=self.inbox,
            folder=self.folder,
            settings=settings,
            current=lambda: self.state or self.story.state,
            recorded=lambda: self.recorded,
            now=lambda: self.story.now,
            boundary=self._pass,
        )

    def events(self) -> list[FilesExpired]:
        """Return what was told."""
        return [o.event for item in self.told for o in item.offers if isinstance(o.event, FilesExpired)]

    def close(self) -> None:
        """End the loop."""
        self._over.set()
        self._thread.join()

    def _pass(self, name: str) -> None:
        self.at.get(name, lambda: None)()

    def _answer(self) -> None:
        while not self._over.is_set():
            for item in self.inbox.take(0.02):
                self.told.append(item)
                answers = tuple(self._answer_one(offer.id) for offer in item.offers)
                assert item.reply is not None
                item.reply(answers)

    def _answer_one(self, identity: str) -> Answer:
        if self.outcome is not None:
            return Answer(outcome="dead_letter", position=1, reason=self.outcome)
        before = identity in self.known
        self.known.add(identity)
        return Answer(outcome="duplicate" if before else "accepted", position=1)


@pytest.fixture
def floor(tmp_path: Path, story: "Story") -> Iterator[Floor]:
    """Four versions, a rolled back one, days later."""
    for _ in range(5):
        story.arrive()
        story.finish()
    story.request("rollback")
    story.arrive()
    story.begin()
    story.succeed()
    story.begin()
    story.now += timedelta(days=2)
    made = Floor(tmp_path, story)
    yield made
    made.close()


def kinds(events: Sequence[FilesExpired]) -> dict[str, int]:
    """Return how many of each."""
    return {what: sum(event.what == what for event in events) for what in ("run", "checkpoints", "shard", "model")}


def test_what_is_due_is_told_and_removed(floor: Floor) -> None:
    """Each removal is one fact with its paths, bytes and rule; what is needed stays."""
    before = floor.files()
    floor.sweeper().sweep()
    events = floor.events()
    assert kinds(events) == {"run": 0, "checkpoints": 5, "shard": 1, "model": 3}
    gone = before - floor.files()
    assert gone == {path for path in before if any(path.startswith(f"{each}/") for e in events for each in e.paths)}
    assert sum(event.bytes for event in events) == 10 * len(gone)
    assert all(event.rule for event in events)
    floor.story.disk = floor.files()
    assert floor.story.missing() == []
    (offers,) = [item.offers for item in floor.told]
    assert {offer.source for offer in offers} == {SOURCE}
    assert {offer.pipeline for offer in offers} == {"p", None}


def test_a_second_sweep_has_nothing_to_tell(floor: Floor) -> None:
    """What is gone is not told again; when the folder of a run is due, it is one more fact."""
    floor.sweeper().sweep()
    floor.sweeper().sweep()
    assert len(floor.told) == 1
    floor.story.now += timedelta(days=7)
    floor.sweeper().sweep()
    assert kinds(floor.events())["run"] == 5


@pytest.mark.parametrize("boundary", [AFTER_TOLD, AFTER_ASIDE])
def test_a_kill_is_healed_by_the_next_sweep(floor: Floor, boundary: str) -> None:
    """Killed between fact, renaming and removal: the same ids are duplicates, and the files go then."""
    floor.at[boundary] = die
    with pytest.raises(Died):
        floor.sweeper().sweep()
    ids = [offer.id for offer in floor.told[0].offers]
    if boundary == AFTER_TOLD:
        (floor.folder / "models" / "p" / "v2" / "manifest.json").unlink()  # less is left than was told
    floor.at.clear()
    floor.sweeper().sweep()
    assert [offer.id for offer in floor.told[1].offers] == ids
    assert [o.digest for o in floor.told[1].offers] == [o.digest for o in floor.told[0].offers]
    floor.story.disk = floor.files()
    assert floor.story.missing() == []
    assert not floor.story.has("models/p/v2")
    assert [path for path in floor.files() if "expired" in path or "removed" in path] == []


def test_what_is_not_stored_is_not_removed(floor: Floor) -> None:
    """A fact that became a dead letter changes nothing; nor does one that did not get in."""
    before = floor.files()
    floor.outcome = "id_reused"
    floor.sweeper().sweep()
    assert floor.files() == before
    floor.inbox.close()
    floor.sweeper().sweep()
    assert floor.files() == before


def test_a_locked_attempt_keeps_its_run(floor: Floor) -> None:
    """While a process of a run that has ended is still there, its files stay; they go with a later sweep."""
    floor.story.now += timedelta(days=7)
    run = floor.folder / "runs" / "p-2"
    with (run / "train" / "1" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        floor.sweeper().sweep()
        assert (run / "train" / "1" / "candidate").is_dir()
    floor.sweeper().sweep()
    assert not run.exists()


@pytest.mark.parametrize("boundary", [AFTER_TOLD, AFTER_ASIDE])
def test_what_is_needed_again_is_put_back(floor: Floor, boundary: str) -> None:
    """A run that began to ingest after the rules were asked may have found a shard: it comes back untouched."""
    story = floor.story
    before = {path for path in floor.files() if path.startswith("shards/")}
    floor.state = story.state

    def begin() -> None:
        story.request("cancel")
        story.stopped()
        story.arrive()
        story.begin()
        floor.state = story.state

    floor.at[boundary] = begin
    floor.sweeper().sweep()
    assert kinds(floor.events())["shard"] == 1
    assert {path for path in floor.files() if path.startswith("shards/")} == before


def test_what_mlflow_has_not_recorded_stays(floor: Floor) -> None:
    """While it is away no version goes; when it has caught up they do."""
    floor.recorded = 0
    floor.sweeper().sweep()
    assert kinds(floor.events()) == {"run": 0, "checkpoints": 5, "shard": 1, "model": 0}
    assert (floor.folder / "models/p/v2").is_dir()
    floor.recorded = floor.story.state.position
    floor.sweeper().sweep()
    assert kinds(floor.events())["model"] == 3
    assert not (floor.folder / "models/p/v2").exists()


def test_it_runs_until_it_is_stopped(floor: Floor) -> None:
    """It sweeps at once, and ends while it waits."""
    sweeper = floor.sweeper()
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    until = threading.Event()
    while (floor.folder / "models/p/v2").exists():
        until.wait(0.01)
    sweeper.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_without_settings_only_left_overs_go(floor: Floor) -> None:
    """Where everything is kept nothing is told."""
    floor.sweeper(RetentionSettings(checkpoints=None)).sweep()
    assert floor.told == []
