"""What every test has: an environment without anyone's settings, and reproducible random histories."""

import os

import hypothesis
import pytest

# Machines that run tests are shared: how long an example took says nothing about the code.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# MLflow reads this when it is imported, which may be while tests are collected.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests: no `REWARM_…` override, no MLflow server, no proxy."""
    kept = {"MLFLOW_DISABLE_TELEMETRY"}
    proxies = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"}
    for name in list(os.environ):
        if name not in kept and (name.startswith(("REWARM_", "MLFLOW_")) or name.upper() in proxies):
            monkeypatch.delenv(name)
