"""What every test has: an environment without anyone's settings, reproducible random histories, and Kafka's brokers."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.brokers.broker import Broker
from tests.brokers.cluster import Cluster
from tests.brokers.jars import NoBroker, jars
from tests.brokers.secured import SecuredCluster

# Machines that run tests are shared: how long an example took says nothing about the code.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# MLflow reads this when it is imported, which may be while tests are collected.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

GIVEN_BROKER = os.environ.get("REWARM_TEST_KAFKA")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests: no `REWARM_…` override, no MLflow server, no proxy."""
    kept = {"MLFLOW_DISABLE_TELEMETRY"}
    proxies = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"}
    for name in list(os.environ):
        if name not in kept and (name.startswith(("REWARM_", "MLFLOW_")) or name.upper() in proxies):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka_jars() -> None:
    """See that a broker can be started here: without that skip, or fail where everything has to be there."""
    try:
        jars()
    except NoBroker as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error}.")
        pytest.skip(f"{error}; REWARM_TEST_KAFKA=host:port points most of these tests at a broker that runs")


@pytest.fixture(scope="session")
def secured_broker(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    """Give a node with every way of proving who one is, for everyone; nobody may stop it (5 s)."""
    with SecuredCluster(tmp_path_factory.mktemp("broker") / "secured") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Give a cluster at which everyone may do everything: the one above, or that of REWARM_TEST_KAFKA=host:port."""
    if GIVEN_BROKER:
        with Broker(GIVEN_BROKER) as given:
            yield given
    else:
        yield request.getfixturevalue("secured_broker")


@pytest.fixture
def own_broker(kafka_jars: None, tmp_path: Path) -> Iterator[Cluster]:
    """Give a cluster of one node that this test alone has, to be stopped, killed or frozen (4 s a start)."""
    with Cluster(tmp_path / "own-broker") as cluster:
        yield cluster
