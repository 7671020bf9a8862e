"""The MLflow side: every call can be made twice, and a killed process leaves nothing that hinders the next.

MLflow chooses its run ids, so a rewarm run is found by the tag `rewarm.run_id`, which the creating call gives;
of two the oldest stands.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag, ViewType
from mlflow.entities import Metric as MlflowMetric
from mlflow.exceptions import MlflowException

from daemon.core.errors import RewarmError
from ops.recording.content import Content, DatasetUse, Models, StatusChange
from ops.recording.cursor import CURSOR, JOURNAL, sqlite_file, write_hint
from ops.recording.registry import Registry
from ops.recording.targets import HOME, Target, run_target

logger = logging.getLogger("rewarm.mlflow")
T = TypeVar("T")
Call = Callable[[str], object]
"""A call about the MLflow run whose id it is given."""
RUN_ID = "rewarm.run_id"
NO_ANCESTORS: Mapping[str, int] = MappingProxyType({})
METRICS, PARAMS, TAGS = 1000, 100, 100
"""What one call may carry."""
KEY, PARAM, TAG = 250, 6000, 8000
"""Characters that MLflow takes of a key, a parameter and a tag."""


class AnotherJournal(RewarmError):
    """The store holds what another journal said; mixing both would make it wrong for either."""


class Store:
    """An MLflow tracking store and registry, as one recorder writes it."""

    def __init__(self, tracking_uri: str, state: Path) -> None:
        self._client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
        self._uri = tracking_uri
        self._state = state
        self._registry = Registry(self._client, state)
        self._experiments: dict[str, str] = {}
        self._runs: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Drop what is remembered of the store: it may have been changed or replaced."""
        self._experiments.clear()
        self._runs.clear()

    def cursor(self, journal: str, ancestors: Mapping[str, int] = NO_ANCESTORS) -> int:
        """Return the position up to which everything is in the store.

        A journal that was restored from a copy goes on in the store of the one that was copied: `ancestors` tells
        up to where both are the same. Raises AnotherJournal when the store was written from another journal, or
        further than that.
        """
        tags = self._client.get_experiment(self._experiment(HOME)).tags
        other, position = tags.get(JOURNAL, journal), int(tags.get(CURSOR, "0"))
        if other == journal or position <= ancestors.get(other, -1):
            return position
        why = f"records the journal {other}, not {journal}"
        if other in ancestors:
            why = (
                f"has recorded {other} up to position {position}, and {journal} was restored from a copy that "
                f"ends at {ancestors[other]}"
            )
        raise AnotherJournal(
            f"The MLflow store {self._uri} {why}: "
            "remove the store, or name another one in the configuration under mlflow.tracking_uri."
        )

    def commit(self, position: int, journal: str) -> None:
        """Move the cursor; called after the effects up to `position` are in the store."""
        experiment = self._experiment(HOME)
        if position and self._client.get_experiment(experiment).tags.get(JOURNAL) != journal:
            self._client.set_experiment_tag(experiment, JOURNAL, journal)
        self._client.set_experiment_tag(experiment, CURSOR, str(position))
        write_hint(self._state, position)

    def apply(self, content: Content) -> None:
        """Bring a batch's effects into one MLflow run."""
        target = content.target
        self._run(target, content.started)
        metrics = [MlflowMetric(_key(m.key), m.value, m.timestamp, m.step) for m in content.metrics]
        params = [Param(_key(key), value[:PARAM]) for key, value in content.params.items()]
        tags = [RunTag(_key(key), value[:TAG]) for key, value in content.tags.items()]
        log = self._client.log_batch
        calls: list[Call] = [partial(log, params=some) for some in _chunks(params, PARAMS)]
        calls += [partial(log, tags=some) for some in _chunks(tags, TAGS)]
        calls += [partial(log, metrics=some) for some in _chunks(metrics, METRICS)]
        if content.datasets:
            calls.append(partial(self._client.log_inputs, datasets=[_dataset(used) for used in content.datasets]))
        if content.files:
            calls.append(partial(self._files, content.files))
        calls += [partial(self._status, change) for change in content.statuses]
        for call in calls:
            self._send(target, content.started, call)

    def models(self, models: Models) -> None:
        """Bring a pipeline's registered model to what the journal says."""
        runs = {version.run: self._run(run_target(models.pipeline, version.run), 0) for version in models.versions}
        self._registry.apply(models, runs)
        if models.champion is not None:
            experiment = self._experiment(models.pipeline)
            self._client.set_experiment_tag(experiment, "rewarm.champion", models.champion)

    def _files(self, files: Mapping[str, bytes], run: str) -> None:
        with tempfile.TemporaryDirectory(prefix="rewarm-mlflow-") as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._client.log_artifacts(run, folder)

    def _status(self, change: StatusChange, run: str) -> None:
        if change.ended is None:
            self._client.update_run(run, status=change.status)
        else:
            self._client.set_terminated(run, status=change.status, end_time=change.ended)

    def _send(self, target: Target, started: int, call: Call) -> None:
        """Make a call about a run; what MLflow refuses for good is logged and left out.

        A refusal may also mean that somebody deleted the run meanwhile: it is looked up, restored, and tried again.
        """
        try:
            call(self._run(target, started))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._runs.pop((target.experiment, target.key), None)
            try:
                call(self._run(target, started))
            except MlflowException as again:
                if again.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                names = {"run": target.key, "error": str(again)[:500]}
                logger.error("MLflow refused a part of a run; it is left out.", extra=names)  # noqa: TRY400

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                identity = self._client.create_experiment(name, artifact_location=self._artifacts(name))
            else:
                identity = found.experiment_id
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(identity)
            self._experiments[name] = identity
        return self._experiments[name]

    def _artifacts(self, experiment: str) -> str | None:
        """Return where artifacts lie: beside an embedded store, else where the server says."""
        file = sqlite_file(self._uri)
        if file is None:
            return None
        return (file.resolve().parent / f"{file.stem}-artifacts" / quote(experiment, safe="")).as_uri()

    def _run(self, target: Target, started: int) -> str:
        key = (target.experiment, target.key)
        if key not in self._runs:
            experiment = self._experiment(target.experiment)
            found = find_run(self._client, experiment, target.key)
            if found is None:
                found = self._client.create_run(experiment, started, self._identity(target, started), target.name)
            elif found.info.lifecycle_stage == "deleted":
                self._client.restore_run(found.info.run_id)
            self._runs[key] = found.info.run_id
        return self._runs[key]

    def _identity(self, target: Target, started: int) -> dict[str, str]:
        tags = {RUN_ID: target.key, "rewarm.pipeline": target.experiment, "mlflow.source.name": "rewarm"}
        if target.parent is not None:
            tags["mlflow.parentRunId"] = self._run(run_target(target.experiment, target.parent), started)
        return tags


def find_run(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return the run that carries `key`, deleted ones too; of several the oldest."""
    quoted = key.replace("'", "")
    found = client.search_runs([experiment], f"tags.`{RUN_ID}` = '{quoted}'", ViewType.ALL, max_results=50)
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def every_run(client: MlflowClient) -> Iterator[Run]:
    """Yield all runs that a recorder made."""
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id], f"tags.`{RUN_ID}` LIKE '%'", max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                break


def _dataset(used: DatasetUse) -> DatasetInput:
    dataset = Dataset(name=used.name, digest=used.digest, source_type="local", source=used.source, profile=used.profile)
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", used.context)])


def _key(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in text)
    return str(PurePosixPath(kept[:KEY]))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
