"""Files that retention removed: MLflow tells of it, and can still be rebuilt from zero."""

import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from msgspec.structs import replace

from daemon.core.events import FilesExpired, ModelPromoted, Record
from daemon.journal.base import Reader
from ops.comparison import compare
from ops.recording.follow import Follower
from ops.recording.store import Store, find_run
from tests.ops.conftest import Script

RULE = "runs P30D: the run ended (promoted) at 2026-02-01"


@pytest.fixture
def expired(tmp_path: Path) -> list[Record]:
    """Two promotions, and then everything that the first one's run left behind expires."""
    script = Script(tmp_path / "state")
    run = script.increment(1)
    script.increment(2)
    last = script.records[-1]
    told = [
        FilesExpired(what="run", name=run, paths=(f"runs/{run}",), bytes=9, rule=RULE, run=run),
        FilesExpired(what="model", name="docs-lm/v1", paths=("models/docs-lm/1",), bytes=9, rule="models 0", run=run),
        FilesExpired(what="shard", name="ab/abc-code", paths=("shards/ab/abc-code",), bytes=9, rule="shards P1D"),
    ]
    return [*script.records] + [
        replace(
            last,
            position=last.position + number,
            recorded_at=last.recorded_at + timedelta(days=30),
            source="/rewarm/retention",
            id=f"expired:{event.what}:{event.name}",
            event=event,
            pipeline=None if event.what == "shard" else "docs-lm",
            cause=None,
            time=None,
        )
        for number, event in enumerate(told, 1)
    ]


def test_a_store_is_rebuilt_without_the_files(
    expired: list[Record],
    tmp_path: Path,
    make_reader: Callable[[Sequence[Record]], Reader],
    make_store: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every transition is recorded, curves and weights of what is there, and the run says what expired and why."""
    monkeypatch.setattr("ops.recording.effects._drawn", lambda content: ())  # pictures take seconds
    left = tmp_path / "state"
    run = next(record.event.run for record in expired if isinstance(record.event, ModelPromoted))
    shutil.rmtree(left / "runs" / run)
    shutil.rmtree(left / "models" / "docs-lm" / "1")
    uri, reader = make_store(), make_reader(expired)
    follower = Follower(reader, Store(uri, left), left, batch=50)
    while follower.step():
        pass
    found = compare(reader, uri)
    assert (found.recorded, found.missing, found.differing, found.behind) == (len(expired), 0, 0, 0)
    client = MlflowClient(uri, registry_uri=uri)
    tags: dict[str, Any] = _run(client, run).data.tags
    assert tags["rewarm.expired.run"] == RULE
    assert tags["rewarm.expired.model"] == "models 0"
    versions = {v.tags["rewarm.version"]: v for v in client.search_model_versions("name = 'docs-lm'")
                if "rewarm.version" in v.tags}  # fmt: skip
    assert "rewarm.uploaded" not in versions["1"].tags
    assert "rewarm.uploaded" in versions["2"].tags
    assert [record.message for record in caplog.records].count("A champion's files are not in the state folder.") == 1


def _run(client: MlflowClient, run: str) -> Any:  # noqa: ANN401 - MLflow's
    experiment = client.get_experiment_by_name("docs-lm")
    assert experiment is not None
    found = find_run(client, experiment.experiment_id, run)
    assert found is not None
    return found
