"""Following: what a user finds in MLflow, and that no crash changes it."""

import random
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from daemon.core.events import Record
from daemon.journal.base import Reader
from ops.comparison import compare
from ops.recording import follow as following
from ops.recording import plots
from ops.recording.cursor import sqlite_file
from ops.recording.follow import Follower, StoreReplaced, follow, watch
from ops.recording.store import Store, find_run

Dump = Callable[[str], dict[str, Any]]
MakeReader = Callable[[Sequence[Record]], Reader]


class Killed(BaseException):
    """Stands for the end of the process."""


class Dying(Store):
    """A store whose process ends after some calls, before or after the last one took effect."""

    def __init__(self, uri: str, state: Path, calls: int, *, after: bool) -> None:
        super().__init__(uri, state)
        real = self._client

        class Client:
            left = calls

            def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it stands for any method
                method = getattr(real, name)

                def call(*arguments: object, **named: object) -> object:
                    type(self).left -= 1
                    if self.left < 0 and not after:
                        raise Killed
                    answer = method(*arguments, **named)
                    if self.left < 0:
                        raise Killed
                    return answer

                return call

        self._client = Client()  # type: ignore[assignment]
        self._registry._client = self._client  # noqa: SLF001 - the same client, as in the real store


def run_to_end(reader: Reader, uri: str, state: Path, batch: int = 500) -> None:
    """Follow until nothing is left."""
    follower = Follower(reader, Store(uri, state), state, batch=batch)
    while follower.step():
        pass


@pytest.fixture(scope="module")
def recorded(
    history: Sequence[Record], state: Path, make_reader: MakeReader, make_store: Callable[[], str]
) -> tuple[Reader, str]:
    """The written history, followed without a break."""
    uri = make_store()
    reader = make_reader(history)
    run_to_end(reader, uri, state)
    return reader, uri


@pytest.fixture
def client(recorded: tuple[Reader, str]) -> MlflowClient:
    """A client of the recorded store."""
    return MlflowClient(recorded[1], registry_uri=recorded[1])


@pytest.fixture
def seen(recorded: tuple[Reader, str], dump: Dump) -> dict[str, Any]:
    """What a user sees in the recorded store."""
    return dump(recorded[1])


def test_every_transition_is_in_mlflow(recorded: tuple[Reader, str], history: Sequence[Record]) -> None:
    """Reading all segments back gives every record of the journal, none twice and none changed."""
    found = compare(*recorded)
    assert (found.recorded, found.missing, found.differing, found.behind) == (len(history), 0, 0, 0)
    assert found.clean


def test_runs_end_as_the_journal_says(seen: dict[str, Any]) -> None:
    """Every outcome has its MLflow status, and the reason stands in a tag."""
    ended = {
        found["tags"]["rewarm.outcome"]: found["status"]
        for name, found in seen.items()
        if name.startswith("run docs-lm-") and "/" not in name
    }
    assert ended == {
        "promoted": "FINISHED",
        "rejected": "FINISHED",
        "failed": "FAILED",
        "rolled back": "FINISHED",
        "held": "SCHEDULED",
    }
    failed = next(f for f in seen.values() if f.get("tags", {}).get("rewarm.failure") and f["params"])
    assert failed["tags"]["rewarm.reason"] == "Gave up after 1 try."


def test_a_run_explains_itself(seen: dict[str, Any], history: Sequence[Record]) -> None:
    """A run's note names policy, numbers, thresholds, losses and the outcome."""
    run = [r.event.run for r in history if r.event.kind == "model.promoted"][1]  # type: ignore[union-attr]
    note = seen[f"run {run}"]["tags"]["mlflow.note.content"]
    for words in ("`fresh`", "| tokens | 402,311 | 300,000 |", "| code | 1.1000 | 1.2200 | -0.1200", "version 2"):
        assert words in note
    assert seen[f"run {run}"]["params"]["replay"] == "0.25"
    assert seen[f"run {run}"]["params"]["draft.replay"] == "0.05"
    assert seen[f"run {run}"]["tags"]["rewarm.reason"].startswith("402,311 new tokens")


def test_curves_are_whole_and_nested(seen: dict[str, Any], history: Sequence[Record]) -> None:
    """The nested run of the train stage has both attempts' curves; a late word of the old attempt changes nothing."""
    run = next(r.event.run for r in history if r.event.kind == "model.promoted")  # type: ignore[union-attr]
    train = seen[f"run {run}/train"]
    assert train["tags"]["mlflow.parentRunId"] == run
    assert train["status"] == "FINISHED"
    assert {step for step, _, _ in train["metrics"]["loss_code"]} == set(range(1, 241))
    assert len(train["metrics"]["loss"]) == 130 + 120
    assert "plots/train-losses.png" in seen[f"run {run}"]["artifacts"]
    assert seen[f"run {run}"]["datasets"][0][0].startswith("code-")


