"""The model registry: versions by run, files by upload, aliases by overwriting."""

import logging
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as Registered
from mlflow.exceptions import MlflowException

from ops.recording.content import Models, ModelVersion

logger = logging.getLogger("rewarm.mlflow")
ARTIFACT = "model"
UPLOADED = "rewarm.uploaded"
GONE = "RESOURCE_DOES_NOT_EXIST"


class Registry:
    """Registered models named after pipelines; a version belongs to the run in its tag `rewarm.run_id`."""

    def __init__(self, client: MlflowClient, state: Path) -> None:
        self._client = client
        self._state = state
        self._gone: set[str] = set()

    def apply(self, models: Models, runs: dict[str, str]) -> None:
        """Make the versions and aliases of one pipeline; `runs` maps rewarm runs to MLflow runs."""
        name = models.pipeline
        self._register(name)
        known = {found.tags.get("rewarm.run_id"): found for found in reversed(self._versions(name))}
        numbers: dict[str, str] = {}
        for version in models.versions:
            found = known.get(version.run)
            if found is None:
                found = self._create(name, version, runs[version.run])
            numbers[version.run] = str(found.version)
            self._update(name, version, found, runs[version.run])
        current = self._client.get_registered_model(name).aliases
        for alias, run in models.aliases.items():
            if run is None:
                if alias in current:
                    self._client.delete_registered_model_alias(name, alias)
            elif str(current.get(alias)) != numbers[run]:
                self._client.set_registered_model_alias(name, alias, numbers[run])

    def _register(self, name: str) -> None:
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != GONE:
                raise
            self._client.create_registered_model(name, description=f"The champions of the rewarm pipeline {name}.")

    def _versions(self, name: str) -> list[Registered]:
        found: list[Registered] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return sorted(found, key=lambda version: int(version.version))

    def _create(self, name: str, version: ModelVersion, run: str) -> Registered:
        source = f"{self._client.get_run(run).info.artifact_uri}/{ARTIFACT}"
        return self._client.create_model_version(name, source, run_id=run, tags=version.tags)

    def _update(self, name: str, version: ModelVersion, found: Registered, run: str) -> None:
        number = str(found.version)
        tags = dict(version.tags)
        if version.path is not None and found.tags.get(UPLOADED) != version.sha256 and self._upload(version.path, run):
            tags[UPLOADED] = version.sha256
        for key, value in tags.items():
            if found.tags.get(key) != value:
                self._client.set_model_version_tag(name, number, key, value)

    def _upload(self, path: str, run: str) -> bool:
        """Copy a champion's files into its run; False where retention has removed them."""
        state = self._state.resolve()
        files = (state / path).resolve()
        if not files.is_relative_to(state) or not files.exists():
            if path not in self._gone:
                self._gone.add(path)
                logger.warning("A champion's files are not in the state folder.", extra={"path": path})
            return False
        if files.is_dir():
            self._client.log_artifacts(run, str(files), ARTIFACT)
        else:
            self._client.log_artifact(run, str(files), ARTIFACT)
        return True
