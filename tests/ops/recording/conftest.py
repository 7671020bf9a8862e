"""A store's content in one canonical form, to compare two stores by."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest


@pytest.fixture(scope="session")
def dump() -> Callable[[str], dict[str, object]]:
    """Return all that a user can see in a store, without what MLflow makes up itself: ids, paths, clocks."""
    return content


def content(uri: str) -> dict[str, object]:
    """Return a store's content in one canonical form."""
    from mlflow import MlflowClient

    from ops.recording.store import every_run

    client = MlflowClient(uri, registry_uri=uri)
    runs = list(every_run(client))
    keys = {run.info.run_id: run.data.tags["rewarm.run_id"] for run in runs}
    experiments = {e.experiment_id: e for e in client.search_experiments()}
    assert len(set(keys.values())) == len(runs), "an MLflow run was made twice"
    found: dict[str, object] = {f"experiment {e.name}": dict(e.tags) for e in experiments.values()}
    for run in runs:
        tags = dict(run.data.tags)
        if "mlflow.parentRunId" in tags:
            tags["mlflow.parentRunId"] = keys[tags["mlflow.parentRunId"]]
        folder = Path(url2pathname(urlparse(run.info.artifact_uri).path))
        found[f"run {keys[run.info.run_id]}"] = {
            "experiment": experiments[run.info.experiment_id].name,
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "tags": tags,
            "params": dict(run.data.params),
            "metrics": {
                key: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            "datasets": sorted(
                (d.dataset.name, d.dataset.digest, d.dataset.source, d.dataset.profile, d.tags[0].value)
                for d in (run.inputs.dataset_inputs if run.inputs else [])
            ),
            "artifacts": {
                path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        found[f"model {model.name}"] = {
            "aliases": {alias: str(version) for alias, version in model.aliases.items()},
            "versions": {
                str(v.version): (keys[v.run_id], dict(v.tags), str(v.source).rpartition("/")[2]) for v in versions
            },
        }
    return found
