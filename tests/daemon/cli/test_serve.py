"""The commands that stay: they hand over to the daemon, the worker and MLflow."""

import sys
import types
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


@pytest.mark.parametrize("standby", [False, True])
def test_serve_runs_the_daemon(
    rewarm: "Command", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch, standby: bool
) -> None:
    """`rewarm serve` gives the configuration to the daemon, and whether to stand by, and ends with its exit code."""
    served: list[object] = []
    app = types.ModuleType("daemon.app")

    def run_daemon(given: "Configuration", *, standby: bool) -> int:
        served.append((given.journal, standby))
        return 7

    monkeypatch.setattr(app, "serve", run_daemon, raising=False)
    monkeypatch.setitem(sys.modules, "daemon.app", app)

    assert rewarm("serve", *(["--standby"] if standby else [])).code == 7
    assert served == [(configuration.journal, standby)]


@pytest.mark.parametrize("named", [False, True])
def test_worker_serves_a_state_folder(
    rewarm: "Command", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """`rewarm worker` works for the configured state folder, or for the one that is named."""
    calls: list[tuple[Path, Path | None]] = []
    module = types.ModuleType("daemon.dispatch.worker")

    def run_worker(state: "Path", once: "Path | None") -> int:
        calls.append((state, once))
        return 0

    monkeypatch.setattr(module, "main", run_worker, raising=False)
    monkeypatch.setitem(sys.modules, "daemon.dispatch.worker", module)

    assert rewarm("worker", *(["--state", "var"] if named else [])).code == 0
    assert calls == [(configuration.state.resolve(), None)]


def test_a_worker_needs_a_state_folder(rewarm: "Command") -> None:
    """A folder that is not there is refused with one line."""
    code, _, err = rewarm("worker", "--state", "nowhere")

    assert code == 2
    assert "no state folder nowhere" in err