def test_aliases_follow_promotion_and_rollback(seen: dict[str, Any], client: MlflowClient, tmp_path: Path) -> None:
    """After a rollback the version before is champion; the held candidate has its alias; files can be fetched."""
    versions = {number: tags for number, (_, tags, _) in seen["model docs-lm"]["versions"].items()}
    aliases = seen["model docs-lm"]["aliases"]
    assert set(aliases) == {"champion", "candidate"}
    assert versions[aliases["champion"]]["rewarm.version"] == "2"
    assert versions[aliases["candidate"]]["rewarm.outcome"] == "candidate"
    assert seen["experiment docs-lm"]["rewarm.champion"] == "2"
    assert seen["model other"]["aliases"] == {"champion": "1"}
    champion = client.get_model_version_by_alias("docs-lm", "champion")
    folder = client.download_artifacts(str(champion.run_id), "model", str(tmp_path))
    assert {path.name for path in Path(folder).iterdir()} == {"model.safetensors", "config.json"}


def test_what_belongs_to_no_run_has_a_standing_run_a_month(seen: dict[str, Any]) -> None:
    """Arrivals go to the pipeline's run of their month; an outsider's word does not bring a run to life."""
    assert {"run docs-lm/2026-01", "run docs-lm/2026-02", "run daemon/2026-01"} <= set(seen)
    assert seen["run daemon/2026-01"]["experiment"] == "rewarm"
    assert "run docs-lm-999" not in seen


def test_rebuilding_from_zero_gives_the_same_content(
    recorded: tuple[Reader, str], state: Path, make_store: Callable[[], str], dump: Dump
) -> None:
    """A deleted store comes back the same, whatever the batches were."""
    uri = make_store()
    run_to_end(recorded[0], uri, state, batch=40)
    assert dump(uri) == dump(recorded[1])


def test_a_crash_at_any_call_changes_nothing(
    history: Sequence[Record],
    state: Path,
    make_reader: MakeReader,
    make_store: Callable[[], str],
    dump: Dump,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recorders that end after a random number of MLflow calls together write what one writes; so does repeating."""
    for name in ("plan_plot", "loss_plot", "evaluation_plot"):
        monkeypatch.setattr(plots, name, lambda *_: b"a picture")  # drawing takes most of the time here
    reader = make_reader(history[:190])
    whole, broken = make_store(), make_store()
    run_to_end(reader, whole, state)
    chance = random.Random(1)
    deaths = 0
    while True:
        calls = chance.randint(1, 40 + 20 * deaths)
        store = Dying(broken, state, calls, after=chance.random() < 0.5)
        try:
            follower = Follower(reader, store, state, batch=30)
            while follower.step():
                pass
            break
        except Killed:
            deaths += 1
    assert deaths >= 5
    assert dump(broken) == dump(whole)
    Store(broken, state).commit(0, reader.identity())
    run_to_end(reader, broken, state, batch=70)
    assert dump(broken) == dump(whole)


def test_another_journal_is_not_mixed_in(
    recorded: tuple[Reader, str], history: Sequence[Record], state: Path, make_reader: MakeReader
) -> None:
    """A store that records one journal refuses another, and says what to do."""
    with pytest.raises(Exception, match="remove the store"):
        Follower(make_reader(history), Store(recorded[1], state), state).step()


def test_a_run_deleted_by_a_person_comes_back(
    history: Sequence[Record], state: Path, make_reader: MakeReader, make_store: Callable[[], str]
) -> None:
    """What somebody deleted in MLflow's pages is restored with the next record, also while the recorder runs."""
    uri = make_store()
    growing = make_reader(history[:30])
    follower = Follower(growing, Store(uri, state), state)
    follower.step()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("docs-lm")
    assert experiment is not None
    run = find_run(client, experiment.experiment_id, "docs-lm/2026-01")
    assert run is not None
    client.delete_run(run.info.run_id)
    with growing.transaction() as transaction:  # type: ignore[attr-defined]
        transaction.append(history[30:70])
    while follower.step():
        pass
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    assert compare(growing, uri).clean


def test_failures_are_tried_again_with_growing_pauses() -> None:
    """MLflow being down is waited for, for ever; each pause is twice the last, up to a minute."""
    pauses: list[float] = []

    def begin() -> Follower:
        raise MlflowException("connection refused")

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) > 10

    follow(begin, pause, poll=1.0)
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_once_gives_up_after_some_attempts() -> None:
    """With a bound the last error is raised."""

    def begin() -> Follower:
        raise MlflowException("connection refused")

    with pytest.raises(MlflowException, match="refused"):
        follow(begin, lambda _: False, poll=1.0, attempts=3)


def test_a_removed_store_is_noticed(
    history: Sequence[Record], state: Path, make_reader: MakeReader, make_store: Callable[[], str]
) -> None:
    """An embedded store whose file was removed ends the pass, so that the process can begin anew."""
    uri = make_store()
    file = sqlite_file(uri)
    assert file is not None
    stop = threading.Event()

    def pause(_: float) -> bool:
        if store_written.is_set():
            file.unlink(missing_ok=True)
        store_written.set()
        return stop.is_set()

    store_written = threading.Event()
    with pytest.raises(StoreReplaced):
        follow(
            lambda: Follower(make_reader(history[:20]), Store(uri, state), state),
            pause,
            poll=0.0,
            intact=watch(uri),
        )
    assert following.LONGEST_PAUSE == 60
    shutil.rmtree(file.parent)
